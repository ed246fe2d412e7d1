//! Slows the primary gently when the secondary's machine lags (R9).

use crate::units::Span;

/// Full speed, in thousandths.
pub const FULL_PACE: u16 = 1000;

/// The primary never runs slower than this by lag alone: beyond it, the bounded log stops the guest.
const SLOWEST: u16 = 100;

/// What each millisecond beyond the target costs, in thousandths. The loop settles where the secondary just keeps up: a machine that
/// may run at nine tenths is 10 ms beyond the target. Lag is news of one round trip and one frame ago; against a gain of 1 % the loop
/// has a time constant of 100 ms, five times that, and does not swing.
const PER_MS: u64 = 10;

/// A feedback loop from the lag that the secondary measures to the share of time that the machine may run.
///
/// The secondary measures by its own clock how long records wait for its machine, so neither the network's delay nor the
/// pause between two frames of an idle guest counts as lag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pacer {
    target: Span,
    lag: Span,
    pace: u16,
}

impl Pacer {
    pub(crate) fn new(target: Span) -> Self {
        Self { target, lag: Span::ZERO, pace: FULL_PACE }
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
        let beyond = Span(lag.0.saturating_sub(self.target.0));
        let cost = beyond.0 / (Span::from_ms(1).0 / PER_MS);
        self.pace = u16::try_from(cost).map_or(SLOWEST, |cost| FULL_PACE.saturating_sub(cost).max(SLOWEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r9_lag_slows_the_primary_gently_and_bounded() {
        let target = Span::from_ms(10);
        let mut pacer = Pacer::new(target);
        let mut pace_at = |ms| {
            pacer.handle_lag(Span::from_ms(ms));
            pacer.pace()
        };
        assert_eq!(pace_at(10), FULL_PACE, "up to the target nothing is slowed");
        assert_eq!(pace_at(13), 970);
        assert_eq!(pace_at(60), 500);
        assert_eq!(pace_at(5000), SLOWEST);
        assert_eq!(pace_at(u64::MAX >> 24), SLOWEST);
        assert_eq!(pace_at(0), FULL_PACE);
    }

    /// A secondary that runs at `speed` thousandths of the primary's, and whose lag is heard 40 ms late.
    #[test]
    fn r9_the_pace_settles_at_the_speed_of_the_secondary() {
        for speed in [300, 600, 900, 980] {
            let mut pacer = Pacer::new(Span::from_ms(10));
            // In thousandths of a millisecond.
            let mut lags = vec![0_u64; 40];
            for _ in 0..2000 {
                pacer.handle_lag(Span::from_us(lags[lags.len() - 40]));
                let lag = lags.last().unwrap() + u64::from(pacer.pace());
                lags.push(lag.saturating_sub(speed));
            }
            let settled = u64::from(pacer.pace()).abs_diff(speed);
            assert!(settled <= 10, "{speed}: {}", pacer.pace());
            assert!(lags[500..].iter().all(|lag| *lag > 0), "the secondary never waits");
        }
    }
}
