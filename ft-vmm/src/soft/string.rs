//! String instructions, alone and repeated.
//!
//! Each iteration of a repeated one takes a tick; between two of them RIP stays at the instruction, and everything that can happen
//! between instructions can happen. A repeated instruction ends its block. Within pages that the TLBs know, MOVS and STOS
//! move many elements at a time, counted all the same.

use super::alu::sub;
use super::cpu::{Cpu, attention, mask};
use super::decode::Decoding;
use super::op::{ES, Env, Flow, Op, RAX, RCX, RDI, RSI, Rep, Run};
use super::tlb::Access;
use super::word::{Word, by_size};
use iced_x86::{Mnemonic, OpKind};

impl Cpu {
    /// Linear address of the source string.
    pub(crate) fn source(&mut self, op: &Op, bytes: usize) -> Run<u64> {
        let offset = self.gpr[usize::from(RSI)] & mask(op.address_bytes);
        self.linear(op.seg, offset, bytes as u64, false)
    }

    /// Linear address of the destination string.
    pub(crate) fn destination(&mut self, op: &Op, bytes: usize, write: bool) -> Run<u64> {
        let offset = self.gpr[usize::from(RDI)] & mask(op.address_bytes);
        self.linear(ES, offset, bytes as u64, write)
    }

    /// Moves a string pointer past `count` elements.
    pub(crate) fn advance<W: Word>(&mut self, op: &Op, register: u8, count: u64) {
        let bytes = count.wrapping_mul(W::BYTES as u64);
        let step = if self.down() { bytes.wrapping_neg() } else { bytes };
        let value = self.gpr[usize::from(register)].wrapping_add(step);
        self.put_reg_sized(op.address_bytes, register, value);
    }

    /// Iterations of a repeated instruction that may be made at once.
    fn iterations(&self, left: u64) -> u64 {
        let single = self.attention & attention::TRAP != 0;
        if single { 1 } else { left.min(self.until - self.now()) }
    }
}

/// Makes up to so many iterations. Returns how many, at least one, and whether the repetition goes on.
type Iterate = fn(&mut Cpu, &mut Env<'_>, &Op, u64) -> Run<(u64, bool)>;

/// Runs `iterate` once, or as often as the prefix says and the run allows.
pub(crate) fn repeat(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, iterate: Iterate) -> Run<Flow> {
    if op.rep == Rep::None {
        iterate(cpu, env, op, 1)?;
        return Ok(Flow::Next);
    }
    let mut left = cpu.gpr[usize::from(RCX)] & mask(op.address_bytes);
    while left > 0 {
        let allowed = cpu.iterations(left);
        let (done, goes_on) = iterate(cpu, env, op, allowed)?;
        left -= done;
        cpu.put_reg_sized(op.address_bytes, RCX, left);
        cpu.tick += done;
        cpu.deliveries = 0;
        if !goes_on || left == 0 {
            // The loop counts the instruction itself.
            cpu.tick -= 1;
            return Ok(Flow::Next);
        }
        if cpu.now() >= cpu.until || cpu.limit == 0 || cpu.attention & attention::TRAP != 0 {
            cpu.tick -= 1;
            cpu.rip = op.ip();
            return Ok(Flow::Jump);
        }
    }
    Ok(Flow::Next)
}

fn movs<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, allowed: u64) -> Run<(u64, bool)> {
    let from = cpu.source(op, W::BYTES)?;
    let to = cpu.destination(op, W::BYTES, true)?;
    let count = movs_run::<W>(cpu, env, from, to, allowed);
    if count == 1 {
        let value = cpu.read::<W>(env, from)?;
        cpu.write::<W>(env, to, value)?;
    }
    cpu.advance::<W>(op, RSI, count);
    cpu.advance::<W>(op, RDI, count);
    Ok((count, true))
}

/// Copies as many elements as lie in pages at hand. Returns how many; 1 if it copied none.
fn movs_run<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, from: u64, to: u64, allowed: u64) -> u64 {
    if allowed == 1 || !cpu.flat || cpu.down() {
        return 1;
    }
    let bytes = allowed.saturating_mul(W::BYTES as u64);
    let (Some(source), Some(target)) =
        (cpu.span(from, bytes, Access::Read), cpu.span(to, bytes, Access::Write))
    else {
        return 1;
    };
    let count = source.1.min(target.1) / W::BYTES as u64;
    if count > 1 {
        env.ram_copy::<W>(source.0, target.0, count as usize);
    }
    count.max(1)
}

