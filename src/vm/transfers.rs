//! How long a machine stands still for the pieces of its state that are made for a joining secondary (R8).
//!
//! [`Watched`] is a machine that behaves as the one in it; what it sees is read at [`Transfers`], from whichever thread.
//!
//! Invariant: nothing of this enters the machine. The clock is looked at only while a state is made.

use bytes::Bytes;
use ft_core::Point;
use ft_core::digest::StateDigest;
use ft_core::effect::Effect;
use ft_core::error::Fault;
use ft_core::machine::{Machine, Saved, Stop};
use ft_core::record::Record;
use ft_core::units::Tick;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The transfer under way, or the last one.
#[derive(Clone, Debug, Default)]
pub struct Transfers(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    stop_us: AtomicU64,
    bytes: AtomicU64,
}

impl Transfers {
    /// The longest time for which the machine stood still for pieces of its state.
    pub fn longest_stop(&self) -> Duration {
        Duration::from_micros(self.0.stop_us.load(Ordering::Relaxed))
    }

    /// Bytes of all pieces made so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.0.stop_us.store(0, Ordering::Relaxed);
        self.0.bytes.store(0, Ordering::Relaxed);
    }

    fn made(&self, pieces: &[Bytes]) {
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn stopped_for(&self, stop: Duration) {
        self.0.stop_us.fetch_max(u64::try_from(stop.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// A machine whose state transfers are watched.
#[derive(Debug)]
pub struct Watched<M> {
    machine: M,
    transfers: Transfers,
    /// It has stood still for pieces of its state since then.
    stands_since: Option<Instant>,
}

impl<M> Watched<M> {
    /// Watches `machine`.
    pub fn new(machine: M, transfers: &Transfers) -> Self {
        Self { machine, transfers: transfers.clone(), stands_since: None }
    }
}

impl<M: Machine> Machine for Watched<M> {
    fn point(&self) -> Point {
        self.machine.point()
    }

    /// A run in which the machine rests, so that its state gets ahead, does not end the stop.
    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        let Some(since) = self.stands_since else { return self.machine.run(until) };
        let (stood, before) = (since.elapsed(), self.machine.point().tick);
        let stop = self.machine.run(until)?;
        if stop != Stop::Reached || self.machine.point().tick > before {
            self.transfers.stopped_for(stood);
            self.stands_since = None;
        }
        Ok(stop)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        self.machine.apply(record)
    }

    fn take_effect(&mut self) -> Option<Effect> {
        self.machine.take_effect()
    }

    fn in_flight(&self) -> Vec<Effect> {
        self.machine.in_flight()
    }

    fn digest(&mut self) -> StateDigest {
        self.machine.digest()
    }

    fn is_ready(&mut self) -> bool {
        self.machine.is_ready()
    }

    fn save(&mut self, first: bool) -> Saved {
        if first {
            self.transfers.begin();
        }
        self.stands_since.get_or_insert_with(Instant::now);
        let saved = self.machine.save(first);
        self.transfers.made(&saved.pieces);
        saved
    }

    fn restore(&mut self, piece: &[u8], last: bool) -> Result<(), Fault> {
        self.machine.restore(piece, last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Takes its time for pieces, and rests after the first.
    #[derive(Default)]
    struct Slow {
        tick: u64,
        rests: bool,
    }

    /// What it takes for a piece.
    const PIECE: Duration = Duration::from_millis(5);

    impl Machine for Slow {
        fn point(&self) -> Point {
            Point { tick: Tick(self.tick), check: None }
        }

        fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
            if !std::mem::take(&mut self.rests) {
                self.tick = until.0;
            }
            Ok(Stop::Reached)
        }

        fn apply(&mut self, _: &Record) -> Result<(), Fault> {
            Ok(())
        }

        fn take_effect(&mut self) -> Option<Effect> {
            None
        }

        fn in_flight(&self) -> Vec<Effect> {
            Vec::new()
        }

        fn digest(&mut self) -> StateDigest {
            StateDigest::default()
        }

        fn save(&mut self, first: bool) -> Saved {
            self.rests = first;
            let done = Instant::now() + PIECE;
            while Instant::now() < done {
                std::hint::spin_loop();
            }
            Saved { pieces: vec![Bytes::from_static(b"1234")], last: !first }
        }

        fn restore(&mut self, _: &[u8], _: bool) -> Result<(), Fault> {
            Ok(())
        }
    }

    #[test]
    fn a_stop_lasts_until_the_machine_runs_again_and_the_next_transfer_begins_anew() {
        let transfers = Transfers::default();
        let mut machine = Watched::new(Slow::default(), &transfers);
        machine.run(Tick(1)).unwrap();
        machine.save(true);
        machine.run(Tick(2)).unwrap();
        assert_eq!(transfers.longest_stop(), Duration::ZERO, "it has rested");
        machine.save(false);
        machine.run(Tick(2)).unwrap();
        assert!(transfers.longest_stop() >= 2 * PIECE, "{transfers:?}");
        assert_eq!(transfers.bytes(), 8);
        machine.save(true);
        assert_eq!((transfers.longest_stop(), transfers.bytes()), (Duration::ZERO, 4));
    }
}
