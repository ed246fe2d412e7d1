//! Slows the primary gently when the secondary's machine lags (R9).

use crate::units::{Instant, Seq, Span};
use std::collections::VecDeque;

/// Full speed, in thousandths.
pub(crate) const FULL_PACE: u16 = 1000;

/// The primary never runs slower than this by lag alone: beyond it, the bounded log stops the guest.
const SLOWEST: u16 = 100;

/// One step down: a few per cent at a time. Up goes slower, so that the pace settles.
const STEP_DOWN: u16 = 30;
const STEP_UP: u16 = 10;

/// Most frames whose times are remembered; the oldest give way, which makes the lag look smaller, never larger.
const MAX_MARKS: usize = 1024;

/// A feedback loop from measured lag to the share of time that the machine may run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pacer {
    target: Span,
    marks: VecDeque<(Seq, Instant)>,
    lag: Span,
    pace: u16,
    next_step: Instant,
}

impl Pacer {
    pub(crate) fn new(target: Span) -> Self {
        Self { target, marks: VecDeque::new(), lag: Span::ZERO, pace: FULL_PACE, next_step: Instant(0) }
    }

    /// Thousandths of the time for which the machine may run.
    pub(crate) fn pace(&self) -> u16 {
        self.pace
    }

    /// Age of the oldest frame that the secondary has not applied.
    pub(crate) fn lag(&self) -> Span {
        self.lag
    }

    /// A frame that ends at `last` was sealed.
    pub(crate) fn handle_sealed(&mut self, now: Instant, last: Seq) {
        if self.marks.len() == MAX_MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back((last, now));
    }

    pub(crate) fn handle_applied(&mut self, now: Instant, applied: Seq) {
        while self.marks.front().is_some_and(|(last, _)| *last <= applied) {
            self.marks.pop_front();
        }
        self.measure(now);
    }

    /// Takes one step, at most one in each `target`.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
        self.measure(now);
        if now < self.next_step {
            return;
        }
        self.next_step = now + self.target;
        if self.lag > self.target {
            self.pace = self.pace.saturating_sub(STEP_DOWN).max(SLOWEST);
        } else if self.lag < self.target.scale(1, 2) {
            self.pace = (self.pace + STEP_UP).min(FULL_PACE);
        }
    }

    fn measure(&mut self, now: Instant) {
        self.lag = self.marks.front().map_or(Span::ZERO, |(_, sealed)| now.since(*sealed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_lag_slows_the_primary_by_small_steps_and_back() {
        let mut pacer = Pacer::new(Span(10));
        pacer.handle_sealed(Instant(0), Seq(1));
        let mut before = FULL_PACE;
        for now in 1..200 {
            pacer.handle_tick(Instant(now));
            assert!(before - pacer.pace() <= STEP_DOWN);
            before = pacer.pace();
        }
        assert!((SLOWEST..700).contains(&before), "{before}");
        assert_eq!(pacer.lag(), Span(199));
        pacer.handle_applied(Instant(200), Seq(1));
        assert_eq!(pacer.lag(), Span::ZERO);
        for now in 200..2000 {
            pacer.handle_tick(Instant(now));
        }
        assert_eq!(pacer.pace(), FULL_PACE);
    }
}
