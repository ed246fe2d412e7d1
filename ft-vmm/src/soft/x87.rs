//! What the instructions of the x87 compute. Those of MMX, which has the same registers, are in [`mmx`](super::xmm::mmx).
//!
//! [`x87_form`] says for each instruction how many bytes it reads and writes, and what function is between. The execution engine only moves
//! bytes. For each instruction it
//!
//! 1. raises #NM as CR0 says, then #MF if the form waits and [`is_pending`];
//! 2. reads the memory operand, or makes sure that it can be written: a function that has run cannot be taken back;
//! 3. calls the function, and does what the [`X87Effect`] says.
//!
//! Invariant: everything is computed with integers from the arguments alone, so that it is the same on every host. Results that the architecture
//! defines are exact: rounding and precision control, the six exceptions, stack faults, masked and unmasked responses, condition codes,
//! C1. Transcendental functions differ between processor models; ours are in [`transcendental`].
//!
//! The pointers to the last instruction and its operand are noted only by instructions that raise an unmasked exception, as
//! CPUID.(EAX=7,ECX=0):EBX\[6\] and \[13\] announce (FDP_EXCPTN_ONLY, and CS and DS read as 0).

mod arithmetic;
mod compare;
mod control;
mod env;
mod number;
mod operate;
mod table;
#[cfg(test)]
pub(super) mod tests;
mod transcendental;
mod transfer;
mod unit;
mod wide;

pub(crate) use table::x87_form;

use crate::vcpu::Fpu;

/// How an instruction of the x87 is executed.
#[derive(Clone, Copy)]
pub(crate) struct X87Form {
    /// Bytes of the memory operand that are read: 0, 2, 4, 8, 10, 14, 28, 94 or 108.
    pub(crate) load: u8,
    /// Bytes of the memory operand that are written.
    pub(crate) store: u8,
    /// Whether a pending exception is raised before it (#MF). FWAIT is this and nothing else.
    pub(crate) waits: bool,
    /// Does it.
    pub(crate) run: fn(&mut Fpu, X87Operands<'_>) -> X87Effect,
}

/// What an instruction of the x87 is given.
#[derive(Debug)]
pub(crate) struct X87Operands<'a> {
    /// The i of its operand ST(i); 0 if it has none.
    pub(crate) st: u8,
    /// The `load` bytes that were read.
    pub(crate) memory_in: &'a [u8],
    /// The `store` bytes to write.
    pub(crate) memory_out: &'a mut [u8],
    /// For FCMOVcc.
    pub(crate) rflags: u64,
    /// Where the instruction stands, the low 11 bits of its opcode (low three bits of the first byte, then the second), and the effective address
    /// of its memory operand or 0: what an exception handler is to find.
    pub(crate) instruction: u64,
    /// See `instruction`.
    pub(crate) opcode: u16,
    /// See `instruction`.
    pub(crate) operand: u64,
}

/// What the engine does after an instruction of the x87.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum X87Effect {
    /// Writes `memory_out`, if there is any.
    Done,
    /// Leaves memory as it is: an unmasked exception.
    NoStore,
    /// FNSTSW AX.
    Ax(u16),
    /// FCOMI and its kin: CF, PF and ZF are these, at their places; OF, SF and AF are cleared.
    Flags(u32),
}

/// Whether an unmasked exception waits to be raised (#MF) by the next instruction that waits.
pub(crate) fn is_pending(fpu: &Fpu) -> bool {
    fpu.status & env::SUMMARY != 0
}