fn stos<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, allowed: u64) -> Run<(u64, bool)> {
    let to = cpu.destination(op, W::BYTES, true)?;
    let value = cpu.reg::<W>(RAX);
    let mut count = 1;
    if allowed > 1
        && cpu.flat
        && !cpu.down()
        && let Some((at, bytes)) = cpu.span(to, allowed.saturating_mul(W::BYTES as u64), Access::Write)
        && bytes >= 2 * W::BYTES as u64
    {
        count = bytes / W::BYTES as u64;
        env.ram_fill::<W>(at, count as usize, value);
    } else {
        cpu.write::<W>(env, to, value)?;
    }
    cpu.advance::<W>(op, RDI, count);
    Ok((count, true))
}

fn lods<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, _: u64) -> Run<(u64, bool)> {
    let from = cpu.source(op, W::BYTES)?;
    let value = cpu.read::<W>(env, from)?;
    cpu.put_reg::<W>(RAX, value);
    cpu.advance::<W>(op, RSI, 1);
    Ok((1, true))
}

fn goes_on(cpu: &Cpu, op: &Op) -> bool {
    match op.rep {
        Rep::None => false,
        Rep::While => cpu.flags.zf(),
        Rep::Until => !cpu.flags.zf(),
    }
}

fn cmps<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, _: u64) -> Run<(u64, bool)> {
    let to = cpu.destination(op, W::BYTES, false)?;
    let from = cpu.source(op, W::BYTES)?;
    // In this order: if both fault, it is the destination that does.
    let b = cpu.read::<W>(env, to)?;
    let a = cpu.read::<W>(env, from)?;
    sub::<W>(&mut cpu.flags, a, b, 0);
    cpu.advance::<W>(op, RSI, 1);
    cpu.advance::<W>(op, RDI, 1);
    Ok((1, goes_on(cpu, op)))
}

fn scas<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, _: u64) -> Run<(u64, bool)> {
    let to = cpu.destination(op, W::BYTES, false)?;
    let b = cpu.read::<W>(env, to)?;
    let a = cpu.reg::<W>(RAX);
    sub::<W>(&mut cpu.flags, a, b, 0);
    cpu.advance::<W>(op, RDI, 1);
    Ok((1, goes_on(cpu, op)))
}

fn run_movs<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    repeat(cpu, env, op, movs::<W>)
}

fn run_stos<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    repeat(cpu, env, op, stos::<W>)
}

fn run_lods<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    repeat(cpu, env, op, lods::<W>)
}

fn run_cmps<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    repeat(cpu, env, op, cmps::<W>)
}

fn run_scas<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    repeat(cpu, env, op, scas::<W>)
}

/// Sets the fields of a string instruction.
pub(crate) fn operands(decoding: &mut Decoding<'_>, bytes: u8) {
    let instruction = decoding.instruction;
    let op = &mut decoding.op;
    op.bytes = bytes;
    op.seg = super::decode::string_segment(decoding.mode, instruction);
    for kind in instruction.op_kinds() {
        op.address_bytes = match kind {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
            OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => 8,
            _ => continue,
        };
    }
    op.last = op.rep != Rep::None;
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    use Mnemonic::{
        Cmpsb, Cmpsd, Cmpsq, Cmpsw, Lodsb, Lodsd, Lodsq, Lodsw, Movsb, Movsd, Movsq, Movsw, Scasb, Scasd,
        Scasq, Scasw, Stosb, Stosd, Stosq, Stosw,
    };
    // MOVSD and CMPSD are also names of SSE instructions.
    if !decoding.instruction.is_string_instruction() {
        return None;
    }
    let mnemonic = decoding.instruction.mnemonic();
    let bytes = match mnemonic {
        Movsb | Stosb | Lodsb | Cmpsb | Scasb => 1,
        Movsw | Stosw | Lodsw | Cmpsw | Scasw => 2,
        Movsd | Stosd | Lodsd | Cmpsd | Scasd => 4,
        Movsq | Stosq | Lodsq | Cmpsq | Scasq => 8,
        _ => return None,
    };
    operands(decoding, bytes);
    decoding.run(match mnemonic {
        Movsb | Movsw | Movsd | Movsq => by_size!(bytes, run_movs),
        Stosb | Stosw | Stosd | Stosq => by_size!(bytes, run_stos),
        Lodsb | Lodsw | Lodsd | Lodsq => by_size!(bytes, run_lods),
        Cmpsb | Cmpsw | Cmpsd | Cmpsq => by_size!(bytes, run_cmps),
        _ => by_size!(bytes, run_scas),
    })
}
