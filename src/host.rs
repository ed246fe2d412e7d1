//! The host agent: one daemon for each machine, which starts VMs, looks after them and keeps them redundant.
//!
//! Agents ask each other over [`ft_net::control`], and are asked by people through a socket in their [`state`] directory; both in the
//! same [`message`]s. Each VM is a process of its own ([`crate::vm::process`]) that its agent talks to through its control socket.
//!
//! ```text
//! ft protect, ft list, ... -> agent.sock -> [agent] <- QUIC -> the other hosts' agents
//!                                              |
//!                                         control.sock -> ft primary | ft secondary
//! ```
//!
//! The agent of the host where a VM is live keeps it redundant: when the VM says that it is solo, the agent chooses a
//! host ([`ft_core::placement`]), has that host's agent start a secondary there, tells the VM where it is, and waits until the pair is protected.
//!
//! Invariant: a VM's process never depends on its agent. The agent may be killed, started again or replaced by another build; it
//! finds the processes by its state directory.
//! Invariant: the agent decides nothing about who is live. That is between the copies and the arbiter (R4); an agent that is wrong
//! costs redundancy, never correctness.
//! Invariant: all of an agent's state belongs to one thread, which takes in one thing at a time and never waits for the network or
//! for a VM.

mod agent;
pub mod client;
pub mod config;
mod daemon;
pub mod events;
pub mod message;
pub mod moving;
pub mod planned;
mod process;
mod rim;
pub mod state;
mod telemetry;

pub use daemon::{HostError, run};
