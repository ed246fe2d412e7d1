//! The channel between the hosts of a protected machine: QUIC with mutual TLS.
//!
//! It carries [`ft_core::message`]s and decides nothing. An [`Endpoint`] makes [`Link`]s to authenticated peers; a
//! [`Network`] keeps links to a set of peers up, and is the face for code that is not async. Hosts' agents ask each other over a
//! [`control::ControlEndpoint`].
//!
//! Invariant: nothing from a peer that has not shown a certificate of the cluster's CA gets further than TLS (R12).
#![forbid(unsafe_code)]

mod compress;
pub mod control;
mod endpoint;
mod error;
pub mod identity;
mod link;
mod network;
mod socket;
mod stats;
mod tripwire;
mod wire;

pub use endpoint::{ALPN, Endpoint, Incoming, LinkConfig};
pub use error::NetError;
pub use identity::{ClusterCa, HostCredentials, HostName, Identity, IdentityError, PeerRefused};
pub use link::{Link, LinkReceiver, LinkSender};
pub use network::{NetEvent, Network, NetworkConfig, Peer, Peers};
pub use socket::{CappedSocket, SocketBuffers};
pub use stats::LinkStats;
