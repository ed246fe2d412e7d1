//! Arithmetic on extended numbers: operands and control word in, a correctly rounded result and exceptions out.

use super::env::{C1, Computed, DENORMAL, Direction, Env, INVALID, ZERO_DIVIDE};
use super::number::{Class, Ext, Finite, Operand, Wide, shift_right_sticky};
use std::cmp::Ordering;

/// What the instruction does with two operands that are numbers, the first being the destination unless it is reversed.
pub(super) type Binary = fn(&mut Env, Operand, Operand) -> Computed<Ext>;

pub(super) fn add(env: &mut Env, a: Operand, b: Operand) -> Computed<Ext> {
    sum(env, a, b, false)
}

pub(super) fn subtract(env: &mut Env, a: Operand, b: Operand) -> Computed<Ext> {
    sum(env, a, b, true)
}

pub(super) fn multiply(env: &mut Env, a: Operand, b: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, a, b)? {
        return Ok(nan);
    }
    let negative = a.value.negative() != b.value.negative();
    match (a.class, b.class) {
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => return env.invalid(),
        _ => denormals(env, a, b)?,
    }
    Ok(match (a.class, b.class) {
        (Class::Infinity, _) | (_, Class::Infinity) => Ext::infinity(negative),
        (Class::Zero, _) | (_, Class::Zero) => Ext::zero(negative),
        _ => {
            let (a, b) = (a.value.finite(), b.value.finite());
            let product = u128::from(a.significand) * u128::from(b.significand);
            env.deliver(Wide::normalized(negative, a.exponent + b.exponent + 1, product), env.precision())
        }
    })
}

pub(super) fn divide(env: &mut Env, a: Operand, b: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, a, b)? {
        return Ok(nan);
    }
    let negative = a.value.negative() != b.value.negative();
    match (a.class, b.class) {
        (Class::Zero, Class::Zero) | (Class::Infinity, Class::Infinity) => return env.invalid(),
        (Class::Normal | Class::Denormal, Class::Zero) => {
            env.raise(ZERO_DIVIDE)?;
            return Ok(Ext::infinity(negative));
        }
        _ => denormals(env, a, b)?,
    }
    Ok(match (a.class, b.class) {
        (Class::Infinity, _) => Ext::infinity(negative),
        (Class::Zero, _) | (_, Class::Infinity) => Ext::zero(negative),
        _ => {
            let (a, b) = (a.value.finite(), b.value.finite());
            let divisor = u128::from(b.significand);
            let dividend = u128::from(a.significand) << 63;
            let (high, rest) = (dividend / divisor, (dividend % divisor) << 64);
            let (low, rest) = (rest / divisor, rest % divisor);
            let quotient = high << 64 | low | u128::from(rest != 0);
            env.deliver(Wide::normalized(negative, a.exponent - b.exponent, quotient), env.precision())
        }
    })
}

pub(super) fn square_root(env: &mut Env, a: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, a, a)? {
        return Ok(nan);
    }
    match a.class {
        Class::Zero => return Ok(a.value),
        _ if a.value.negative() => return env.invalid(),
        Class::Infinity => return Ok(a.value),
        _ => denormals(env, a, a)?,
    }
    let a = a.value.finite();
    // An even exponent is halved; what makes it even goes into the radicand, which keeps its 127th or 128th bit.
    let odd = a.exponent & 1 != 0;
    let radicand = u128::from(a.significand) << if odd { 64 } else { 63 };
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // (root + 1/2)^2 is root^2 + root + 1/4.
    let half = u128::from(rest > root) << 63;
    let significand = root << 64 | half | u128::from(rest != 0);
    let x = Wide { negative: false, exponent: a.exponent >> 1, significand };
    Ok(env.deliver(x, env.precision()))
}

fn sum(env: &mut Env, a: Operand, b: Operand, subtract: bool) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, a, b)? {
        return Ok(nan);
    }
    let b = Operand { value: b.value.with_sign(b.value.negative() != subtract), ..b };
    let opposite = a.value.negative() != b.value.negative();
    if a.class == Class::Infinity && b.class == Class::Infinity && opposite {
        return env.invalid();
    }
    denormals(env, a, b)?;
    Ok(match (a.class, b.class) {
        (Class::Infinity, _) => a.value,
        (_, Class::Infinity) => b.value,
        (Class::Zero, Class::Zero) if opposite => cancelled(env),
        (Class::Zero, Class::Zero) => a.value,
        (Class::Zero, _) => env.deliver(b.value.finite().into(), env.precision()),
        (_, Class::Zero) => env.deliver(a.value.finite().into(), env.precision()),
        _ => match sum_of_finite(a.value.finite(), b.value.finite()) {
            Some(x) => env.deliver(x, env.precision()),
            None => cancelled(env),
        },
    })
}

