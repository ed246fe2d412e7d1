//! What one connection measures while it runs, readable from outside at any time.

use super::faults::Faults;
use super::judge::MOST_STORIES;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Latencies that can be told apart: from a microsecond to ten minutes, in nanoseconds.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 600_000_000_000;
/// Digits of them.
const DIGITS: u8 = 2;

/// A point in time to which [`super::Load::gap_since`] looks back.
#[derive(Clone, Copy, Debug)]
pub struct Mark(pub(super) Instant);

/// How long replies took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the replies took less.
    pub p50_us: f64,
    /// 99 of 100 replies took less.
    pub p99_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// A time for which a connection waited without any reply.
struct Gap {
    ended: Instant,
    length: Duration,
}

pub(super) struct Gauge {
    pub(super) ops: u64,
    pub(super) faults: Faults,
    /// Connections that broke.
    pub(super) broken: u64,
    /// Requests that the server refused.
    pub(super) refused: u64,
    pub(super) reconnects: u64,
    /// What was wrong, in words; the first few.
    pub(super) stories: Vec<String>,
    latency: Histogram<u64>,
    /// Each is shorter than those before it: a gap that came before a longer one is never the longest since some time.
    gaps: Vec<Gap>,
    waiting_since: Option<Instant>,
}

impl Gauge {
    pub(super) fn new() -> Self {
        let latency =
            Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS).expect("these bounds are allowed");
        Self {
            ops: 0,
            faults: Faults::NONE,
            broken: 0,
            refused: 0,
            reconnects: 0,
            stories: Vec::new(),
            latency,
            gaps: Vec::new(),
            waiting_since: None,
        }
    }

    /// Requests are under way from now on, if they were not before.
    pub(super) fn waits(&mut self, now: Instant) {
        self.waiting_since.get_or_insert(now);
    }

    /// Replies came; others may be under way.
    pub(super) fn hears(&mut self, now: Instant, still_waits: bool) {
        if let Some(since) = self.waiting_since.take() {
            let length = now.saturating_duration_since(since);
            while self.gaps.last().is_some_and(|gap| gap.length <= length) {
                self.gaps.pop();
            }
            self.gaps.push(Gap { ended: now, length });
        }
        self.waiting_since = still_waits.then_some(now);
    }

    /// One reply took so long.
    pub(super) fn took(&mut self, time: Duration) {
        self.ops += 1;
        self.latency.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(super) fn tell(&mut self, stories: impl IntoIterator<Item = String>) {
        let room = MOST_STORIES.saturating_sub(self.stories.len());
        self.stories.extend(stories.into_iter().take(room));
    }

    /// The longest time without a reply that ended since the mark, or has not ended.
    pub(super) fn gap_since(&self, Mark(mark): Mark, now: Instant) -> Duration {
        let over = self.gaps.iter().find(|gap| gap.ended >= mark).map(|gap| gap.length);
        let waiting = self.waiting_since.map(|since| now.saturating_duration_since(since));
        over.into_iter().chain(waiting).max().unwrap_or_default()
    }

    /// Adds this connection's latencies to those of others.
    pub(super) fn add_latency_to(&self, all: &mut Histogram<u64>) {
        // Both have the same bounds, so there is nothing that does not fit.
        let _ = all.add(&self.latency);
    }
}

/// The latencies of all connections together.
pub(super) fn summarize<'a>(gauges: impl Iterator<Item = &'a Gauge>) -> Latency {
    let mut all = Gauge::new().latency;
    gauges.for_each(|gauge| gauge.add_latency_to(&mut all));
    let micros = |nanos: u64| nanos as f64 / 1e3;
    Latency {
        p50_us: micros(all.value_at_quantile(0.5)),
        p99_us: micros(all.value_at_quantile(0.99)),
        max_us: micros(all.max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_gap_since_a_mark() {
        let (mut gauge, t0) = (Gauge::new(), Instant::now());
        let at = |ms: u32| t0 + MS * ms;
        gauge.waits(at(0));
        for reply in [5, 105, 115, 135, 137] {
            gauge.hears(at(reply), true);
        }
        let since =
            |mark: u32, now: u32| gauge.gap_since(Mark(at(mark)), at(now)) / MS.as_nanos() as u32 * 1_000_000;
        assert_eq!(since(0, 138), 100 * MS);
        assert_eq!(since(106, 138), 20 * MS);
        assert_eq!(since(136, 138), 2 * MS);
        // The wait that has not ended counts too.
        assert_eq!(since(136, 187), 50 * MS);
        gauge.hears(at(190), false);
        assert_eq!(gauge.gap_since(Mark(at(191)), at(999)), Duration::ZERO);
    }

    #[test]
    fn latencies() {
        let mut gauge = Gauge::new();
        (1..=100).for_each(|n| gauge.took(MS * n));
        let latency = summarize([&gauge].into_iter());
        assert!(
            (49e3..52e3).contains(&latency.p50_us) && (98e3..101e3).contains(&latency.p99_us),
            "{latency:?}"
        );
        assert_eq!(gauge.ops, 100);
    }
}
