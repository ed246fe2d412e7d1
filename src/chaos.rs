//! A chaos test with real processes: a cluster of agents protects a VM under load, faults are drawn from a seed, and in the end it is
//! judged whether anybody could have noticed.
//!
//! ```text
//! seed -> faults (drawn) -> strikes (on processes, links, disks) -> cluster <- load (checks every reply)
//!                              ^ only while it can be survived        |
//!                           picture <------- witness <----------------'-> judge -> verdict
//! ```
//!
//! The witness hears what every copy of the VM says of itself, over its control socket. From that the picture of who is well
//! is kept, as an operator would see it: a fault that can cost a copy strikes only while two copies are in step and no other such fault is
//! under way. Everything that was heard, the arbiter's entries and what the LAN saw go to the judge: a term has one owner, nobody is live in a
//! term that is not its own, and no copy talks on the LAN after another took over. The load judges what clients see.
//!
//! The same seed draws the same faults in the same order. When they strike, and which hosts they hit, follows from what the cluster does: a
//! run is never repeated exactly. For that there is `ft sim`.
//!
//! Invariant: every fault ends by itself, and whatever was started, mounted or cut off is undone however the run ends, short of SIGKILL.
//!
//! What is not here: the loss of both copies, which no pair survives; clocks that leap; hosts that are separate machines.

mod config;
mod faults;
mod history;
mod judge;
mod rooms;
mod run;
mod strikes;
mod verdict;

pub use config::{ChaosConfig, ChaosError};
pub use faults::{Drawn, Fault, Faults, Place};
pub use history::{Entry, What};
pub use run::run;
pub use verdict::Verdict;
