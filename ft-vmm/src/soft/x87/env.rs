//! Exceptions and rounding: what the control word says of a result, and what the result says in the status word.

use super::number::{BIAS, Ext, INTEGER, Wide, shift_right_sticky};

/// Flags of the status word, and their masks in the control word.
pub(super) const INVALID: u16 = 1 << 0;
pub(super) const DENORMAL: u16 = 1 << 1;
pub(super) const ZERO_DIVIDE: u16 = 1 << 2;
pub(super) const OVERFLOW: u16 = 1 << 3;
pub(super) const UNDERFLOW: u16 = 1 << 4;
pub(super) const PRECISION: u16 = 1 << 5;
pub(super) const STACK_FAULT: u16 = 1 << 6;
pub(super) const SUMMARY: u16 = 1 << 7;
pub(super) const C0: u16 = 1 << 8;
pub(super) const C1: u16 = 1 << 9;
pub(super) const C2: u16 = 1 << 10;
pub(super) const C3: u16 = 1 << 14;
pub(super) const BUSY: u16 = 1 << 15;
/// The six exceptions.
pub(super) const EXCEPTIONS: u16 = 0x3f;

/// What is added to the exponent of a result that raises unmasked underflow, and taken from that of one that overflows.
const WRAP: i32 = 24576;
const EXPONENT_MAX: i32 = BIAS;
const EXPONENT_MIN: i32 = 1 - BIAS;

/// An unmasked exception was raised before there was a result: destination and stack stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unmasked;

/// A result, unless an unmasked exception prevents it.
pub(super) type Computed<T> = Result<T, Unmasked>;

/// Direction of rounding, as the control word encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Nearest,
    Down,
    Up,
    Zero,
}

/// A format that memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    /// Of the significand, with the integer bit.
    pub(super) bits: u32,
    pub(super) exponent_max: i32,
}

pub(super) const SINGLE: Format = Format { bits: 24, exponent_max: 127 };
pub(super) const DOUBLE: Format = Format { bits: 53, exponent_max: 1023 };

/// Computes under a control word; collects what goes into the status word.
#[derive(Debug)]
pub(super) struct Env {
    control: u16,
    /// Exceptions, stack fault and C1.
    pub(super) raised: u16,
}

/// A significand rounded to some bits.
struct Rounded {
    exponent: i32,
    significand: u64,
    inexact: bool,
    /// Away from zero.
    up: bool,
}

impl Env {
    pub(super) fn new(control: u16) -> Self {
        Self { control, raised: 0 }
    }

    pub(super) fn is_masked(&self, exception: u16) -> bool {
        self.control & exception != 0
    }

    pub(super) fn direction(&self) -> Direction {
        match self.control >> 10 & 3 {
            0 => Direction::Nearest,
            1 => Direction::Down,
            2 => Direction::Up,
            _ => Direction::Zero,
        }
    }

    /// Bits of the significand that arithmetic rounds to. The reserved encoding is taken for full precision.
    pub(super) fn precision(&self) -> u32 {
        match self.control >> 8 & 3 {
            0 => SINGLE.bits,
            2 => DOUBLE.bits,
            _ => 64,
        }
    }

    /// An exception that is found before there is a result.
    pub(super) fn raise(&mut self, exception: u16) -> Computed<()> {
        self.raised |= exception;
        if self.is_masked(exception) { Ok(()) } else { Err(Unmasked) }
    }

    pub(super) fn invalid(&mut self) -> Computed<Ext> {
        self.raise(INVALID).map(|()| Ext::INDEFINITE)
    }

    /// Notes that a result was rounded, and in which direction.
    pub(super) fn inexact(&mut self, up: bool) {
        self.raised |= if up { PRECISION | C1 } else { PRECISION };
    }

    fn note(&mut self, rounded: &Rounded) {
        if rounded.inexact {
            self.inexact(rounded.up);
        }
    }

    /// A result for a register, rounded to `bits` bits.
    pub(super) fn deliver(&mut self, x: Wide, bits: u32) -> Ext {
        let mut rounded = self.round(x.negative, x.exponent, x.significand, bits);
        if rounded.exponent > EXPONENT_MAX {
            self.raised |= OVERFLOW;
            if self.is_masked(OVERFLOW) {
                return self.overflowed(x.negative, bits);
            }
            rounded.exponent -= WRAP;
        } else if rounded.exponent < EXPONENT_MIN {
            if self.is_masked(UNDERFLOW) {
                return self.underflowed(x, bits);
            }
            self.raised |= UNDERFLOW;
            rounded.exponent += WRAP;
        }
        if !(EXPONENT_MIN..=EXPONENT_MAX).contains(&rounded.exponent) {
            // Only FSCALE goes so far.
            let up = rounded.exponent > EXPONENT_MAX;
            self.inexact(up);
            return if up { Ext::infinity(x.negative) } else { Ext::zero(x.negative) };
        }
        self.note(&rounded);
        Ext::new(x.negative, (rounded.exponent + BIAS) as u16, rounded.significand)
    }

