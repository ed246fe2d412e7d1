//! MUL, IMUL, DIV, IDIV.
//!
//! Undefined flags: after multiplications SF and PF follow the low half of the result, ZF and AF are cleared (Intel's way); divisions
//! leave all flags.

use super::cpu::{Cpu, vector};
use super::decode::{Decoding, Form};
use super::op::{Env, Flow, HIGH, Op, RAX, RDX, Run};
use super::word::{Word, by_size};
use iced_x86::Mnemonic;

/// AH.
const AH: u8 = RAX | HIGH;

fn product_flags<W: Word>(cpu: &mut Cpu, low: u64, overflow: bool) {
    cpu.flags.logic::<W>(low);
    cpu.flags.put_zero(false);
    cpu.flags.put_carry_overflow(overflow, overflow);
}

/// The one operand.
#[inline(always)]
fn operand<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<u64> {
    if op.memory { cpu.load_op::<W>(env, op) } else { Ok(cpu.reg::<W>(op.dst)) }
}

fn put_pair<W: Word>(cpu: &mut Cpu, low: u64, high: u64) {
    cpu.put_reg::<W>(RAX, low);
    cpu.put_reg::<W>(if W::BITS == 8 { AH } else { RDX }, high);
}

fn mul<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let b = operand::<W>(cpu, env, op)?;
    let product = u128::from(cpu.reg::<W>(RAX)) * u128::from(b);
    let (low, high) = (product as u64 & W::MASK, (product >> W::BITS) as u64);
    put_pair::<W>(cpu, low, high);
    product_flags::<W>(cpu, low, high != 0);
    Ok(Flow::Next)
}

fn signed_product<W: Word>(a: u64, b: u64) -> (i128, bool) {
    let product = i128::from(W::signed(a) as i64) * i128::from(W::signed(b) as i64);
    (product, product != i128::from(W::signed(product as u64) as i64))
}

fn imul<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let b = operand::<W>(cpu, env, op)?;
    let (product, overflow) = signed_product::<W>(cpu.reg::<W>(RAX), b);
    let (low, high) = (product as u64 & W::MASK, (product >> W::BITS) as u64);
    put_pair::<W>(cpu, low, high);
    product_flags::<W>(cpu, low, overflow);
    Ok(Flow::Next)
}

/// IMUL with two operands.
fn imul_two<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let b = if op.memory { cpu.load_op::<W>(env, op)? } else { cpu.reg::<W>(op.src) };
    let (product, overflow) = signed_product::<W>(cpu.reg::<W>(op.dst), b);
    cpu.put_reg::<W>(op.dst, product as u64);
    product_flags::<W>(cpu, product as u64, overflow);
    Ok(Flow::Next)
}

/// IMUL with three.
fn imul_three<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let a = if op.memory { cpu.load_op::<W>(env, op)? } else { cpu.reg::<W>(op.src) };
    let (product, overflow) = signed_product::<W>(a, op.imm);
    cpu.put_reg::<W>(op.dst, product as u64);
    product_flags::<W>(cpu, product as u64, overflow);
    Ok(Flow::Next)
}

/// The dividend, twice as wide as the operand.
fn dividend<W: Word>(cpu: &Cpu) -> u128 {
    let high = cpu.reg::<W>(if W::BITS == 8 { AH } else { RDX });
    u128::from(high) << W::BITS | u128::from(cpu.reg::<W>(RAX))
}

fn div<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let divisor = operand::<W>(cpu, env, op)?;
    let dividend = dividend::<W>(cpu);
    if divisor == 0 || dividend >> W::BITS >= u128::from(divisor) {
        return Err(cpu.raise(vector::DE));
    }
    // Most divisions fit in 64 bits, which hosts divide much faster.
    let (quotient, remainder) = match u64::try_from(dividend) {
        Ok(dividend) => (dividend / divisor, dividend % divisor),
        Err(_) => {
            let divisor = u128::from(divisor);
            ((dividend / divisor) as u64, (dividend % divisor) as u64)
        }
    };
    put_pair::<W>(cpu, quotient, remainder);
    Ok(Flow::Next)
}

fn idiv<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let divisor = i128::from(W::signed(operand::<W>(cpu, env, op)?) as i64);
    let unused = 128 - 2 * W::BITS;
    let dividend = (dividend::<W>(cpu) << unused) as i128 >> unused;
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return Err(cpu.raise(vector::DE));
    };
    if quotient != i128::from(W::signed(quotient as u64) as i64) {
        return Err(cpu.raise(vector::DE));
    }
    put_pair::<W>(cpu, quotient as u64, remainder as u64);
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    match decoding.instruction.mnemonic() {
        Mnemonic::Mul => decoding.run(by_size!(bytes, mul)),
        Mnemonic::Div => decoding.run(by_size!(bytes, div)),
        Mnemonic::Idiv => decoding.run(by_size!(bytes, idiv)),
        Mnemonic::Imul => match (decoding.instruction.op_count(), decoding.form) {
            (1, Form::Reg | Form::Mem) => decoding.run(by_size!(bytes, imul)),
            (2, _) => decoding.run(by_size!(bytes, imul_two)),
            _ => decoding.run(by_size!(bytes, imul_three)),
        },
        _ => None,
    }
}
