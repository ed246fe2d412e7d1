//! FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1.
//!
//! Processor models differ in the last bits of these, so ours are fixed: each is computed with 128-bit significands and rounded once to
//! 64 bits as the control word says (precision control plays no part), which is the correctly rounded result but for about one operand in 2^60.
//! Arguments of trigonometric functions are reduced by pi in 66 bits, as the architecture's manuals describe: so far from 0 they are
//! functions of that period. Precision is not raised for the few results that are exact: logarithms of powers of two, `2^x - 1` for integers.

use super::X87Effect::{self, Done};
use super::arithmetic::{denormals, nan_of};
use super::env::{C0, C2, C3, Computed, Env, ZERO_DIVIDE};
use super::number::{Class, Ext, Finite, Operand, Wide};
use super::unit::Unit;
use super::wide::{ONE, multiply_high, nested, odd_reciprocals};

type Result = Computed<X87Effect>;

const PI: Wide = Wide::new(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
const HALF_PI: Wide = Wide { exponent: 0, ..PI };
const QUARTER_PI: Wide = Wide { exponent: -1, ..PI };
const LN_2: Wide = Wide::new(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
const LOG2_E: Wide = Wide::new(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88);
const WIDE_ONE: Wide = Wide::new(0, ONE);
/// Pi in units of 2^-64, as every x87 has it: 66 bits.
const PI_OF_X87: u128 = 0x3_243f_6a88_85a3_08d3;
/// The arctangents of 0/8 to 8/8, as fixed numbers.
const ARCTANGENTS: [u128; 9] = [
    0,
    0x1fd5_ba9a_ac2f_6dc6_5912_f313_e7d1_11de >> 1,
    0x3eb6_ebf2_5901_bac5_5b71_e7bd_7de8_85f9 >> 1,
    0x5bd8_6507_937b_c239_c551_9091_6e7f_2241 >> 1,
    0x76b1_9c15_86ed_3da2_b7f2_22f6_5e1d_4681 >> 1,
    0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3747 >> 1,
    0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9e >> 1,
    0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d >> 1,
    0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 >> 1,
];

/// Rounds what is known not to be exact.
fn inexact(env: &mut Env, x: Wide) -> Ext {
    env.deliver(Wide { significand: x.significand | 1, ..x }, 64)
}

/// FSIN and FCOS.
pub(super) fn trigonometric(unit: &mut Unit<'_>, of: fn(&mut Env, Operand) -> Computed<Ext>) -> Result {
    let in_range = !unit.st(0).is_some_and(is_out_of_range);
    tell(unit, in_range);
    if in_range { super::operate::unary(unit, of) } else { Ok(Done) }
}

/// FSINCOS and FPTAN.
pub(super) fn trigonometric_pair(
    unit: &mut Unit<'_>,
    of: fn(&mut Env, Operand) -> Computed<(Ext, Ext)>,
) -> Result {
    // Without space to push, the operand does not matter.
    let full = unit.st(7).is_some();
    let in_range = full || !unit.st(0).is_some_and(is_out_of_range);
    tell(unit, in_range);
    if in_range { super::operate::two_results(unit, of) } else { Ok(Done) }
}

/// C2 tells when nothing is computed.
fn tell(unit: &mut Unit<'_>, in_range: bool) {
    let others = unit.fpu.status & (C0 | C3);
    unit.conditions(if in_range { others } else { others | C2 });
}

/// From 2^63 on nothing is computed.
fn is_out_of_range(x: Operand) -> bool {
    matches!(x.class, Class::Normal) && x.value.finite().exponent >= 63
}

pub(super) fn sine(env: &mut Env, x: Operand) -> Computed<Ext> {
    if let Some(special) = trigonometric_special(env, x)? {
        return Ok(special);
    }
    if x.class == Class::Zero {
        return Ok(x.value);
    }
    let angle = Angle::of(x.value.finite());
    Ok(inexact(env, angle.sine()))
}

pub(super) fn cosine(env: &mut Env, x: Operand) -> Computed<Ext> {
    if let Some(special) = trigonometric_special(env, x)? {
        return Ok(special);
    }
    if x.class == Class::Zero {
        return Ok(Ext::ONE);
    }
    Ok(inexact(env, Angle::of(x.value.finite()).cosine()))
}

/// Sine and cosine.
pub(super) fn both(env: &mut Env, x: Operand) -> Computed<(Ext, Ext)> {
    if let Some(special) = trigonometric_special(env, x)? {
        return Ok((special, special));
    }
    if x.class == Class::Zero {
        return Ok((x.value, Ext::ONE));
    }
    let angle = Angle::of(x.value.finite());
    Ok((inexact(env, angle.sine()), inexact(env, angle.cosine())))
}

/// Tangent, and 1.
pub(super) fn tangent(env: &mut Env, x: Operand) -> Computed<(Ext, Ext)> {
    if let Some(special) = trigonometric_special(env, x)? {
        return Ok((special, special));
    }
    if x.class == Class::Zero {
        return Ok((x.value, Ext::ONE));
    }
    let angle = Angle::of(x.value.finite());
    Ok((inexact(env, angle.tangent()), Ext::ONE))
}

fn trigonometric_special(env: &mut Env, x: Operand) -> Computed<Option<Ext>> {
    if let Some(nan) = nan_of(env, x, x)? {
        return Ok(Some(nan));
    }
    if x.class == Class::Infinity {
        return env.invalid().map(Some);
    }
    denormals(env, x, x).map(|()| None)
}

/// An angle as a quarter of the circle and a rest, between -pi/4 and pi/4.
struct Angle {
    negative: bool,
    quarter: u64,
    rest: Wide,
}

impl Angle {
    fn of(x: Finite) -> Self {
        let whole = Wide::from(Finite { negative: false, ..x });
        let (quarter, rest) = if whole.size(QUARTER_PI).is_lt() { (0, whole) } else { reduced(x) };
        Self { negative: x.negative, quarter, rest }
    }

    fn sine(&self) -> Wide {
        let x = self.sine_from(self.quarter);
        x.with_sign(x.negative != self.negative)
    }

    fn cosine(&self) -> Wide {
        self.sine_from(self.quarter + 1)
    }

    fn tangent(&self) -> Wide {
        let (per_rest, cosine) = (self.sine_per_rest(), self.cosine_of_rest());
        let x = if self.quarter & 1 == 0 {
            self.rest.times(per_rest.over(cosine))
        } else {
            let x = cosine.over(self.rest.times(per_rest));
            x.with_sign(!x.negative)
        };
        x.with_sign(x.negative != self.negative)
    }

    /// Sine of a rest in this quarter.
    fn sine_from(&self, quarter: u64) -> Wide {
        let odd = quarter & 1 != 0;
        let x = if odd { self.cosine_of_rest() } else { self.rest.times(self.sine_per_rest()) };
        x.with_sign(x.negative != (quarter & 2 != 0))
    }

    fn sine_per_rest(&self) -> Wide {
        Wide::from_fixed(nested(self.square(), (1..=16).map(|k| 2 * k * (2 * k + 1))))
    }

    fn cosine_of_rest(&self) -> Wide {
        Wide::from_fixed(nested(self.square(), (1..=16).map(|k| (2 * k - 1) * 2 * k)))
    }

    fn square(&self) -> u128 {
        self.rest.times(self.rest).to_fraction()
    }
}

/// The size of `x`, from pi/4 to 2^63, in quarters of a circle: the whole number nearest, and the rest as an angle.
fn reduced(x: Finite) -> (u64, Wide) {
    // In units of 2^-65, in which pi/2 is an integer and `x` has up to 128 bits.
    let units = u128::from(x.significand) << (x.exponent + 2);
    let (quarter, rest) = ((units / PI_OF_X87) as u64, units % PI_OF_X87);
    let past_half = rest > PI_OF_X87 / 2;
    let (quarter, rest) = if past_half { (quarter + 1, PI_OF_X87 - rest) } else { (quarter, rest) };
    // It is not 0: pi is odd in its units, and longer than the significand of `x`.
    (quarter, Wide::normalized(past_half, 127 - 65, rest))
}

/// FPATAN, FYL2X, FYL2XP1: from ST(0) and ST(1) into ST(1), ST(0) popped.
pub(super) fn with_pop(unit: &mut Unit<'_>, of: fn(&mut Env, Operand, Operand) -> Computed<Ext>) -> Result {
    let result = match (unit.st(0), unit.st(1)) {
        (Some(x), Some(y)) => of(&mut unit.env, x, y)?,
        _ => unit.underflow()?,
    };
    unit.set(1, result);
    unit.pop();
    Ok(Done)
}

/// The angle of the point (x, y).
pub(super) fn arctangent(env: &mut Env, x: Operand, y: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, x, y)? {
        return Ok(nan);
    }
    denormals(env, x, y)?;
    let (left, negative) = (x.value.negative(), y.value.negative());
    let angle = match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) => QUARTER_PI,
        (_, Class::Infinity) => HALF_PI,
        (Class::Infinity, _) | (_, Class::Zero) if left => PI,
        (Class::Infinity, _) | (_, Class::Zero) => return Ok(Ext::zero(negative)),
        (Class::Zero, _) => HALF_PI,
        _ => return Ok(angle_of(env, x.value.finite(), y.value.finite())),
    };
    let angle = match (x.class, y.class) {
        (Class::Infinity, Class::Infinity) if left => angle.times(Wide::new(1, 3 << 126)),
        _ => angle,
    };
    Ok(inexact(env, angle.with_sign(negative)))
}

