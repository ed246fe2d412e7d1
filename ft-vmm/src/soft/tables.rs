//! Descriptor tables: LGDT, SGDT, LIDT, SIDT, LLDT, SLDT, LTR, STR; LAR, LSL, VERR, VERW, ARPL.

use super::cpu::{Cpu, Mode, canonical, vector};
use super::decode::Decoding;
use super::flags::ZF;
use super::op::{Env, Flow, Op, Run};
use super::segments::{
    self, Descriptor, ORDINARY, PRESENT, TYPE_CODE, TYPE_CONFORMING, TYPE_READABLE, TYPE_WRITABLE,
};
use crate::vcpu::{Segment, Table};
use iced_x86::{Code, Mnemonic};

/// Types of system descriptors.
const LDT: u8 = 2;
const TSS_AVAILABLE_16: u8 = 1;
const TSS_AVAILABLE: u8 = 9;
/// Set in the type of a TSS in use.
const BUSY: u64 = 2;

/// Reads the pseudo-descriptor; the base has `bytes` bytes.
fn pseudo_descriptor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Table> {
    let address = cpu.address(op, 2 + if cpu.flat { 8 } else { 4 }, false)?;
    let limit = cpu.read::<u16>(env, address)? as u16;
    let at = address.wrapping_add(2);
    let base = match op.bytes {
        2 => cpu.read::<u32>(env, at)? & 0xff_ffff,
        4 => cpu.read::<u32>(env, at)?,
        _ => cpu.read::<u64>(env, at)?,
    };
    if !canonical(base) {
        return Err(cpu.raise_gp());
    }
    Ok(Table { base, limit })
}

fn lgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.privileged()?;
    cpu.s.gdt = pseudo_descriptor(cpu, env, op)?;
    Ok(Flow::Next)
}

fn lidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.privileged()?;
    cpu.s.idt = pseudo_descriptor(cpu, env, op)?;
    Ok(Flow::Next)
}

fn store(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, table: Table) -> Run<Flow> {
    let bytes = if cpu.flat { 10 } else { 6 };
    let mut data = [0; 10];
    data[..2].copy_from_slice(&table.limit.to_le_bytes());
    data[2..].copy_from_slice(&table.base.to_le_bytes());
    let address = cpu.address(op, bytes, true)?;
    cpu.write_bytes(env, address, &data[..bytes])?;
    Ok(Flow::Next)
}

fn sgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    store(cpu, env, op, cpu.s.gdt)
}

fn sidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    store(cpu, env, op, cpu.s.idt)
}

/// The 16-bit operand.
fn selector(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, register: u8) -> Run<u16> {
    let value = if op.memory { cpu.load_op::<u16>(env, op)? } else { cpu.reg::<u16>(register) };
    Ok(value as u16)
}

/// Raises #UD where there are no protected segments.
fn needs_protection(cpu: &mut Cpu) -> Run<()> {
    if cpu.protected() { Ok(()) } else { Err(cpu.raise(vector::UD)) }
}

/// A system segment; in long mode its base has 64 bits.
fn system_segment(cpu: &mut Cpu, env: &mut Env<'_>, descriptor: &Descriptor) -> Run<Segment> {
    let mut segment = descriptor.segment();
    if cpu.long_mode() {
        let next = descriptor.address.wrapping_add(8);
        let high = cpu.as_supervisor(|cpu| cpu.read::<u64>(env, next))?;
        segment.base |= high << 32;
        if !canonical(segment.base) || high >> 40 & 0x1f != 0 {
            return Err(cpu.raise_code(vector::GP, segments::code(descriptor.selector)));
        }
    }
    Ok(segment)
}

/// The descriptor that LLDT and LTR load, checked for its type.
fn loadable(cpu: &mut Cpu, env: &mut Env<'_>, selector: u16, types: &[u8]) -> Run<Descriptor> {
    if selector & 4 != 0 {
        return Err(cpu.raise_code(vector::GP, segments::code(selector)));
    }
    let descriptor = cpu.descriptor(env, selector, vector::GP)?;
    if !descriptor.system().is_some_and(|kind| types.contains(&kind)) {
        return Err(cpu.raise_code(vector::GP, segments::code(selector)));
    }
    if !descriptor.has(PRESENT) {
        return Err(cpu.raise_code(vector::NP, segments::code(selector)));
    }
    Ok(descriptor)
}

fn lldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    cpu.privileged()?;
    let selector = selector(cpu, env, op, op.dst)?;
    cpu.s.ldt = if selector & !3 == 0 {
        segments::null(selector, 0)
    } else {
        let descriptor = loadable(cpu, env, selector, &[LDT])?;
        system_segment(cpu, env, &descriptor)?
    };
    Ok(Flow::Next)
}

fn ltr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    cpu.privileged()?;
    let selector = selector(cpu, env, op, op.dst)?;
    if selector & !3 == 0 {
        return Err(cpu.raise_gp());
    }
    let types: &[u8] = if cpu.long_mode() { &[TSS_AVAILABLE] } else { &[TSS_AVAILABLE, TSS_AVAILABLE_16] };
    let mut descriptor = loadable(cpu, env, selector, types)?;
    let segment = system_segment(cpu, env, &descriptor)?;
    descriptor.raw |= BUSY << 40;
    let address = descriptor.address.wrapping_add(5);
    let byte = descriptor.raw >> 40;
    cpu.as_supervisor(|cpu| cpu.write::<u8>(env, address, byte))?;
    cpu.s.task = Segment { attributes: segment.attributes | BUSY as u16, ..segment };
    Ok(Flow::Next)
}

