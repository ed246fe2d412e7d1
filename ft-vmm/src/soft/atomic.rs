//! XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. LOCK changes nothing: there is one processor.

use super::alu::{add, sub};
use super::cpu::Cpu;
use super::decode::Decoding;
use super::flags::ZF;
use super::op::{Env, Flow, Op, RAX, RBX, RCX, RDX, Run};
use super::word::{Word, by_size};
use iced_x86::Mnemonic;

fn xadd<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let b = cpu.reg::<W>(op.src);
    let mut flags = cpu.flags;
    if op.memory {
        let address = cpu.address(op, W::BYTES, true)?;
        let a = cpu.read_to_write::<W>(env, address)?;
        let sum = add::<W>(&mut flags, a, b, 0);
        cpu.write::<W>(env, address, sum)?;
        cpu.put_reg::<W>(op.src, a);
    } else {
        let a = cpu.reg::<W>(op.dst);
        let sum = add::<W>(&mut flags, a, b, 0);
        cpu.put_reg::<W>(op.src, a);
        cpu.put_reg::<W>(op.dst, sum);
    }
    cpu.flags = flags;
    Ok(Flow::Next)
}

/// The destination is written even when it is not equal: with what it holds.
fn cmpxchg<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let (expected, new) = (cpu.reg::<W>(RAX), cpu.reg::<W>(op.src));
    let mut flags = cpu.flags;
    if op.memory {
        let address = cpu.address(op, W::BYTES, true)?;
        let old = cpu.read_to_write::<W>(env, address)?;
        sub::<W>(&mut flags, expected, old, 0);
        cpu.write::<W>(env, address, if flags.zf() { new } else { old })?;
        if !flags.zf() {
            cpu.put_reg::<W>(RAX, old);
        }
    } else {
        let old = cpu.reg::<W>(op.dst);
        sub::<W>(&mut flags, expected, old, 0);
        if flags.zf() {
            cpu.put_reg::<W>(op.dst, new);
        } else {
            cpu.put_reg::<W>(RAX, old);
        }
    }
    cpu.flags = flags;
    Ok(Flow::Next)
}

/// CMPXCHG8B and CMPXCHG16B: pairs of `W`.
fn cmpxchg_pair<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let bytes = W::BYTES * 2;
    let address = cpu.address(op, bytes, true)?;
    if W::BYTES == 8 && address % 16 != 0 {
        return Err(cpu.raise_gp());
    }
    cpu.probe_write(env, address, bytes as u64)?;
    let mut data = [0; 16];
    cpu.read_bytes(env, address, &mut data[..bytes])?;
    let old = u128::from_le_bytes(data);
    let pair = |cpu: &Cpu, high: u8, low: u8| {
        u128::from(cpu.reg::<W>(high)) << W::BITS | u128::from(cpu.reg::<W>(low))
    };
    let equal = old == pair(cpu, RDX, RAX);
    let new = if equal { pair(cpu, RCX, RBX) } else { old };
    cpu.write_bytes(env, address, &new.to_le_bytes()[..bytes])?;
    if !equal {
        cpu.put_reg::<W>(RAX, old as u64);
        cpu.put_reg::<W>(RDX, (old >> W::BITS) as u64);
    }
    cpu.flags.put(ZF, if equal { ZF } else { 0 });
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    match decoding.instruction.mnemonic() {
        Mnemonic::Xadd => decoding.run(by_size!(bytes, xadd)),
        Mnemonic::Cmpxchg => decoding.run(by_size!(bytes, cmpxchg)),
        Mnemonic::Cmpxchg8b => decoding.run(cmpxchg_pair::<u32>),
        Mnemonic::Cmpxchg16b => decoding.run(cmpxchg_pair::<u64>),
        _ => None,
    }
}
