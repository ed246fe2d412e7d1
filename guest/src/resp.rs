//! Requests and replies of the Redis protocol, RESP2 and inline.
//!
//! Invariant: what comes out does not depend on how the input was cut into pieces. The parser remembers where it stood, so a request
//! of n bytes costs O(n) however it arrives.

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
                let length =
                    self.number(input, from, ProtocolError::LengthTooLong, ProtocolError::Length)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All requests in `input`, fed in pieces that end at `cuts`; and the error at the end, if any.
    fn requests(input: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        let mut start = 0;
        let ends = cuts.iter().copied().filter(|cut| *cut < input.len()).chain([input.len()]);
        for end in ends {
            while start <= end {
                match parser.next(&input[start..end]) {
                    Parsed::Incomplete { bytes } => {
                        assert!(bytes > end - start, "more is wanted than is there");
                        break;
                    }
                    Parsed::Error(error) => return (found, Some(error)),
                    Parsed::Request { bytes } => {
                        let arguments = parser.arguments(&input[start..end]);
                        found.push((0..arguments.count()).map(|index| arguments.at(index).to_vec()).collect());
                        start += bytes;
                    }
                }
            }
        }
        (found, None)
    }

    fn encoded(requests: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let mut reply = Reply { bytes_max: usize::MAX, ..Reply::default() };
        for request in requests {
            reply.array(request.len());
            request.iter().for_each(|argument| reply.bulk(argument));
        }
        reply.bytes
    }

    fn words(text: &[&str]) -> Vec<Vec<u8>> {
        text.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn inline_requests_are_split_at_spaces_outside_of_quotes() {
        let line = b"  set \"a b\\x41\\n\" 'it\\'s' \r\n\r\nPING\n";
        let (found, error) = requests(line, &[]);
        assert_eq!(error, None);
        assert_eq!(found, [words(&["set", "a bA\n", "it's"]), words(&[]), words(&["PING"])]);
        for unbalanced in ["get \"a\r\n", "get 'a\r\n", "get \"a\"b\r\n"] {
            assert_eq!(requests(unbalanced.as_bytes(), &[]).1, Some(ProtocolError::Quotes));
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_named() {
        let cases: &[(&str, &str)] = &[
            ("*x\r\n", "invalid multibulk length"),
            ("*1000000\r\n", "invalid multibulk length"),
            ("*1\r\nPING", "expected '$', got 'P'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$x\r\n", "invalid bulk length"),
            ("*1\r\n$1048577\r\n", "invalid bulk length"),
            ("*1\r\n$00000000000000000000000000000000001\r\n", "too big bulk count string"),
            ("*00000000000000000000000000000000001\r\n", "too big mbulk count string"),
        ];
        for (input, text) in cases {
            let error = requests(input.as_bytes(), &[]).1.map(|error| alloc::format!("{error}"));
            assert_eq!(error, Some(alloc::format!("ERR Protocol error: {text}")), "{input}");
        }
        let endless = [b'a'; LINE_BYTES_MAX + 1];
        assert_eq!(requests(&endless, &[1000, 2000]).1, Some(ProtocolError::InlineTooLong));
    }

    #[test]
    fn requests_are_bounded() {
        let argument = b"x".repeat(ARGUMENT_BYTES_MAX);
        let fits = encoded(&[vec![argument.clone(); 3]]);
        assert_eq!(requests(&fits, &[]).0.len(), 1);
        let too_long = encoded(&[vec![argument; 5]]);
        assert_eq!(requests(&too_long, &[]).1, Some(ProtocolError::RequestTooLong));
    }

    #[test]
    fn empty_and_negative_arrays_are_no_requests() {
        let (found, error) = requests(b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", &[]);
        assert_eq!((found, error), (vec![words(&[]), words(&[]), words(&["PING"])], None));
    }

    #[test]
    fn integers_are_those_of_redis() {
        for value in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(integer(Decimal::new(value).bytes()), Some(value));
        }
        for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "9223372036854775808", "-9223372036854775809", "1.0"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_reply_without_room_is_noted() {
        let mut reply = Reply { bytes_max: 20, ..Reply::default() };
        reply.bulk(b"0123456789");
        assert!(!reply.overflowed);
        reply.bulk(b"0123456789");
        assert!(reply.overflowed);
    }

    #[test]
    fn errors_stay_on_their_line() {
        let mut reply = Reply::default();
        reply.error("ERR a\r\nb");
        assert_eq!(reply.bytes, b"-ERR a  b\r\n");
    }

    fn any_requests() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let argument = prop::collection::vec(any::<u8>(), 0..40);
        prop::collection::vec(prop::collection::vec(argument, 1..5), 1..6)
    }

    proptest! {
        #[test]
        fn requests_come_out_however_the_input_is_cut(
            sent in any_requests(),
            cuts in prop::collection::btree_set(0usize..600, 0..20),
        ) {
            let cuts: Vec<_> = cuts.into_iter().collect();
            prop_assert_eq!(requests(&encoded(&sent), &cuts), (sent, None));
        }

        #[test]
        fn any_input_means_the_same_however_it_is_cut(
            input in prop::collection::vec(prop::sample::select(b"*$12a\r\n\"' \\x0".to_vec()), 0..80),
            cuts in prop::collection::btree_set(0usize..80, 0..20),
        ) {
            let cuts: Vec<_> = cuts.into_iter().collect();
            prop_assert_eq!(requests(&input, &cuts), requests(&input, &[]));
        }
    }
}
