//! Shifts and rotates: SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.
//!
//! Counts are masked to 5 bits, 6 with 64-bit operands. A count of 0 leaves all flags. Undefined flags: OF after counts above 1 is
//! computed by the rule for 1, from the result's top bits or, for SHR and SHLD, from the last step, as common processors do; AF is
//! cleared by shifts, and left by rotates.

use super::cpu::Cpu;
use super::decode::{Decoding, Form};
use super::flags::Flags;
use super::op::{Env, Flow, NONE, Op, RCX, Run};
use super::word::{Word, by_size};
use iced_x86::{Mnemonic, OpKind};

const ROL: u8 = 0;
const ROR: u8 = 1;
const RCL: u8 = 2;
const RCR: u8 = 3;
const SHL: u8 = 4;
const SHR: u8 = 5;
const SAR: u8 = 7;

/// Where SHLD and SHRD shift.
const LEFT: u8 = 0;
const RIGHT: u8 = 1;

/// The result of a shift by `count` (already masked, not 0), with its flags.
#[inline(always)]
fn shift<W: Word, const K: u8>(flags: &mut Flags, a: u64, count: u32) -> u64 {
    match K {
        SHL => {
            // Bit BITS of the wide result is the last bit that went out; with counts above BITS it is 0.
            let wide = u128::from(a) << count;
            let (result, carry) = (wide as u64, wide >> W::BITS & 1 != 0);
            flags.logic::<W>(result);
            flags.put_carry_overflow(carry, carry != W::negative(result));
            result
        }
        SHR => {
            let (result, carry) = (a >> count, a >> (count - 1) & 1 != 0);
            flags.logic::<W>(result);
            flags.put_carry_overflow(carry, W::negative(a) && count == 1);
            result
        }
        _ => {
            let signed = W::signed(a) as i64;
            let (result, carry) = ((signed >> count) as u64, signed >> (count - 1) & 1 != 0);
            flags.logic::<W>(result);
            flags.put_carry_overflow(carry, false);
            result
        }
    }
}

/// The result of a rotation by `count` (already masked, not 0), with CF and OF.
#[inline(always)]
fn rotate<W: Word, const K: u8>(flags: &mut Flags, a: u64, count: u32) -> u64 {
    let bits = W::BITS;
    let rotated = |left: u32| {
        let left = left % bits;
        if left == 0 { a } else { (a << left | a >> (bits - left)) & W::MASK }
    };
    match K {
        ROL => {
            let result = rotated(count);
            let carry = result & 1 != 0;
            flags.put_carry_overflow(carry, carry != W::negative(result));
            result
        }
        ROR => {
            let result = rotated(bits - count % bits);
            let top = W::negative(result);
            flags.put_carry_overflow(top, top != W::negative(result << 1));
            result
        }
        _ => {
            // Through the carry: a ring of one bit more.
            let ring = bits + 1;
            let count = count % ring;
            if count == 0 {
                return a;
            }
            let left = if K == RCL { count } else { ring - count };
            let whole = u128::from(a) | u128::from(flags.cf()) << bits;
            let turned = whole << left | whole >> (ring - left);
            let (result, carry) = (turned as u64 & W::MASK, turned >> bits & 1 != 0);
            let top = W::negative(result);
            let overflow = if K == RCL { top != carry } else { top != W::negative(result << 1) };
            flags.put_carry_overflow(carry, overflow);
            result
        }
    }
}

#[inline(always)]
fn compute<W: Word, const K: u8>(flags: &mut Flags, a: u64, count: u32) -> u64 {
    if K < SHL { rotate::<W, K>(flags, a, count) } else { shift::<W, K>(flags, a, count) }
}

/// The count: CL where the operation has no immediate.
#[inline(always)]
fn count<W: Word>(cpu: &Cpu, op: &Op) -> u32 {
    let count = if op.src == RCX { cpu.gpr[usize::from(RCX)] } else { op.imm };
    (count & if W::BITS == 64 { 63 } else { 31 }) as u32
}

fn on_reg<W: Word, const K: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let count = count::<W>(cpu, op);
    let a = cpu.reg::<W>(op.dst);
    // Even by 0, a 32-bit operation clears the upper half.
    let result = if count == 0 { a } else { compute::<W, K>(&mut cpu.flags, a, count) };
    cpu.put_reg::<W>(op.dst, result);
    Ok(Flow::Next)
}

