//! A toy machine whose whole past is in one hash: it computes, answers requests, sets timers and does disk operations.

use crate::digest::{Digester, StateDigest, digest64};
use crate::effect::{Effect, EffectKind, OpId};
use crate::error::Fault;
use crate::machine::{Machine, Saved, Stop};
use crate::point::Point;
use crate::record::{Event, Record};
use crate::units::Tick;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::VecDeque;

/// The guest's own timer, in nanoseconds of its clock.
const TIMER_EVERY: u64 = 7_000_000;

/// A state is sent in this many pieces, to exercise the transfer.
const PIECES: u32 = 5;

/// What an effect of the toy guest says, for the checker: every effect names the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speech {
    /// Digest of all effects before this one.
    pub(super) past: u64,
    /// The client's request that it answers, or 0.
    pub(super) request: u64,
    /// How many requests have been served, this one included.
    pub(super) served: u64,
}

impl Speech {
    fn encode(self) -> Bytes {
        let mut buf = BytesMut::with_capacity(24);
        buf.put_u64_le(self.past);
        buf.put_u64_le(self.request);
        buf.put_u64_le(self.served);
        buf.freeze()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Self {
        Self { past: bytes.get_u64_le(), request: bytes.get_u64_le(), served: bytes.get_u64_le() }
    }
}

/// The digest of a history that goes on with `effect`.
pub(super) fn past_after(past: u64, effect: &Effect) -> u64 {
    digest64(past, &effect.payload)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Task {
    ticks: u64,
    request: u64,
    kind: EffectKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    tick: u64,
    hash: u64,
    clock: u64,
    next_timer: u64,
    past: u64,
    served: u64,
    next_op: u64,
    tasks: VecDeque<Task>,
    in_flight: VecDeque<(u64, u64, Effect)>,
    effects: VecDeque<Effect>,
    /// Pieces of a state on its way in or out. Not part of the machine.
    pieces: u32,
    row: u64,
    /// Hash of all records, to tell histories apart. Travels with the state, but is not part of the machine.
    lineage: u64,
    /// Lineage and hash after each record, for the checker to take.
    marks: RefCell<Vec<(u64, u64)>>,
}

impl Guest {
    pub(super) fn new() -> Self {
        Self {
            tick: 0,
            hash: 1,
            clock: 0,
            next_timer: TIMER_EVERY,
            past: 0,
            served: 0,
            next_op: 0,
            tasks: VecDeque::new(),
            in_flight: VecDeque::new(),
            effects: VecDeque::new(),
            pieces: 0,
            row: 0,
            lineage: 0,
            marks: RefCell::default(),
        }
    }

    /// Lineage and hash after each record since the last call.
    pub(super) fn take_marks(&self) -> Vec<(u64, u64)> {
        self.marks.take()
    }

    fn mix(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    fn compute(&mut self, ticks: u64, request: u64, kind: EffectKind) {
        self.tasks.push_back(Task { ticks: 1 + ticks, request, kind });
    }

    fn emit(&mut self, task: Task) {
        if task.request != 0 && task.kind == EffectKind::Net {
            self.served += 1;
        }
        let speech = Speech { past: self.past, request: task.request, served: self.served ^ self.hash << 32 };
        let op = matches!(task.kind, EffectKind::BlockRead | EffectKind::BlockWrite).then(|| {
            self.next_op += 1;
            OpId(self.next_op)
        });
        let effect = Effect { kind: task.kind, device: 0, op, payload: speech.encode() };
        if !effect.kind.is_query() {
            self.past = past_after(self.past, &effect);
        }
        if op.is_some() {
            self.in_flight.push_back((self.next_op, task.request, effect.clone()));
        }
        self.effects.push_back(effect);
    }

    fn complete(&mut self, id: u64) {
        let Some(at) = self.in_flight.iter().position(|(op, ..)| *op == id) else { return };
        if let Some((_, request, _)) = self.in_flight.remove(at) {
            self.compute(self.hash % 4, request, EffectKind::Net);
        }
    }

    /// A request's first byte decides whether it needs the disk.
    fn serve(&mut self, request: u64) {
        let kind = match request % 8 {
            0 | 1 => EffectKind::BlockRead,
            2 | 3 => EffectKind::BlockWrite,
            _ => EffectKind::Net,
        };
        self.compute(self.hash % 6, request, kind);
    }

    fn encode(&self) -> Bytes {
        let mut buf = BytesMut::new();
        for value in [
            self.tick,
            self.hash,
            self.clock,
            self.next_timer,
            self.past,
            self.served,
            self.next_op,
            self.lineage,
            self.tasks.len() as u64,
            self.in_flight.len() as u64,
        ] {
            buf.put_u64_le(value);
        }
        for task in &self.tasks {
            buf.put_u64_le(task.ticks);
            buf.put_u64_le(task.request);
            buf.put_u8(kind_code(task.kind));
        }
        for (op, request, effect) in &self.in_flight {
            buf.put_u64_le(*op);
            buf.put_u64_le(*request);
            buf.put_u8(kind_code(effect.kind));
            buf.put_slice(&effect.payload);
        }
        buf.freeze()
    }

    fn decode(mut bytes: &[u8]) -> Self {
        let mut guest = Self::new();
        let mut fixed = [0u64; 10];
        fixed.iter_mut().for_each(|value| *value = bytes.get_u64_le());
        let (tasks, operations) = (fixed[8], fixed[9]);
        [
            guest.tick,
            guest.hash,
            guest.clock,
            guest.next_timer,
            guest.past,
            guest.served,
            guest.next_op,
            guest.lineage,
            _,
            _,
        ] = fixed;
        for _ in 0..tasks {
            let (ticks, request) = (bytes.get_u64_le(), bytes.get_u64_le());
            guest.tasks.push_back(Task { ticks, request, kind: KINDS[bytes.get_u8() as usize] });
        }
        for _ in 0..operations {
            let (op, request, kind) =
                (bytes.get_u64_le(), bytes.get_u64_le(), KINDS[bytes.get_u8() as usize]);
            let payload = bytes.copy_to_bytes(24);
            guest.in_flight.push_back((op, request, Effect { kind, device: 0, op: Some(OpId(op)), payload }));
        }
        guest
    }
}

const KINDS: [EffectKind; 4] =
    [EffectKind::Net, EffectKind::BlockRead, EffectKind::BlockWrite, EffectKind::Console];

fn kind_code(kind: EffectKind) -> u8 {
    KINDS.iter().position(|known| *known == kind).expect("the toy guest emits these kinds only") as u8
}

impl Machine for Guest {
    fn point(&self) -> Point {
        Point::new(Tick(self.tick), 0x1000 + self.hash % 4096, self.hash as u32)
    }

    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        while self.tick < until.0 {
            let Some(task) = self.tasks.front_mut() else { return Ok(Stop::Idle) };
            task.ticks -= 1;
            let done = (task.ticks == 0).then_some(*task);
            self.tick += 1;
            self.mix(self.tick);
            if let Some(task) = done {
                self.tasks.pop_front();
                self.emit(task);
                return Ok(Stop::Effect);
            }
        }
        Ok(Stop::Reached)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        let mut lineage = Digester::new();
        lineage.u64(self.lineage).u64(record.point.tick.0).bytes(record.event.name().as_bytes());
        self.lineage = lineage.bytes(record.event.payload()).finish().0;
        match &record.event {
            Event::Time(now) => {
                self.lineage ^= now.0;
                self.clock = now.0;
                self.mix(now.0);
                if self.clock >= self.next_timer {
                    self.next_timer = self.clock + TIMER_EVERY;
                    self.compute(self.hash % 3, 0, EffectKind::Console);
                }
            }
            Event::Net { frame, .. } => {
                self.mix(digest64(0, frame));
                self.serve(frame.as_ref().get_u64_le());
            }
            Event::BlockDone { id, status, data, .. } => {
                self.lineage ^= id << 8 | u64::from(*status);
                self.mix(digest64(u64::from(*status), data) ^ id);
                self.complete(*id);
            }
            // Marks, not inputs.
            Event::Emit { .. } | Event::Digest(_) => return Ok(()),
            other => self.mix(digest64(1, other.payload())),
        }
        self.marks.get_mut().push((self.lineage, self.hash));
        Ok(())
    }

    fn take_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn in_flight(&self) -> Vec<Effect> {
        self.in_flight.iter().map(|(_, _, effect)| effect.clone()).collect()
    }

    fn digest(&mut self) -> StateDigest {
        let mut digest = Digester::new();
        digest.u64(self.tick).u64(self.hash).u64(self.clock).u64(self.next_timer).u64(self.past);
        digest.u64(self.served).u64(self.next_op).u64(self.tasks.len() as u64);
        digest.u64(self.in_flight.len() as u64);
        for task in &self.tasks {
            digest.u64(task.ticks).u64(task.request);
        }
        for (op, request, _) in &self.in_flight {
            digest.u64(*op).u64(*request);
        }
        digest.finish()
    }

    fn save(&mut self, first: bool) -> Saved {
        if first {
            (self.pieces, self.row) = (0, self.hash ^ self.tick);
        }
        self.pieces += 1;
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(self.pieces);
        bytes.put_u64_le(self.row);
        let last = self.pieces == PIECES;
        if last {
            bytes.put_slice(&self.encode());
        }
        Saved { pieces: vec![bytes.freeze()], last }
    }

    /// Takes pieces of one row only, from the first, without a gap: as pages of a real pre-copy, each of them matters.
    fn restore(&mut self, mut piece: &[u8], last: bool) -> Result<(), Fault> {
        let (index, row) = (piece.get_u32_le(), piece.get_u64_le());
        if index == 1 {
            (self.pieces, self.row) = (0, row);
        }
        if (index, row, last) != (self.pieces + 1, self.row, index == PIECES) {
            return Err(Fault(format!(
                "piece {index} of row {row:x} after {} of {:x}",
                self.pieces, self.row
            )));
        }
        self.pieces = index;
        if last {
            *self = Self::decode(piece);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_guest_goes_on_as_the_original() {
        let mut guest = Guest::new();
        for request in 1..20u64 {
            let frame = Bytes::copy_from_slice(&request.to_le_bytes());
            let record = Record { point: guest.point(), event: Event::Net { device: 0, frame } };
            guest.apply(&record).unwrap();
            guest.run(Tick(request * 3)).unwrap();
            while guest.take_effect().is_some() {}
        }
        let mut other = Guest::new();
        for n in 0..PIECES {
            let saved = guest.save(n == 0);
            other.restore(&saved.pieces[0], saved.last).unwrap();
        }
        guest.take_marks();
        (guest.pieces, guest.row) = (0, 0);
        assert_eq!(other, guest);
        assert!(!guest.in_flight.is_empty() && !guest.tasks.is_empty(), "the test covers all parts");
    }
}
