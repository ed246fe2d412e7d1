//! What follows from the loss of the host where a VM is live: who takes over, who becomes the new secondary, and when.
//!
//! Invariant: only what was heard after the loss counts, and of each step the first.

use super::{Heard, Said};
use crate::vm::report::Report;
use std::time::{Duration, Instant};

/// A loss, and its healing as far as it was heard.
#[derive(Clone, Debug)]
pub struct Healing {
    /// The host that was killed.
    pub victim: u64,
    /// When.
    pub killed: Instant,
    /// Where the VM is live since, and since when.
    pub live: Option<(u64, Instant)>,
    /// The host that is given the machine's state, and since when.
    pub seeding: Option<(u64, Instant)>,
    /// The host of the new secondary, and when the pair was in step.
    pub protected: Option<(u64, Instant)>,
    /// Where the VM is live now: on a busy machine, the heir may lose it again.
    carrier: Option<u64>,
}

impl Healing {
    pub(super) fn begin(victim: u64, killed: Instant) -> Self {
        Self { victim, killed, live: None, seeding: None, protected: None, carrier: None }
    }

    /// How long after the kill something was.
    pub fn after(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.killed)
    }

    pub(super) fn take_in(&mut self, heard: &Heard) {
        let (Said::Reports(report), at) = (&heard.what, heard.at) else { return };
        if at < self.killed || heard.host == self.victim && self.live.is_none() {
            return;
        }
        let is_carrier = self.carrier == Some(heard.host);
        match report {
            Report::Live { .. } => {
                self.live.get_or_insert((heard.host, at));
                self.carrier = Some(heard.host);
            }
            // An attempt that failed is followed by another.
            Report::Seeding { to } if is_carrier && self.protected.is_none() => {
                self.seeding = Some((*to, at))
            }
            Report::Protected { with } if is_carrier && self.protected.is_none() => {
                self.protected = Some((*with, at));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_count_in_their_order_and_once() {
        let t0 = Instant::now();
        let mut healing = Healing::begin(1, t0 + Duration::from_millis(10));
        let mut hear = |ms, host, report| {
            let at = t0 + Duration::from_millis(ms);
            healing.take_in(&Heard { at, host, pid: host as u32, what: Said::Reports(report) });
            let steps = [healing.live, healing.seeding, healing.protected];
            steps.map(|step| step.map(|(host, at)| (host, healing.after(at).as_millis())))
        };
        // What was said before, and last words.
        assert_eq!(hear(5, 2, Report::Live { term: 1 }), [None; 3]);
        assert_eq!(hear(11, 1, Report::Protected { with: 2 }), [None; 3]);
        assert_eq!(hear(15, 2, Report::Live { term: 2 })[0], Some((2, 5)));
        assert_eq!(hear(30, 3, Report::Protected { with: 1 })[2], None);
        assert_eq!(hear(40, 2, Report::Seeding { to: 3 })[1], Some((3, 30)));
        assert_eq!(hear(60, 2, Report::Protected { with: 3 })[2], Some((3, 50)));
        assert_eq!(hear(90, 2, Report::Protected { with: 1 }), [Some((2, 5)), Some((3, 30)), Some((3, 50))]);
    }
}
