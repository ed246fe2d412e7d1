//! What a VMM author writes: the machine.

use bytes::Bytes;
use ft::core::digest::{Digester, StateDigest};
use ft::core::effect::{Effect, EffectKind};
use ft::core::error::Fault;
use ft::core::machine::{Machine, Saved, Stop};
use ft::core::units::Tick;
use ft::core::{Event, Point, Record};
use std::collections::VecDeque;

/// Adds up the numbers that it receives and answers with the total. Its "CPU" spends a tick on each unit. A request that it
/// has seen is ignored, so a client may repeat it.
#[derive(Default)]
pub(crate) struct Adder {
    tick: u64,
    total: u64,
    seen: u64,
    todo: VecDeque<u64>,
    effects: VecDeque<Effect>,
}

impl Machine for Adder {
    fn point(&self) -> Point {
        Point::new(Tick(self.tick), self.total, self.todo.len() as u32)
    }

    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        while self.tick < until.0 {
            let Some(left) = self.todo.front_mut() else { return Ok(Stop::Idle) };
            self.tick += 1;
            self.total += 1;
            *left -= 1;
            if *left == 0 {
                self.todo.pop_front();
                let payload = Bytes::copy_from_slice(&self.total.to_le_bytes());
                self.effects.push_back(Effect { kind: EffectKind::Net, device: 0, op: None, payload });
                return Ok(Stop::Effect);
            }
        }
        Ok(Stop::Reached)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        if let Event::Net { frame, .. } = &record.event {
            let [request, number] = words(frame)[..] else {
                return Err(Fault("a request is two words".into()));
            };
            if request > self.seen {
                self.seen = request;
                self.todo.push_back(number.max(1));
            }
        }
        Ok(())
    }

    fn take_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn in_flight(&self) -> Vec<Effect> {
        Vec::new() // it has no disk
    }

    fn digest(&mut self) -> StateDigest {
        let mut digest = Digester::new();
        digest.bytes(&self.encode()).finish()
    }

    fn save(&mut self, _first: bool) -> Saved {
        Saved::whole(self.encode())
    }

    fn restore(&mut self, piece: &[u8], _last: bool) -> Result<(), Fault> {
        let [tick, total, seen, ref todo @ ..] = words(piece)[..] else {
            return Err(Fault("too short".into()));
        };
        *self = Self { tick, total, seen, todo: todo.iter().copied().collect(), effects: VecDeque::new() };
        Ok(())
    }
}

impl Adder {
    fn encode(&self) -> Vec<u8> {
        [self.tick, self.total, self.seen]
            .iter()
            .chain(&self.todo)
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }
}

pub(crate) fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes)).collect()
}

/// A request, as the machine reads it.
pub(crate) fn request(request: u64, number: u64) -> Bytes {
    [request, number].iter().flat_map(|word| word.to_le_bytes()).collect()
}
