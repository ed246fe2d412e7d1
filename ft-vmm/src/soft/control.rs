//! Near jumps, calls and returns; LOOP and JCXZ.

use super::cpu::{Cpu, Mode, canonical, mask};
use super::decode::{Decoding, Form};
use super::mov::{by_condition, condition};
use super::op::{CS, Env, Flow, Op, RCX, Run};
use super::stack::Stack;
use super::word::{Word, by_size};
use iced_x86::Mnemonic;

impl Cpu {
    /// Raises #GP when execution cannot go on at `target`.
    #[inline(always)]
    pub(crate) fn check_target(&mut self, target: u64) -> Run<()> {
        let reachable =
            if self.flat { canonical(target) } else { target <= u64::from(self.segment(CS).limit) };
        if reachable { Ok(()) } else { Err(self.raise_gp()) }
    }
}

/// Leaves the block for the target in the operation.
#[inline(always)]
fn branch(cpu: &mut Cpu, op: &Op) -> Run<Flow> {
    if !cpu.flat {
        cpu.check_target(op.imm)?;
    }
    cpu.rip = op.imm;
    Ok(Flow::Jump)
}

fn jmp(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    branch(cpu, op)
}

fn jcc<const CC: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    if cpu.flags.holds::<CC>() { branch(cpu, op) } else { Ok(Flow::Next) }
}

fn jmp_reg<W: Word>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let target = cpu.reg::<W>(op.dst);
    cpu.check_target(target)?;
    cpu.rip = target;
    Ok(Flow::Jump)
}

fn jmp_mem<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let target = cpu.load_op::<W>(env, op)?;
    cpu.check_target(target)?;
    cpu.rip = target;
    Ok(Flow::Jump)
}

#[inline(always)]
fn call_to<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, target: u64) -> Run<Flow> {
    if let Err(raised) = cpu.check_target(target) {
        // A fault of the push comes first.
        let late = cpu.raised;
        Stack::new(cpu).probe(cpu, env, 1, W::BYTES as u8)?;
        cpu.raised = late;
        return Err(raised);
    }
    cpu.push::<W>(env, op.next)?;
    cpu.rip = target;
    Ok(Flow::Jump)
}

fn call<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    call_to::<W>(cpu, env, op, op.imm)
}

fn call_reg<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let target = cpu.reg::<W>(op.dst);
    call_to::<W>(cpu, env, op, target)
}

fn call_mem<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let target = cpu.load_op::<W>(env, op)?;
    call_to::<W>(cpu, env, op, target)
}

/// RET, with as many bytes of arguments as the immediate says.
fn ret<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let mut stack = Stack::new(cpu);
    let target = stack.pop(cpu, env, W::BYTES as u8)?;
    cpu.check_target(target)?;
    stack.pointer = stack.pointer.wrapping_add(op.imm);
    stack.commit(cpu);
    cpu.rip = target;
    Ok(Flow::Jump)
}

/// The counter, with the size of addresses.
fn counter(cpu: &Cpu, op: &Op) -> u64 {
    cpu.gpr[usize::from(RCX)] & mask(op.address_bytes)
}

/// LOOP, LOOPE, LOOPNE: which one is in `kind`.
fn loop_(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let count = counter(cpu, op).wrapping_sub(1);
    let goes_on = match op.kind {
        LOOPE => cpu.flags.zf(),
        LOOPNE => !cpu.flags.zf(),
        _ => true,
    };
    let taken = goes_on && count & mask(op.address_bytes) != 0;
    let flow = if taken { branch(cpu, op)? } else { Flow::Next };
    cpu.put_reg_sized(op.address_bytes, RCX, count);
    Ok(flow)
}

const LOOP: u16 = 0;
const LOOPE: u16 = 1;
const LOOPNE: u16 = 2;

fn jcxz(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    if counter(cpu, op) == 0 { branch(cpu, op) } else { Ok(Flow::Next) }
}

fn decode_loop(decoding: &mut Decoding<'_>, kind: u16) -> Option<()> {
    use iced_x86::Code::{
        Loop_rel8_16_CX, Loop_rel8_16_RCX, Loop_rel8_32_CX, Loop_rel8_64_RCX, Loope_rel8_16_CX,
        Loope_rel8_16_RCX, Loope_rel8_32_CX, Loope_rel8_64_RCX, Loopne_rel8_16_CX, Loopne_rel8_16_RCX,
        Loopne_rel8_32_CX, Loopne_rel8_64_RCX,
    };
    decoding.op.address_bytes = match decoding.instruction.code() {
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX | Loopne_rel8_16_CX
        | Loopne_rel8_32_CX => 2,
        Loop_rel8_16_RCX | Loop_rel8_64_RCX | Loope_rel8_16_RCX | Loope_rel8_64_RCX | Loopne_rel8_16_RCX
        | Loopne_rel8_64_RCX => 8,
        _ => 4,
    };
    decoding.op.kind = kind;
    decoding.run(loop_)
}

fn decode_jcxz(decoding: &mut Decoding<'_>, address_bytes: u8) -> Option<()> {
    decoding.op.address_bytes = address_bytes;
    decoding.run(jcxz)
}

fn decode_jcc(decoding: &mut Decoding<'_>, condition: u8) -> Option<()> {
    macro_rules! one {
        ($cc:literal) => {
            jcc::<$cc>
        };
    }
    decoding.run(by_condition!(condition, one))
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let instruction = decoding.instruction;
    let (bytes, form) = (decoding.op.bytes, decoding.form);
    // Operand size of a relative branch: in 64-bit mode 64 bits, whatever the prefixes say.
    let relative = if decoding.mode == Mode::Bits64 { 8 } else { bytes };
    match instruction.mnemonic() {
        Mnemonic::Jmp if instruction.is_jmp_short_or_near() => decoding.run_last(jmp),
        Mnemonic::Jmp if instruction.is_jmp_near_indirect() => decoding.run_last(if form == Form::Reg {
            by_size!(bytes, jmp_reg)
        } else {
            by_size!(bytes, jmp_mem)
        }),
        Mnemonic::Call if instruction.is_call_near() => decoding.run_last(by_size!(relative, call)),
        Mnemonic::Call if instruction.is_call_near_indirect() => decoding.run_last(if form == Form::Reg {
            by_size!(bytes, call_reg)
        } else {
            by_size!(bytes, call_mem)
        }),
        Mnemonic::Ret => {
            let size = instruction.stack_pointer_increment() - decoding.op.imm as i32;
            decoding.run_last(by_size!(size, ret))
        }
        Mnemonic::Loop => decode_loop(decoding, LOOP),
        Mnemonic::Loope => decode_loop(decoding, LOOPE),
        Mnemonic::Loopne => decode_loop(decoding, LOOPNE),
        Mnemonic::Jcxz => decode_jcxz(decoding, 2),
        Mnemonic::Jecxz => decode_jcxz(decoding, 4),
        Mnemonic::Jrcxz => decode_jcxz(decoding, 8),
        _ if instruction.is_jcc_short_or_near() => decode_jcc(decoding, condition(decoding)?),
        _ => None,
    }
}
