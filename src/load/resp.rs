//! The Redis protocol, version 2, as a client needs it.

use std::fmt;
use std::io::{self, ErrorKind, Read};

/// Longest reply that is believed.
const LONGEST: usize = 64 << 20;
/// Bytes read at once.
const READ: usize = 64 << 10;

/// Appends a request.
pub(super) fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.push(b'*');
    encode_line(out, words.len());
    for word in words {
        out.push(b'$');
        encode_line(out, word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_line(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply<B> {
    Simple(B),
    Error(B),
    Integer(i64),
    Bulk(Option<B>),
}

impl Reply<&[u8]> {
    pub(super) fn to_owned(self) -> Reply<Vec<u8>> {
        match self {
            Self::Simple(text) => Reply::Simple(text.to_vec()),
            Self::Error(text) => Reply::Error(text.to_vec()),
            Self::Integer(number) => Reply::Integer(number),
            Self::Bulk(bytes) => Reply::Bulk(bytes.map(<[u8]>::to_vec)),
        }
    }
}

/// For people: not more of a value than they want to see.
impl fmt::Display for Reply<&[u8]> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{}", text.escape_ascii()),
            Self::Error(text) => write!(f, "-{}", text.escape_ascii()),
            Self::Integer(number) => number.fmt(f),
            Self::Bulk(None) => f.write_str("nothing"),
            Self::Bulk(Some(content)) => {
                let shown = content.get(..64).unwrap_or(content);
                write!(f, "{} bytes \"{}\"", content.len(), shown.escape_ascii())
            }
        }
    }
}

impl Reply<Vec<u8>> {
    pub(super) fn borrow(&self) -> Reply<&[u8]> {
        match self {
            Self::Simple(text) => Reply::Simple(text),
            Self::Error(text) => Reply::Error(text),
            Self::Integer(number) => Reply::Integer(*number),
            Self::Bulk(bytes) => Reply::Bulk(bytes.as_deref()),
        }
    }
}

/// Bytes that are no reply. What follows cannot be understood either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent something that is no reply")]
pub(super) struct Malformed;

/// Cuts a stream into replies.
#[derive(Default)]
pub(super) struct ReplyReader {
    buffer: Vec<u8>,
    start: usize,
}

impl ReplyReader {
    /// Waits for bytes and takes them in. An end of the stream is an error.
    pub(super) fn fill(&mut self, stream: &mut impl Read) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let end = self.buffer.len();
        self.buffer.resize(end + READ, 0);
        let result = stream.read(&mut self.buffer[end..]);
        self.buffer.truncate(end + result.as_ref().map_or(0, |count| *count));
        match result? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next complete reply.
    pub(super) fn next_reply(&mut self) -> Result<Option<Reply<&[u8]>>, Malformed> {
        let bytes = &self.buffer[self.start..];
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return if bytes.len() > 1024 { Err(Malformed) } else { Ok(None) };
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
        let (&kind, line) = line.split_first().ok_or(Malformed)?;
        let (reply, length) = match kind {
            b'+' => (Reply::Simple(line), 0),
            b'-' => (Reply::Error(line), 0),
            b':' => (Reply::Integer(number(line)?), 0),
            b'$' => match number(line)? {
                -1 => (Reply::Bulk(None), 0),
                length => {
                    let length = usize::try_from(length).map_err(|_| Malformed)?;
                    if length > LONGEST {
                        return Err(Malformed);
                    }
                    let Some(content) = rest.get(..length + 2) else { return Ok(None) };
                    let content = content.strip_suffix(b"\r\n").ok_or(Malformed)?;
                    (Reply::Bulk(Some(content)), length + 2)
                }
            },
            _ => return Err(Malformed),
        };
        self.start += end + 2 + length;
        Ok(Some(reply))
    }
}

fn number(text: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Gives one byte at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (buffer[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    fn all(bytes: &[u8]) -> Result<Vec<Reply<Vec<u8>>>, Malformed> {
        let (mut reader, mut stream, mut replies) = (ReplyReader::default(), Drops(bytes), Vec::new());
        while reader.fill(&mut stream).is_ok() {
            while let Some(reply) = reader.next_reply()? {
                replies.push(reply.to_owned());
            }
        }
        Ok(replies)
    }

    #[test]
    fn requests() {
        let mut out = Vec::new();
        encode(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn replies_survive_a_stream_that_cuts_them() {
        let replies = all(b"+OK\r\n:-7\r\n$3\r\n\r\nx\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n").unwrap();
        let expected = [
            Reply::Simple(b"OK".to_vec()),
            Reply::Integer(-7),
            Reply::Bulk(Some(b"\r\nx".to_vec())),
            Reply::Bulk(None),
            Reply::Error(b"ERR no".to_vec()),
            Reply::Bulk(Some(Vec::new())),
        ];
        assert_eq!(replies, expected);
    }

    #[test]
    fn what_is_no_reply_is_found() {
        for wrong in
            ["?\r\n", "\r\n", ":x\r\n", "$-2\r\n", "$3\r\nabcd\r\n", "$99999999999\r\n", "*1\r\n+OK\r\n"]
        {
            assert_eq!(all(wrong.as_bytes()), Err(Malformed), "{wrong:?}");
        }
    }
}