fn angle_of(env: &mut Env, x: Finite, y: Finite) -> Ext {
    let [wide_x, wide_y] = [x, y].map(|x| Wide::from(Finite { negative: false, ..x }));
    let steep = wide_x.size(wide_y).is_lt();
    let ratio = if steep { wide_x.over(wide_y) } else { wide_y.over(wide_x) };
    let angle = arctangent_to_one(ratio);
    let from = |base: Wide, minus: bool| base.plus(angle.with_sign(minus)).unwrap_or(base);
    let angle = match (steep, x.negative) {
        (false, false) => angle,
        (false, true) => from(PI, true),
        (true, false) => from(HALF_PI, true),
        (true, true) => from(HALF_PI, false),
    };
    inexact(env, angle.with_sign(y.negative))
}

/// Of a ratio up to 1.
fn arctangent_to_one(ratio: Wide) -> Wide {
    let fraction = if ratio.exponent >= 0 { u128::MAX } else { ratio.to_fraction() };
    // The nearest eighth.
    let eighths = (fraction >> 124).div_ceil(2);
    if eighths == 0 {
        return small_arctangent(ratio);
    }
    // atan(t) = atan(c) + atan((t - c) / (1 + tc))
    let eighth = Wide::normalized(true, 0, eighths << 124);
    let base = Wide::from_fixed(ARCTANGENTS[eighths as usize]);
    let Some(above) = ratio.plus(eighth) else { return base };
    let below = WIDE_ONE.plus(ratio.times(eighth.with_sign(false))).unwrap_or(WIDE_ONE);
    base.plus(small_arctangent(above.over(below))).unwrap_or(base)
}

