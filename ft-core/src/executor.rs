//! Runs a machine from record to record, and numbers what it emits. The same on both sides: the primary makes a record and
//! applies it, the secondary runs to its point and applies it.

use crate::effect::{Effect, EmitDigest, Numbered};
use crate::error::{Divergence, Fault};
use crate::machine::{Machine, Stop};
use crate::point::Point;
use crate::record::{Event, Record};
use crate::transfer::StateHead;
use crate::units::{EffectSeq, Seq, Tick, VirtualTime};

/// A machine and the count of its effects.
#[derive(Clone, Debug)]
pub struct Executor<M> {
    machine: M,
    emitted: EffectSeq,
    /// Emitted since the last mark.
    fresh: Vec<Numbered>,
    digest: EmitDigest,
    /// Emitted, and free to leave at once.
    queries: Vec<Effect>,
    clock: VirtualTime,
}

/// How far a machine came on its way to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The record has been applied; these are the effects that it marks.
    Applied(Vec<Numbered>),
    /// The machine has run its share and is not there yet.
    Underway,
}

impl<M: Machine> Executor<M> {
    /// A machine that has emitted effects up to `emitted`.
    pub fn new(machine: M, emitted: EffectSeq) -> Self {
        Self {
            machine,
            emitted,
            fresh: Vec::new(),
            digest: EmitDigest::default(),
            queries: Vec::new(),
            clock: VirtualTime(0),
        }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to save or restore it. To change its course otherwise is a divergence.
    pub fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Where the machine stands.
    pub fn point(&self) -> Point {
        self.machine.point()
    }

    /// The last effect that the machine emitted.
    pub fn emitted(&self) -> EffectSeq {
        self.emitted
    }

    /// The machine's clock, as of the last Time record.
    pub fn clock(&self) -> VirtualTime {
        self.clock
    }

    /// The machine has just been restored to the state that `head` describes.
    pub fn restored(&mut self, head: &StateHead) {
        assert!(self.fresh.is_empty(), "a restored machine has emitted nothing yet");
        self.emitted = head.emitted;
        self.clock = head.clock;
    }

    /// The machine's operations that have neither completed nor wait for their mark, oldest first.
    pub fn in_flight(&self) -> Vec<Effect> {
        let name = |effect: &Effect| (effect.device, effect.op);
        let mut operations = self.machine.in_flight();
        operations.retain(|one| !self.fresh.iter().any(|fresh| name(&fresh.effect) == name(one)));
        operations.retain(|one| !self.queries.iter().any(|query| name(query) == name(one)));
        operations
    }

    /// Runs a live machine for at most `ticks`.
    ///
    /// # Errors
    /// The machine's.
    pub fn run(&mut self, ticks: u64) -> Result<Stop, Fault> {
        let start = self.machine.point().tick;
        let stop = self.machine.run(Tick(start.0.saturating_add(ticks)))?;
        let before = self.fresh.len() + self.queries.len();
        self.collect();
        if self.fresh.len() + self.queries.len() > before && self.machine.point().tick == start {
            return Err(Fault(format!(
                "the machine emitted effects without a tick at {}",
                self.machine.point()
            )));
        }
        Ok(stop)
    }

    /// Takes the queries emitted since the last call. They have no number and no mark: whether one happened, nobody outside
    /// can tell, and a machine that goes live asks again for what it has no answer to (R7).
    pub fn take_queries(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.queries)
    }

    /// The mark for what was emitted since the last one: to be logged before anything else, so that a secondary that goes
    /// live has run at least to here (R3).
    pub fn mark(&self) -> Option<Event> {
        let count = u32::try_from(self.fresh.len()).ok().filter(|count| *count > 0)?;
        Some(Event::Emit { count, digest: self.digest.value() })
    }

    /// Applies a record where the machine stands. Returns the effects that it marks.
    ///
    /// # Errors
    /// The machine's.
    pub fn apply(&mut self, record: &Record) -> Result<Vec<Numbered>, Fault> {
        let marked = matches!(record.event, Event::Emit { .. });
        let effects = if marked { std::mem::take(&mut self.fresh) } else { Vec::new() };
        if marked {
            self.digest = EmitDigest::default();
        }
        if let Event::Time(now) = record.event {
            self.clock = now;
        }
        self.machine.apply(record)?;
        self.collect();
        Ok(effects)
    }

    /// Runs towards a record's point, at most `ticks`, and applies it there.
    ///
    /// # Errors
    /// When this machine does not do what the primary's did (R2, R11).
    pub fn follow(&mut self, seq: Seq, record: &Record, ticks: u64) -> Result<Reached, Divergence> {
        let fault = |fault| Divergence::Machine { seq, fault };
        let target = record.point.tick;
        let share = Tick(self.machine.point().tick.0.saturating_add(ticks));
        loop {
            let here = self.machine.point();
            if here.tick >= target {
                break;
            }
            if here.tick >= share {
                return Ok(Reached::Underway);
            }
            let stop = self.machine.run(target.min(share)).map_err(fault)?;
            self.collect();
            if stop == Stop::Idle && self.machine.point().tick < target {
                break;
            }
        }
        self.compare(seq, record)?;
        self.apply(record).map(Reached::Applied).map_err(fault)
    }

    /// Whether this machine, standing where it entered the primary's, may take `record`.
    fn compare(&mut self, seq: Seq, record: &Record) -> Result<(), Divergence> {
        let here = self.machine.point();
        if !here.agrees(&record.point) {
            return Err(Divergence::Point { seq, expected: record.point, actual: here });
        }
        let (expected_count, expected) = match record.event {
            Event::Emit { count, digest } => (count, digest),
            _ => (0, EmitDigest::default().value()),
        };
        let (actual_count, actual) = (self.fresh.len() as u32, self.digest.value());
        if (expected_count, expected) != (actual_count, actual) {
            return Err(Divergence::Effects { seq, expected_count, actual_count, expected, actual });
        }
        if let Event::Digest(expected) = record.event {
            let actual = self.machine.digest();
            if actual != expected {
                return Err(Divergence::State { seq, expected: expected.0, actual: actual.0 });
            }
        }
        Ok(())
    }

    fn collect(&mut self) {
        while let Some(effect) = self.machine.take_effect() {
            self.take_in(effect);
        }
    }

    fn take_in(&mut self, effect: Effect) {
        if effect.kind.is_query() {
            return self.queries.push(effect);
        }
        self.digest.fold(&effect);
        self.emitted = self.emitted.next();
        self.fresh.push(Numbered { seq: self.emitted, effect });
    }
}
