//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS; as on Intel processors.

use super::cpu::{Cpu, EFER_SCE, canonical, vector};
use super::decode::Decoding;
use super::flags::{self, IF, RF, TF, VM};
use super::op::{Env, Flow, GS, Op, RCX, RDX, RSP, Run, SS};
use super::segments::{BIG, LONG};
use crate::vcpu::Segment;
use iced_x86::Mnemonic;

/// R11.
const R11: usize = 11;
/// Flat segments as these instructions load them, without reading a table: code and data, privilege to be added.
const CODE: u16 = 0x809b;
const DATA: u16 = 0xc093;

fn flat(selector: u16, attributes: u16, cpl: u8) -> Segment {
    let selector = selector & !3 | u16::from(cpl);
    Segment { selector, base: 0, limit: u32::MAX, attributes: attributes | u16::from(cpl) << 5 }
}

/// Loads CS and SS. `bits` is LONG or BIG.
fn put_flat(cpu: &mut Cpu, code: u16, stack: u16, bits: u16, cpl: u8) {
    cpu.s.segments[usize::from(SS)] = flat(stack, DATA, cpl);
    cpu.put_code(flat(code, CODE | bits, cpl), cpl);
}

fn enabled(cpu: &mut Cpu) -> Run<()> {
    if cpu.flat && cpu.s.efer & EFER_SCE != 0 { Ok(()) } else { Err(cpu.raise(vector::UD)) }
}

fn syscall(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    enabled(cpu)?;
    let [star, target, _, mask] = cpu.s.syscall;
    cpu.gpr[usize::from(RCX)] = op.next;
    cpu.gpr[R11] = cpu.flags.get();
    let kept = cpu.flags.get() & !(mask | RF);
    // A single-step trap comes only if TF outlives the mask.
    cpu.entered = kept & TF == 0;
    cpu.flags.set(kept);
    let selector = (star >> 32) as u16;
    put_flat(cpu, selector, selector.wrapping_add(8), LONG, 0);
    cpu.rip = target;
    cpu.flags_changed();
    Ok(Flow::Jump)
}

/// With `kind` 8 it returns to 64-bit code, else to 32-bit code.
fn sysret(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    enabled(cpu)?;
    cpu.privileged()?;
    let selector = (cpu.s.syscall[0] >> 48) as u16;
    let target = cpu.gpr[usize::from(RCX)];
    if op.kind == 8 && !canonical(target) {
        return Err(cpu.raise_gp());
    }
    let loaded = cpu.gpr[R11] & flags::ALL & !(RF | VM);
    let stack = selector.wrapping_add(8);
    if op.kind == 8 {
        put_flat(cpu, selector.wrapping_add(16), stack, LONG, 3);
        cpu.rip = target;
    } else {
        put_flat(cpu, selector, stack, BIG, 3);
        cpu.rip = target & 0xffff_ffff;
    }
    cpu.flags.set(loaded);
    cpu.flags_changed();
    Ok(Flow::Jump)
}

fn sysenter(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let [selector, stack, target] = cpu.s.sysenter;
    if !cpu.protected() || selector & 0xfffc == 0 {
        return Err(cpu.raise_gp());
    }
    cpu.flags.put_rest(VM | IF | RF, false);
    let selector = selector as u16;
    let (bits, size) = if cpu.long_mode() { (LONG, u64::MAX) } else { (BIG, 0xffff_ffff) };
    put_flat(cpu, selector, selector.wrapping_add(8), bits, 0);
    cpu.gpr[usize::from(RSP)] = stack & size;
    cpu.rip = target & size;
    Ok(Flow::Jump)
}

/// With `kind` 8 it returns to 64-bit code, else to 32-bit code.
fn sysexit(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let selector = cpu.s.sysenter[0] as u16;
    if !cpu.protected() || selector & !3 == 0 {
        return Err(cpu.raise_gp());
    }
    cpu.privileged()?;
    let (target, stack) = (cpu.gpr[usize::from(RDX)], cpu.gpr[usize::from(RCX)]);
    if op.kind == 8 {
        if !canonical(target) || !canonical(stack) {
            return Err(cpu.raise_gp());
        }
        put_flat(cpu, selector.wrapping_add(32), selector.wrapping_add(40), LONG, 3);
        cpu.rip = target;
        cpu.gpr[usize::from(RSP)] = stack;
    } else {
        put_flat(cpu, selector.wrapping_add(16), selector.wrapping_add(24), BIG, 3);
        cpu.rip = target & 0xffff_ffff;
        cpu.gpr[usize::from(RSP)] = stack & 0xffff_ffff;
    }
    Ok(Flow::Jump)
}

fn swapgs(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    if !cpu.flat {
        return Err(cpu.raise(vector::UD));
    }
    cpu.privileged()?;
    let gs = &mut cpu.s.segments[usize::from(GS)].base;
    std::mem::swap(gs, &mut cpu.s.kernel_gs_base);
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    use iced_x86::Code::{Sysexitq, Sysretq};
    let code = decoding.instruction.code();
    decoding.op.kind = if matches!(code, Sysretq | Sysexitq) { 8 } else { 4 };
    match decoding.instruction.mnemonic() {
        Mnemonic::Syscall => decoding.run_last(syscall),
        Mnemonic::Sysret | Mnemonic::Sysretq => decoding.run_last(sysret),
        Mnemonic::Sysenter => decoding.run_last(sysenter),
        Mnemonic::Sysexit | Mnemonic::Sysexitq => decoding.run_last(sysexit),
        Mnemonic::Swapgs => decoding.run(swapgs),
        _ => None,
    }
}
