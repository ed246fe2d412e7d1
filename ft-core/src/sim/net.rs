//! The network between hosts: loses, repeats, delays and reorders; cut in one direction or both.

use super::rng::Rng;
use crate::message::Lane;
use crate::units::{HostId, Instant, Span};
use std::collections::{BTreeMap, BTreeSet};

/// How bad the lines are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// Messages lost, in thousandths.
    pub(super) drop: u64,
    /// Messages repeated, in thousandths.
    pub(super) repeat: u64,
    /// Messages much delayed, in thousandths.
    pub(super) delay: u64,
    /// By how much at most, in milliseconds.
    pub(super) latest_ms: u64,
}

impl Weather {
    pub(super) const FINE: Self = Self { drop: 0, repeat: 0, delay: 0, latest_ms: 1 };
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) weather: Weather,
    /// Directions in which nothing passes.
    pub(super) cuts: BTreeSet<(HostId, HostId)>,
    /// The kind of messages that does not pass.
    pub(super) muted: Option<Lane>,
    /// When the last message that kept its place arrives.
    queues: BTreeMap<(HostId, HostId), Instant>,
}

impl Net {
    pub(super) fn new() -> Self {
        Self { weather: Weather::FINE, cuts: BTreeSet::new(), muted: None, queues: BTreeMap::new() }
    }

    /// Everything is well again.
    pub(super) fn heal(&mut self) {
        self.weather = Weather::FINE;
        self.cuts.clear();
        self.muted = None;
    }

    /// When a message that is sent now arrives: never, once or twice. In fine weather a line keeps the order, as the
    /// streams of the real channel do.
    pub(super) fn arrivals(
        &mut self,
        now: Instant,
        (from, to): (HostId, HostId),
        lane: Lane,
        rng: &mut Rng,
    ) -> Vec<Instant> {
        if self.cuts.contains(&(from, to)) || self.muted == Some(lane) || rng.chance(self.weather.drop) {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.chance(self.weather.repeat));
        (0..copies).map(|_| self.arrival(now, from, to, rng)).collect()
    }

    fn arrival(&mut self, now: Instant, from: HostId, to: HostId, rng: &mut Rng) -> Instant {
        let soon = now + Span::from_us(rng.range(50..300));
        if rng.chance(self.weather.delay) {
            return soon + Span::from_us(rng.range(0..self.weather.latest_ms * 1000));
        }
        let last = self.queues.entry((from, to)).or_default();
        *last = soon.max(*last);
        *last
    }
}
