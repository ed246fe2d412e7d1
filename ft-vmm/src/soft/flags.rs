//! RFLAGS, with the arithmetic flags kept as what they are computed from.
//!
//! An arithmetic instruction stores its result and its vector of carries; the flags are computed when they are read. What is
//! read is exact at every moment.
//!
//! Flags that the manual leaves undefined do here as common processors do where that is known (AF cleared by logic; flags kept by a
//! shift of 0), and otherwise stay as they were; each family says so.

use super::word::Word;

pub(crate) const CF: u64 = 1;
pub(crate) const FIXED: u64 = 1 << 1;
pub(crate) const PF: u64 = 1 << 2;
pub(crate) const AF: u64 = 1 << 4;
pub(crate) const ZF: u64 = 1 << 6;
pub(crate) const SF: u64 = 1 << 7;
pub(crate) const TF: u64 = 1 << 8;
pub(crate) const IF: u64 = 1 << 9;
pub(crate) const DF: u64 = 1 << 10;
pub(crate) const OF: u64 = 1 << 11;
pub(crate) const IOPL: u64 = 3 << 12;
pub(crate) const NT: u64 = 1 << 14;
pub(crate) const RF: u64 = 1 << 16;
pub(crate) const VM: u64 = 1 << 17;
pub(crate) const AC: u64 = 1 << 18;
pub(crate) const VIF: u64 = 1 << 19;
pub(crate) const VIP: u64 = 1 << 20;
pub(crate) const ID: u64 = 1 << 21;
/// The flags of arithmetic.
pub(crate) const ARITHMETIC: u64 = CF | PF | AF | ZF | SF | OF;
/// All that exist.
pub(crate) const ALL: u64 = ARITHMETIC | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;

/// RFLAGS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// ZF is set when this is 0.
    zero: u64,
    /// SF is its bit 63, PF the even parity of its low byte.
    sign: u64,
    /// Bit 63: CF. Bit 62: CF ^ OF. Bit 3: AF.
    carries: u64,
    /// All other flags; the arithmetic bits are 0.
    rest: u64,
}

impl Default for Flags {
    fn default() -> Self {
        let mut flags = Self { zero: 0, sign: 0, carries: 0, rest: 0 };
        flags.set(FIXED);
        flags
    }
}

impl Flags {
    #[inline(always)]
    pub(crate) fn cf(&self) -> bool {
        self.carries >> 63 != 0
    }

    #[inline(always)]
    pub(crate) fn pf(&self) -> bool {
        (self.sign as u8).count_ones() & 1 == 0
    }

    #[inline(always)]
    pub(crate) fn af(&self) -> bool {
        self.carries & 8 != 0
    }

    #[inline(always)]
    pub(crate) fn zf(&self) -> bool {
        self.zero == 0
    }

    #[inline(always)]
    pub(crate) fn sf(&self) -> bool {
        (self.sign as i64) < 0
    }

    #[inline(always)]
    pub(crate) fn of(&self) -> bool {
        (self.carries ^ self.carries << 1) >> 63 != 0
    }

    /// All flags except those of arithmetic.
    #[inline(always)]
    pub(crate) fn rest(&self) -> u64 {
        self.rest
    }

    /// Sets or clears flags outside arithmetic.
    pub(crate) fn put_rest(&mut self, mask: u64, on: bool) {
        self.rest = if on { self.rest | mask } else { self.rest & !mask };
    }

    /// RFLAGS.
    pub(crate) fn get(&self) -> u64 {
        let bit = |on: bool, flag: u64| if on { flag } else { 0 };
        self.rest
            | bit(self.cf(), CF)
            | bit(self.pf(), PF)
            | bit(self.af(), AF)
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// Replaces RFLAGS.
    pub(crate) fn set(&mut self, value: u64) {
        self.rest = (value & ALL & !ARITHMETIC) | FIXED;
        self.put_arithmetic(value);
    }

    /// Replaces the flags of arithmetic.
    pub(crate) fn put_arithmetic(&mut self, value: u64) {
        self.zero = !value & ZF;
        self.sign = (value & SF) << 56 | u64::from(value & PF == 0);
        let (carry, overflow) = (value & CF, value >> 11 & 1);
        self.carries = carry << 63 | (carry ^ overflow) << 62 | u64::from(value & AF != 0) << 3;
    }

    /// Replaces those flags of arithmetic that are in `mask`.
    pub(crate) fn put(&mut self, mask: u64, value: u64) {
        self.put_arithmetic((self.get() & !mask) | (value & mask));
    }

    /// After an operation with `result` and its carries out of each bit.
    #[inline(always)]
    pub(crate) fn arithmetic<W: Word>(&mut self, result: u64, carries: u64) {
        let result = W::signed(result);
        self.zero = result;
        self.sign = result;
        self.carries = if W::BITS == 64 { carries } else { carries << (64 - W::BITS) | (carries & 8) };
    }

    /// After AND, OR, XOR, TEST: CF, OF and AF clear.
    #[inline(always)]
    pub(crate) fn logic<W: Word>(&mut self, result: u64) {
        let result = W::signed(result);
        self.zero = result;
        self.sign = result;
        self.carries = 0;
    }

    /// After INC and DEC: like [`Flags::arithmetic`], but CF stays.
    #[inline(always)]
    pub(crate) fn keep_carry<W: Word>(&mut self, result: u64, carries: u64) {
        let carry = self.carries & 1 << 63;
        self.arithmetic::<W>(result, carries);
        let overflow = (self.carries ^ self.carries << 1) & 1 << 63;
        self.carries = carry | (carry ^ overflow) >> 1 | (self.carries & 8);
    }

    /// Sets CF and OF, leaves the others.
    #[inline(always)]
    pub(crate) fn put_carry_overflow(&mut self, carry: bool, overflow: bool) {
        self.carries = u64::from(carry) << 63 | u64::from(carry ^ overflow) << 62 | (self.carries & 8);
    }

    /// Sets CF, leaves the others.
    #[inline(always)]
    pub(crate) fn put_carry(&mut self, carry: bool) {
        let overflow = self.of();
        self.put_carry_overflow(carry, overflow);
    }

    /// Sets ZF, leaves the others.
    pub(crate) fn put_zero(&mut self, zero: bool) {
        self.zero = u64::from(!zero);
    }

    /// Whether condition `CC` (the low four bits of the opcode of Jcc) holds.
    #[inline(always)]
    pub(crate) fn holds<const CC: u8>(&self) -> bool {
        let less = |flags: &Self| {
            // SF ^ OF, without computing either.
            ((flags.sign ^ flags.carries ^ flags.carries << 1) as i64) < 0
        };
        let holds = match CC >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => less(self),
            _ => self.zf() | less(self),
        };
        holds != (CC & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_kept() {
        let bits = [CF, PF, AF, ZF, SF, OF];
        for choice in 0u32..64 {
            let value: u64 =
                bits.iter().enumerate().map(|(n, bit)| if choice >> n & 1 != 0 { *bit } else { 0 }).sum();
            let mut flags = Flags::default();
            flags.set(value | IF);
            assert_eq!(flags.get(), value | IF | FIXED, "{value:#x}");
            let carry = flags.cf();
            flags.put_carry(!carry);
            assert_eq!(flags.get(), (value ^ CF) | IF | FIXED, "{value:#x}");
            flags.keep_carry::<u8>(0x80, 0x7f);
            assert_eq!(flags.cf(), !carry);
            assert!(flags.of() && flags.af());
        }
    }
}
