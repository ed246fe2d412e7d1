//! The LAN of one host: a learning Ethernet switch, and the client that a VMM uses to be on it.
//!
//! A protected machine keeps its MAC and IP address while it moves from host to host, so something outside of both
//! copies has to carry its frames and has to notice on which side it now is. On real hosts that is the datacentre's
//! switch; [`Switch`] is the same thing as a process:
//!
//! - a port is a stream socket that carries frames, each preceded by its length (the convention of QEMU's
//!   `-netdev stream`); [`Port`] is the other end of it;
//! - a MAC address is where its last frame came from. A gratuitous ARP or RARP after failover moves it at once;
//! - TCP ports of the host are forwarded to guests by a TCP stack inside the switch. The client's connection ends in
//!   the switch, so it stays up while the guest moves, and what was lost on the way is sent again.
//!
//! Invariant: no port can hold up another. What a port does not read in time is dropped, counted, and left to the
//! guests' own protocols.
//!
//! It does not do: VLANs, spanning trees, DHCP, DNS, routing, or connections opened by guests to the outside.

mod config;
mod error;
mod fabric;
mod forward;
mod frame;
mod link;
mod listen;
mod neighbours;
mod packets;
mod port;
mod stack;
mod stream;
mod switch;
mod table;
mod turn;

pub use config::{Forward, Subnet, SwitchConfig};
pub use error::LanError;
pub use fabric::{FabricStats, PortId, PortStats};
pub use frame::{Mac, announcement};
pub use link::Endpoint;
pub use port::{Port, PortConfig, PortCounts};
pub use switch::{Notice, Switch, SwitchStats};
