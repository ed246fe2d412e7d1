//! Little-endian base-128 integers, and a reader that never runs past its input.
//!
//! Invariant: one value has one encoding. An overlong form is refused, so equal records are equal bytes.

use crate::error::DecodeError;
use bytes::{BufMut, Bytes, BytesMut};

/// Counters end here: 2^62 nanoseconds are 146 years.
pub(crate) const MAX_COUNTER: u64 = 1 << 62;

/// Appends `value` in 1 to 10 bytes.
pub(crate) fn put(buf: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buf.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buf.put_u8(value as u8);
}

/// Appends the difference `value - predicted` (modulo 2^64), small in either direction.
pub(crate) fn put_delta(buf: &mut BytesMut, value: u64, predicted: u64) {
    let delta = value.wrapping_sub(predicted) as i64;
    put(buf, ((delta << 1) ^ (delta >> 63)) as u64);
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(buf: &mut BytesMut, bytes: &[u8]) {
    put(buf, bytes.len() as u64);
    buf.put_slice(bytes);
}

/// Takes values off the front of a buffer. Byte strings share the buffer's memory.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated { offset: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let end = self.at.checked_add(N).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(DecodeError::Truncated { offset: self.bytes.len() })?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[self.at..end]);
        self.at = end;
        Ok(array)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Malformed { offset: start, what: "integer above 64 bits" });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeError::Malformed { offset: start, what: "overlong integer" });
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed { offset: start, what: "integer above 64 bits" })
    }

    /// A count of records, effects, terms or ticks. What no execution reaches is refused, so that counting on never overflows.
    pub(crate) fn counter(&mut self) -> Result<u64, DecodeError> {
        let offset = self.at;
        let malformed = DecodeError::Malformed { offset, what: "count beyond any execution" };
        Some(self.varint()?).filter(|value| *value <= MAX_COUNTER).ok_or(malformed)
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        let offset = self.at;
        u32::try_from(self.varint()?)
            .map_err(|_| DecodeError::Malformed { offset, what: "integer above 32 bits" })
    }

    pub(crate) fn delta(&mut self, predicted: u64) -> Result<u64, DecodeError> {
        let zigzag = self.varint()?;
        let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Ok(predicted.wrapping_add(delta as u64))
    }

    /// A length and that many bytes, at most `max`.
    pub(crate) fn bytes(&mut self, max: usize) -> Result<Bytes, DecodeError> {
        let offset = self.at;
        let len = self.varint()?;
        if len > max as u64 {
            return Err(DecodeError::TooLong { offset, len, max });
        }
        self.take(len as usize)
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated { offset: self.bytes.len() });
        }
        let bytes = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }

    /// Refuses bytes that nobody asked for.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            _ => Err(DecodeError::Malformed { offset: self.at, what: "bytes after the end" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> Reader {
        let mut buf = BytesMut::new();
        write(&mut buf);
        Reader::new(buf.freeze())
    }

    proptest! {
        #[test]
        fn integers_come_back(value: u64, predicted: u64) {
            let mut reader = encoded(|buf| { put(buf, value); put_delta(buf, value, predicted) });
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.delta(predicted), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_accepted_integer_is_in_its_only_form(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(Bytes::from(bytes.clone()));
            if let Ok(value) = reader.varint() {
                let mut again = BytesMut::new();
                put(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..reader.offset()]);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
        let mut reader = encoded(|buf| put(buf, u64::MAX));
        assert!(matches!(reader.bytes(10), Err(DecodeError::TooLong { max: 10, .. })));
    }
}
