//! A cluster on one machine: a LAN, an arbiter, a shared disk and host processes that can be killed. What `ft demo` shows, and what the
//! end-to-end tests break.

mod config;
mod hosts;

pub use config::{HostsConfig, HostsError};
pub use hosts::{Failover, Heard, HostState, Hosts};
