//! A client load that checks every reply: the demo's witness that nothing was lost and nothing happened twice.
//!
//! Each connection speaks the Redis protocol (RESP2) with keys of its own, so it knows what every reply must be before it
//! comes: registers hold values that say which write they are from, counters start at a number of their own and grow by one,
//! logs grow by numbered pieces. The checks share no code with what they check.
//!
//! What a [`LoadReport`] counts:
//!
//! - *lost*: an acknowledged write whose effect is not there: a counter that is behind by one counts one, a register that holds
//!   an older value (or none, or still has one after it was deleted) counts one, each piece that a log misses counts one;
//! - *duplicated*: a write that had its effect more than once: a counter that is ahead by one counts one, each piece that a
//!   log has once too often counts one. A repeated SET, MSET or DEL is idempotent, so it is no fault, unless it undoes a later
//!   write, which then is lost;
//! - *misordered*: a reply that belongs to another request on the same connection, or an effect in another order;
//! - *corrupted*: a reply that is none of the above;
//! - *errors*: connections that broke, and requests that the server refused.
//!
//! A request without reply on a connection that broke is in doubt: its effect may be there or not. The client reads the
//! keys back on its next connection, takes either as right, and goes on with fresh keys. After a fault a key is replaced by a
//! fresh one too, so that one fault counts once.

mod client;
mod config;
mod faults;
mod gauge;
mod judge;
mod keys;
mod model;
mod readback;
mod report;
mod resp;
mod run;

pub use config::{LoadConfig, LoadError};
pub use faults::Faults;
pub use gauge::{Latency, Mark};
pub use report::{LoadReport, Progress};
pub use run::Load;
