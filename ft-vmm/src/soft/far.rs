//! Transfers that may change CS: far jumps, calls and returns, IRET, INT n.

use super::cpu::{Cpu, Exception, canonical, vector};
use super::decode::Decoding;
use super::deliver::{self, Cause};
use super::flags::{self, IF, IOPL, NT, VM};
use super::op::{CS, Env, Flow, Op, Run, SS};
use super::segments::{self, BIG, DATA_SEGMENTS, Descriptor, LONG, PRESENT, TYPE_CODE, TYPE_CONFORMING};
use super::stack::Stack;
use super::word::{Word, by_size};
use crate::vcpu::Segment;
use iced_x86::{Code, Mnemonic, OpKind};

/// INT n and its kin: the vector is the immediate.
fn int(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let back = std::mem::replace(&mut cpu.rip, op.next);
    let event = Exception { vector: op.imm as u8, ..Exception::default() };
    let entered = deliver::enter(cpu, env, &event, Cause::Software);
    if entered.is_err() {
        cpu.rip = back;
    }
    entered.map(|()| Flow::Jump)
}

fn into(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    if cpu.flags.of() { int(cpu, env, op) } else { Ok(Flow::Next) }
}

/// INT1: a trap whose gate is not checked for privilege.
fn int1(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.rip = op.next;
    let event = Exception { vector: vector::DB, ..Exception::default() };
    deliver::deliver(cpu, env, event, Cause::Trap);
    Ok(Flow::Jump)
}

/// The descriptor of a code segment to return to, or to jump or call to with `returning` unset, and the privilege level there.
fn code_segment(cpu: &mut Cpu, env: &mut Env<'_>, selector: u16, returning: bool) -> Run<(Descriptor, u8)> {
    if selector & !3 == 0 {
        return Err(cpu.raise_gp());
    }
    let mut found = cpu.descriptor(env, selector, vector::GP)?;
    let rpl = found.rpl();
    let cpl = if returning { rpl } else { cpu.cpl };
    let privileged = if found.has(TYPE_CONFORMING) {
        found.dpl() <= cpl
    } else {
        found.dpl() == cpl && (returning || rpl <= cpl)
    };
    let bits = !(cpu.long_mode() && found.has(LONG | BIG));
    let code = found.is_code() && privileged && bits && (!returning || rpl >= cpu.cpl);
    if !code {
        return Err(cpu.raise_code(vector::GP, segments::code(selector)));
    }
    if !found.has(PRESENT) {
        return Err(cpu.raise_code(vector::NP, segments::code(selector)));
    }
    cpu.mark_accessed(env, &mut found)?;
    Ok((found, cpl))
}

/// Raises #GP unless execution can go on at `rip` in the segment.
fn check_rip(cpu: &mut Cpu, code: &Descriptor, rip: u64) -> Run<()> {
    let long = cpu.long_mode() && code.has(LONG);
    let reachable = if long { canonical(rip) } else { rip <= u64::from(code.limit()) };
    if reachable { Ok(()) } else { Err(cpu.raise_gp()) }
}

/// Goes to `selector`:`rip` at the same privilege level; in protected mode.
fn jump_to(cpu: &mut Cpu, env: &mut Env<'_>, selector: u16, rip: u64) -> Run<()> {
    let (code, cpl) = code_segment(cpu, env, selector, false)?;
    check_rip(cpu, &code, rip)?;
    cpu.rip = rip;
    cpu.put_code_segment(&code, cpl);
    Ok(())
}

/// Goes to `selector`:`rip` in real mode.
fn jump_real(cpu: &mut Cpu, selector: u16, rip: u64) -> Run<()> {
    if rip > u64::from(cpu.segment(CS).limit) {
        return Err(cpu.raise_gp());
    }
    let code = segments::real(cpu.segment(CS), selector);
    cpu.rip = rip;
    cpu.put_code(code, 0);
    Ok(())
}

/// The pointer: in memory, or in `imm` (offset) and `disp` (selector).
fn pointer<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<(u16, u64)> {
    if !op.memory {
        return Ok((op.disp as u16, op.imm));
    }
    let address = cpu.address(op, W::BYTES + 2, false)?;
    let offset = cpu.read::<W>(env, address)?;
    let selector = cpu.read::<u16>(env, address.wrapping_add(W::BYTES as u64))?;
    Ok((selector as u16, offset))
}

