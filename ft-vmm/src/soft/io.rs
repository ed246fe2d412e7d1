//! IN, OUT, INS, OUTS.

use super::cpu::Cpu;
use super::decode::Decoding;
use super::op::{Env, Flow, Op, RAX, RDI, RDX, RSI, Run};
use super::string;
use super::word::{Word, by_size};
use crate::vcpu::Segment;
use ft_core::units::Tick;
use iced_x86::{Mnemonic, OpKind};

/// Where the TSS says where its I/O bitmap is.
const TSS_BITMAP: u64 = 0x66;

impl Cpu {
    /// Raises #GP unless the privilege level, or the I/O bitmap, allows access to the port.
    fn check_port(&mut self, env: &mut Env<'_>, port: u16, bytes: usize) -> Run<()> {
        if !self.protected() || self.cpl <= self.iopl() {
            return Ok(());
        }
        let task = self.s.task;
        let has_bitmap = task.attributes & Segment::UNUSABLE == 0 && task.attributes & 8 != 0;
        if !has_bitmap || u64::from(task.limit) < TSS_BITMAP + 1 {
            return Err(self.raise_gp());
        }
        self.as_supervisor(|cpu| {
            let start = cpu.read::<u16>(env, cpu.wrap(task.base.wrapping_add(TSS_BITMAP)))?;
            let offset = start + u64::from(port / 8);
            if offset + 1 > u64::from(task.limit) {
                return Err(cpu.raise_gp());
            }
            let bits = cpu.read::<u16>(env, cpu.wrap(task.base.wrapping_add(offset)))?;
            let wanted = ((1 << bytes) - 1) << (port % 8);
            if bits & wanted == 0 { Ok(()) } else { Err(cpu.raise_gp()) }
        })
    }

    fn port_read<W: Word>(&mut self, env: &mut Env<'_>, port: u16) -> u64 {
        let mut data = [0; 8];
        env.platform.pio_read(Tick(self.now()), port, &mut data[..W::BYTES]);
        self.reached_platform(env);
        u64::from_le_bytes(data)
    }

    fn port_write<W: Word>(&mut self, env: &mut Env<'_>, port: u16, value: u64) {
        env.platform.pio_write(Tick(self.now()), port, &value.to_le_bytes()[..W::BYTES]);
        self.reached_platform(env);
    }
}

/// The immediate, or with `kind` 1 DX.
fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.kind == 1 { cpu.gpr[usize::from(RDX)] as u16 } else { op.imm as u16 & 0xff }
}

fn in_<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let port = port(cpu, op);
    cpu.check_port(env, port, W::BYTES)?;
    let value = cpu.port_read::<W>(env, port);
    cpu.put_reg::<W>(RAX, value);
    Ok(Flow::Next)
}

fn out<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let port = port(cpu, op);
    cpu.check_port(env, port, W::BYTES)?;
    let value = cpu.reg::<W>(RAX);
    cpu.port_write::<W>(env, port, value);
    Ok(Flow::Next)
}

/// The destination is checked before the port is read: that cannot be undone.
fn ins<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, _: u64) -> Run<(u64, bool)> {
    let port = cpu.gpr[usize::from(RDX)] as u16;
    let to = cpu.destination(op, W::BYTES, true)?;
    cpu.probe_write(env, to, W::BYTES as u64)?;
    let value = cpu.port_read::<W>(env, port);
    cpu.write::<W>(env, to, value)?;
    cpu.advance::<W>(op, RDI, 1);
    Ok((1, true))
}

fn outs<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, _: u64) -> Run<(u64, bool)> {
    let port = cpu.gpr[usize::from(RDX)] as u16;
    let from = cpu.source(op, W::BYTES)?;
    let value = cpu.read::<W>(env, from)?;
    cpu.port_write::<W>(env, port, value);
    cpu.advance::<W>(op, RSI, 1);
    Ok((1, true))
}

/// Even a repetition of no iterations must have the right to the port.
fn check_string_port<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>) -> Run<()> {
    let port = cpu.gpr[usize::from(RDX)] as u16;
    cpu.check_port(env, port, W::BYTES)
}

fn run_ins<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    check_string_port::<W>(cpu, env)?;
    string::repeat(cpu, env, op, ins::<W>)
}

fn run_outs<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    check_string_port::<W>(cpu, env)?;
    string::repeat(cpu, env, op, outs::<W>)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let instruction = decoding.instruction;
    let mnemonic = instruction.mnemonic();
    let bytes = match mnemonic {
        Mnemonic::In => instruction.op0_register().size() as u8,
        Mnemonic::Out => instruction.op1_register().size() as u8,
        Mnemonic::Insb | Mnemonic::Outsb => 1,
        Mnemonic::Insw | Mnemonic::Outsw => 2,
        Mnemonic::Insd | Mnemonic::Outsd => 4,
        _ => return None,
    };
    match mnemonic {
        Mnemonic::In => {
            decoding.op.kind = u16::from(instruction.op1_kind() == OpKind::Register);
            decoding.run(by_size!(bytes, in_))
        }
        Mnemonic::Out => {
            decoding.op.kind = u16::from(instruction.op0_kind() == OpKind::Register);
            decoding.run(by_size!(bytes, out))
        }
        _ => {
            string::operands(decoding, bytes);
            let in_ward = matches!(mnemonic, Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd);
            decoding.run(if in_ward { by_size!(bytes, run_ins) } else { by_size!(bytes, run_outs) })
        }
    }
}
