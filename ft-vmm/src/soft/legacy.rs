//! Instructions that 64-bit mode does not have: decimal arithmetic, BOUND.
//!
//! Undefined flags: OF is cleared by all; AAA and AAS set SF, ZF and PF by the result in AL, AAM and AAD clear CF and AF.

use super::cpu::{Cpu, vector};
use super::decode::Decoding;
use super::flags::{AF, ARITHMETIC, CF};
use super::op::{Env, Flow, HIGH, Op, RAX, Run};
use super::word::{Word, by_size};
use iced_x86::Mnemonic;

const AH: u8 = RAX | HIGH;

/// SF, ZF and PF of `result`, and CF and AF as given.
fn put_flags(cpu: &mut Cpu, result: u64, carry: bool, adjust: bool) {
    cpu.flags.logic::<u8>(result);
    let bits = if carry { CF } else { 0 } | if adjust { AF } else { 0 };
    cpu.flags.put(CF | AF, bits & ARITHMETIC);
}

/// AAA and AAS: `sign` is 1 or -1.
fn ascii_adjust(cpu: &mut Cpu, sign: i64) {
    let al = cpu.reg::<u8>(RAX);
    let adjust = al & 0xf > 9 || cpu.flags.af();
    if adjust {
        let ax = cpu.reg::<u16>(RAX).wrapping_add((0x106 * sign) as u64);
        cpu.put_reg::<u16>(RAX, ax);
    }
    let digit = cpu.reg::<u8>(RAX) & 0xf;
    cpu.put_reg::<u8>(RAX, digit);
    put_flags(cpu, digit, adjust, adjust);
}

fn aaa(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    ascii_adjust(cpu, 1);
    Ok(Flow::Next)
}

fn aas(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    ascii_adjust(cpu, -1);
    Ok(Flow::Next)
}

fn aam(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let (al, base) = (cpu.reg::<u8>(RAX), op.imm & 0xff);
    if base == 0 {
        return Err(cpu.raise(vector::DE));
    }
    cpu.put_reg::<u8>(AH, al / base);
    cpu.put_reg::<u8>(RAX, al % base);
    put_flags(cpu, al % base, false, false);
    Ok(Flow::Next)
}

fn aad(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg::<u8>(RAX).wrapping_add(cpu.reg::<u8>(AH).wrapping_mul(op.imm)) & 0xff;
    cpu.put_reg::<u16>(RAX, value);
    put_flags(cpu, value, false, false);
    Ok(Flow::Next)
}

/// DAA and DAS: `sign` is 1 or -1.
fn decimal_adjust(cpu: &mut Cpu, sign: i64) {
    let old = cpu.reg::<u8>(RAX);
    let mut value = old;
    let mut carry = false;
    let adjust = old & 0xf > 9 || cpu.flags.af();
    if adjust {
        let next = (value as i64) + 6 * sign;
        carry = cpu.flags.cf() || (sign < 0 && next < 0);
        value = next as u64 & 0xff;
    }
    if old > 0x99 || cpu.flags.cf() {
        value = ((value as i64) + 0x60 * sign) as u64 & 0xff;
        carry = true;
    } else if sign > 0 {
        carry = false;
    }
    cpu.put_reg::<u8>(RAX, value);
    put_flags(cpu, value, carry, adjust);
}

fn daa(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    decimal_adjust(cpu, 1);
    Ok(Flow::Next)
}

fn das(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    decimal_adjust(cpu, -1);
    Ok(Flow::Next)
}

fn bound<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = cpu.address(op, W::BYTES * 2, false)?;
    let signed = |value: u64| W::signed(value) as i64;
    let low = signed(cpu.read::<W>(env, address)?);
    let high = signed(cpu.read::<W>(env, address.wrapping_add(W::BYTES as u64))?);
    let index = signed(cpu.reg::<W>(op.dst));
    if (low..=high).contains(&index) { Ok(Flow::Next) } else { Err(cpu.raise(vector::BR)) }
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    match decoding.instruction.mnemonic() {
        Mnemonic::Aaa => decoding.run(aaa),
        Mnemonic::Aas => decoding.run(aas),
        Mnemonic::Aam => decoding.run(aam),
        Mnemonic::Aad => decoding.run(aad),
        Mnemonic::Daa => decoding.run(daa),
        Mnemonic::Das => decoding.run(das),
        Mnemonic::Bound => decoding.run(by_size!(bytes, bound)),
        _ => None,
    }
}
