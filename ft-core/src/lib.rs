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
pub mod units;
mod varint;

pub use point::{Point, PointCheck};
pub use record::{Event, Record};
