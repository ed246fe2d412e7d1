//! Decoded operations: what the decoder leaves and the handlers take.

use super::cpu::Cpu;
use super::forms::Form;
use crate::ram::Ram;
use crate::vcpu::Platform;

/// Marks that an exception waits in [`Cpu`]. The instruction has had no effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raised;

/// What can raise an exception.
pub(crate) type Run<T> = Result<T, Raised>;

/// Where execution goes on after an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// With the instruction after it.
    Next,
    /// Where the handler has set RIP.
    Jump,
}

/// Executes one operation.
pub(crate) type Handler = fn(&mut Cpu, &mut Env<'_>, &Op) -> Run<Flow>;

/// The vCPU's surroundings during a run.
pub(crate) struct Env<'a> {
    /// The guest's memory.
    pub(crate) ram: &'a Ram,
    /// [`Ram::host`] of `ram`.
    pub(crate) host: *mut u8,
    /// Ports, devices, clock and interrupt controller.
    pub(crate) platform: &'a mut dyn Platform,
}

/// A register field that names none: it reads as 0 and is never written.
pub(crate) const NONE: u8 = 16;

/// Set in a register field for AH, CH, DH and BH.
pub(crate) const HIGH: u8 = 0x20;

/// Segment registers by the number of their encoding.
pub(crate) const ES: u8 = 0;
pub(crate) const CS: u8 = 1;
pub(crate) const SS: u8 = 2;
pub(crate) const DS: u8 = 3;
pub(crate) const FS: u8 = 4;
pub(crate) const GS: u8 = 5;

/// General registers by number.
pub(crate) const RAX: u8 = 0;
pub(crate) const RCX: u8 = 1;
pub(crate) const RDX: u8 = 2;
pub(crate) const RBX: u8 = 3;
pub(crate) const RSP: u8 = 4;
pub(crate) const RBP: u8 = 5;
pub(crate) const RSI: u8 = 6;
pub(crate) const RDI: u8 = 7;

/// Repetition prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rep {
    /// None.
    #[default]
    None,
    /// REP or REPE.
    While,
    /// REPNE.
    Until,
}

/// One instruction, decoded. Handlers agree with the decoder on which fields they use.
#[derive(Clone, Copy)]
pub(crate) struct Op {
    /// Executes it.
    pub(crate) run: Handler,
    /// Immediate operand, sign-extended, or the target of a branch.
    pub(crate) imm: u64,
    /// Displacement of the memory operand; RIP is already added in.
    pub(crate) disp: u64,
    /// Address of the next instruction.
    pub(crate) next: u64,
    /// Register operand that is written.
    pub(crate) dst: u8,
    /// The other register operand.
    pub(crate) src: u8,
    /// Base register of the memory operand.
    pub(crate) base: u8,
    /// Its index register.
    pub(crate) index: u8,
    /// Shift of the index.
    pub(crate) scale: u8,
    /// Segment of the memory operand.
    pub(crate) seg: u8,
    /// The memory operand's address is base + index + displacement and nothing else.
    pub(crate) plain: bool,
    /// Address size in bytes.
    pub(crate) address_bytes: u8,
    /// Operand size in bytes.
    pub(crate) bytes: u8,
    /// Length of the instruction in bytes.
    pub(crate) len: u8,
    /// Repetition prefix.
    pub(crate) rep: Rep,
    /// Whether there is a memory operand.
    pub(crate) memory: bool,
    /// Nothing may follow in its block: it changes what the next instruction is or means.
    pub(crate) last: bool,
    /// Which instruction it is, for handlers that serve several.
    pub(crate) kind: u16,
    /// What an instruction of SSE, MMX or the x87 computes.
    pub(crate) form: Option<&'static Form>,
}

impl Op {
    /// Its address.
    #[inline(always)]
    pub(crate) fn ip(&self) -> u64 {
        self.next.wrapping_sub(u64::from(self.len))
    }
}
