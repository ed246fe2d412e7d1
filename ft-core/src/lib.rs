//! Lockstep replication of a virtual machine, without I/O.
#![forbid(unsafe_code)]

pub mod digest;
pub mod effect;
pub mod error;
pub mod frame;
pub mod log;
pub mod message;
mod point;
pub mod record;
pub mod recorder;
pub mod segment;
pub mod units;
mod varint;

pub use point::{Point, PointCheck};
pub use record::{Event, Record};
pub mod arbiter;
pub mod config;
mod detector;
pub mod executor;
pub mod gate;
pub mod machine;
pub mod node;
mod pace;
mod peer;
mod planted;
pub mod primary;
pub mod replica;
pub mod secondary;
mod takeover;
pub mod transfer;

#[cfg(any(test, feature = "sim"))]
pub mod sim;
