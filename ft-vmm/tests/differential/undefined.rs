//! What the manuals leave undefined, along the path that a case took.
//!
//! A flag is undefined from the instruction that leaves it so until one that defines it. The table is iced's, made narrower where it
//! depends on a value: shifts and rotates by CL, string instructions that repeat zero times.

use super::case::{Case, Registers};
use super::codes;
use super::layout::{CODE, CODE_PAGES, FS_BASE, GS_BASE, IMAGE, IMAGE_END, PAGE};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register, RflagsBits};

/// What may be said of a case whose sides differ.
pub(crate) enum Verdict {
    /// They may differ in this only.
    Judged(Undefined),
    /// They may differ in anything.
    Skipped(&'static str),
}

/// What no manual defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Undefined {
    /// Bits of RFLAGS.
    pub(crate) rflags: u64,
    /// Bits of the x87 status word.
    pub(crate) status: u16,
    /// Which byte of an operand a page fault names: CPUs touch large ones in an order of their own.
    pub(crate) fault_address: bool,
    /// Addresses that hold something undefined: first, and first after it.
    pub(crate) memory: Vec<(u64, u64)>,
    /// Why anything else may differ as well: something that is undefined was used further on.
    pub(crate) excuse: Option<&'static str>,
}

/// Follows the path, which the native side ended with these registers.
pub(crate) fn verdict(case: &Case, path: &[Registers], end: &Registers) -> Verdict {
    let mut flags = 0;
    let mut undefined = Undefined::default();
    for (n, before) in path.iter().enumerate() {
        let Some((instruction, bytes)) = decode(case, before.rip) else { break };
        if let Some(reason) = codes::refusal(&instruction, bytes) {
            return Verdict::Skipped(reason);
        }
        if before.rip == end.rip && is_masked_move(&instruction) {
            return Verdict::Skipped("a masked move of nothing may fault");
        }
        if reads(&instruction) & flags != 0 {
            undefined.excuse = Some("reads what is undefined");
        }
        if before.rip == end.rip && is_cut_off(&instruction) {
            undefined.excuse = Some("invalid and cut off");
        }
        if n + 1 == path.len() && before.rip == end.rip {
            // The one that faulted: it completed nothing.
            undefined.fault_address = moves_state(&instruction);
            if compares_unreadable(&instruction, end) {
                undefined.excuse = Some("either operand may fault first");
            }
            break;
        }
        if n + 1 == path.len() && loads_mxcsr(&instruction) {
            // It faulted on the emulated side only.
            undefined.excuse = Some("MXCSR.MM");
        }
        if shifts_out_all(&instruction, before) {
            undefined.excuse = Some("undefined result");
        }
        undefined.memory.extend(state_of_its_own(&instruction, before));
        let (left, defined) = effect(&instruction, before);
        flags = flags & !defined | left;
    }
    Verdict::Judged(Undefined { rflags: rflags(flags), status: status(flags), ..undefined })
}

/// The instruction at an address and the bytes from there on, if the case has bytes there.
pub(crate) fn decode(case: &Case, rip: u64) -> Option<(Instruction, &[u8])> {
    let offset = rip.wrapping_sub(case.registers.rip) as usize;
    // INT3 follows the sequence, and an instruction that is cut off may take some of it.
    let bytes =
        case.code.get(offset..case.code_len as usize + 15).filter(|_| offset < case.code_len as usize)?;
    Some((Decoder::with_ip(64, bytes, rip, DecoderOptions::NONE).decode(), bytes))
}

fn is_masked_move(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu)
}

/// Instructions that save or load the x87's or all floating-point state.
fn moves_state(instruction: &Instruction) -> bool {
    use Mnemonic::{Fldenv, Frstor, Fxrstor, Fxrstor64};
    writes_state(instruction) || matches!(instruction.mnemonic(), Fldenv | Frstor | Fxrstor | Fxrstor64)
}

/// Those that save it.
pub(crate) fn writes_state(instruction: &Instruction) -> bool {
    use Mnemonic::{Fnsave, Fnstenv, Fxsave, Fxsave64};
    matches!(instruction.mnemonic(), Fnsave | Fnstenv | Fxsave | Fxsave64)
}

/// Which part of the memory that this instruction writes is the processor's own affair: FXSAVE's MXCSR_MASK, and the last instruction's and
/// operand's address of FXSAVE, FNSAVE and FNSTENV, which some keep for each x87 instruction, some for those that raise an exception.
fn state_of_its_own(instruction: &Instruction, before: &Registers) -> Vec<(u64, u64)> {
    let parts: &[(u64, u64)] = match instruction.code() {
        Code::Fxsave_m512byte | Code::Fxsave64_m512byte => &[(6, 24), (28, 32)],
        Code::Fnsave_m108byte | Code::Fnstenv_m28byte => &[(12, 28)],
        Code::Fnsave_m94byte | Code::Fnstenv_m14byte => &[(6, 14)],
        _ => return Vec::new(),
    };
    let address = address(instruction, 0, before);
    parts.iter().map(|(first, end)| (address.wrapping_add(*first), address.wrapping_add(*end))).collect()
}

/// Something that is no instruction, whatever follows, but has its first bytes where the code ends: CPUs see one or the other first.
fn is_cut_off(instruction: &Instruction) -> bool {
    const CODE_END: u64 = CODE + (CODE_PAGES * PAGE) as u64;
    let none = instruction.is_invalid() || matches!(instruction.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1);
    none && CODE_END.wrapping_sub(instruction.ip()) < 15
}

fn loads_mxcsr(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Ldmxcsr)
}

/// CMPS whose operands are both beyond what can be read.
fn compares_unreadable(instruction: &Instruction, registers: &Registers) -> bool {
    use Mnemonic::{Cmpsb, Cmpsd, Cmpsq, Cmpsw};
    let bytes = instruction.memory_size().size() as u64;
    let is_readable = |operand| {
        let first = address(instruction, operand, registers);
        READABLE.iter().any(|(start, end)| (*start..*end).contains(&first) && first + bytes <= *end)
    };
    matches!(instruction.mnemonic(), Cmpsb | Cmpsd | Cmpsq | Cmpsw)
        && instruction.is_string_instruction()
        && !(0..2).any(is_readable)
}

const READABLE: [(u64, u64); 2] = [(CODE, CODE + (CODE_PAGES * PAGE) as u64), (IMAGE, IMAGE_END)];

/// The address of an operand in memory.
fn address(instruction: &Instruction, operand: u32, before: &Registers) -> u64 {
    let value = |register: Register, _, _| match register {
        Register::FS => Some(FS_BASE),
        Register::GS => Some(GS_BASE),
        _ if register.is_segment_register() => Some(0),
        _ => {
            let all = before.gpr[register.full_register().number()];
            Some(if register.size() == 4 { all & 0xffff_ffff } else { all })
        }
    };
    instruction.virtual_address(operand, 0, value).unwrap_or(0)
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