fn on_mem<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let count = count::<W>(cpu, op);
    let address = cpu.address(op, W::BYTES, true)?;
    let a = cpu.read_to_write::<W>(env, address)?;
    if count > 0 {
        let mut flags = cpu.flags;
        let result = compute::<W, K>(&mut flags, a, count);
        cpu.write::<W>(env, address, result)?;
        cpu.flags = flags;
    }
    Ok(Flow::Next)
}

/// SHLD and SHRD. With 16 bits and counts above 16, where the manual leaves all undefined, the bits of the destination follow those of
/// the source, as on Intel processors.
fn double<W: Word, const K: u8>(flags: &mut Flags, a: u64, b: u64, count: u32) -> u64 {
    let bits = W::BITS;
    let (result, carry) = match (K, bits) {
        (LEFT, 16) => {
            let whole = a << 32 | b << 16 | a;
            ((whole << count) >> 32 & 0xffff, (whole << (count - 1)) >> 47 & 1 != 0)
        }
        (_, 16) => {
            let whole = a << 32 | b << 16 | a;
            (whole >> count & 0xffff, whole >> (count - 1) & 1 != 0)
        }
        (LEFT, _) => ((a << count | b >> (bits - count)) & W::MASK, a >> (bits - count) & 1 != 0),
        _ => ((a >> count | b << (bits - count)) & W::MASK, a >> (count - 1) & 1 != 0),
    };
    flags.logic::<W>(result);
    flags.put_carry_overflow(carry, W::negative(result) != W::negative(a));
    result
}

fn double_count<W: Word>(cpu: &Cpu, op: &Op) -> u32 {
    let count = if op.kind == 1 { cpu.gpr[usize::from(RCX)] } else { op.imm };
    (count & if W::BITS == 64 { 63 } else { 31 }) as u32
}

fn double_reg<W: Word, const K: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let count = double_count::<W>(cpu, op);
    let (a, b) = (cpu.reg::<W>(op.dst), cpu.reg::<W>(op.src));
    let result = if count == 0 { a } else { double::<W, K>(&mut cpu.flags, a, b, count) };
    cpu.put_reg::<W>(op.dst, result);
    Ok(Flow::Next)
}

fn double_mem<W: Word, const K: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let count = double_count::<W>(cpu, op);
    let address = cpu.address(op, W::BYTES, true)?;
    let a = cpu.read_to_write::<W>(env, address)?;
    let b = cpu.reg::<W>(op.src);
    if count > 0 {
        let mut flags = cpu.flags;
        let result = double::<W, K>(&mut flags, a, b, count);
        cpu.write::<W>(env, address, result)?;
        cpu.flags = flags;
    }
    Ok(Flow::Next)
}

fn single<const K: u8>(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    if decoding.instruction.op1_kind() != OpKind::Register {
        decoding.op.src = NONE;
    }
    let handler = if decoding.to_memory() { by_size!(bytes, on_mem, K) } else { by_size!(bytes, on_reg, K) };
    decoding.run(handler)
}

fn both<const K: u8>(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.op.bytes;
    decoding.op.kind = u16::from(decoding.instruction.op2_kind() == OpKind::Register);
    let handler = if decoding.form == Form::MemReg {
        by_size!(bytes, double_mem, K)
    } else {
        by_size!(bytes, double_reg, K)
    };
    decoding.run(handler)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    match decoding.instruction.mnemonic() {
        Mnemonic::Rol => single::<ROL>(decoding),
        Mnemonic::Ror => single::<ROR>(decoding),
        Mnemonic::Rcl => single::<RCL>(decoding),
        Mnemonic::Rcr => single::<RCR>(decoding),
        Mnemonic::Shl | Mnemonic::Sal => single::<SHL>(decoding),
        Mnemonic::Shr => single::<SHR>(decoding),
        Mnemonic::Sar => single::<SAR>(decoding),
        Mnemonic::Shld => both::<LEFT>(decoding),
        Mnemonic::Shrd => both::<RIGHT>(decoding),
        _ => None,
    }
}