fn jmp_far<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let (selector, offset) = pointer::<W>(cpu, env, op)?;
    if !cpu.protected() {
        jump_real(cpu, selector, offset)?;
    } else if let Some(gate) = super::gate::find(cpu, env, selector)? {
        jump_to(cpu, env, gate.selector, gate.offset)?;
    } else {
        jump_to(cpu, env, selector, offset)?;
    }
    Ok(Flow::Jump)
}

fn call_far<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let (selector, offset) = pointer::<W>(cpu, env, op)?;
    if cpu.protected()
        && let Some(gate) = super::gate::find(cpu, env, selector)?
    {
        super::gate::call(cpu, env, &gate, op.next)?;
        return Ok(Flow::Jump);
    }
    let bytes = W::BYTES as u8;
    let mut stack = Stack::new(cpu);
    stack.probe(cpu, env, 2, bytes)?;
    let back = u64::from(cpu.segment(CS).selector);
    // The return address is written only when the target is known to be good, on the stack as it was.
    let before = (cpu.rip, *cpu.segment(CS), cpu.cpl);
    if cpu.protected() {
        jump_to(cpu, env, selector, offset)?;
    } else {
        jump_real(cpu, selector, offset)?;
    }
    let pushed = stack.push(cpu, env, bytes, back).and_then(|()| stack.push(cpu, env, bytes, op.next));
    if pushed.is_err() {
        cpu.rip = before.0;
        cpu.put_code(before.1, before.2);
        return pushed.map(|()| Flow::Jump);
    }
    stack.commit(cpu);
    Ok(Flow::Jump)
}

/// RETF, with bytes of arguments.
fn ret_far<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let bytes = W::BYTES as u8;
    let mut stack = Stack::new(cpu);
    let rip = stack.pop(cpu, env, bytes)?;
    let selector = stack.pop(cpu, env, bytes)? as u16;
    stack.pointer = stack.pointer.wrapping_add(op.imm);
    if !cpu.protected() {
        jump_real(cpu, selector, rip)?;
        stack.commit(cpu);
        return Ok(Flow::Jump);
    }
    let (code, cpl) = code_segment(cpu, env, selector, true)?;
    check_rip(cpu, &code, rip)?;
    if cpl == cpu.cpl {
        stack.commit(cpu);
        cpu.rip = rip;
        cpu.put_code_segment(&code, cpl);
        return Ok(Flow::Jump);
    }
    let pointer = stack.pop(cpu, env, bytes)?;
    let segment = stack.pop(cpu, env, bytes)? as u16;
    outward(cpu, env, &code, cpl, (segment, pointer.wrapping_add(op.imm)), rip)?;
    Ok(Flow::Jump)
}

/// Returns to an outer ring with the stack given.
fn outward(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    code: &Descriptor,
    cpl: u8,
    stack: (u16, u64),
    rip: u64,
) -> Run<()> {
    let to_long = cpu.long_mode() && code.has(LONG);
    let segment = if stack.0 & !3 == 0 && to_long && cpl != 3 && (stack.0 & 3) as u8 == cpl {
        segments::null(stack.0, cpl)
    } else if stack.0 & !3 == 0 {
        return Err(cpu.raise_gp());
    } else {
        let mut descriptor = cpu.descriptor(env, stack.0, vector::GP)?;
        cpu.check_stack(&descriptor, cpl, vector::GP)?;
        cpu.mark_accessed(env, &mut descriptor)?;
        descriptor.segment()
    };
    let inner = cpu.cpl;
    cpu.rip = rip;
    cpu.s.segments[usize::from(SS)] = segment;
    cpu.put_code_segment(code, cpl);
    let mut outer = Stack::new(cpu);
    outer.pointer = stack.1;
    outer.commit(cpu);
    if cpl > inner {
        forget_inner_segments(cpu, cpl);
    }
    Ok(())
}

/// Data segments that the outer ring may not use become null.
fn forget_inner_segments(cpu: &mut Cpu, cpl: u8) {
    for number in DATA_SEGMENTS {
        let segment = cpu.segment(number);
        let dpl = (segment.attributes >> 5 & 3) as u8;
        let conforming = segment.attributes & (TYPE_CODE | TYPE_CONFORMING) == TYPE_CODE | TYPE_CONFORMING;
        let unusable = segment.attributes & Segment::UNUSABLE != 0;
        if !unusable && !conforming && dpl < cpl {
            let base = segment.base;
            // In 64-bit mode the bases of FS and GS outlive their selectors.
            let kept = if cpu.flat { base } else { 0 };
            cpu.s.segments[usize::from(number)] = Segment { base: kept, ..segments::null(0, 0) };
        }
    }
}

