//! Fault-tolerant lockstep replication of virtual machines.
//!
//! One machine runs on two hosts at once. The primary runs it live; the secondary executes the same instructions on the
//! same inputs a moment later. When the primary's host dies, the secondary goes live, and nobody who talks to the machine
//! notices. This crate puts the parts together:
//!
//! - [`core`]: records, log, gate and pair protocol, without any I/O;
//! - [`net`]: the channel between hosts, QUIC with mutual TLS;
//! - [`driver`]: runs a machine on one thread, with network, arbiter and backends;
//! - [`host`]: the agent of a machine, which starts VMs and keeps them redundant.
//!
//! `examples/embed` protects a toy machine with them.
#![forbid(unsafe_code)]

pub use ft_core as core;
pub use ft_net as net;

pub mod arbiter;

pub mod chaos;

pub mod demo;

pub mod driver;

pub mod error;

pub mod host;

pub mod lan;

pub mod load;

pub mod netns;

pub mod recording;

pub mod stamp;

pub mod vm;
