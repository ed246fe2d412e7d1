//! FXSAVE, FXRSTOR, LDMXCSR, STMXCSR, WAIT.

use super::cpu::{CR0_EM, CR0_MP, CR0_TS, CR4_OSFXSR, Cpu, canonical, vector};
use super::decode::Decoding;
use super::op::{Env, Flow, Op, Run};
use super::x87::is_pending;
use crate::vcpu::Fpu;
use iced_x86::Mnemonic;

/// Bits of MXCSR that exist.
const MXCSR_MASK: u32 = 0xffff;
/// Bytes of the area that are written.
const AREA: usize = 416;
/// Where XMM0 is in it.
const XMM: usize = 160;
/// Where ST0 is in it.
const ST: usize = 32;

/// Bits of the control word that exist, and the one that is always set.
const CONTROL_MASK: u16 = 0x1f3f;
const CONTROL_ONES: u16 = 0x40;
/// Exceptions of the x87, and the summary of those that are unmasked: it follows from the others.
const EXCEPTIONS: u16 = 0x3f;
const PENDING: u16 = 0x8080;

impl Cpu {
    /// Raises #MF when an exception of the x87 waits.
    pub(crate) fn check_pending(&mut self) -> Run<()> {
        if is_pending(&self.s.fpu) { Err(self.raise(vector::MF)) } else { Ok(()) }
    }

    /// Raises #NM when the FPU is not to be used.
    pub(crate) fn check_fpu(&mut self) -> Run<()> {
        if self.s.cr0 & (CR0_EM | CR0_TS) != 0 { Err(self.raise(vector::NM)) } else { Ok(()) }
    }

    /// Raises #UD or #NM when SSE is not to be used.
    pub(crate) fn check_sse(&mut self) -> Run<()> {
        if self.s.cr0 & CR0_EM != 0 || self.s.cr4 & CR4_OSFXSR == 0 {
            return Err(self.raise(vector::UD));
        }
        if self.s.cr0 & CR0_TS != 0 { Err(self.raise(vector::NM)) } else { Ok(()) }
    }
}

/// WAIT: only checks.
pub(crate) fn wait(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    if cpu.s.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
        return Err(cpu.raise(vector::NM));
    }
    cpu.check_pending()?;
    Ok(Flow::Next)
}

/// The address of the area, aligned. One that is not even canonical raises what that does.
fn area(cpu: &mut Cpu, op: &Op, write: bool) -> Run<u64> {
    if cpu.s.cr0 & CR0_EM != 0 {
        return Err(cpu.raise(vector::UD));
    }
    cpu.check_fpu()?;
    let address = cpu.address(op, 512, write)?;
    if address % 16 == 0 {
        return Ok(address);
    }
    let raised = cpu.raise_gp();
    cpu.raised.canonical = cpu.flat && !canonical(address);
    Err(raised)
}

/// Physical register of ST(n).
fn physical(fpu: &Fpu, n: usize) -> usize {
    (usize::from(fpu.status >> 11 & 7) + n) % 8
}

/// With `kind` 8 the pointers have 64 bits.
fn fxsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = area(cpu, op, true)?;
    // All of the area must be writable, though its end is not written.
    cpu.probe_write(env, address, 512)?;
    let fpu = &cpu.s.fpu;
    let mut data = [0; AREA];
    data[..2].copy_from_slice(&fpu.control.to_le_bytes());
    data[2..4].copy_from_slice(&fpu.status.to_le_bytes());
    data[4] = fpu.tags;
    data[6..8].copy_from_slice(&fpu.opcode.to_le_bytes());
    let pointer_mask = if op.kind == 8 { u64::MAX } else { 0xffff_ffff };
    data[8..16].copy_from_slice(&(fpu.instruction & pointer_mask).to_le_bytes());
    data[16..24].copy_from_slice(&(fpu.operand & pointer_mask).to_le_bytes());
    data[24..28].copy_from_slice(&fpu.mxcsr.to_le_bytes());
    data[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    for n in 0..8 {
        let at = ST + n * 16;
        data[at..at + 10].copy_from_slice(&fpu.registers[physical(fpu, n)]);
    }
    let count = if cpu.flat { 16 } else { 8 };
    for (n, register) in fpu.xmm[..count].iter().enumerate() {
        let at = XMM + n * 16;
        data[at..at + 16].copy_from_slice(&register.to_le_bytes());
    }
    cpu.write_bytes(env, address, &data[..XMM + count * 16])?;
    Ok(Flow::Next)
}

fn word<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let mut word = [0; N];
    word.copy_from_slice(&data[at..at + N]);
    word
}

fn fxrstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = area(cpu, op, false)?;
    let mut data = [0; 512];
    let count = if cpu.flat { 16 } else { 8 };
    cpu.read_bytes(env, address, &mut data)?;
    let mxcsr = u32::from_le_bytes(word(&data, 24));
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.raise_gp());
    }
    let pointer_mask = if op.kind == 8 { u64::MAX } else { 0xffff_ffff };
    let fpu = &mut cpu.s.fpu;
    fpu.control = u16::from_le_bytes(word(&data, 0)) & CONTROL_MASK | CONTROL_ONES;
    fpu.status = u16::from_le_bytes(word(&data, 2)) & !PENDING;
    if fpu.status & !fpu.control & EXCEPTIONS != 0 {
        fpu.status |= PENDING;
    }
    fpu.tags = data[4];
    fpu.opcode = u16::from_le_bytes(word(&data, 6));
    fpu.instruction = u64::from_le_bytes(word(&data, 8)) & pointer_mask;
    fpu.operand = u64::from_le_bytes(word(&data, 16)) & pointer_mask;
    fpu.mxcsr = mxcsr;
    for n in 0..8 {
        fpu.registers[physical(fpu, n)] = word(&data, ST + n * 16);
    }
    for (n, register) in fpu.xmm[..count].iter_mut().enumerate() {
        *register = u128::from_le_bytes(word(&data, XMM + n * 16));
    }
    Ok(Flow::Next)
}

fn ldmxcsr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.check_sse()?;
    let value = cpu.load_op::<u32>(env, op)? as u32;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.raise_gp());
    }
    cpu.s.fpu.mxcsr = value;
    Ok(Flow::Next)
}

fn stmxcsr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.check_sse()?;
    let value = u64::from(cpu.s.fpu.mxcsr);
    cpu.store_op::<u32>(env, op, value)?;
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let mnemonic = decoding.instruction.mnemonic();
    decoding.op.kind = if matches!(mnemonic, Mnemonic::Fxsave64 | Mnemonic::Fxrstor64) { 8 } else { 4 };
    match mnemonic {
        Mnemonic::Fxsave | Mnemonic::Fxsave64 => decoding.run(fxsave),
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => decoding.run(fxrstor),
        Mnemonic::Ldmxcsr => decoding.run(ldmxcsr),
        Mnemonic::Stmxcsr => decoding.run(stmxcsr),
        _ => None,
    }
}
