//! Operand sizes as types, so that one generic handler serves all of them.

/// An operand of 1, 2, 4 or 8 bytes. Values travel between handlers as zero-extended `u64`.
pub(crate) trait Word: Copy + 'static {
    /// Size in bytes.
    const BYTES: usize;
    /// Size in bits.
    const BITS: u32;
    /// All ones in this size.
    const MASK: u64;

    /// The low part of `value`.
    fn of(value: u64) -> Self;

    /// Zero-extended.
    fn wide(self) -> u64;

    /// `value`, cut to this size and sign-extended.
    #[inline(always)]
    fn signed(value: u64) -> u64 {
        let shift = 64 - Self::BITS;
        (((value << shift) as i64) >> shift) as u64
    }

    /// The sign of `value`.
    #[inline(always)]
    fn negative(value: u64) -> bool {
        value >> (Self::BITS - 1) & 1 != 0
    }
}

macro_rules! words {
    ($($word:ty),*) => { $(
        impl Word for $word {
            const BYTES: usize = size_of::<$word>();
            const BITS: u32 = <$word>::BITS;
            const MASK: u64 = <$word>::MAX as u64;

            #[inline(always)]
            fn of(value: u64) -> Self {
                value as $word
            }

            #[inline(always)]
            fn wide(self) -> u64 {
                self as u64
            }
        }
    )* };
}
words!(u8, u16, u32, u64);

/// Picks the instance of a generic function for an operand size in bytes.
macro_rules! by_size {
    ($bytes:expr, $($function:ident)::+ $(, $parameter:tt)*) => {
        match $bytes {
            1 => $($function)::+::<u8 $(, $parameter)*>,
            2 => $($function)::+::<u16 $(, $parameter)*>,
            4 => $($function)::+::<u32 $(, $parameter)*>,
            _ => $($function)::+::<u64 $(, $parameter)*>,
        }
    };
}
pub(crate) use by_size;
