//! A machine small enough to reason about: it answers each packet after a few ticks, with the number of packets so far.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use ft_core::digest::{Digester, StateDigest};
use ft_core::effect::{Effect, EffectKind, OpId};
use ft_core::error::Fault;
use ft_core::machine::{Machine, Saved, Stop};
use ft_core::units::Tick;
use ft_core::{Event, Point, Record};
use std::collections::VecDeque;

/// Ticks between a packet and its answer.
pub(crate) const DELAY: u64 = 10;

#[derive(Clone, Debug, Default)]
pub(crate) struct Counter {
    pub(crate) tick: u64,
    pub(crate) count: u64,
    pub(crate) due: VecDeque<u64>,
    pub(crate) reads: VecDeque<u64>,
    /// What this copy sees that the other does not: breaks determinism.
    pub(crate) flaw: u64,
    /// How often it is still to say that it is not ready.
    pub(crate) delays: u64,
    effects: VecDeque<Effect>,
}

impl Counter {
    fn words(&self) -> Vec<u64> {
        let lens = [self.tick, self.count, self.due.len() as u64];
        lens.iter().chain(&self.due).chain(&self.reads).copied().collect()
    }
}

pub(crate) fn read(id: u64) -> Effect {
    Effect { kind: EffectKind::BlockRead, device: 0, op: Some(OpId(id)), payload: Bytes::new() }
}

impl Machine for Counter {
    fn point(&self) -> Point {
        Point::new(Tick(self.tick), self.count, self.due.len() as u32)
    }

    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        let Some(due) = self.due.front().copied() else { return Ok(Stop::Idle) };
        // Two answers that are due at once still take a tick each.
        let due = due.max(self.tick + 1);
        if due > until.0 {
            self.tick = until.0;
            return Ok(Stop::Reached);
        }
        self.due.pop_front();
        self.tick = due;
        let payload = Bytes::copy_from_slice(&self.count.to_le_bytes());
        self.effects.push_back(Effect { kind: EffectKind::Net, device: 0, op: None, payload });
        Ok(Stop::Effect)
    }

    /// A packet is counted and answered; typing at the console starts a disk read; its completion is answered too.
    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        match &record.event {
            Event::Net { .. } => {
                self.count += 1 + self.flaw;
                self.due.push_back(self.tick + DELAY);
            }
            Event::Console { .. } => {
                self.count += 1;
                self.reads.push_back(self.count);
                self.effects.push_back(read(self.count));
            }
            Event::BlockDone { id, .. } if self.reads.contains(id) => {
                self.reads.retain(|read| read != id);
                self.due.push_back(self.tick + DELAY);
            }
            Event::Reset => return Err(Fault("triple fault".into())),
            _ => {}
        }
        Ok(())
    }

    fn take_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn in_flight(&self) -> Vec<Effect> {
        self.reads.iter().map(|id| read(*id)).collect()
    }

    fn digest(&mut self) -> StateDigest {
        let mut digest = Digester::new();
        for word in self.words() {
            digest.u64(word);
        }
        digest.finish()
    }

    fn is_ready(&mut self) -> bool {
        let is_ready = self.delays == 0;
        self.delays = self.delays.saturating_sub(1);
        is_ready
    }

    fn save(&mut self, _first: bool) -> Saved {
        let mut bytes = BytesMut::new();
        self.words().iter().for_each(|word| bytes.put_u64_le(*word));
        Saved::whole(bytes.freeze())
    }

    fn restore(&mut self, mut piece: &[u8], _last: bool) -> Result<(), Fault> {
        (self.tick, self.count) = (piece.get_u64_le(), piece.get_u64_le());
        let due = piece.get_u64_le();
        self.due = (0..due).map(|_| piece.get_u64_le()).collect();
        self.reads.clear();
        while piece.has_remaining() {
            self.reads.push_back(piece.get_u64_le());
        }
        Ok(())
    }
}
