//! A cluster on one machine: a LAN, an arbiter, a shared disk and host processes that can be killed. What `ft demo` shows, and what
//! `ft chaos`, the benchmarks and the end-to-end tests break. [`Hosts`] is one of VM processes alone, [`Agents`] one whose agents start them.

mod agents;
mod config;
mod hosts;
pub mod watch;

pub use agents::{Agents, AgentsConfig, Wires, WiresError};
pub use config::{HostsConfig, HostsError};
pub use hosts::{Failover, Heard, HostState, Hosts};
