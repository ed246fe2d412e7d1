//! Interrupts and exceptions: through the IDT of long and protected mode or the table of real mode; double and triple faults.
//!
//! Invariant: a delivery that fails has changed nothing but memory below the stack pointer.
//!
//! RF is never set in the flags that are pushed: it only matters to breakpoint registers, which have no effect here. Task gates
//! are not supported: they raise #GP.

use super::cpu::{CR0_PE, Cpu, Exception, canonical, vector};
use super::flags::{AC, IF, NT, RF, TF, VM};
use super::op::{CS, Env, RSP, Run, SS};
use super::segments::{self, BIG, Descriptor, LONG, PRESENT, TYPE_CONFORMING};
use super::stack::Stack;
use crate::vcpu::Segment;

/// What an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The interrupt controller.
    External,
    /// An instruction that cannot be executed.
    Exception,
    /// An instruction that was executed, with a trap.
    Trap,
    /// INT n, INT3, INTO: the gate's privilege is checked.
    Software,
}

/// Delivers an event whose return address is RIP.
pub(crate) fn deliver(cpu: &mut Cpu, env: &mut Env<'_>, event: Exception, cause: Cause) {
    let (mut event, mut cause) = (event, cause);
    cpu.deliveries += 1;
    loop {
        if event.vector == vector::PF && cause == Cause::Exception {
            cpu.s.cr2 = event.address;
        }
        if enter(cpu, env, &event, cause).is_ok() {
            return;
        }
        let mut second = cpu.raised;
        if second.vector == vector::PF {
            cpu.s.cr2 = second.address;
        }
        if cause == Cause::Exception && event.vector == vector::DF {
            return shut_down(cpu);
        }
        if cause == Cause::Exception && doubles(event.vector, second.vector) {
            second = Exception { vector: vector::DF, error: Some(0), ..Exception::default() };
        }
        (event, cause) = (second, Cause::Exception);
    }
}

/// Stops the processor for good.
pub(crate) fn shut_down(cpu: &mut Cpu) {
    cpu.s.shutdown = true;
    cpu.attend(super::cpu::attention::HALT);
}

/// Whether an exception during the delivery of another makes a double fault.
fn doubles(first: u8, second: u8) -> bool {
    let contributory =
        |vector| matches!(vector, vector::DE | vector::TS | vector::NP | vector::SS | vector::GP);
    match first {
        vector::PF => contributory(second) || second == vector::PF,
        _ => contributory(first) && contributory(second),
    }
}

/// Goes to the handler of an event, or raises what stands in the way.
pub(crate) fn enter(cpu: &mut Cpu, env: &mut Env<'_>, event: &Exception, cause: Cause) -> Run<()> {
    if cpu.s.cr0 & CR0_PE == 0 {
        cpu.entered = true;
        return enter_real(cpu, env, event.vector);
    }
    let user = cpu.tlb.user();
    cpu.tlb.put_user(false);
    let entered = if cpu.long_mode() {
        enter_long(cpu, env, event, cause)
    } else {
        enter_legacy(cpu, env, event, cause)
    };
    match entered {
        Ok(()) => cpu.entered = true,
        Err(_) => cpu.tlb.put_user(user),
    }
    entered
}

fn enter_real(cpu: &mut Cpu, env: &mut Env<'_>, number: u8) -> Run<()> {
    let offset = u64::from(number) * 4;
    if offset + 3 > u64::from(cpu.s.idt.limit) {
        return Err(cpu.raise_gp());
    }
    let entry = cpu.read::<u32>(env, cpu.s.idt.base.wrapping_add(offset))?;
    let mut stack = Stack::new(cpu);
    let (flags, selector) = (cpu.flags.get(), cpu.segment(CS).selector);
    for value in [flags, u64::from(selector), cpu.rip] {
        stack.push(cpu, env, 2, value)?;
    }
    stack.commit(cpu);
    cpu.flags.put_rest(IF | TF | AC | RF, false);
    let code = segments::real(cpu.segment(CS), (entry >> 16) as u16);
    cpu.rip = entry & 0xffff;
    cpu.put_code(code, 0);
    Ok(())
}

/// A gate of the IDT.
struct Gate {
    number: u8,
    /// 0 or, for error codes, 1: not by an instruction.
    external: u32,
    /// Type: 6, 7, 14 or 15.
    kind: u8,
    selector: u16,
    offset: u64,
    ist: u8,
}

