//! Requests and replies of the Redis protocol, RESP2 and inline.
//!
//! Invariant: what comes out does not depend on how the input was cut into pieces. The parser remembers where it stood, so a request
//! of n bytes costs O(n) however it arrives.

mod number;
mod reply;
#[cfg(test)]
mod tests;

pub use number::{Decimal, integer};
pub use reply::Reply;

use alloc::vec::Vec;
use core::fmt;

/// Longest argument.
pub const ARGUMENT_BYTES_MAX: usize = 1 << 20;
/// Longest request.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Most arguments of a request.
pub const ARGUMENT_COUNT_MAX: i64 = 128 * 1024;
/// Longest inline request.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest line with a number.
const NUMBER_BYTES_MAX: usize = 32;

/// Input that is not the protocol. What follows it cannot be understood either: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line without an end.
    InlineTooLong,
    /// A quote that does not end, or is followed by something other than a space.
    Quotes,
    /// A number without an end.
    CountTooLong,
    /// See [`ProtocolError::CountTooLong`].
    LengthTooLong,
    /// Not a number of arguments, or too many.
    Count,
    /// Not a length, or too long.
    Length,
    /// An argument that does not begin with `$`.
    Dollar(u8),
    /// More than [`REQUEST_BYTES_MAX`].
    RequestTooLong,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ERR Protocol error: ")?;
        match self {
            Self::InlineTooLong => f.write_str("too big inline request"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::CountTooLong => f.write_str("too big mbulk count string"),
            Self::LengthTooLong => f.write_str("too big bulk count string"),
            Self::Count => f.write_str("invalid multibulk length"),
            Self::Length => f.write_str("invalid bulk length"),
            Self::Dollar(byte) => {
                let shown = if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
                write!(f, "expected '$', got '{shown}'")
            }
            Self::RequestTooLong => f.write_str("too big request"),
        }
    }
}

/// What the parser makes of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Call again with the same bytes and more behind them; the request has at least `bytes`.
    Incomplete {
        /// Bytes of the request, as far as known.
        bytes: usize,
    },
    /// A request of `bytes` bytes: see [`Parser::arguments`]. Without arguments it is to be ignored.
    Request {
        /// Bytes of the input that it took.
        bytes: usize,
    },
    /// Not the protocol.
    Error(ProtocolError),
}

/// The arguments of a request, the command's name first.
#[derive(Clone, Copy)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    spans: &'a [(u32, u32)],
}

impl<'a> Arguments<'a> {
    /// How many.
    pub fn count(&self) -> usize {
        self.spans.len()
    }

    /// Argument `index`.
    ///
    /// # Panics
    /// When there is none: the count is checked before a command runs.
    pub fn at(&self, index: usize) -> &'a [u8] {
        let (from, to) = self.spans[index];
        &self.bytes[from as usize..to as usize]
    }

    /// All from `index` on.
    pub fn from(self, index: usize) -> impl Iterator<Item = &'a [u8]> {
        self.spans.iter().skip(index).map(move |(from, to)| &self.bytes[*from as usize..*to as usize])
    }
}

/// Finds the requests in a stream of bytes.
#[derive(Debug, Default)]
pub struct Parser {
    /// Everything before this is parsed, counted from the request's first byte.
    at: usize,
    /// Arguments still to come, once their number is known.
    missing: Option<usize>,
    /// The argument that is being read ends here, once its length is known.
    end: Option<usize>,
    spans: Vec<(u32, u32)>,
    /// Arguments of an inline request, unquoted.
    unquoted: Vec<u8>,
    inline: bool,
}

/// A step of the parser: go on, or that is all for now.
type Step<T> = Result<T, Parsed>;

fn fail<T>(error: ProtocolError) -> Step<T> {
    Err(Parsed::Error(error))
}

impl Parser {
    /// Looks at `input`, which begins with the request's first byte and with all that was there in the calls since the last request.
    pub fn next(&mut self, input: &[u8]) -> Parsed {
        if self.at == 0 && self.missing.is_none() {
            self.spans.clear();
        }
        let parsed = match input.first() {
            None => return Parsed::Incomplete { bytes: 1 },
            Some(b'*') => self.array(input),
            Some(_) => self.line(input),
        };
        match parsed {
            Ok(bytes) => {
                (self.at, self.missing, self.end) = (0, None, None);
                Parsed::Request { bytes }
            }
            Err(other) => other,
        }
    }

    /// The arguments of the request that was found last in `input`.
    pub fn arguments<'a>(&'a self, input: &'a [u8]) -> Arguments<'a> {
        Arguments { bytes: if self.inline { &self.unquoted } else { input }, spans: &self.spans }
    }

