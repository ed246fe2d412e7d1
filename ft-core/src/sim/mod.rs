//! A whole cluster on virtual time: hosts, a network, an arbiter, a client, and every fault the design claims to survive.
//!
//! One seed is one world. A phase with faults is checked for safety; then everything heals, and the world is checked for
//! progress. The code under test is the real [`Node`](crate::node::Node): only machine, network and time are made up.

mod check;
mod faults;
mod guest;
mod host;
mod net;
mod rng;
mod world;

pub use check::{Failure, Rule};
pub use rng::Rng;
pub use world::{Stats, Verdict, World, run, trace};

#[cfg(test)]
mod tests;