    /// Masked overflow.
    fn overflowed(&mut self, negative: bool, bits: u32) -> Ext {
        let up = self.overflows_to_infinity(negative);
        self.inexact(up);
        if up { Ext::infinity(negative) } else { Ext::new(negative, 0x7ffe, u64::MAX << (64 - bits)) }
    }

    fn overflows_to_infinity(&self, negative: bool) -> bool {
        match self.direction() {
            Direction::Nearest => true,
            Direction::Down => negative,
            Direction::Up => !negative,
            Direction::Zero => false,
        }
    }

    /// Masked underflow: rounded at the place where subnormals end, and told only if that loses something.
    fn underflowed(&mut self, x: Wide, bits: u32) -> Ext {
        let shift = (EXPONENT_MIN - x.exponent) as u32;
        let rounded = self.round(x.negative, EXPONENT_MIN, shift_right_sticky(x.significand, shift), bits);
        if rounded.inexact {
            self.raised |= UNDERFLOW;
        }
        self.note(&rounded);
        let exponent = (rounded.significand & INTEGER != 0).into();
        Ext::new(x.negative, exponent, rounded.significand)
    }

    /// A result for memory: fraction without integer bit, and biased exponent.
    pub(super) fn deliver_to(&mut self, x: Wide, format: Format) -> Computed<(u64, u64)> {
        let Format { bits, exponent_max } = format;
        let exponent_min = 1 - exponent_max;
        let mut rounded = self.round(x.negative, x.exponent, x.significand, bits);
        if rounded.exponent > exponent_max {
            self.raise(OVERFLOW)?;
            let up = self.overflows_to_infinity(x.negative);
            self.inexact(up);
            let infinity = (0, 2 * exponent_max as u64 + 1);
            let largest = (u64::MAX >> (65 - bits), 2 * exponent_max as u64);
            return Ok(if up { infinity } else { largest });
        }
        if rounded.exponent < exponent_min {
            let shift = (exponent_min - x.exponent) as u32;
            rounded = self.round(x.negative, exponent_min, shift_right_sticky(x.significand, shift), bits);
            if rounded.inexact || !self.is_masked(UNDERFLOW) {
                self.raise(UNDERFLOW)?;
            }
        }
        self.note(&rounded);
        let fraction = (rounded.significand & !INTEGER) >> (64 - bits);
        let normal = rounded.significand & INTEGER != 0;
        Ok((fraction, if normal { (rounded.exponent + exponent_max) as u64 } else { 0 }))
    }

    /// To an integer below 2^64 in size, in the direction given; `None` if it is larger. Notes nothing.
    pub(super) fn to_integer(x: Wide, direction: Direction) -> Option<(u64, Inexact)> {
        if x.exponent > 63 {
            return None;
        }
        // 64 bits of integer, 64 of fraction.
        let fixed = shift_right_sticky(x.significand, (63 - x.exponent) as u32);
        let (integer, fraction) = ((fixed >> 64) as u64, fixed as u64);
        let up = rounds_up(direction, x.negative, integer & 1 != 0, fraction.cmp(&INTEGER), fraction != 0);
        let inexact = Inexact { any: fraction != 0, up };
        Some((integer.checked_add(up.into())?, inexact))
    }

    /// Rounds to the top `bits` bits, with unbounded exponent. The top bit is clear for what is to become subnormal.
    fn round(&self, negative: bool, exponent: i32, significand: u128, bits: u32) -> Rounded {
        let unit = 1u128 << (128 - bits);
        let lost = significand & (unit - 1);
        let odd = significand & unit != 0;
        let up = rounds_up(self.direction(), negative, odd, lost.cmp(&(unit >> 1)), lost != 0);
        let kept = significand - lost;
        let (kept, exponent) = match kept.checked_add(if up { unit } else { 0 }) {
            Some(kept) => (kept, exponent),
            None => (1 << 127, exponent + 1),
        };
        Rounded { exponent, significand: (kept >> 64) as u64, inexact: lost != 0, up }
    }
}

/// What rounding did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inexact {
    pub(super) any: bool,
    pub(super) up: bool,
}

fn rounds_up(
    direction: Direction,
    negative: bool,
    odd: bool,
    lost_to_half: std::cmp::Ordering,
    inexact: bool,
) -> bool {
    match direction {
        Direction::Nearest => lost_to_half.is_gt() || lost_to_half.is_eq() && odd,
        Direction::Down => inexact && negative,
        Direction::Up => inexact && !negative,
        Direction::Zero => false,
    }
}