/// Of a number up to 1/16 in size.
fn small_arctangent(x: Wide) -> Wide {
    let square = x.times(x).to_fraction();
    x.times(Wide::from_fixed(odd_reciprocals(square, 18, true)))
}

/// F2XM1: `2^x - 1`, for x from -1 to 1. Beyond, where the architecture defines nothing, x itself.
pub(super) fn exponential(env: &mut Env, x: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, x, x)? {
        return Ok(nan);
    }
    denormals(env, x, x)?;
    match x.class {
        Class::Zero => return Ok(x.value),
        Class::Infinity if x.value.negative() => return Ok(Ext::ONE.with_sign(true)),
        Class::Infinity => return Ok(x.value),
        _ => {}
    }
    let number = x.value.finite();
    if number.exponent >= 0 {
        const HALF: Ext = Ext { sign_exponent: 0x3ffe, ..Ext::ONE };
        let one = x.value.with_sign(false) == Ext::ONE;
        return Ok(if one && number.negative { HALF.with_sign(true) } else { x.value });
    }
    let power = Wide::from(number).times(LN_2);
    let size = power.to_fraction();
    // (e^t - 1) / t
    let series = (2..=34).rev().fold(ONE, |inner, divisor| {
        let rest = multiply_high(size, inner) / divisor;
        if power.negative { ONE - rest } else { ONE + rest }
    });
    Ok(inexact(env, power.times(Wide::from_fixed(series))))
}

