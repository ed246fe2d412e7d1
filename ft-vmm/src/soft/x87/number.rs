//! Numbers in double-extended format, and what they are taken for.

/// 80 bits: sign and exponent, and a significand with its integer bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ext {
    pub(super) sign_exponent: u16,
    pub(super) significand: u64,
}

/// The integer bit, or the bit that makes a NaN quiet.
pub(super) const INTEGER: u64 = 1 << 63;
pub(super) const QUIET: u64 = 1 << 62;
/// Of exponents.
pub(super) const BIAS: i32 = 16383;
const SIGN: u16 = 0x8000;
const EXPONENT_MAX: u16 = 0x7fff;

/// What an operand is to an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Zero,
    Normal,
    /// Subnormal, with or without its integer bit.
    Denormal,
    Infinity,
    Quiet,
    Signalling,
    /// No number since the 387: an exponent above 0 without the integer bit.
    Unsupported,
}

impl Ext {
    /// The NaN of masked invalid operations.
    pub(super) const INDEFINITE: Self = Self { sign_exponent: 0xffff, significand: INTEGER | QUIET };
    pub(super) const ONE: Self = Self { sign_exponent: 0x3fff, significand: INTEGER };

    pub(super) fn new(negative: bool, exponent: u16, significand: u64) -> Self {
        Self { sign_exponent: if negative { SIGN | exponent } else { exponent }, significand }
    }

    pub(super) fn zero(negative: bool) -> Self {
        Self::new(negative, 0, 0)
    }

    pub(super) fn infinity(negative: bool) -> Self {
        Self::new(negative, EXPONENT_MAX, INTEGER)
    }

    pub(super) fn from_bytes(bytes: [u8; 10]) -> Self {
        let [significand @ .., low, high] = bytes;
        Self { sign_exponent: u16::from_le_bytes([low, high]), significand: u64::from_le_bytes(significand) }
    }

    pub(super) fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.significand.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exponent.to_le_bytes());
        bytes
    }

    pub(super) fn negative(self) -> bool {
        self.sign_exponent & SIGN != 0
    }

    pub(super) fn exponent(self) -> u16 {
        self.sign_exponent & !SIGN
    }

    pub(super) fn with_sign(self, negative: bool) -> Self {
        Self::new(negative, self.exponent(), self.significand)
    }

    pub(super) fn quieted(self) -> Self {
        Self { significand: self.significand | QUIET, ..self }
    }

    pub(super) fn class(self) -> Class {
        match (self.exponent(), self.significand) {
            (0, 0) => Class::Zero,
            (0, _) => Class::Denormal,
            (_, ..INTEGER) => Class::Unsupported,
            (EXPONENT_MAX, INTEGER) => Class::Infinity,
            (EXPONENT_MAX, significand) if significand & QUIET != 0 => Class::Quiet,
            (EXPONENT_MAX, _) => Class::Signalling,
            _ => Class::Normal,
        }
    }

    /// Of a normal or denormal number.
    pub(super) fn finite(self) -> Finite {
        let shift = self.significand.leading_zeros();
        Finite {
            negative: self.negative(),
            exponent: i32::from(self.exponent().max(1)) - BIAS - shift as i32,
            significand: self.significand << shift,
        }
    }
}

/// A number other than 0: `significand / 2^63 * 2^exponent`, with the top bit of the significand set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finite {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u64,
}

/// A number to be rounded: `significand / 2^127 * 2^exponent`, with the top bit of the significand set. Bits
/// that were lost below are ORed into the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wide {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u128,
}

impl Wide {
    /// From a significand other than 0 whose top bit may be clear.
    pub(super) fn normalized(negative: bool, exponent: i32, significand: u128) -> Self {
        let shift = significand.leading_zeros();
        Self { negative, exponent: exponent - shift as i32, significand: significand << shift }
    }
}

impl From<Finite> for Wide {
    fn from(x: Finite) -> Self {
        Self { negative: x.negative, exponent: x.exponent, significand: u128::from(x.significand) << 64 }
    }
}

/// `x >> shift`, what falls out ORed into the lowest bit.
pub(super) fn shift_right_sticky(x: u128, shift: u32) -> u128 {
    match shift {
        0 => x,
        1..128 => x >> shift | u128::from(x << (128 - shift) != 0),
        _ => u128::from(x != 0),
    }
}

/// An operand with its class, which that of a value loaded from a shorter format need not show: subnormal doubles are normal here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operand {
    pub(super) value: Ext,
    pub(super) class: Class,
}

impl From<Ext> for Operand {
    fn from(value: Ext) -> Self {
        Self { value, class: value.class() }
    }
}

impl Operand {
    pub(super) fn from_single(bits: u32) -> Self {
        Self::from_short(bits >> 31 != 0, (bits >> 23 & 0xff) as u16, u64::from(bits) << 40, 0xff)
    }

    pub(super) fn from_double(bits: u64) -> Self {
        Self::from_short(bits >> 63 != 0, (bits >> 52 & 0x7ff) as u16, bits << 11, 0x7ff)
    }

    /// `fraction` stands below the integer bit; bits above it do not matter. `all_ones` is the exponent of infinities and NaNs.
    fn from_short(negative: bool, exponent: u16, fraction: u64, all_ones: u16) -> Self {
        let fraction = fraction & !INTEGER;
        let rebased = exponent + BIAS as u16 - all_ones / 2;
        match (exponent, fraction) {
            (0, 0) => Ext::zero(negative).into(),
            (0, _) => {
                let shift = fraction.leading_zeros();
                let value = Ext::new(negative, rebased + 1 - shift as u16, fraction << shift);
                Self { value, class: Class::Denormal }
            }
            (exponent, _) if exponent == all_ones => {
                Ext::new(negative, EXPONENT_MAX, fraction | INTEGER).into()
            }
            _ => Ext::new(negative, rebased, fraction | INTEGER).into(),
        }
    }

    pub(super) fn from_integer(x: i64) -> Self {
        let size = x.unsigned_abs();
        if size == 0 {
            return Ext::zero(false).into();
        }
        let shift = size.leading_zeros();
        Ext::new(x < 0, (BIAS + 63) as u16 - shift as u16, size << shift).into()
    }
}