impl Gate {
    fn is_trap(&self) -> bool {
        self.kind & 1 != 0
    }

    /// Raises `vector` with the error code of a selector.
    fn refuse<T>(&self, cpu: &mut Cpu, vector: u8, selector: u16) -> Run<T> {
        Err(cpu.raise_code(vector, segments::code(selector) | self.external))
    }

    /// Reads and checks it.
    fn read(cpu: &mut Cpu, env: &mut Env<'_>, number: u8, cause: Cause) -> Run<Self> {
        let size: u64 = if cpu.long_mode() { 16 } else { 8 };
        let external = u32::from(cause != Cause::Software);
        let error = u32::from(number) << 3 | 2 | external;
        let offset = u64::from(number) * size;
        if offset + size - 1 > u64::from(cpu.s.idt.limit) {
            return Err(cpu.raise_code(vector::GP, error));
        }
        let address = cpu.wrap(cpu.s.idt.base.wrapping_add(offset));
        let low = cpu.read::<u64>(env, address)?;
        let high = if size == 16 { cpu.read::<u64>(env, address.wrapping_add(8))? } else { 0 };
        let kind = (low >> 40 & 0x1f) as u8;
        let known = matches!(kind, 14 | 15) || (size == 8 && matches!(kind, 6 | 7));
        let closed = cause == Cause::Software && ((low >> 45 & 3) as u8) < cpu.cpl;
        if !known || closed {
            return Err(cpu.raise_code(vector::GP, error));
        }
        if low >> 47 & 1 == 0 {
            return Err(cpu.raise_code(vector::NP, error));
        }
        let mut offset = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        if kind < 14 {
            offset &= 0xffff;
        }
        let ist = if size == 16 { (low >> 32 & 7) as u8 } else { 0 };
        Ok(Self { number, external, kind, selector: (low >> 16) as u16, offset, ist })
    }

    /// Reads and checks the code segment, and says at which privilege level the handler runs.
    fn code(&self, cpu: &mut Cpu, env: &mut Env<'_>) -> Run<(Descriptor, u8)> {
        if self.selector & !3 == 0 {
            return self.refuse(cpu, vector::GP, 0);
        }
        let found = cpu.descriptor(env, self.selector, vector::GP);
        let Ok(mut descriptor) = found else {
            cpu.raised.error = cpu.raised.error.map(|error| error | self.external);
            return Err(super::op::Raised);
        };
        let bits = !cpu.long_mode() || (descriptor.has(LONG) && !descriptor.has(BIG));
        if !descriptor.is_code() || descriptor.dpl() > cpu.cpl || !bits {
            return self.refuse(cpu, vector::GP, self.selector);
        }
        if !descriptor.has(PRESENT) {
            return self.refuse(cpu, vector::NP, self.selector);
        }
        cpu.mark_accessed(env, &mut descriptor)?;
        let cpl = if descriptor.has(TYPE_CONFORMING) { cpu.cpl } else { descriptor.dpl() };
        Ok((descriptor, cpl))
    }
}

fn enter_long(cpu: &mut Cpu, env: &mut Env<'_>, event: &Exception, cause: Cause) -> Run<()> {
    let gate = Gate::read(cpu, env, event.vector, cause)?;
    let (code, cpl) = gate.code(cpu, env)?;
    let inward = cpl < cpu.cpl;
    let top = if gate.ist > 0 {
        stack_of_task(cpu, env, 0x24 + 8 * (u64::from(gate.ist) - 1), gate.external)?
    } else if inward {
        stack_of_task(cpu, env, 4 + 8 * u64::from(cpl), gate.external)?
    } else {
        cpu.gpr[usize::from(RSP)]
    };
    if !canonical(gate.offset) {
        return Err(cpu.raise_code(vector::GP, gate.external));
    }
    let frame = [
        u64::from(cpu.segment(SS).selector),
        cpu.gpr[usize::from(RSP)],
        cpu.flags.get(),
        u64::from(cpu.segment(CS).selector),
        cpu.rip,
    ];
    cpu.tlb.put_user(cpl == 3);
    let mut stack = Stack::flat(top & !0xf);
    stack.probe(cpu, env, 5 + u64::from(event.error.is_some()), 8)?;
    for value in frame.into_iter().chain(event.error.map(u64::from)) {
        stack.push(cpu, env, 8, value)?;
    }
    cpu.gpr[usize::from(RSP)] = stack.pointer;
    if inward {
        cpu.s.segments[usize::from(SS)] = segments::null(u16::from(cpl), cpl);
    }
    finish(cpu, &gate, &code, cpl);
    Ok(())
}