/// The zero that is the sum of opposite numbers.
fn cancelled(env: &Env) -> Ext {
    Ext::zero(env.direction() == Direction::Down)
}

/// `None` if they cancel.
fn sum_of_finite(a: Finite, b: Finite) -> Option<Wide> {
    let (large, small) = match size(a, b) {
        Ordering::Less => (b, a),
        _ => (a, b),
    };
    // One bit above for the carry, 63 below for what is shifted out.
    let distance = (large.exponent - small.exponent) as u32;
    let x = u128::from(large.significand) << 63;
    let y = shift_right_sticky(u128::from(small.significand) << 63, distance);
    let significand = if a.negative == b.negative { x + y } else { x - y };
    (significand != 0).then(|| Wide::normalized(large.negative, large.exponent + 1, significand))
}

/// Compares without sign.
pub(super) fn size(a: Finite, b: Finite) -> Ordering {
    (a.exponent, a.significand).cmp(&(b.exponent, b.significand))
}

/// The NaN that comes of operands that are not all numbers. An unsupported or signalling operand is invalid.
pub(super) fn nan_of(env: &mut Env, a: Operand, b: Operand) -> Computed<Option<Ext>> {
    let either = |class| a.class == class || b.class == class;
    if either(Class::Unsupported) {
        return env.invalid().map(Some);
    }
    if either(Class::Signalling) {
        env.raise(INVALID)?;
    }
    let is_nan = |x: Operand| matches!(x.class, Class::Quiet | Class::Signalling);
    Ok(match (is_nan(a), is_nan(b)) {
        (false, false) => None,
        (true, false) => Some(a.value.quieted()),
        (false, true) => Some(b.value.quieted()),
        (true, true) => Some(preferred_nan(a, b).quieted()),
    })
}

/// Of two NaNs a quiet one, or the one with the larger significand, or the positive one.
fn preferred_nan(a: Operand, b: Operand) -> Ext {
    match (a.class, b.class) {
        (Class::Quiet, Class::Signalling) => return a.value,
        (Class::Signalling, Class::Quiet) => return b.value,
        _ => {}
    }
    match a.value.significand.cmp(&b.value.significand) {
        Ordering::Greater => a.value,
        Ordering::Less => b.value,
        Ordering::Equal if a.value.negative() => b.value,
        Ordering::Equal => a.value,
    }
}

/// Raises the exception of denormal operands if there is one.
pub(super) fn denormals(env: &mut Env, a: Operand, b: Operand) -> Computed<()> {
    if a.class == Class::Denormal || b.class == Class::Denormal { env.raise(DENORMAL) } else { Ok(()) }
}

/// FRNDINT.
pub(super) fn round_to_integer(env: &mut Env, a: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, a, a)? {
        return Ok(nan);
    }
    denormals(env, a, a)?;
    if matches!(a.class, Class::Zero | Class::Infinity) {
        return Ok(a.value);
    }
    let x = a.value.finite();
    if x.exponent >= 63 {
        return Ok(a.value);
    }
    let Some((integer, inexact)) = Env::to_integer(x.into(), env.direction()) else { return Ok(a.value) };
    if inexact.any {
        env.inexact(inexact.up);
    }
    Ok(from_u64(x.negative, integer))
}

/// An integer as an extended number.
pub(super) fn from_u64(negative: bool, integer: u64) -> Ext {
    if integer == 0 {
        return Ext::zero(negative);
    }
    let shift = integer.leading_zeros();
    Ext::new(negative, super::number::BIAS as u16 + 63 - shift as u16, integer << shift)
}

