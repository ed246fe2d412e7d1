//! Call gates. Task gates and TSS descriptors as targets are not supported: they raise #GP, as they do in long mode.

use super::cpu::{Cpu, canonical, vector};
use super::deliver;
use super::op::{Env, RSP, Run, SS};
use super::segments::{self, BIG, Descriptor, LONG, PRESENT, TYPE_CONFORMING};
use super::stack::Stack;
use crate::vcpu::Segment;

/// A call gate.
pub(crate) struct CallGate {
    /// Target.
    pub(crate) selector: u16,
    /// Target.
    pub(crate) offset: u64,
    /// Values that are copied to an inner stack.
    count: u64,
    /// Size of what is pushed.
    bytes: u8,
}

/// The call gate that `selector` names; nothing if it names code.
pub(crate) fn find(cpu: &mut Cpu, env: &mut Env<'_>, selector: u16) -> Run<Option<CallGate>> {
    if selector & !3 == 0 {
        return Err(cpu.raise_gp());
    }
    let descriptor = cpu.descriptor(env, selector, vector::GP)?;
    let Some(kind) = descriptor.system() else { return Ok(None) };
    let allowed = descriptor.dpl() >= cpu.cpl.max(descriptor.rpl());
    let bytes = match (kind, cpu.long_mode()) {
        (12, true) => 8,
        (12, false) => 4,
        (4, false) => 2,
        _ => return Err(cpu.raise_code(vector::GP, segments::code(selector))),
    };
    if !allowed {
        return Err(cpu.raise_code(vector::GP, segments::code(selector)));
    }
    if !descriptor.has(PRESENT) {
        return Err(cpu.raise_code(vector::NP, segments::code(selector)));
    }
    let raw = descriptor.raw;
    let mut offset = raw & 0xffff | raw >> 32 & 0xffff_0000;
    if bytes == 2 {
        offset &= 0xffff;
    }
    let mut count = raw >> 32 & 0x1f;
    if bytes == 8 {
        let next = descriptor.address.wrapping_add(8);
        let high = cpu.as_supervisor(|cpu| cpu.read::<u64>(env, next))?;
        offset |= high << 32;
        count = 0;
    }
    Ok(Some(CallGate { selector: (raw >> 16) as u16, offset, count, bytes }))
}

/// The code segment behind a gate, and its privilege level.
fn target(cpu: &mut Cpu, env: &mut Env<'_>, gate: &CallGate) -> Run<(Descriptor, u8)> {
    if gate.selector & !3 == 0 {
        return Err(cpu.raise_gp());
    }
    let mut code = cpu.descriptor(env, gate.selector, vector::GP)?;
    let long = !cpu.long_mode() || (code.has(LONG) && !code.has(BIG));
    if !code.is_code() || code.dpl() > cpu.cpl || !long {
        return Err(cpu.raise_code(vector::GP, segments::code(gate.selector)));
    }
    if !code.has(PRESENT) {
        return Err(cpu.raise_code(vector::NP, segments::code(gate.selector)));
    }
    let reachable =
        if cpu.long_mode() { canonical(gate.offset) } else { gate.offset <= u64::from(code.limit()) };
    if !reachable {
        return Err(cpu.raise_gp());
    }
    cpu.mark_accessed(env, &mut code)?;
    let cpl = if code.has(TYPE_CONFORMING) { cpu.cpl } else { code.dpl() };
    Ok((code, cpl))
}

/// CALL through a gate.
pub(crate) fn call(cpu: &mut Cpu, env: &mut Env<'_>, gate: &CallGate, back: u64) -> Run<()> {
    let (code, cpl) = target(cpu, env, gate)?;
    let inward = cpl < cpu.cpl;
    let old = (*cpu.segment(SS), cpu.gpr[usize::from(RSP)], cpu.cpl, cpu.flat);
    let mut values = Vec::new();
    if inward {
        values.extend([u64::from(old.0.selector), old.1]);
        let mut outer = Stack::new(cpu);
        let mut copied = Vec::new();
        for _ in 0..gate.count {
            copied.push(outer.pop(cpu, env, gate.bytes)?);
        }
        values.extend(copied.into_iter().rev());
        let (segment, top) = new_stack(cpu, env, cpl)?;
        cpu.s.segments[usize::from(SS)] = segment;
        cpu.gpr[usize::from(RSP)] = top;
    }
    values.extend([u64::from(cpu.segment(super::op::CS).selector), back]);
    cpu.tlb.put_user(cpl == 3);
    // In long mode the handler's code is 64-bit, and so is its stack.
    let mut stack = if cpu.long_mode() { Stack::flat(cpu.gpr[usize::from(RSP)]) } else { Stack::new(cpu) };
    let pushed = push_all(cpu, env, &mut stack, gate.bytes, &values);
    if pushed.is_err() {
        cpu.s.segments[usize::from(SS)] = old.0;
        cpu.gpr[usize::from(RSP)] = old.1;
        cpu.tlb.put_user(old.2 == 3);
        return pushed;
    }
    stack.commit(cpu);
    cpu.rip = gate.offset;
    cpu.put_code_segment(&code, cpl);
    Ok(())
}

fn new_stack(cpu: &mut Cpu, env: &mut Env<'_>, cpl: u8) -> Run<(Segment, u64)> {
    if !cpu.long_mode() {
        return cpu.as_supervisor(|cpu| deliver::inner_stack(cpu, env, cpl, 0));
    }
    let top = cpu.as_supervisor(|cpu| deliver::stack_of_task(cpu, env, 4 + 8 * u64::from(cpl), 0))?;
    Ok((segments::null(u16::from(cpl), cpl), top))
}

fn push_all(cpu: &mut Cpu, env: &mut Env<'_>, stack: &mut Stack, bytes: u8, values: &[u64]) -> Run<()> {
    stack.probe(cpu, env, values.len() as u64, bytes)?;
    values.iter().try_for_each(|value| stack.push(cpu, env, bytes, *value))
}
