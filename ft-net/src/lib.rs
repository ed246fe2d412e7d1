//! The channel between the hosts of a protected machine: QUIC with mutual TLS.
#![forbid(unsafe_code)]

pub mod identity;

pub use identity::{ClusterCa, HostCredentials, HostName, Identity, IdentityError, PeerRefused};
