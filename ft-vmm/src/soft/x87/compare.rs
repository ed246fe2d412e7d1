//! Comparisons, into condition codes or RFLAGS.

use super::X87Effect::{Done, Flags};
use super::arithmetic::{denormals, size};
use super::env::{C0, C1, C2, C3, Computed, INVALID, STACK_FAULT};
use super::number::{Class, Ext, Operand};
use super::transfer::Source;
use super::unit::Unit;
use super::{X87Effect, X87Operands};
use std::cmp::Ordering;

type Result = Computed<X87Effect>;

/// Whether a quiet NaN is an invalid operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nan {
    Invalid,
    Quiet,
}

const CARRY: u32 = 1 << 0;
const PARITY: u32 = 1 << 2;
const ZERO: u32 = 1 << 6;

/// FCOM and FUCOM with ST(i).
pub(super) fn with_register(unit: &mut Unit<'_>, io: &X87Operands<'_>, nan: Nan) -> Result {
    let other = unit.st(io.st);
    into_conditions(unit, other, nan)
}

/// FCOM and FICOM with memory.
pub(super) fn with_memory(unit: &mut Unit<'_>, io: &X87Operands<'_>, source: Source) -> Result {
    into_conditions(unit, Some(source.read(io.memory_in)), Nan::Invalid)
}

/// FTST.
pub(super) fn with_zero(unit: &mut Unit<'_>) -> Result {
    into_conditions(unit, Some(Ext::zero(false).into()), Nan::Invalid)
}

fn into_conditions(unit: &mut Unit<'_>, other: Option<Operand>, nan: Nan) -> Result {
    let (order, permission) = compare(unit, other, nan);
    let conditions = match order {
        None => C3 | C2 | C0,
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
    };
    unit.conditions(conditions);
    permission.map(|()| Done)
}

/// FCOMPP and FUCOMPP, but for the pops.
pub(super) fn with_next(unit: &mut Unit<'_>, nan: Nan) -> Result {
    let other = unit.st(1);
    into_conditions(unit, other, nan)
}

/// FCOMI and FUCOMI, and with a pop FCOMIP and FUCOMIP. RFLAGS are set even when an unmasked exception prevents the pop. C1 is
/// cleared by a stack underflow only.
pub(super) fn into_flags(unit: &mut Unit<'_>, io: &X87Operands<'_>, nan: Nan, pop: bool) -> Result {
    let other = unit.st(io.st);
    let (order, permission) = compare(unit, other, nan);
    if unit.env.raised & STACK_FAULT == 0 {
        unit.env.raised |= unit.fpu.status & C1;
    }
    if pop && permission.is_ok() {
        unit.pop();
    }
    Ok(Flags(match order {
        None => ZERO | PARITY | CARRY,
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => CARRY,
        Some(Ordering::Equal) => ZERO,
    }))
}

/// The order, `None` being unordered, and whether an exception prevents all but condition codes: these are set even then.
fn compare(unit: &mut Unit<'_>, other: Option<Operand>, nan: Nan) -> (Option<Ordering>, Computed<()>) {
    let (Some(a), Some(b)) = (unit.st(0), other) else {
        return (None, unit.underflow().map(drop));
    };
    let either = |class| a.class == class || b.class == class;
    if either(Class::Unsupported) || either(Class::Signalling) || either(Class::Quiet) && nan == Nan::Invalid
    {
        return (None, unit.env.raise(INVALID));
    }
    if either(Class::Quiet) {
        return (None, Ok(()));
    }
    (Some(order(a, b)), denormals(&mut unit.env, a, b))
}

fn order(a: Operand, b: Operand) -> Ordering {
    let (negative, other_negative) = (a.value.negative(), b.value.negative());
    if a.class == Class::Zero && b.class == Class::Zero {
        return Ordering::Equal;
    }
    if negative != other_negative {
        return if negative { Ordering::Less } else { Ordering::Greater };
    }
    let sizes = match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) => Ordering::Equal,
        (Class::Infinity, _) | (_, Class::Zero) => Ordering::Greater,
        (_, Class::Infinity) | (Class::Zero, _) => Ordering::Less,
        _ => size(a.value.finite(), b.value.finite()),
    };
    if negative { sizes.reverse() } else { sizes }
}
