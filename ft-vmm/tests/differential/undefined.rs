//! What the manuals leave undefined, along the path that a case took.
//!
//! A flag is undefined from the instruction that leaves it so until one that defines it. The table is iced's, made narrower where it
//! depends on a value: shifts and rotates by CL, string instructions that repeat zero times.

use super::case::{Case, Registers};
use super::codes;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, RflagsBits};

/// What may be said of a case whose sides differ.
pub(crate) enum Verdict {
    /// They may differ in these flags and condition codes only.
    Judged(Undefined),
    /// They may differ in anything.
    Skipped(&'static str),
}

/// Bits that no manual defines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undefined {
    /// Of RFLAGS.
    pub(crate) rflags: u64,
    /// Of the x87 status word.
    pub(crate) status: u16,
}

/// Follows the path, which ended with RIP at `end`.
pub(crate) fn verdict(case: &Case, path: &[Registers], end: u64) -> Verdict {
    let mut undefined = 0;
    for (n, before) in path.iter().enumerate() {
        let Some((instruction, bytes)) = decode(case, before.rip) else { break };
        if let Some(reason) = codes::refusal(&instruction, bytes) {
            return Verdict::Skipped(reason);
        }
        if reads(&instruction) & undefined != 0 {
            return Verdict::Skipped("reads what is undefined");
        }
        if n + 1 == path.len() && before.rip == end {
            // The one that faulted: it completed nothing.
            break;
        }
        if shifts_out_all(&instruction, before) {
            return Verdict::Skipped("undefined result");
        }
        let (left, defined) = effect(&instruction, before);
        undefined = undefined & !defined | left;
    }
    Verdict::Judged(Undefined { rflags: rflags(undefined), status: status(undefined) })
}

/// The instruction at an address and the bytes from there on, if the case has bytes there.
pub(crate) fn decode(case: &Case, rip: u64) -> Option<(Instruction, &[u8])> {
    let offset = rip.wrapping_sub(case.registers.rip) as usize;
    // INT3 follows the sequence, and an instruction that is cut off may take some of it.
    let bytes =
        case.code.get(offset..case.code_len as usize + 15).filter(|_| offset < case.code_len as usize)?;
    Some((Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode(), bytes))
}

fn reads(instruction: &Instruction) -> u32 {
    let status = RflagsBits::C0 | RflagsBits::C1 | RflagsBits::C2 | RflagsBits::C3;
    match instruction.mnemonic() {
        Mnemonic::Pushf | Mnemonic::Pushfq => !status,
        Mnemonic::Fnstsw | Mnemonic::Fnstenv | Mnemonic::Fnsave | Mnemonic::Fxsave | Mnemonic::Fxsave64 => {
            status
        }
        _ => instruction.rflags_read(),
    }
}

/// Flags left undefined, and flags defined.
fn effect(instruction: &Instruction, before: &Registers) -> (u32, u32) {
    if repeats_never(instruction, before) {
        return (0, 0);
    }
    let defined = instruction.rflags_modified() & !instruction.rflags_undefined();
    let undefined = instruction.rflags_undefined();
    let Some((bits, count)) = shift_count(instruction, before) else { return (undefined, defined) };
    let overflow = if count == 1 { 0 } else { RflagsBits::OF };
    let all = undefined | defined;
    match instruction.mnemonic() {
        _ if count == 0 => (0, 0),
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr if count > bits => {
            let left = overflow | RflagsBits::AF | RflagsBits::CF;
            (left, all & !left)
        }
        Mnemonic::Rcl | Mnemonic::Rcr | Mnemonic::Rol | Mnemonic::Ror => (overflow, all & !overflow),
        Mnemonic::Sar => (RflagsBits::AF | overflow, all & !(RflagsBits::AF | overflow)),
        _ => (RflagsBits::AF | overflow, all & !(RflagsBits::AF | overflow)),
    }
}

/// Operand size and masked count of a shift or rotate.
fn shift_count(instruction: &Instruction, before: &Registers) -> Option<(u32, u32)> {
    let last = match instruction.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal | Mnemonic::Shr | Mnemonic::Sar => 1,
        Mnemonic::Rcl | Mnemonic::Rcr | Mnemonic::Rol | Mnemonic::Ror => 1,
        Mnemonic::Shld | Mnemonic::Shrd => 2,
        _ => return None,
    };
    let bytes = match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        _ => instruction.memory_size().size(),
    };
    let count = match instruction.op_kind(last) {
        OpKind::Register => before.gpr[1] as u32,
        _ => instruction.immediate(last) as u32,
    };
    Some((bytes as u32 * 8, count & if bytes == 8 { 63 } else { 31 }))
}

/// SHLD and SHRD of 16 bits by more than 16: not even the result is defined.
fn shifts_out_all(instruction: &Instruction, before: &Registers) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd)
        && shift_count(instruction, before).is_some_and(|(bits, count)| count > bits)
}

/// A string instruction with a count of zero.
fn repeats_never(instruction: &Instruction, before: &Registers) -> bool {
    let short = (0..instruction.op_count()).any(|n| {
        matches!(instruction.op_kind(n), OpKind::MemorySegESI | OpKind::MemoryESEDI | OpKind::MemorySegEDI)
    });
    let count = if short { before.gpr[1] & 0xffff_ffff } else { before.gpr[1] };
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    repeated && instruction.is_string_instruction() && count == 0
}

fn rflags(bits: u32) -> u64 {
    let places = [
        (RflagsBits::CF, 0),
        (RflagsBits::PF, 2),
        (RflagsBits::AF, 4),
        (RflagsBits::ZF, 6),
        (RflagsBits::SF, 7),
        (RflagsBits::OF, 11),
    ];
    places.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, place)| 1 << place).sum()
}

fn status(bits: u32) -> u16 {
    let places = [(RflagsBits::C0, 8), (RflagsBits::C1, 9), (RflagsBits::C2, 10), (RflagsBits::C3, 14)];
    places.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, place)| 1 << place).sum()
}
