//! Decimal integers.

/// A decimal integer as Redis takes it: no spaces, no plus, no leading zeros.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        // Downward, because the least number has no positive twin.
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// A decimal integer, written.
pub struct Decimal {
    text: [u8; 20],
    from: usize,
}

impl Decimal {
    /// Of `value`.
    pub fn new(value: i64) -> Self {
        let mut decimal = Self { text: [0; 20], from: 20 };
        let mut rest = value.unsigned_abs();
        loop {
            decimal.from -= 1;
            decimal.text[decimal.from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            decimal.from -= 1;
            decimal.text[decimal.from] = b'-';
        }
        decimal
    }

    /// Its digits.
    pub fn bytes(&self) -> &[u8] {
        &self.text[self.from..]
    }
}