fn iret<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let bytes = W::BYTES as u8;
    if cpu.protected() && cpu.flags.rest() & NT != 0 {
        // A return from a nested task, of which there are none: #GP in long mode, and here in all.
        return Err(cpu.raise_gp());
    }
    let mut stack = Stack::new(cpu);
    let rip = stack.pop(cpu, env, bytes)?;
    let selector = stack.pop(cpu, env, bytes)? as u16;
    let flags = stack.pop(cpu, env, bytes)?;
    let size = if W::BITS == 16 { 0xffff } else { u64::MAX };
    if !cpu.protected() {
        jump_real(cpu, selector, rip)?;
        stack.commit(cpu);
        cpu.load_flags(flags, size & !(VM | flags::VIF | flags::VIP));
        return Ok(Flow::Jump);
    }
    if flags & VM != 0 && W::BITS == 32 && cpu.cpl == 0 && !cpu.long_mode() {
        tracing::warn!(
            rip = cpu.rip,
            "the guest enters virtual-8086 mode, which this processor does not have"
        );
        return Err(cpu.raise_gp());
    }
    let (code, cpl) = code_segment(cpu, env, selector, true)?;
    check_rip(cpu, &code, rip)?;
    // IOPL and IF are loaded with the rights of the ring that returns.
    let mut mask = size & !(VM | flags::VIF | flags::VIP);
    if cpu.cpl > 0 {
        mask &= !IOPL;
    }
    if cpu.cpl > cpu.iopl() {
        mask &= !IF;
    }
    if cpu.flat || cpl > cpu.cpl {
        let pointer = stack.pop(cpu, env, bytes)?;
        let segment = stack.pop(cpu, env, bytes)? as u16;
        outward(cpu, env, &code, cpl, (segment, pointer), rip)?;
    } else {
        stack.commit(cpu);
        cpu.rip = rip;
        cpu.put_code_segment(&code, cpl);
    }
    let old = cpu.flags.get() & !flags::RF;
    cpu.flags.set((old & !mask) | (flags & mask & !flags::RF));
    cpu.flags_changed();
    Ok(Flow::Jump)
}

fn decode_pointer(decoding: &mut Decoding<'_>) -> u8 {
    let instruction = decoding.instruction;
    match instruction.op0_kind() {
        OpKind::FarBranch16 => {
            decoding.op.imm = u64::from(instruction.far_branch16());
            decoding.op.disp = u64::from(instruction.far_branch_selector());
            2
        }
        OpKind::FarBranch32 => {
            decoding.op.imm = u64::from(instruction.far_branch32());
            decoding.op.disp = u64::from(instruction.far_branch_selector());
            4
        }
        _ => match instruction.code() {
            Code::Jmp_m1616 | Code::Call_m1616 => 2,
            Code::Jmp_m1664 | Code::Call_m1664 => 8,
            _ => 4,
        },
    }
}

fn decode_int(decoding: &mut Decoding<'_>, vector: Option<u8>) -> Option<()> {
    if let Some(vector) = vector {
        decoding.op.imm = u64::from(vector);
    }
    decoding.run_last(int)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let instruction = decoding.instruction;
    match instruction.mnemonic() {
        Mnemonic::Int3 => decode_int(decoding, Some(vector::BP)),
        Mnemonic::Int => decode_int(decoding, None),
        Mnemonic::Int1 => decoding.run_last(int1),
        Mnemonic::Into => {
            decoding.op.imm = u64::from(vector::OF);
            decoding.run_last(into)
        }
        Mnemonic::Iret => decoding.run_last(iret::<u16>),
        Mnemonic::Iretd => decoding.run_last(iret::<u32>),
        Mnemonic::Iretq => decoding.run_last(iret::<u64>),
        Mnemonic::Jmp => {
            let bytes = decode_pointer(decoding);
            decoding.run_last(by_size!(bytes, jmp_far))
        }
        Mnemonic::Call => {
            let bytes = decode_pointer(decoding);
            decoding.run_last(by_size!(bytes, call_far))
        }
        Mnemonic::Retf => {
            let bytes = match instruction.code() {
                Code::Retfw | Code::Retfw_imm16 => 2,
                Code::Retfd | Code::Retfd_imm16 => 4,
                _ => 8,
            };
            decoding.run_last(by_size!(bytes, ret_far))
        }
        _ => None,
    }
}
