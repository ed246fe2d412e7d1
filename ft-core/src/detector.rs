//! Notices that a peer has fallen silent.
//!
//! Invariant: silence is only counted while this side is awake. Between two ticks at most `cap` counts, so a process that
//! was stopped for a minute does not take its own sleep for the peer's.

use crate::units::{Instant, Span};

/// Counts the silence of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Detector {
    silence: Span,
    limit: Span,
    cap: Span,
    last_tick: Instant,
}

impl Detector {
    pub(crate) fn new(now: Instant, limit: Span, cap: Span) -> Self {
        Self { silence: Span::ZERO, limit, cap, last_tick: now }
    }

    /// The peer spoke, now: silence is counted from here, not from the tick before.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.silence = Span::ZERO;
        self.last_tick = self.last_tick.max(now);
    }

    /// There is proof that the peer is gone: its process ended.
    pub(crate) fn gone(&mut self) {
        self.silence = self.limit;
    }

    pub(crate) fn handle_tick(&mut self, now: Instant) {
        let awake = now.since(self.last_tick).min(self.cap);
        self.last_tick = self.last_tick.max(now);
        self.silence = Span(self.silence.0.saturating_add(awake.0)).min(self.limit);
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silence >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_stalls_do_not_count_as_the_peers_silence() {
        let mut detector = Detector::new(Instant(0), Span(30), Span(10));
        detector.handle_tick(Instant(1_000_000));
        assert!(!detector.is_silent(), "one long sleep is one tick");
        detector.handle_tick(Instant(1_000_010));
        detector.handle_tick(Instant(1_000_020));
        assert!(detector.is_silent());
        detector.heard(Instant(1_000_025));
        assert!(!detector.is_silent());
        // 29 since it was heard, in ticks that the cap does not touch.
        for now in [1_000_030, 1_000_040, 1_000_050, 1_000_054] {
            detector.handle_tick(Instant(now));
            assert!(!detector.is_silent());
        }
        detector.handle_tick(Instant(1_000_055));
        assert!(detector.is_silent());
        detector.heard(Instant(1_000_055));
        detector.gone();
        assert!(detector.is_silent());
    }
}
