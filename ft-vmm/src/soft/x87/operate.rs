//! Instructions that compute a value in a register: arithmetic, constants, and what is done to ST(0) alone.

use super::X87Effect::Done;
use super::arithmetic::{self, Binary, Quotient, Remainder};
use super::env::{C0, C1, C2, C3, Computed, Direction, Env};
use super::number::{Class, Ext, Operand};
use super::transfer::Source;
use super::unit::Unit;
use super::{X87Effect, X87Operands};

type Result = Computed<X87Effect>;

/// ST(0) from itself and memory.
pub(super) fn with_memory(
    unit: &mut Unit<'_>,
    io: &X87Operands<'_>,
    source: Source,
    of: Binary,
    reversed: bool,
) -> Result {
    let memory = source.read(io.memory_in);
    binary(unit, 0, Some(memory), of, reversed)
}

/// ST(0) from itself and ST(i).
pub(super) fn to_top(unit: &mut Unit<'_>, io: &X87Operands<'_>, of: Binary, reversed: bool) -> Result {
    let source = unit.st(io.st);
    binary(unit, 0, source, of, reversed)
}

/// ST(i) from itself and ST(0).
pub(super) fn from_top(unit: &mut Unit<'_>, io: &X87Operands<'_>, of: Binary, reversed: bool) -> Result {
    let source = unit.st(0);
    binary(unit, io.st, source, of, reversed)
}

/// ST(i) from itself and ST(0), which is popped.
pub(super) fn from_popped(unit: &mut Unit<'_>, io: &X87Operands<'_>, of: Binary, reversed: bool) -> Result {
    from_top(unit, io, of, reversed)?;
    unit.pop();
    Ok(Done)
}

fn binary(unit: &mut Unit<'_>, dst: u8, source: Option<Operand>, of: Binary, reversed: bool) -> Result {
    let result = match (unit.st(dst), source) {
        (Some(dst), Some(source)) if reversed => of(&mut unit.env, source, dst),
        (Some(dst), Some(source)) => of(&mut unit.env, dst, source),
        _ => unit.underflow(),
    }?;
    unit.set(dst, result);
    Ok(Done)
}

/// ST(0) from itself.
pub(super) fn unary(unit: &mut Unit<'_>, of: fn(&mut Env, Operand) -> Computed<Ext>) -> Result {
    let result = match unit.st(0) {
        Some(top) => of(&mut unit.env, top),
        None => unit.underflow(),
    }?;
    unit.set(0, result);
    Ok(Done)
}

/// FSCALE: ST(0) by ST(1).
pub(super) fn scale(unit: &mut Unit<'_>) -> Result {
    let by = unit.st(1);
    binary(unit, 0, by, arithmetic::scale, false)
}

/// FXTRACT: the exponent in place of ST(0), the significand on top.
pub(super) fn extract(unit: &mut Unit<'_>) -> Result {
    two_results(unit, arithmetic::extract)
}

/// ST(0) makes place for a result, and a second one is pushed.
pub(super) fn two_results(unit: &mut Unit<'_>, of: fn(&mut Env, Operand) -> Computed<(Ext, Ext)>) -> Result {
    let top = unit.st(0);
    let (below, above) = match top {
        None => unit.underflow().map(|nan| (nan, nan))?,
        Some(_) if !unit.claim()? => (Ext::INDEFINITE, Ext::INDEFINITE),
        Some(top) => of(&mut unit.env, top)?,
    };
    unit.set(0, below);
    unit.push(above);
    Ok(Done)
}

/// FPREM and FPREM1.
pub(super) fn remainder(unit: &mut Unit<'_>, nearest: bool) -> Result {
    let conditions = unit.fpu.status & (C0 | C3);
    unit.conditions(conditions);
    let remainder = match (unit.st(0), unit.st(1)) {
        (Some(a), Some(b)) => arithmetic::remainder(&mut unit.env, a, b, nearest)?,
        _ => Remainder { value: unit.underflow()?, quotient: Quotient::None },
    };
    unit.set(0, remainder.value);
    match remainder.quotient {
        Quotient::None => {}
        Quotient::Partial => unit.conditions(C2),
        Quotient::Complete(quotient) => {
            let bit = |n: u32, code| if quotient >> n & 1 != 0 { code } else { 0 };
            unit.conditions(bit(2, C0) | bit(1, C3));
            unit.env.raised |= bit(0, C1);
        }
    }
    Ok(Done)
}

/// FLD1 and the other constants: pi and logarithms are rounded as the control word says, but inexactness is not told.
pub(super) fn constant(unit: &mut Unit<'_>, of: Constant) -> Result {
    let value = if unit.claim()? { of.rounded(unit.env.direction()) } else { Ext::INDEFINITE };
    unit.push(value);
    Ok(Done)
}

/// A positive number between two extended ones.
#[derive(Clone, Copy)]
pub(super) struct Constant {
    exponent: u16,
    /// Rounded down.
    significand: u64,
    /// Whether nearest is up.
    nearest_up: bool,
    exact: bool,
}

impl Constant {
    pub(super) const ZERO: Self = Self::exactly(Ext { sign_exponent: 0, significand: 0 });
    pub(super) const ONE: Self = Self::exactly(Ext::ONE);
    pub(super) const LOG2_10: Self = Self::between(0x4000, 0xd49a_784b_cd1b_8afe, false);
    pub(super) const LOG2_E: Self = Self::between(0x3fff, 0xb8aa_3b29_5c17_f0bb, true);
    pub(super) const PI: Self = Self::between(0x4000, 0xc90f_daa2_2168_c234, true);
    pub(super) const LOG10_2: Self = Self::between(0x3ffd, 0x9a20_9a84_fbcf_f798, true);
    pub(super) const LN_2: Self = Self::between(0x3ffe, 0xb172_17f7_d1cf_79ab, true);

    const fn exactly(x: Ext) -> Self {
        Self { exponent: x.sign_exponent, significand: x.significand, nearest_up: false, exact: true }
    }

    const fn between(exponent: u16, significand: u64, nearest_up: bool) -> Self {
        Self { exponent, significand, nearest_up, exact: false }
    }

    fn rounded(self, direction: Direction) -> Ext {
        let up = match direction {
            Direction::Nearest => self.nearest_up,
            Direction::Up => !self.exact,
            Direction::Down | Direction::Zero => false,
        };
        Ext::new(false, self.exponent, self.significand + u64::from(up))
    }
}

/// FABS and FCHS: the sign alone changes, whatever the rest is.
pub(super) fn sign(unit: &mut Unit<'_>, of: fn(bool) -> bool) -> Result {
    let result = match unit.st(0) {
        Some(top) => top.value.with_sign(of(top.value.negative())),
        None => unit.underflow()?,
    };
    unit.set(0, result);
    Ok(Done)
}

/// FXAM.
pub(super) fn examine(unit: &mut Unit<'_>) -> Result {
    let conditions = match unit.st(0).map(|top| top.class) {
        None => C3 | C0,
        Some(Class::Unsupported) => 0,
        Some(Class::Quiet | Class::Signalling) => C0,
        Some(Class::Normal) => C2,
        Some(Class::Infinity) => C2 | C0,
        Some(Class::Zero) => C3,
        Some(Class::Denormal) => C3 | C2,
    };
    unit.conditions(conditions);
    if unit.raw(0).negative() {
        unit.env.raised |= C1;
    }
    Ok(Done)
}
