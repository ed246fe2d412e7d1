//! BT, BTS, BTR, BTC, BSF, BSR, POPCNT; LAHF, SAHF and the instructions that set single flags.
//!
//! Undefined: BT and its kin leave OF, SF, AF and PF. BSF and BSR of 0 leave the destination (32-bit forms too, whole), as
//! processors do; they leave the other flags but ZF. TZCNT and LZCNT are BSF and BSR on a processor without them.

use super::cpu::Cpu;
use super::decode::{Decoding, Form};
use super::flags::{AF, CF, DF, PF, SF, ZF};
use super::op::{Env, Flow, HIGH, Op, RAX, Run};
use super::word::{Word, by_size};
use iced_x86::{Mnemonic, OpKind};

const BT: u8 = 0;
const BTS: u8 = 1;
const BTR: u8 = 2;
const BTC: u8 = 3;

fn changed<const K: u8>(value: u64, bit: u64) -> u64 {
    match K {
        BTS => value | 1 << bit,
        BTR => value & !(1 << bit),
        BTC => value ^ 1 << bit,
        _ => value,
    }
}

/// The number of the bit: a register or, with `kind` 1, the immediate.
fn number<W: Word>(cpu: &Cpu, op: &Op) -> u64 {
    if op.kind == 1 { op.imm & 0xff } else { W::signed(cpu.reg::<W>(op.src)) }
}

fn test_reg<W: Word, const K: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let bit = number::<W>(cpu, op) & u64::from(W::BITS - 1);
    let value = cpu.reg::<W>(op.dst);
    cpu.flags.put_carry(value >> bit & 1 != 0);
    if K != BT {
        cpu.put_reg::<W>(op.dst, changed::<K>(value, bit));
    }
    Ok(Flow::Next)
}

/// With a register as the number, the bit may be far from the operand's address.
fn test_mem<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let number = number::<W>(cpu, op);
    let bit = number & u64::from(W::BITS - 1);
    let mut moved = *op;
    if op.kind == 0 {
        let words = (number as i64) >> W::BITS.trailing_zeros();
        moved.disp = op.disp.wrapping_add((words as u64).wrapping_mul(W::BYTES as u64));
    }
    let address = cpu.address(&moved, W::BYTES, K != BT)?;
    let value = if K == BT { cpu.read::<W>(env, address)? } else { cpu.read_to_write::<W>(env, address)? };
    if K != BT {
        cpu.write::<W>(env, address, changed::<K>(value, bit))?;
    }
    cpu.flags.put_carry(value >> bit & 1 != 0);
    Ok(Flow::Next)
}

#[inline(always)]
fn source<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<u64> {
    if op.memory { cpu.load_op::<W>(env, op) } else { Ok(cpu.reg::<W>(op.src)) }
}

fn bsf<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = source::<W>(cpu, env, op)?;
    cpu.flags.put_zero(value == 0);
    if value != 0 {
        cpu.put_reg::<W>(op.dst, u64::from(value.trailing_zeros()));
    }
    Ok(Flow::Next)
}

fn bsr<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = source::<W>(cpu, env, op)?;
    cpu.flags.put_zero(value == 0);
    if value != 0 {
        cpu.put_reg::<W>(op.dst, u64::from(63 - value.leading_zeros()));
    }
    Ok(Flow::Next)
}

fn popcnt<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = source::<W>(cpu, env, op)?;
    cpu.put_reg::<W>(op.dst, u64::from(value.count_ones()));
    cpu.flags.put_arithmetic(if value == 0 { ZF } else { 0 });
    Ok(Flow::Next)
}

fn lahf(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let value = cpu.flags.get() & 0xff;
    cpu.put_reg::<u8>(RAX | HIGH, value);
    Ok(Flow::Next)
}

fn sahf(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let value = cpu.reg::<u8>(RAX | HIGH);
    cpu.flags.put(SF | ZF | AF | PF | CF, value);
    Ok(Flow::Next)
}

fn cmc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let carry = cpu.flags.cf();
    cpu.flags.put_carry(!carry);
    Ok(Flow::Next)
}

fn clc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.flags.put_carry(false);
    Ok(Flow::Next)
}

fn stc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.flags.put_carry(true);
    Ok(Flow::Next)
}

fn cld(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.flags.put_rest(DF, false);
    Ok(Flow::Next)
}

fn std(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.flags.put_rest(DF, true);
    Ok(Flow::Next)
}

fn test<const K: u8>(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    decoding.op.kind = u16::from(decoding.instruction.op1_kind() != OpKind::Register);
    let handler = match decoding.form {
        Form::MemReg | Form::MemImm => by_size!(bytes, test_mem, K),
        _ => by_size!(bytes, test_reg, K),
    };
    decoding.run(handler)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    match decoding.instruction.mnemonic() {
        Mnemonic::Bt => test::<BT>(decoding),
        Mnemonic::Bts => test::<BTS>(decoding),
        Mnemonic::Btr => test::<BTR>(decoding),
        Mnemonic::Btc => test::<BTC>(decoding),
        Mnemonic::Bsf | Mnemonic::Tzcnt => decoding.run(by_size!(bytes, bsf)),
        Mnemonic::Bsr | Mnemonic::Lzcnt => decoding.run(by_size!(bytes, bsr)),
        Mnemonic::Popcnt => decoding.run(by_size!(bytes, popcnt)),
        Mnemonic::Lahf => decoding.run(lahf),
        Mnemonic::Sahf => decoding.run(sahf),
        Mnemonic::Cmc => decoding.run(cmc),
        Mnemonic::Clc => decoding.run(clc),
        Mnemonic::Stc => decoding.run(stc),
        Mnemonic::Cld => decoding.run(cld),
        Mnemonic::Std => decoding.run(std),
        _ => None,
    }
}
