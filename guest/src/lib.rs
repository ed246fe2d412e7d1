//! What the built-in guest knows and does, apart from hardware: a key-value store that speaks the Redis protocol, its log on a disk, and a
//! piece of work for the processor. It compiles for the host too, where it is tested.
//!
//! Invariant: everything here is a function of its inputs. Time is an argument, hashing has no seed, and nothing is iterated in an order
//! that depends on addresses.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

extern crate alloc;

pub mod calendar;
pub mod cmdline;
pub mod commands;
pub mod compute;
pub mod glob;
pub mod log;
pub mod resp;
pub mod service;
pub mod session;
pub mod store;
