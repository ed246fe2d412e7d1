//! Arithmetic with 128-bit significands, for transcendental functions: results are good to about 124 bits.
//!
//! A *fraction* is a number below 1 in units of 2^-128; a *fixed* number is below 2, in units of 2^-127.

use super::number::{Wide, shift_right_sticky};
use std::cmp::Ordering;

/// 1 as a fixed number.
pub(super) const ONE: u128 = 1 << 127;

/// The upper half of the product: a fraction times a fixed number is a fixed number.
pub(super) fn multiply_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let middle = a1 * b0 + ((a0 * b0) >> 64);
    let other = a0 * b1 + (middle & LOW);
    a1 * b1 + (middle >> 64) + (other >> 64)
}

impl Wide {
    pub(super) const fn new(exponent: i32, significand: u128) -> Self {
        Self { negative: false, exponent, significand }
    }

    /// From a fixed number other than 0.
    pub(super) fn from_fixed(x: u128) -> Self {
        Self::normalized(false, 0, x)
    }

    /// The size of a number below 1 as a fraction.
    pub(super) fn to_fraction(self) -> u128 {
        self.significand.checked_shr((-1 - self.exponent) as u32).unwrap_or(0)
    }

    pub(super) fn with_sign(self, negative: bool) -> Self {
        Self { negative, ..self }
    }

    pub(super) fn times(self, other: Self) -> Self {
        let product = multiply_high(self.significand, other.significand);
        Self::normalized(self.negative != other.negative, self.exponent + other.exponent + 1, product)
    }

    pub(super) fn over(self, other: Self) -> Self {
        let (mut rest, mut carry, mut quotient) = (self.significand, false, 0u128);
        for _ in 0..128 {
            quotient <<= 1;
            if carry || rest >= other.significand {
                rest = rest.wrapping_sub(other.significand);
                quotient |= 1;
            }
            carry = rest >> 127 != 0;
            rest <<= 1;
        }
        Self::normalized(self.negative != other.negative, self.exponent - other.exponent, quotient)
    }

    /// `None` if they cancel.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let (large, small) = match self.size(other) {
            Ordering::Less => (other, self),
            _ => (self, other),
        };
        let distance = (large.exponent - small.exponent) as u32;
        let (x, y) = (large.significand >> 1, shift_right_sticky(small.significand >> 1, distance));
        let sum = if large.negative == small.negative { x + y } else { x - y };
        (sum != 0).then(|| Self::normalized(large.negative, large.exponent + 1, sum))
    }

    /// Compares without sign.
    pub(super) fn size(self, other: Self) -> Ordering {
        (self.exponent, self.significand).cmp(&(other.exponent, other.significand))
    }
}

/// `1 - z/d1 * (1 - z/d2 * (...))`, a little below 1 however small `z` is.
pub(super) fn nested(z: u128, divisors: impl DoubleEndedIterator<Item = u128>) -> u128 {
    divisors.rev().fold(ONE, |inner, divisor| ONE - (multiply_high(z, inner) / divisor).max(1))
}

/// `1 + z/3 + z^2/5 + ...`; with alternating signs, a little below 1 however small `z` is.
pub(super) fn odd_reciprocals(z: u128, terms: u128, alternating: bool) -> u128 {
    (0..terms).rev().fold(0, |inner, k| {
        let (first, rest) = (ONE / (2 * k + 1), multiply_high(z, inner));
        if alternating { first - rest.max(1) } else { first + rest }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Wide = Wide::new(1, 3 << 126);
    const FIVE: Wide = Wide::new(2, 5 << 125);

    #[test]
    fn operations_agree_with_one_another() {
        assert_eq!(THREE.times(FIVE), Wide::new(3, 15 << 124));
        assert_eq!(Wide::new(3, 15 << 124).over(FIVE), THREE);
        assert_eq!(THREE.plus(FIVE), Some(Wide::new(3, 1 << 127)));
        assert_eq!(THREE.plus(FIVE.with_sign(true)), Some(Wide::new(1, 1 << 127).with_sign(true)));
        assert_eq!(THREE.plus(THREE.with_sign(true)), None);
        assert_eq!(multiply_high(u128::MAX, u128::MAX), u128::MAX - 1);
    }
}
