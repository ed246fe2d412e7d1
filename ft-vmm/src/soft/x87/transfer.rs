//! Loads, stores, exchanges and conditional moves.

use super::X87Effect::Done;
use super::arithmetic::{from_u64, nan_of};
use super::env::{C1, Computed, DENORMAL, DOUBLE, Direction, Env, Format, INVALID, Inexact, SINGLE};
use super::number::{Class, Ext, Operand};
use super::unit::{Unit, rotate};
use super::{X87Effect, X87Operands};

type Result = Computed<X87Effect>;

/// Formats of memory operands of loads and arithmetic.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Single,
    Double,
    Extended,
    Word,
    Long,
    Quad,
}

impl Source {
    pub(super) const fn bytes(self) -> u8 {
        match self {
            Self::Word => 2,
            Self::Single | Self::Long => 4,
            Self::Double | Self::Quad => 8,
            Self::Extended => 10,
        }
    }

    /// # Panics
    /// Unless `bytes` has as many as [`Source::bytes`] says.
    pub(super) fn read(self, bytes: &[u8]) -> Operand {
        match self {
            Self::Single => Operand::from_single(u32::from_le_bytes(array(bytes))),
            Self::Double => Operand::from_double(u64::from_le_bytes(array(bytes))),
            Self::Extended => Ext::from_bytes(array(bytes)).into(),
            Self::Word => Operand::from_integer(i16::from_le_bytes(array(bytes)).into()),
            Self::Long => Operand::from_integer(i32::from_le_bytes(array(bytes)).into()),
            Self::Quad => Operand::from_integer(i64::from_le_bytes(array(bytes))),
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the form says how many bytes there are")
}

/// FLD and FILD from memory.
pub(super) fn load(unit: &mut Unit<'_>, io: &X87Operands<'_>, source: Source) -> Result {
    let value = if unit.claim()? {
        let operand = source.read(io.memory_in);
        match source {
            Source::Single | Source::Double => converted(&mut unit.env, operand)?,
            _ => operand.value,
        }
    } else {
        Ext::INDEFINITE
    };
    unit.push(value);
    Ok(Done)
}

/// A conversion can raise invalid and denormal; the latter does not keep it from being pushed, masked or not.
fn converted(env: &mut Env, operand: Operand) -> Computed<Ext> {
    if operand.class == Class::Denormal {
        env.raised |= DENORMAL;
    }
    Ok(nan_of(env, operand, operand)?.unwrap_or(operand.value))
}

/// FLD ST(i).
pub(super) fn duplicate(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    let value = match unit.st(io.st) {
        Some(operand) if unit.claim()? => operand.value,
        Some(_) => Ext::INDEFINITE,
        None => unit.underflow()?,
    };
    unit.push(value);
    Ok(Done)
}

/// FST ST(i).
pub(super) fn copy(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    let value = match unit.st(0) {
        Some(top) => top.value,
        None => unit.underflow()?,
    };
    unit.set(io.st, value);
    Ok(Done)
}

/// FSTPNCE ST(i), "no check for empty": an empty ST(0) is popped, and that is all.
pub(super) fn copy_unchecked(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    if let Some(top) = unit.st(0) {
        unit.set(io.st, top.value);
    }
    Ok(Done)
}

/// FXCH.
pub(super) fn exchange(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    let (top, other) = match (unit.st(0), unit.st(io.st)) {
        (Some(top), Some(other)) => (top.value, other.value),
        (top, other) => {
            let nan = unit.underflow()?;
            (top.map_or(nan, |top| top.value), other.map_or(nan, |other| other.value))
        }
    };
    unit.set(0, other);
    unit.set(io.st, top);
    Ok(Done)
}

/// FCMOVcc. C1 is cleared by a stack underflow only.
pub(super) fn move_if(unit: &mut Unit<'_>, io: &X87Operands<'_>, condition: fn(u64) -> bool) -> Result {
    let (Some(_), Some(source)) = (unit.st(0), unit.st(io.st)) else {
        let nan = unit.underflow()?;
        unit.set(0, nan);
        return Ok(Done);
    };
    if condition(io.rflags) {
        unit.set(0, source.value);
    }
    unit.env.raised |= unit.fpu.status & C1;
    Ok(Done)
}

/// FFREE.
pub(super) fn free(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    unit.free(io.st);
    Ok(Done)
}

/// FFREEP.
pub(super) fn free_and_pop(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    unit.free(io.st);
    unit.pop();
    Ok(Done)
}

/// FINCSTP and FDECSTP.
pub(super) fn turn(unit: &mut Unit<'_>, by: i16) -> Result {
    rotate(unit.fpu, by);
    Ok(Done)
}

/// FST and FSTP to memory as single or double.
pub(super) fn store_short(unit: &mut Unit<'_>, io: &mut X87Operands<'_>, format: Format) -> Result {
    let fraction_bits = format.bits - 1;
    let all_ones = 2 * format.exponent_max as u64 + 1;
    let top = match unit.st(0) {
        Some(top) => top,
        None => unit.underflow()?.into(),
    };
    let nan = nan_of(&mut unit.env, top, top)?;
    let value = nan.unwrap_or(top.value);
    let (fraction, exponent) = match top.class {
        _ if nan.is_some() => ((value.significand << 1) >> (64 - fraction_bits), all_ones),
        Class::Zero => (0, 0),
        Class::Infinity => (0, all_ones),
        _ => unit.env.deliver_to(value.finite().into(), format)?,
    };
    let sign = u64::from(value.negative());
    if format == SINGLE {
        let bits = sign << 31 | exponent << 23 | fraction;
        io.memory_out.copy_from_slice(&(bits as u32).to_le_bytes());
    } else {
        debug_assert_eq!(format, DOUBLE);
        io.memory_out.copy_from_slice(&(sign << 63 | exponent << 52 | fraction).to_le_bytes());
    }
    Ok(Done)
}

/// FSTP to memory as it is.
pub(super) fn store_extended(unit: &mut Unit<'_>, io: &mut X87Operands<'_>) -> Result {
    let value = match unit.st(0) {
        Some(top) => top.value,
        None => unit.underflow()?,
    };
    io.memory_out.copy_from_slice(&value.to_bytes());
    Ok(Done)
}

/// FIST, FISTP and, towards zero whatever the control word says, FISTTP: as many bytes as there are to write.
pub(super) fn store_integer(unit: &mut Unit<'_>, io: &mut X87Operands<'_>, truncate: bool) -> Result {
    let bits = 8 * io.memory_out.len() as u32;
    let limit = 1u64 << (bits - 1);
    let direction = if truncate { Direction::Zero } else { unit.env.direction() };
    let fits = |negative, size: u64| size < limit || negative && size == limit;
    let integer = match rounded(unit, direction, fits)? {
        Some((negative, size)) => {
            if negative {
                size.wrapping_neg()
            } else {
                size
            }
        }
        None => limit,
    };
    let bytes = io.memory_out.len();
    io.memory_out.copy_from_slice(&integer.to_le_bytes()[..bytes]);
    Ok(Done)
}

/// FBSTP: eighteen decimal digits and a sign.
pub(super) fn store_decimal(unit: &mut Unit<'_>, io: &mut X87Operands<'_>) -> Result {
    const INDEFINITE: [u8; 10] = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];
    const END: u64 = 1_000_000_000_000_000_000;
    let direction = unit.env.direction();
    let bytes = match rounded(unit, direction, |_, size| size < END)? {
        Some((negative, mut size)) => {
            let mut bytes = [0; 10];
            for byte in &mut bytes[..9] {
                *byte = ((size / 10 % 10) << 4) as u8 | (size % 10) as u8;
                size /= 100;
            }
            bytes[9] = if negative { 0x80 } else { 0 };
            bytes
        }
        None => INDEFINITE,
    };
    io.memory_out.copy_from_slice(&bytes);
    Ok(Done)
}

/// FBLD. Digits above 9 count as they are.
pub(super) fn load_decimal(unit: &mut Unit<'_>, io: &X87Operands<'_>) -> Result {
    let bytes: [u8; 10] = array(io.memory_in);
    let value = if unit.claim()? {
        let digits = bytes[..9].iter().rev().flat_map(|byte| [byte >> 4, byte & 15]);
        let size = digits.fold(0u64, |all, digit| all * 10 + u64::from(digit));
        from_u64(bytes[9] & 0x80 != 0, size)
    } else {
        Ext::INDEFINITE
    };
    unit.push(value);
    Ok(Done)
}

/// ST(0) as sign and size of an integer; `None` if it is none that fits, and that is masked.
fn rounded(
    unit: &mut Unit<'_>,
    direction: Direction,
    fits: impl Fn(bool, u64) -> bool,
) -> Computed<Option<(bool, u64)>> {
    let Some(top) = unit.st(0) else {
        return unit.underflow().map(|_| None);
    };
    let negative = top.value.negative();
    let integer = match top.class {
        Class::Zero => Some((0, Inexact { any: false, up: false })),
        Class::Normal | Class::Denormal => Env::to_integer(top.value.finite().into(), direction),
        _ => None,
    };
    let Some((size, inexact)) = integer.filter(|(size, _)| fits(negative, *size)) else {
        return unit.env.raise(INVALID).map(|()| None);
    };
    if inexact.any {
        unit.env.inexact(inexact.up);
    }
    Ok(Some((negative, size)))
}

/// Does something with ST(0), then pops it.
pub(super) fn popping(unit: &mut Unit<'_>, effect: Result) -> Result {
    let effect = effect?;
    unit.pop();
    Ok(effect)
}
