//! What a load found out.

use super::faults::Faults;
use super::gauge::{Gauge, Latency, summarize};
use serde::Serialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A load so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Time since the start.
    pub elapsed_s: f64,
    /// Replies checked.
    pub ops: u64,
    /// Connections that broke, and requests that the server refused.
    pub errors: u64,
    /// Connections made again.
    pub reconnects: u64,
    /// What was wrong.
    #[serde(flatten)]
    pub faults: Faults,
}

impl Progress {
    /// Replies per second since an earlier look.
    pub fn ops_per_second_since(&self, earlier: &Self) -> f64 {
        let elapsed = self.elapsed_s - earlier.elapsed_s;
        if elapsed > 0.0 { (self.ops - earlier.ops) as f64 / elapsed } else { 0.0 }
    }

    pub(super) fn of(gauges: &[impl AsRef<Mutex<Gauge>>], elapsed: Duration) -> Self {
        let mut all = Self { elapsed_s: elapsed.as_secs_f64(), ..Self::default() };
        for gauge in gauges {
            let gauge = lock(gauge.as_ref());
            all.ops += gauge.ops;
            all.errors += gauge.broken + gauge.refused;
            all.reconnects += gauge.reconnects;
            all.faults += gauge.faults;
        }
        all
    }
}

/// A load from its start to its end, after all keys were read back. The [module](super) says what the numbers mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LoadReport {
    /// Connections.
    pub connections: usize,
    /// Time from the start until the last reply.
    pub elapsed_s: f64,
    /// Replies checked.
    pub ops: u64,
    /// The same per second.
    pub ops_per_second: f64,
    /// Connections that broke, and requests that the server refused.
    pub errors: u64,
    /// Connections made again.
    pub reconnects: u64,
    /// What was wrong.
    #[serde(flatten)]
    pub faults: Faults,
    /// Keys read back at the end.
    pub keys_read_back: u64,
    /// Keys that could not be read back at the end.
    pub keys_not_read_back: u64,
    /// The longest time for which a connection waited without any reply.
    pub longest_gap_ms: f64,
    /// How long replies took.
    pub latency: Latency,
    /// What was wrong, in words; the first few.
    pub stories: Vec<String>,
}

impl LoadReport {
    /// Whether every write was there exactly once, every reply was right, no connection broke and all was read back.
    pub fn is_clean(&self) -> bool {
        self.faults.is_none() && self.errors == 0 && self.keys_not_read_back == 0
    }
}

/// A gauge, whatever became of its thread.
pub(super) fn lock(gauge: &Mutex<Gauge>) -> MutexGuard<'_, Gauge> {
    gauge.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn latency(gauges: &[impl AsRef<Mutex<Gauge>>]) -> Latency {
    let guards: Vec<_> = gauges.iter().map(|gauge| lock(gauge.as_ref())).collect();
    summarize(guards.iter().map(|guard| &**guard))
}
