//! The devices that a guest sees: deterministic front ends.
//!
//! A device owns registers and nothing else. Time comes in as nanoseconds of the machine's clock, interrupts go out as lines of the interrupt
//! controller, and whatever leaves the machine goes into the [`Outbox`]. What a guest can do to a device, and what is done about it, is in
//! docs/devices.md.
//!
//! Invariant: a device changes only when the guest accesses it, a record comes in, or its deadline has come; never because somebody
//! looked at it, however often (R1).

pub mod acpi;
pub mod pic;
pub mod pit;
pub mod reset;
pub mod rtc;
pub mod serial;
pub mod virtio;
pub mod watchdog;

use bytes::Bytes;
use ft_core::effect::{Effect, EffectKind, OpId};
use std::collections::VecDeque;

/// What the devices have emitted and the machine has not taken yet.
#[derive(Debug, Default)]
pub struct Outbox {
    effects: VecDeque<Effect>,
    /// The last operation's number. Never repeated, not even after a reset: a late completion finds nobody.
    last_op: u64,
}

impl Outbox {
    /// An outbox whose operations continue after `last_op`.
    pub fn new(last_op: u64) -> Self {
        Self { effects: VecDeque::new(), last_op }
    }

    /// Emits something.
    pub fn emit(&mut self, kind: EffectKind, device: u8, payload: Bytes) {
        self.effects.push_back(Effect { kind, device, op: None, payload });
    }

    /// Emits the start of an operation, which keeps what it needs to emit it again.
    pub fn emit_operation(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    /// The number of a new operation.
    pub fn next_op(&mut self) -> OpId {
        self.last_op = self.last_op.wrapping_add(1);
        OpId(self.last_op)
    }

    /// The last operation's number.
    pub fn last_op(&self) -> u64 {
        self.last_op
    }

    /// Takes the oldest.
    pub fn take(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether there is anything to take.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }
}
