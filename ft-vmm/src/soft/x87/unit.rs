//! The register stack, and the frame of every instruction: what it raised goes into the status word.

use super::env::{BUSY, C1, Computed, EXCEPTIONS, Env, INVALID, STACK_FAULT, SUMMARY};
use super::number::{Ext, Operand};
use super::{X87Effect, X87Operands};
use crate::vcpu::Fpu;

const TOP_SHIFT: u32 = 11;
const TOP: u16 = 7 << TOP_SHIFT;

/// An x87 in the middle of an instruction.
pub(super) struct Unit<'a> {
    pub(super) fpu: &'a mut Fpu,
    pub(super) env: Env,
}

/// Runs an instruction that computes, and settles its exceptions.
pub(super) fn operate(
    fpu: &mut Fpu,
    mut io: X87Operands<'_>,
    body: fn(&mut Unit<'_>, &mut X87Operands<'_>) -> Computed<X87Effect>,
) -> X87Effect {
    let env = Env::new(fpu.control);
    let mut unit = Unit { fpu, env };
    let effect = body(&mut unit, &mut io).unwrap_or(X87Effect::NoStore);
    let raised = unit.env.raised;
    fpu.status = fpu.status & !C1 | raised;
    summarise(fpu);
    if raised & EXCEPTIONS & !fpu.control != 0 {
        fpu.instruction = io.instruction;
        fpu.opcode = io.opcode & 0x7ff;
        fpu.operand = io.operand;
    }
    effect
}

/// Sets or clears the summary of pending exceptions, after flags or masks have changed.
pub(super) fn summarise(fpu: &mut Fpu) {
    if fpu.status & EXCEPTIONS & !fpu.control != 0 {
        fpu.status |= SUMMARY | BUSY;
    } else {
        fpu.status &= !(SUMMARY | BUSY);
    }
}

/// The physical register that is ST(i).
pub(super) fn physical(fpu: &Fpu, st: u8) -> usize {
    usize::from(((fpu.status >> TOP_SHIFT) as u8 + st) & 7)
}

/// Moves the stack up or down.
pub(super) fn rotate(fpu: &mut Fpu, by: i16) {
    let top = (fpu.status >> TOP_SHIFT).wrapping_add_signed(by) & 7;
    fpu.status = fpu.status & !TOP | top << TOP_SHIFT;
}

impl Unit<'_> {
    /// ST(i), unless it is empty.
    pub(super) fn st(&self, st: u8) -> Option<Operand> {
        let n = physical(self.fpu, st);
        (self.fpu.tags >> n & 1 != 0).then(|| Ext::from_bytes(self.fpu.registers[n]).into())
    }

    /// ST(i), as it is.
    pub(super) fn raw(&self, st: u8) -> Ext {
        Ext::from_bytes(self.fpu.registers[physical(self.fpu, st)])
    }

    pub(super) fn set(&mut self, st: u8, value: Ext) {
        let n = physical(self.fpu, st);
        self.fpu.registers[n] = value.to_bytes();
        self.fpu.tags |= 1 << n;
    }

    /// Marks ST(i) empty.
    pub(super) fn free(&mut self, st: u8) {
        self.fpu.tags &= !(1 << physical(self.fpu, st));
    }

    pub(super) fn pop(&mut self) {
        self.free(0);
        rotate(self.fpu, 1);
    }

    /// Pushes a value whose space was [claimed](Self::claim).
    pub(super) fn push(&mut self, value: Ext) {
        rotate(self.fpu, -1);
        self.set(0, value);
    }

    /// An operand was empty. The response if that is masked is the indefinite NaN.
    pub(super) fn underflow(&mut self) -> Computed<Ext> {
        self.env.raised |= STACK_FAULT;
        self.env.raise(INVALID).map(|()| Ext::INDEFINITE)
    }

    /// Whether there is space for a push. If not, and that is masked, the indefinite NaN is to be pushed.
    pub(super) fn claim(&mut self) -> Computed<bool> {
        let free = self.st(7).is_none();
        if !free {
            self.env.raised |= STACK_FAULT | C1;
            self.env.raise(INVALID)?;
        }
        Ok(free)
    }

    /// Sets some of the condition codes C0, C2 and C3, and clears the others of them.
    pub(super) fn conditions(&mut self, set: u16) {
        use super::env::{C0, C2, C3};
        self.fpu.status = self.fpu.status & !(C0 | C2 | C3) | set;
    }
}
