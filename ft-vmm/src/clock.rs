//! The machine's clock: what RDTSC, the timers and the clocks of the guest derive from.
//!
//! Time records set it, ticks carry it on in between. The *record clock* is the last record's time plus `ns_per_tick` for each tick since;
//! what the guest sees is the record clock, except where that would be a step back: a record that is behind what the guest has already seen
//! leaves the clock standing there until the record clock has caught up.
//!
//! Invariant: [`Clock::now`] is a function of the records and the tick (R1), and never goes back from one tick to a later one.

use ft_core::units::{Tick, VirtualTime};
use serde::{Deserialize, Serialize};

/// Everything that determines what a [`Clock`] will show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockState {
    /// Tick of the last Time record.
    pub record_tick: u64,
    /// Its time, in nanoseconds.
    pub record_ns: u64,
    /// What the clock showed when that record came; it shows no less since.
    pub floor_ns: u64,
}

/// The machine's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    state: ClockState,
    ns_per_tick: u64,
}

impl Clock {
    /// A clock that shows 0 at tick 0 and runs by `ns_per_tick` with each tick.
    pub fn new(ns_per_tick: u64) -> Self {
        Self { state: ClockState::default(), ns_per_tick }
    }

    /// Takes in a Time record that enters at tick `at`.
    pub fn set(&mut self, at: Tick, time: VirtualTime) {
        let floor_ns = self.now(at);
        self.state = ClockState { record_tick: at.0, record_ns: time.0, floor_ns };
    }

    /// What it shows at a tick, in nanoseconds. Ticks before the last record count as that record's.
    pub fn now(&self, at: Tick) -> u64 {
        let ticks = at.0.saturating_sub(self.state.record_tick);
        let record_ns = self.state.record_ns.saturating_add(ticks.saturating_mul(self.ns_per_tick));
        record_ns.max(self.state.floor_ns)
    }

    /// The first tick since the last record at which it shows `ns` or more; none when only another record can bring it there.
    pub fn tick_at(&self, ns: u64) -> Option<Tick> {
        let state = &self.state;
        if ns <= state.floor_ns.max(state.record_ns) {
            return Some(Tick(state.record_tick));
        }
        if self.ns_per_tick == 0 {
            return None;
        }
        let ticks = (ns - state.record_ns).div_ceil(self.ns_per_tick);
        state.record_tick.checked_add(ticks).map(Tick)
    }

    /// All of its state.
    pub fn state(&self) -> ClockState {
        self.state.clone()
    }

    /// Goes on from a state.
    pub fn set_state(&mut self, state: &ClockState) {
        self.state = state.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_runs_on_between_records() {
        let mut clock = Clock::new(3);
        assert_eq!(clock.now(Tick(10)), 30);
        clock.set(Tick(10), VirtualTime(1000));
        assert_eq!(clock.now(Tick(10)), 1000);
        assert_eq!(clock.now(Tick(12)), 1006);
        assert_eq!(clock.tick_at(1006), Some(Tick(12)));
        assert_eq!(clock.tick_at(1007), Some(Tick(13)));
        assert_eq!(clock.tick_at(5), Some(Tick(10)));
        assert_eq!(clock.tick_at(u64::MAX), Some(Tick(10 + (u64::MAX - 1000).div_ceil(3))));
    }

    #[test]
    fn a_record_that_is_behind_leaves_it_standing() {
        let mut clock = Clock::new(1);
        clock.set(Tick(100), VirtualTime(500));
        assert_eq!(clock.now(Tick(200)), 600);
        clock.set(Tick(200), VirtualTime(570));
        assert_eq!(clock.now(Tick(200)), 600);
        assert_eq!(clock.now(Tick(230)), 600, "the record clock has caught up");
        assert_eq!(clock.now(Tick(231)), 601);
        assert_eq!(clock.tick_at(601), Some(Tick(231)));
    }

    #[test]
    fn without_ticks_only_records_move_it() {
        let mut clock = Clock::new(0);
        clock.set(Tick(5), VirtualTime(10));
        assert_eq!(clock.now(Tick(1 << 60)), 10);
        assert_eq!(clock.tick_at(10), Some(Tick(5)));
        assert_eq!(clock.tick_at(11), None);
    }

    proptest! {
        /// Never back, and `tick_at` names the first tick.
        #[test]
        fn it_never_goes_back(
            ns_per_tick in 0u64..4,
            records in proptest::collection::vec((0u64..100, 0u64..300), 1..20),
            ahead in 1u64..200,
        ) {
            let mut clock = Clock::new(ns_per_tick);
            let (mut tick, mut seen) = (0, 0);
            for (ticks, time) in records {
                for at in tick..=tick + ticks {
                    prop_assert!(clock.now(Tick(at)) >= seen);
                    seen = clock.now(Tick(at));
                }
                tick += ticks;
                clock.set(Tick(tick), VirtualTime(time));
                let wanted = clock.now(Tick(tick)) + ahead;
                match clock.tick_at(wanted) {
                    Some(first) => {
                        prop_assert!(clock.now(first) >= wanted);
                        prop_assert!(clock.now(Tick(first.0 - 1)) < wanted);
                    }
                    None => prop_assert_eq!(ns_per_tick, 0),
                }
            }
        }
    }
}
