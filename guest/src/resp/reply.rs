//! Replies.

use super::Decimal;
use alloc::vec::Vec;
use core::fmt;

/// Writes replies, as long as there is room for them.
#[derive(Debug, Default)]
pub struct Reply {
    /// What was written so far.
    pub bytes: Vec<u8>,
    /// Most that `bytes` may become; errors may go beyond.
    pub bytes_max: usize,
    /// Something had no room and was left out.
    pub overflowed: bool,
}

impl Reply {
    /// `+text`.
    pub fn simple(&mut self, text: &str) {
        self.bytes.push(b'+');
        self.line(text.as_bytes());
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// `-text`; what would end the line early becomes a space.
    pub fn error(&mut self, text: impl fmt::Display) {
        self.bytes.push(b'-');
        // Writing to a vector cannot fail.
        let _ = fmt::Write::write_fmt(&mut ErrorText(&mut self.bytes), format_args!("{text}"));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// `:value`.
    pub fn integer(&mut self, value: i64) {
        self.number(b':', value);
    }

    /// A string of any bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.number(b'$', bytes.len() as i64);
        self.line(bytes);
    }

    /// No string.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(b"$-1\r\n");
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.bytes.extend_from_slice(b"*-1\r\n");
    }

    /// A string of digits.
    pub fn unsigned(&mut self, value: u64) {
        // Cursors and clocks have at most 63 bits.
        self.bulk(Decimal::new(value as i64).bytes());
    }

    /// `bytes` bytes are about to be written: makes room, or notes that there is none.
    pub fn expect(&mut self, bytes: usize) {
        if self.has_room(bytes) {
            self.bytes.reserve(bytes);
        }
    }

    /// A string, or none.
    pub fn optional(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// `count` elements follow.
    pub fn array(&mut self, count: usize) {
        self.number(b'*', count as i64);
    }

    fn number(&mut self, kind: u8, value: i64) {
        if self.has_room(1) {
            self.bytes.push(kind);
            self.line(Decimal::new(value).bytes());
        }
    }

    fn line(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.bytes.extend_from_slice(bytes);
            self.bytes.extend_from_slice(b"\r\n");
        }
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.overflowed |= self.bytes.len() + bytes > self.bytes_max;
        !self.overflowed
    }
}

struct ErrorText<'a>(&'a mut Vec<u8>);

impl fmt::Write for ErrorText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend(text.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        Ok(())
    }
}
