//! From bytes at RIP to a block of decoded operations.

use super::blocks::Block;
use super::cpu::{Cpu, Mode};
use super::decode;
use super::op::{CS, Env, Op, Run};
use super::tlb::{Access, PAGE};
use crate::ram::PAGE_BYTES;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

/// Operations in a block at most.
const OPS_MAX: usize = 32;
/// Bytes looked at for a block at most.
const BYTES_MAX: usize = 256;
/// Bytes of an instruction at most.
const INSTRUCTION_BYTES_MAX: usize = 15;

/// The linear address of `rip` in the code segment.
pub(crate) fn linear(cpu: &mut Cpu, rip: u64) -> Run<u64> {
    if cpu.mode == Mode::Bits64 {
        return Ok(rip);
    }
    let segment = *cpu.segment(CS);
    if rip > u64::from(segment.limit) {
        return Err(cpu.raise_gp());
    }
    Ok(segment.base.wrapping_add(rip) & 0xffff_ffff)
}

/// Decodes the block at RIP, whose first byte is at the physical address `gpa`.
pub(crate) fn block(cpu: &mut Cpu, env: &mut Env<'_>, gpa: u64) -> Run<Block> {
    let in_page = PAGE_BYTES - gpa as usize % PAGE_BYTES;
    let in_segment = in_segment(cpu);
    let room = in_page.min(in_segment).min(BYTES_MAX);
    let mut bytes = [0; BYTES_MAX];
    read(env, gpa, &mut bytes[..room]);
    let mut ops = Vec::with_capacity(8);
    let mut decoder = decoder(cpu.mode, &bytes[..room], cpu.rip);
    let mut used = 0;
    while ops.len() < OPS_MAX && used < room {
        let instruction = decoder.decode();
        if instruction.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes {
            break;
        }
        let mut op = decode::op(cpu.mode, &instruction, &bytes[used..used + instruction.len()]);
        if instruction.is_invalid() && is_too_long(cpu.mode, &bytes[used..room]) {
            op.run = decode::too_long;
        }
        used += instruction.len();
        ops.push(op);
        if op.last {
            break;
        }
    }
    if !ops.is_empty() {
        return Ok(Block { ops: ops.into(), bytes: used as u64, second: None });
    }
    straddling(cpu, env, &bytes[..room], in_page, in_segment)
}

/// Decodes the one instruction that begins with the last bytes of a page or of the code segment.
fn straddling(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    head: &[u8],
    in_page: usize,
    in_segment: usize,
) -> Run<Block> {
    let room = in_segment.min(INSTRUCTION_BYTES_MAX);
    if room <= in_page {
        // It does not end where it must: in the segment, and after 15 bytes.
        return Err(cpu.raise_gp());
    }
    let here = linear(cpu, cpu.rip)?;
    let next = cpu.wrap((here & PAGE).wrapping_add(PAGE_BYTES as u64));
    let second = cpu.translate(env, next, Access::Fetch)?;
    let mut bytes = [0; INSTRUCTION_BYTES_MAX];
    bytes[..in_page].copy_from_slice(&head[..in_page]);
    read(env, second, &mut bytes[in_page..room]);
    let mut decoder = decoder(cpu.mode, &bytes[..room], cpu.rip);
    let instruction = decoder.decode();
    if instruction.is_invalid() && decoder.last_error() == DecoderError::NoMoreBytes {
        return Err(cpu.raise_gp());
    }
    let mut op = Op { last: true, ..decode::op(cpu.mode, &instruction, &bytes[..instruction.len()]) };
    if instruction.is_invalid() && is_too_long(cpu.mode, &bytes[..room]) {
        op.run = decode::too_long;
    }
    Ok(Block { ops: Box::new([op]), bytes: in_page as u64, second: Some(second) })
}

/// Whether an instruction that cannot be decoded is one that does not end within 15 bytes.
fn is_too_long(mode: Mode, bytes: &[u8]) -> bool {
    // With 15 bytes the decoder does not tell: so ask whether it would have wanted the last of them.
    let Some(head) = bytes.get(..INSTRUCTION_BYTES_MAX) else { return false };
    let mut decoder = decoder(mode, &head[..INSTRUCTION_BYTES_MAX - 1], 0);
    decoder.decode_out(&mut Instruction::new());
    decoder.last_error() == DecoderError::NoMoreBytes
}

/// Bytes from RIP to the end of the code segment.
fn in_segment(cpu: &Cpu) -> usize {
    if cpu.mode == Mode::Bits64 {
        return usize::MAX;
    }
    (u64::from(cpu.segment(CS).limit) + 1).saturating_sub(cpu.rip) as usize
}

/// Reads instruction bytes. Where there is no RAM they are ones, which is no instruction.
fn read(env: &Env<'_>, gpa: u64, bytes: &mut [u8]) {
    if !env.ram_read(gpa, bytes) {
        bytes.fill(0xff);
    }
}

fn decoder(mode: Mode, bytes: &[u8], rip: u64) -> Decoder<'_> {
    let bits = match mode {
        Mode::Bits16 => 16,
        Mode::Bits32 => 32,
        Mode::Bits64 => 64,
    };
    Decoder::with_ip(bits, bytes, rip, DecoderOptions::NONE)
}

/// The bytes of the instruction at RIP and its name, for a log line.
pub(crate) fn describe(cpu: &mut Cpu, env: &mut Env<'_>) -> Option<(Vec<u8>, Instruction)> {
    let start = linear(cpu, cpu.rip).ok()?;
    let mut bytes = Vec::new();
    for offset in 0..INSTRUCTION_BYTES_MAX as u64 {
        let Ok(gpa) = cpu.translate(env, cpu.wrap(start.wrapping_add(offset)), Access::Fetch) else { break };
        let mut byte = [0];
        read(env, gpa, &mut byte);
        bytes.push(byte[0]);
    }
    let instruction = decoder(cpu.mode, &bytes, cpu.rip).decode();
    bytes.truncate(instruction.len().max(1));
    Some((bytes, instruction))
}