/// A stack pointer of the 64-bit TSS.
pub(crate) fn stack_of_task(cpu: &mut Cpu, env: &mut Env<'_>, offset: u64, external: u32) -> Run<u64> {
    let task = cpu.s.task;
    if offset + 7 > u64::from(task.limit) {
        return Err(cpu.raise_code(vector::TS, segments::code(task.selector) | external));
    }
    let pointer = cpu.read::<u64>(env, task.base.wrapping_add(offset))?;
    if !canonical(pointer) {
        return Err(cpu.raise_code(vector::SS, external));
    }
    Ok(pointer)
}

fn finish(cpu: &mut Cpu, gate: &Gate, code: &Descriptor, cpl: u8) {
    cpu.rip = gate.offset;
    cpu.flags.put_rest(TF | NT | RF | VM, false);
    if !gate.is_trap() {
        cpu.flags.put_rest(IF, false);
    }
    cpu.put_code_segment(code, cpl);
    cpu.flags_changed();
}

fn enter_legacy(cpu: &mut Cpu, env: &mut Env<'_>, event: &Exception, cause: Cause) -> Run<()> {
    let gate = Gate::read(cpu, env, event.vector, cause)?;
    let _ = gate.number;
    let (code, cpl) = gate.code(cpu, env)?;
    if gate.offset > u64::from(code.limit()) {
        return Err(cpu.raise_code(vector::GP, gate.external));
    }
    let bytes = if gate.kind < 14 { 2 } else { 4 };
    let (selector, pointer) = (cpu.segment(SS).selector, cpu.gpr[usize::from(RSP)]);
    let (flags, old_code) = (cpu.flags.get(), cpu.segment(CS).selector);
    let old_stack = *cpu.segment(SS);
    let inward = cpl < cpu.cpl;
    let mut values = Vec::with_capacity(6);
    if inward {
        values.extend([u64::from(selector), pointer]);
    }
    values.extend([flags, u64::from(old_code), cpu.rip]);
    values.extend(event.error.map(u64::from));
    if inward {
        let (segment, top) = inner_stack(cpu, env, cpl, gate.external)?;
        cpu.s.segments[usize::from(SS)] = segment;
        cpu.gpr[usize::from(RSP)] = top;
    }
    cpu.tlb.put_user(cpl == 3);
    let mut stack = Stack::new(cpu);
    let pushed = push_all(cpu, env, &mut stack, bytes, &values);
    if pushed.is_err() {
        cpu.s.segments[usize::from(SS)] = old_stack;
        cpu.gpr[usize::from(RSP)] = pointer;
        return pushed;
    }
    stack.commit(cpu);
    finish(cpu, &gate, &code, cpl);
    Ok(())
}

fn push_all(cpu: &mut Cpu, env: &mut Env<'_>, stack: &mut Stack, bytes: u8, values: &[u64]) -> Run<()> {
    stack.probe(cpu, env, values.len() as u64, bytes)?;
    values.iter().try_for_each(|value| stack.push(cpu, env, bytes, *value))
}

/// SS and ESP of an inner ring from the TSS of protected mode.
pub(crate) fn inner_stack(cpu: &mut Cpu, env: &mut Env<'_>, cpl: u8, external: u32) -> Run<(Segment, u64)> {
    let task = cpu.s.task;
    let wide = task.attributes & 8 != 0;
    let offset = if wide { 4 + 8 * u64::from(cpl) } else { 2 + 4 * u64::from(cpl) };
    let size = if wide { 4 } else { 2 };
    if offset + size + 1 > u64::from(task.limit) {
        return Err(cpu.raise_code(vector::TS, segments::code(task.selector) | external));
    }
    let at = cpu.wrap(task.base.wrapping_add(offset));
    let top = if wide { cpu.read::<u32>(env, at)? } else { cpu.read::<u16>(env, at)? };
    let selector = cpu.read::<u16>(env, at.wrapping_add(size))? as u16;
    if selector & !3 == 0 {
        return Err(cpu.raise_code(vector::TS, external));
    }
    let mut descriptor = cpu.descriptor(env, selector, vector::TS)?;
    cpu.check_stack(&descriptor, cpl, vector::TS)?;
    cpu.mark_accessed(env, &mut descriptor)?;
    Ok((descriptor.segment(), top))
}