/// FSCALE: the first operand times 2 to the second, truncated.
pub(super) fn scale(env: &mut Env, a: Operand, by: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, a, by)? {
        return Ok(nan);
    }
    match (a.class, by.class) {
        (Class::Zero, Class::Infinity) if !by.value.negative() => return env.invalid(),
        (Class::Infinity, Class::Infinity) if by.value.negative() => return env.invalid(),
        _ => denormals(env, a, by)?,
    }
    let negative = a.value.negative();
    Ok(match (a.class, by.class) {
        (Class::Zero | Class::Infinity, _) => a.value,
        (_, Class::Infinity) if by.value.negative() => Ext::zero(negative),
        (_, Class::Infinity) => Ext::infinity(negative),
        (_, Class::Zero) => env.deliver(a.value.finite().into(), 64),
        _ => {
            let by = by.value.finite();
            // Beyond this every result overflows or underflows, wrapped or not.
            const FAR: i64 = 0x1_0000;
            let distance = match Env::to_integer(by.into(), Direction::Zero) {
                Some((distance, _)) => distance.min(FAR as u64) as i64,
                None => FAR,
            };
            let distance = if by.negative { -distance } else { distance };
            let x = Wide::from(a.value.finite());
            env.deliver(Wide { exponent: x.exponent + distance as i32, ..x }, 64)
        }
    })
}

/// FXTRACT: exponent and significand.
pub(super) fn extract(env: &mut Env, a: Operand) -> Computed<(Ext, Ext)> {
    if let Some(nan) = nan_of(env, a, a)? {
        return Ok((nan, nan));
    }
    match a.class {
        Class::Zero => {
            env.raise(ZERO_DIVIDE)?;
            return Ok((Ext::infinity(true), a.value));
        }
        Class::Infinity => return Ok((Ext::infinity(false), a.value)),
        _ => denormals(env, a, a)?,
    }
    let x = a.value.finite();
    let exponent = from_u64(x.exponent < 0, x.exponent.unsigned_abs().into());
    let significand = Ext::new(x.negative, Ext::ONE.exponent(), x.significand);
    Ok((exponent, significand))
}

/// A partial remainder.
pub(super) struct Remainder {
    pub(super) value: Ext,
    pub(super) quotient: Quotient,
}

/// What is known of a quotient.
pub(super) enum Quotient {
    /// Its low bits.
    Complete(u64),
    /// The remainder is only partial.
    Partial,
    /// There is none: the operands are not numbers that can be divided.
    None,
}

/// FPREM (`nearest` false: the quotient is truncated) and FPREM1 (it is rounded to nearest).
///
/// A step reduces the exponent by less than 64. How much of a larger difference one step takes, between 32 and 63, the architecture
/// leaves open; here it is 32 plus the difference modulo 32.
pub(super) fn remainder(env: &mut Env, a: Operand, b: Operand, nearest: bool) -> Computed<Remainder> {
    let done = |value| Remainder { value, quotient: Quotient::Complete(0) };
    let undefined = |value| Remainder { value, quotient: Quotient::None };
    if let Some(nan) = nan_of(env, a, b)? {
        return Ok(undefined(nan));
    }
    if a.class == Class::Infinity || b.class == Class::Zero {
        return env.invalid().map(undefined);
    }
    denormals(env, a, b)?;
    if a.class == Class::Zero {
        return Ok(done(a.value));
    }
    let x = a.value.finite();
    if b.class == Class::Infinity {
        return Ok(done(env.deliver(x.into(), 64)));
    }
    let y = b.value.finite();
    let difference = x.exponent - y.exponent;
    if difference < -1 {
        return Ok(done(env.deliver(x.into(), 64)));
    }
    let (step, complete) = match difference {
        64.. => (32 + difference % 32, false),
        _ => (difference, true),
    };
    // Both in units of the smaller exponent.
    let (dividend, divisor) = match step {
        -1 => (u128::from(x.significand), u128::from(y.significand) << 1),
        _ => (u128::from(x.significand) << step, u128::from(y.significand)),
    };
    let exponent = x.exponent - step.max(0);
    let (mut quotient, mut rest, mut negative) = (dividend / divisor, dividend % divisor, x.negative);
    if nearest && complete && (rest * 2, quotient & 1) > (divisor, 0) {
        (quotient, rest, negative) = (quotient + 1, divisor - rest, !negative);
    }
    let value = match rest {
        0 => Ext::zero(x.negative),
        // The rest is an integer: of 128 bits, 63 are below the units of its exponent.
        _ => env.deliver(Wide::normalized(negative, exponent + 64, rest), 64),
    };
    env.raised &= !C1;
    Ok(Remainder {
        value,
        quotient: if complete { Quotient::Complete(quotient as u64) } else { Quotient::Partial },
    })
}
