//! Fault-tolerant lockstep replication of virtual machines.
#![forbid(unsafe_code)]
pub use ft_core as core;
pub use ft_net as net;