/// FYL2X: `y * log2(x)`.
pub(super) fn logarithm(env: &mut Env, x: Operand, y: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, x, y)? {
        return Ok(nan);
    }
    if x.class != Class::Zero && x.value.negative() {
        return env.invalid();
    }
    let negative = y.value.negative();
    match (x.class, y.class) {
        (Class::Zero, Class::Zero) | (Class::Infinity, Class::Zero) => return env.invalid(),
        (Class::Zero, Class::Infinity) => return Ok(Ext::infinity(!negative)),
        (Class::Zero, _) => {
            env.raise(ZERO_DIVIDE)?;
            return Ok(Ext::infinity(!negative));
        }
        (_, Class::Infinity) if x.value == Ext::ONE => return env.invalid(),
        _ => denormals(env, x, y)?,
    }
    if x.class == Class::Infinity {
        return Ok(Ext::infinity(negative));
    }
    let logarithm = binary_logarithm(Wide::from(x.value.finite()));
    Ok(times_logarithm(env, y, logarithm))
}

/// FYL2XP1: `y * log2(x + 1)`. For x of -1 and below, where the architecture defines nothing, it is invalid.
pub(super) fn logarithm_plus_one(env: &mut Env, x: Operand, y: Operand) -> Computed<Ext> {
    if let Some(nan) = nan_of(env, x, y)? {
        return Ok(nan);
    }
    let negative = x.value.negative();
    match (x.class, y.class) {
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => return env.invalid(),
        (Class::Infinity, _) if negative => return env.invalid(),
        (Class::Normal, _) if negative && x.value.finite().exponent >= 0 => return env.invalid(),
        _ => denormals(env, x, y)?,
    }
    match x.class {
        Class::Infinity => return Ok(Ext::infinity(y.value.negative())),
        Class::Zero if y.class != Class::Infinity => {
            return Ok(Ext::zero(negative != y.value.negative()));
        }
        _ => {}
    }
    let x = Wide::from(x.value.finite());
    let logarithm = if x.exponent < -2 {
        Some(logarithm_of_ratio(x, TWO.plus(x).unwrap_or(TWO)))
    } else {
        WIDE_ONE.plus(x).and_then(binary_logarithm)
    };
    Ok(times_logarithm(env, y, logarithm))
}

const TWO: Wide = Wide::new(1, ONE);

fn times_logarithm(env: &mut Env, y: Operand, logarithm: Option<Wide>) -> Ext {
    let Some(logarithm) = logarithm else {
        return Ext::zero(y.value.negative());
    };
    let negative = logarithm.negative != y.value.negative();
    match y.class {
        Class::Zero => Ext::zero(negative),
        Class::Infinity => Ext::infinity(negative),
        _ => {
            let product = Wide::from(y.value.finite()).times(logarithm);
            // Logarithms of powers of two, and only these, are exact: integers of 15 bits.
            let exact = logarithm.significand << 16 == 0;
            if exact { env.deliver(product, 64) } else { inexact(env, product) }
        }
    }
}

/// `None` is 0.
fn binary_logarithm(x: Wide) -> Option<Wide> {
    /// Root of 2.
    const ROOT: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let whole = if x.significand > ROOT { x.exponent + 1 } else { x.exponent };
    let mantissa = Wide { exponent: x.exponent - whole, ..x };
    let fraction = mantissa
        .plus(WIDE_ONE.with_sign(true))
        .map(|above| logarithm_of_ratio(above, mantissa.plus(WIDE_ONE).unwrap_or(WIDE_ONE)));
    let integer = (whole != 0).then(|| Wide::normalized(whole < 0, 127, u128::from(whole.unsigned_abs())));
    match (integer, fraction) {
        (Some(integer), Some(fraction)) => integer.plus(fraction),
        (integer, fraction) => integer.or(fraction),
    }
}

/// log2(m), given m - 1 and m + 1: twice the area tangent of their ratio, which is at most 0.172 in size.
fn logarithm_of_ratio(minus_one: Wide, plus_one: Wide) -> Wide {
    let ratio = minus_one.over(plus_one);
    let square = ratio.times(ratio).to_fraction();
    let series = Wide::from_fixed(odd_reciprocals(square, 27, false));
    let x = ratio.times(series).times(LOG2_E);
    Wide { exponent: x.exponent + 1, ..x }
}
