//! Control instructions: the control and status words, the environment, and the whole state.

use super::X87Effect::{self, Ax, Done};
use super::X87Operands;
use super::env::EXCEPTIONS;
use super::number::{Class, Ext};
use super::unit::{physical, summarise};
use crate::vcpu::Fpu;

const CONTROL_AFTER_INIT: u16 = 0x37f;
/// Reads as 1; bits above 12 read as 0.
const CONTROL_ALWAYS: u16 = 0x40;
const CONTROL_WRITABLE: u16 = 0x1f3f;

/// FNOP, FWAIT and instructions of the 8087 that do nothing any more.
pub(super) fn nothing(_: &mut Fpu, _: X87Operands<'_>) -> X87Effect {
    Done
}

/// FNINIT.
pub(super) fn init(fpu: &mut Fpu, _: X87Operands<'_>) -> X87Effect {
    fpu.control = CONTROL_AFTER_INIT;
    fpu.status = 0;
    fpu.tags = 0;
    (fpu.opcode, fpu.instruction, fpu.operand) = (0, 0, 0);
    Done
}

/// FNCLEX.
pub(super) fn clear_exceptions(fpu: &mut Fpu, _: X87Operands<'_>) -> X87Effect {
    fpu.status &= 0x7f00;
    Done
}

/// FNSTCW.
pub(super) fn store_control(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    io.memory_out.copy_from_slice(&fpu.control.to_le_bytes());
    Done
}

/// FLDCW.
pub(super) fn load_control(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    set_control(fpu, word(io.memory_in, 0));
    Done
}

fn set_control(fpu: &mut Fpu, control: u16) {
    fpu.control = control & CONTROL_WRITABLE | CONTROL_ALWAYS;
    summarise(fpu);
}

/// FNSTSW to memory.
pub(super) fn store_status(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    io.memory_out.copy_from_slice(&fpu.status.to_le_bytes());
    Done
}

/// FNSTSW AX.
pub(super) fn status_to_ax(fpu: &mut Fpu, _: X87Operands<'_>) -> X87Effect {
    Ax(fpu.status)
}

/// FNSTENV: then masks all exceptions.
pub(super) fn store_environment(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    write_environment(fpu, io.memory_out);
    set_control(fpu, fpu.control | EXCEPTIONS);
    Done
}

/// FLDENV.
pub(super) fn load_environment(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    read_environment(fpu, io.memory_in);
    Done
}

/// FNSAVE: then initialises.
pub(super) fn save(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    let (environment, registers) = io.memory_out.split_at_mut(io.memory_out.len() - 80);
    write_environment(fpu, environment);
    for (st, bytes) in registers.chunks_exact_mut(10).enumerate() {
        bytes.copy_from_slice(&fpu.registers[physical(fpu, st as u8)]);
    }
    init(fpu, X87Operands { memory_out: &mut [], ..io })
}

/// FRSTOR.
pub(super) fn restore(fpu: &mut Fpu, io: X87Operands<'_>) -> X87Effect {
    let (environment, registers) = io.memory_in.split_at(io.memory_in.len() - 80);
    read_environment(fpu, environment);
    for (st, bytes) in registers.chunks_exact(10).enumerate() {
        let n = physical(fpu, st as u8);
        fpu.registers[n].copy_from_slice(bytes);
    }
    Done
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// In 14 bytes: control, status, tags, IP, CS, DP, DS. In 28 each has four bytes; the upper two of those that
/// have but two are ones, and above CS stands the opcode. CS and DS are 0 ("deprecated").
fn write_environment(fpu: &Fpu, bytes: &mut [u8]) {
    let words = [fpu.control, fpu.status, full_tags(fpu)];
    if bytes.len() == 14 {
        let pointers = [fpu.instruction as u16, 0, fpu.operand as u16, 0];
        for (to, word) in bytes.chunks_exact_mut(2).zip(words.into_iter().chain(pointers)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    } else {
        let words = words.map(|word| 0xffff_0000 | u32::from(word));
        let pointers = [fpu.instruction as u32, u32::from(fpu.opcode) << 16, fpu.operand as u32, 0xffff_0000];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words.into_iter().chain(pointers)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
    }
}

fn read_environment(fpu: &mut Fpu, bytes: &[u8]) {
    let width = bytes.len() / 7;
    let field = |n| word(bytes, n * width);
    let pointer = |n| {
        let high = if width == 4 { word(bytes, n * width + 2) } else { 0 };
        u64::from(high) << 16 | u64::from(field(n))
    };
    fpu.status = field(1);
    fpu.tags = (0..8).filter(|n| field(2) >> (2 * n) & 3 != 3).fold(0, |tags, n| tags | 1 << n);
    fpu.instruction = pointer(3);
    fpu.operand = pointer(5);
    fpu.opcode = if width == 4 { word(bytes, 4 * width + 2) & 0x7ff } else { 0 };
    set_control(fpu, field(0));
}

/// Two bits for each physical register: valid, zero, special, empty.
fn full_tags(fpu: &Fpu) -> u16 {
    let tag = |n: usize| match Ext::from_bytes(fpu.registers[n]).class() {
        _ if fpu.tags >> n & 1 == 0 => 3,
        Class::Normal => 0,
        Class::Zero => 1,
        _ => 2,
    };
    (0..8).fold(0, |tags, n| tags | tag(n) << (2 * n))
}
