//! ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST; INC, DEC, NEG, NOT.
//!
//! AF, undefined after AND, OR, XOR and TEST, is cleared, as processors do.

use super::cpu::Cpu;
use super::decode::{Decoding, Form};
use super::flags::Flags;
use super::op::{Env, Flow, Op, Run};
use super::word::{Word, by_size};
use iced_x86::Mnemonic;

pub(crate) const ADD: u8 = 0;
pub(crate) const OR: u8 = 1;
pub(crate) const ADC: u8 = 2;
pub(crate) const SBB: u8 = 3;
pub(crate) const AND: u8 = 4;
pub(crate) const SUB: u8 = 5;
pub(crate) const XOR: u8 = 6;
pub(crate) const CMP: u8 = 7;
pub(crate) const TEST: u8 = 8;

const INC: u8 = 0;
const DEC: u8 = 1;
const NEG: u8 = 2;
const NOT: u8 = 3;

/// `a` + `b` + `carry`, with its flags.
#[inline(always)]
pub(crate) fn add<W: Word>(flags: &mut Flags, a: u64, b: u64, carry: u64) -> u64 {
    let result = a.wrapping_add(b).wrapping_add(carry);
    flags.arithmetic::<W>(result, (a & b) | ((a | b) & !result));
    result
}

/// `a` - `b` - `borrow`, with its flags.
#[inline(always)]
pub(crate) fn sub<W: Word>(flags: &mut Flags, a: u64, b: u64, borrow: u64) -> u64 {
    let result = a.wrapping_sub(b).wrapping_sub(borrow);
    flags.arithmetic::<W>(result, (!a & b) | ((!a | b) & result));
    result
}

#[inline(always)]
fn compute<W: Word, const K: u8>(flags: &mut Flags, a: u64, b: u64) -> u64 {
    match K {
        ADD => add::<W>(flags, a, b, 0),
        ADC => {
            let carry = u64::from(flags.cf());
            add::<W>(flags, a, b, carry)
        }
        SBB => {
            let borrow = u64::from(flags.cf());
            sub::<W>(flags, a, b, borrow)
        }
        SUB | CMP => sub::<W>(flags, a, b, 0),
        _ => {
            let result = match K {
                OR => a | b,
                XOR => a ^ b,
                _ => a & b,
            };
            flags.logic::<W>(result);
            result
        }
    }
}

const fn writes(kind: u8) -> bool {
    kind != CMP && kind != TEST
}

fn reg_reg<W: Word, const K: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let (a, b) = (cpu.reg::<W>(op.dst), cpu.reg::<W>(op.src));
    let result = compute::<W, K>(&mut cpu.flags, a, b);
    if writes(K) {
        cpu.put_reg::<W>(op.dst, result);
    }
    Ok(Flow::Next)
}

fn reg_imm<W: Word, const K: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let a = cpu.reg::<W>(op.dst);
    let result = compute::<W, K>(&mut cpu.flags, a, op.imm);
    if writes(K) {
        cpu.put_reg::<W>(op.dst, result);
    }
    Ok(Flow::Next)
}

fn reg_mem<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let b = cpu.load_op::<W>(env, op)?;
    let a = cpu.reg::<W>(op.dst);
    let result = compute::<W, K>(&mut cpu.flags, a, b);
    if writes(K) {
        cpu.put_reg::<W>(op.dst, result);
    }
    Ok(Flow::Next)
}

#[inline(always)]
fn on_memory<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, b: u64) -> Run<Flow> {
    let address = cpu.address(op, W::BYTES, writes(K))?;
    if writes(K) {
        let a = cpu.read_to_write::<W>(env, address)?;
        let mut flags = cpu.flags;
        let result = compute::<W, K>(&mut flags, a, b);
        cpu.write::<W>(env, address, result)?;
        cpu.flags = flags;
    } else {
        let a = cpu.read::<W>(env, address)?;
        compute::<W, K>(&mut cpu.flags, a, b);
    }
    Ok(Flow::Next)
}

fn mem_reg<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let b = cpu.reg::<W>(op.src);
    on_memory::<W, K>(cpu, env, op, b)
}

fn mem_imm<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    on_memory::<W, K>(cpu, env, op, op.imm)
}

#[inline(always)]
fn compute_one<W: Word, const K: u8>(flags: &mut Flags, a: u64) -> u64 {
    match K {
        INC => {
            let result = a.wrapping_add(1);
            flags.keep_carry::<W>(result, a & !result);
            result
        }
        DEC => {
            let result = a.wrapping_sub(1);
            flags.keep_carry::<W>(result, !a & result);
            result
        }
        NEG => sub::<W>(flags, 0, a, 0),
        _ => !a,
    }
}

fn one_reg<W: Word, const K: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let a = cpu.reg::<W>(op.dst);
    let result = compute_one::<W, K>(&mut cpu.flags, a);
    cpu.put_reg::<W>(op.dst, result);
    Ok(Flow::Next)
}

fn one_mem<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = cpu.address(op, W::BYTES, true)?;
    let a = cpu.read_to_write::<W>(env, address)?;
    let mut flags = cpu.flags;
    let result = compute_one::<W, K>(&mut flags, a);
    cpu.write::<W>(env, address, result)?;
    cpu.flags = flags;
    Ok(Flow::Next)
}

fn two<const K: u8>(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    let handler = match decoding.form {
        Form::RegReg => by_size!(bytes, reg_reg, K),
        Form::RegImm => by_size!(bytes, reg_imm, K),
        Form::RegMem => by_size!(bytes, reg_mem, K),
        Form::MemReg => by_size!(bytes, mem_reg, K),
        Form::MemImm => by_size!(bytes, mem_imm, K),
        _ => return None,
    };
    decoding.run(handler)
}

fn one<const K: u8>(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    let handler = match decoding.form {
        Form::Reg => by_size!(bytes, one_reg, K),
        Form::Mem => by_size!(bytes, one_mem, K),
        _ => return None,
    };
    decoding.run(handler)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    match decoding.instruction.mnemonic() {
        Mnemonic::Add => two::<ADD>(decoding),
        Mnemonic::Or => two::<OR>(decoding),
        Mnemonic::Adc => two::<ADC>(decoding),
        Mnemonic::Sbb => two::<SBB>(decoding),
        Mnemonic::And => two::<AND>(decoding),
        Mnemonic::Sub => two::<SUB>(decoding),
        Mnemonic::Xor => two::<XOR>(decoding),
        Mnemonic::Cmp => two::<CMP>(decoding),
        Mnemonic::Test => two::<TEST>(decoding),
        Mnemonic::Inc => one::<INC>(decoding),
        Mnemonic::Dec => one::<DEC>(decoding),
        Mnemonic::Neg => one::<NEG>(decoding),
        Mnemonic::Not => one::<NOT>(decoding),
        _ => None,
    }
}
