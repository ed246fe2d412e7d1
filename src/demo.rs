//! A cluster on one machine: a LAN, an arbiter, a shared disk and host processes that can be killed. What `ft demo` shows, and what the
//! end-to-end tests break.

mod hosts;

pub use hosts::{Heard, HostState, Hosts, HostsConfig, HostsError};
