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
        if instruction.is_invalid() && runs_out(cpu.mode, &decoder, &bytes[used..room]) {
            break;
        }
        let op = decode::op(cpu.mode, &instruction, &bytes[used..used + instruction.len()]);
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
    if instruction.is_invalid() && runs_out(cpu.mode, &decoder, &bytes[..room]) {
        return Err(cpu.raise_gp());
    }
    let op = Op { last: true, ..decode::op(cpu.mode, &instruction, &bytes[..instruction.len()]) };
    Ok(Block { ops: Box::new([op]), bytes: in_page as u64, second: Some(second) })
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

/// Whether what could not be decoded wants more bytes: more than there are, or more than the 15 that an instruction may have. Of these the
/// decoder says only that they are invalid. An instruction so long begins with a
/// prefix that changes nothing about its length.
fn runs_out(mode: Mode, invalid: &Decoder<'_>, bytes: &[u8]) -> bool {
    if invalid.last_error() == DecoderError::NoMoreBytes {
        return true;
    }
    let Some([first, rest @ ..]) = bytes.get(..INSTRUCTION_BYTES_MAX) else { return false };
    let rex = mode == Mode::Bits64 && first & 0xf0 == 0x40;
    let mut decoder = decoder(mode, rest, 0);
    (rex || PREFIXES.contains(first))
        && decoder.decode().is_invalid()
        && decoder.last_error() == DecoderError::NoMoreBytes
}

/// Legacy prefixes.
const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];

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
