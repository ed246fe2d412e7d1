//! IB700 watchdog at ports 0x441 and 0x443: a guest that has not written to it in time hangs, and the machine begins again.
//!
//! Linux drives it as `ib700wdt`. A write to 0x443 starts the countdown anew from the time that the low four bits stand for, a write to
//! 0x441 stops it; nothing can be read. It counts on the machine's clock, so both copies of the machine expire at the same tick.
//!
//! Invariant: time in which the guest could not run does not count against it. A machine that stands still (its host is stopped, or its
//! effects wait for the arbiter) finds its clock set ahead by all of that when it goes on. Of each such leap, [`LEAP_NS_MAX`] counts.

use serde::{Deserialize, Serialize};

/// The port that stops it, whatever is written.
pub(crate) const STOP: u16 = 0x441;
/// The port that starts it.
pub(crate) const START: u16 = 0x443;

const NS_PER_S: u64 = 1_000_000_000;

/// How much of one step of the clock counts: well above the distance of two Time records of a machine that runs.
pub const LEAP_NS_MAX: u64 = 100_000_000;

/// The watchdog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogState {
    /// When it expires, on the machine's clock; `None` while it is stopped.
    expires_ns: Option<u64>,
}

impl WatchdogState {
    /// When it expires.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.expires_ns
    }

    /// Whether it has expired by now. It says so once: it is stopped then.
    pub fn advance(&mut self, now_ns: u64) -> bool {
        self.expires_ns.take_if(|expires| *expires <= now_ns).is_some()
    }

    /// A Time record has moved the clock by `step_ns`.
    pub fn handle_step(&mut self, step_ns: u64) {
        let excess = step_ns.saturating_sub(LEAP_NS_MAX);
        self.expires_ns = self.expires_ns.map(|expires| expires.saturating_add(excess));
    }

    /// Nothing is watched any more.
    pub fn stop(&mut self) {
        self.expires_ns = None;
    }

    /// A byte written to port 0x441 or 0x443.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) {
        match port {
            START => self.expires_ns = Some(now_ns.saturating_add(countdown_ns(value))),
            STOP => self.stop(),
            _ => {}
        }
    }
}

/// What a value stands for: 0 is 30 s, each more is 2 s less, and 15 is at once.
fn countdown_ns(value: u8) -> u64 {
    u64::from(15 - (value & 15)) * 2 * NS_PER_S
}

#[cfg(test)]
mod tests;