/// SLDT and STR.
fn store_selector(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, selector: u16) -> Run<Flow> {
    needs_protection(cpu)?;
    if op.memory {
        cpu.store_op::<u16>(env, op, u64::from(selector))?;
    } else {
        cpu.put_reg_sized(op.bytes, op.dst, u64::from(selector));
    }
    Ok(Flow::Next)
}

fn sldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    store_selector(cpu, env, op, cpu.s.ldt.selector)
}

fn str(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    store_selector(cpu, env, op, cpu.s.task.selector)
}

/// The descriptor that a selector names, if it can be looked at; page faults are raised, all else is no.
fn visible(cpu: &mut Cpu, env: &mut Env<'_>, selector: u16) -> Run<Option<Descriptor>> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    match cpu.descriptor(env, selector, vector::GP) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(raised) if cpu.raised.vector == vector::PF => Err(raised),
        Err(_) => Ok(None),
    }
}

fn reaches(cpu: &Cpu, descriptor: &Descriptor) -> bool {
    let conforming = descriptor.has(ORDINARY | TYPE_CODE | TYPE_CONFORMING);
    conforming || descriptor.dpl() >= cpu.cpl.max(descriptor.rpl())
}

fn put_zero(cpu: &mut Cpu, zero: bool) {
    cpu.flags.put(ZF, if zero { ZF } else { 0 });
}

fn lar(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    let selector = selector(cpu, env, op, op.src)?;
    let found = visible(cpu, env, selector)?;
    let known: &[u8] = if cpu.long_mode() { &[2, 9, 11, 12] } else { &[1, 2, 3, 4, 5, 9, 11, 12] };
    let found =
        found.filter(|found| found.system().is_none_or(|kind| known.contains(&kind)) && reaches(cpu, found));
    if let Some(found) = &found {
        cpu.put_reg_sized(op.bytes, op.dst, found.raw >> 32 & 0x00f0_ff00);
    }
    put_zero(cpu, found.is_some());
    Ok(Flow::Next)
}

fn lsl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    let selector = selector(cpu, env, op, op.src)?;
    let found = visible(cpu, env, selector)?;
    let known: &[u8] = if cpu.long_mode() { &[2, 9, 11] } else { &[1, 2, 3, 9, 11] };
    let found =
        found.filter(|found| found.system().is_none_or(|kind| known.contains(&kind)) && reaches(cpu, found));
    if let Some(found) = &found {
        cpu.put_reg_sized(op.bytes, op.dst, u64::from(found.limit()));
    }
    put_zero(cpu, found.is_some());
    Ok(Flow::Next)
}

fn verr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    let selector = selector(cpu, env, op, op.dst)?;
    let found = visible(cpu, env, selector)?;
    let readable = found.is_some_and(|found| {
        found.has(ORDINARY) && (!found.has(TYPE_CODE) || found.has(TYPE_READABLE)) && reaches(cpu, &found)
    });
    put_zero(cpu, readable);
    Ok(Flow::Next)
}

fn verw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    let selector = selector(cpu, env, op, op.dst)?;
    let found = visible(cpu, env, selector)?;
    let writable = found.is_some_and(|found| {
        found.has(ORDINARY | TYPE_WRITABLE) && !found.has(TYPE_CODE) && reaches(cpu, &found)
    });
    put_zero(cpu, writable);
    Ok(Flow::Next)
}

fn arpl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    needs_protection(cpu)?;
    let wanted = cpu.reg::<u16>(op.src) & 3;
    let raised = |old: u64| (old & 3 < wanted).then_some(old & !3 | wanted);
    let changed = if op.memory {
        let address = cpu.address(op, 2, true)?;
        let changed = raised(cpu.read_to_write::<u16>(env, address)?);
        if let Some(new) = changed {
            cpu.write::<u16>(env, address, new)?;
        }
        changed
    } else {
        let changed = raised(cpu.reg::<u16>(op.dst));
        if let Some(new) = changed {
            cpu.put_reg::<u16>(op.dst, new);
        }
        changed
    };
    put_zero(cpu, changed.is_some());
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let code = decoding.instruction.code();
    match decoding.instruction.mnemonic() {
        mnemonic @ (Mnemonic::Lgdt | Mnemonic::Lidt) => {
            decoding.op.bytes = match code {
                Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => 2,
                _ if decoding.mode == Mode::Bits64 => 8,
                _ => 4,
            };
            decoding.run(if mnemonic == Mnemonic::Lgdt { lgdt } else { lidt })
        }
        Mnemonic::Sgdt => decoding.run(sgdt),
        Mnemonic::Sidt => decoding.run(sidt),
        Mnemonic::Lldt => decoding.run(lldt),
        Mnemonic::Ltr => decoding.run(ltr),
        Mnemonic::Sldt => decoding.run(sldt),
        Mnemonic::Str => decoding.run(str),
        Mnemonic::Lar => decoding.run(lar),
        Mnemonic::Lsl => decoding.run(lsl),
        Mnemonic::Verr => decoding.run(verr),
        Mnemonic::Verw => decoding.run(verw),
        Mnemonic::Arpl => decoding.run(arpl),
        _ => None,
    }
}