    fn array(&mut self, input: &[u8]) -> Step<usize> {
        self.inline = false;
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                let count = self.number(input, 1, ProtocolError::CountTooLong, ProtocolError::Count)?;
                if count > ARGUMENT_COUNT_MAX {
                    return fail(ProtocolError::Count);
                }
                usize::try_from(count).unwrap_or(0)
            }
        };
        while missing > 0 {
            self.missing = Some(missing);
            self.argument(input)?;
            missing -= 1;
        }
        Ok(self.at)
    }

    fn argument(&mut self, input: &[u8]) -> Step<()> {
        let end = match self.end {
            Some(end) => end,
            None => {
                match input.get(self.at) {
                    None => return Err(Parsed::Incomplete { bytes: self.at + 1 }),
                    Some(b'$') => {}
                    Some(byte) => return fail(ProtocolError::Dollar(*byte)),
                }
                let from = self.at + 1;
                let length = self.number(input, from, ProtocolError::LengthTooLong, ProtocolError::Length)?;
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > ARGUMENT_BYTES_MAX {
                    return fail(ProtocolError::Length);
                }
                self.at + length
            }
        };
        if end + 2 > REQUEST_BYTES_MAX {
            return fail(ProtocolError::RequestTooLong);
        }
        if input.len() < end + 2 {
            self.end = Some(end);
            return Err(Parsed::Incomplete { bytes: end + 2 });
        }
        self.spans.push((self.at as u32, end as u32));
        self.at = end + 2;
        self.end = None;
        Ok(())
    }

    /// The number from `from` to the end of the line; then stands behind the line.
    fn number(&mut self, input: &[u8], from: usize, long: ProtocolError, bad: ProtocolError) -> Step<i64> {
        let rest = &input[from.min(input.len())..];
        let Some(digits) = rest.iter().take(NUMBER_BYTES_MAX).position(|byte| *byte == b'\r') else {
            return if rest.len() >= NUMBER_BYTES_MAX {
                fail(long)
            } else {
                Err(Parsed::Incomplete { bytes: input.len() + 1 })
            };
        };
        if rest.len() < digits + 2 {
            return Err(Parsed::Incomplete { bytes: input.len() + 1 });
        }
        let number = integer(&rest[..digits]);
        self.at = from + digits + 2;
        number.ok_or(Parsed::Error(bad))
    }

    fn line(&mut self, input: &[u8]) -> Step<usize> {
        self.inline = true;
        let Some(end) = input[self.at..].iter().position(|byte| *byte == b'\n') else {
            self.at = input.len();
            return if self.at > LINE_BYTES_MAX {
                fail(ProtocolError::InlineTooLong)
            } else {
                Err(Parsed::Incomplete { bytes: self.at + 1 })
            };
        };
        let end = self.at + end;
        if end > LINE_BYTES_MAX {
            return fail(ProtocolError::InlineTooLong);
        }
        self.unquoted.clear();
        let line = &input[..end];
        self.split(line.strip_suffix(b"\r").unwrap_or(line))?;
        Ok(end + 1)
    }

    /// Splits a line at white space, outside of quotes.
    fn split(&mut self, line: &[u8]) -> Step<()> {
        let mut at = 0;
        loop {
            while line.get(at).is_some_and(|byte| byte.is_ascii_whitespace() || *byte == 0) {
                at += 1;
            }
            if at == line.len() {
                return Ok(());
            }
            let from = self.unquoted.len();
            at = unquote(line, at, &mut self.unquoted).ok_or(Parsed::Error(ProtocolError::Quotes))?;
            self.spans.push((from as u32, self.unquoted.len() as u32));
        }
    }
}

/// Appends the word at `at` to `to`, without its quotes; returns where it ends.
fn unquote(line: &[u8], mut at: usize, to: &mut Vec<u8>) -> Option<usize> {
    let mut quote = None;
    loop {
        let Some(&byte) = line.get(at) else {
            return quote.is_none().then_some(at);
        };
        at += 1;
        match (quote, byte) {
            (Some(open), _) if byte == open => {
                let after = line.get(at);
                return after.is_none_or(u8::is_ascii_whitespace).then_some(at);
            }
            (Some(b'"'), b'\\') if at < line.len() => {
                let (escaped, bytes) = escape(&line[at..]);
                to.push(escaped);
                at += bytes;
            }
            (Some(b'\''), b'\\') if line.get(at) == Some(&b'\'') => {
                to.push(b'\'');
                at += 1;
            }
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, _) if byte.is_ascii_whitespace() || byte == 0 => return Some(at - 1),
            _ => to.push(byte),
        }
    }
}

/// What stands behind a backslash, and how long that is.
fn escape(text: &[u8]) -> (u8, usize) {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    if let [b'x', high, low, ..] = text
        && let (Some(high), Some(low)) = (digit(high), digit(low))
    {
        return ((high * 16 + low) as u8, 3);
    }
    let byte = match text[0] {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    };
    (byte, 1)
}
