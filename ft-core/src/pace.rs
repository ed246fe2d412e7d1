//! Slows the primary gently when the secondary's machine lags (R9).

use crate::units::{Instant, Span};

/// Full speed, in thousandths.
pub const FULL_PACE: u16 = 1000;

/// The primary never runs slower than this by lag alone: beyond it, the bounded log stops the guest.
const SLOWEST: u16 = 100;

/// One step down: a few per cent at a time. Up goes slower, so that the pace settles.
const STEP_DOWN: u16 = 30;
const STEP_UP: u16 = 10;

/// A feedback loop from the lag that the secondary measures to the share of time that the machine may run.
///
/// The secondary measures by its own clock how long records wait for its machine, so neither the network's delay nor the
/// pause between two frames of an idle guest counts as lag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pacer {
    target: Span,
    lag: Span,
    pace: u16,
    next_step: Instant,
}

impl Pacer {
    pub(crate) fn new(target: Span) -> Self {
        Self { target, lag: Span::ZERO, pace: FULL_PACE, next_step: Instant(0) }
    }

    /// Thousandths of the time for which the machine may run.
    pub(crate) fn pace(&self) -> u16 {
        self.pace
    }

    /// What the secondary measured last.
    pub(crate) fn lag(&self) -> Span {
        self.lag
    }

    pub(crate) fn handle_lag(&mut self, lag: Span) {
        self.lag = lag;
    }

    /// Takes one step, at most one in each `target`.
    pub(crate) fn handle_tick(&mut self, now: Instant) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_lag_slows_the_primary_by_small_steps_and_back() {
        let mut pacer = Pacer::new(Span(10));
        pacer.handle_lag(Span(11));
        let mut before = FULL_PACE;
        for now in 1..200 {
            pacer.handle_tick(Instant(now));
            assert!(before - pacer.pace() <= STEP_DOWN);
            before = pacer.pace();
        }
        assert!((SLOWEST..700).contains(&before), "{before}");
        pacer.handle_lag(Span(7));
        pacer.handle_tick(Instant(300));
        assert_eq!(pacer.pace(), before, "between half the target and the target nothing moves");
        pacer.handle_lag(Span::ZERO);
        for now in 300..2000 {
            pacer.handle_tick(Instant(now));
        }
        assert_eq!(pacer.pace(), FULL_PACE);
    }
}
