//! A batch of records under one checksum, linked to the batch before it.
//!
//! ```text
//! offset  bytes  little-endian
//!      0      4  payload length
//!      4      4  number of records
//!      8      8  number of the first record
//!     16      8  chain value of the frame before
//!     24      8  chain value of this frame: XXH3-64 of the payload, seeded with the XXH3-64 of bytes 0-24
//!     32      4  check of bytes 0-32, so that a length can be trusted before the payload is there
//!     36      .  records
//! ```
//!
//! The chain value is checksum and history in one pass over the bytes: equal values mean that the whole log up to here is
//! equal. It guards against error and against mixing histories; against forgery the channel's TLS guards.

use crate::digest::{digest64, digest64_pieces};
use crate::error::FrameError;
use crate::record::{self, Context, Record};
use crate::units::Seq;
use crate::varint::{MAX_COUNTER, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;
use std::hash::{Hash, Hasher};

/// Bytes of a frame before its records.
pub const FRAME_HEADER_BYTES: usize = 36;

/// Largest payload of a frame.
pub const MAX_FRAME_PAYLOAD: usize = 2 << 20;

/// Most records in a frame. A record takes at least two bytes.
pub const MAX_FRAME_RECORDS: u32 = 1 << 16;

/// Stands for the whole log up to a frame's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain(pub u64);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a log ends: its last record and the chain value there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogEnd {
    /// Last record.
    pub seq: Seq,
    /// Chain value after it.
    pub chain: Chain,
}

/// A sealed frame: what the ring keeps, files hold and the channel carries. Large contents of its records are shared with
/// whoever made them, so it may be in several pieces.
#[derive(Clone, Debug)]
pub struct Frame {
    first: Seq,
    count: u32,
    prev: Chain,
    chain: Chain,
    size: usize,
    pieces: Vec<Bytes>,
}

/// Equal chain values mean equal bytes, however they are cut into pieces.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Frame {}

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl Frame {
    /// Number of its first record.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// How many records it holds, at least one.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Number of its last record.
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// The log's end before this frame.
    pub fn start(&self) -> LogEnd {
        LogEnd { seq: Seq(self.first.0 - 1), chain: self.prev }
    }

    /// The log's end after this frame.
    pub fn end(&self) -> LogEnd {
        LogEnd { seq: self.last(), chain: self.chain }
    }

    /// Its bytes, header and payload, by number.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Header and payload: all pieces, one after the other.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// Header and payload in one piece: a copy where there are several.
    pub fn to_bytes(&self) -> Bytes {
        match &self.pieces[..] {
            [whole] => whole.clone(),
            pieces => Bytes::from(pieces.concat()),
        }
    }

    fn identity(&self) -> (Seq, u32, Chain, Chain, usize) {
        (self.first, self.count, self.prev, self.chain, self.size)
    }

    /// The bytes that the frame at the front of `bytes` needs, header included; `None` while the header is not there.
    ///
    /// # Errors
    /// A header that does not match its check, or names more than the limits allow.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(header) = bytes.get(..FRAME_HEADER_BYTES) else { return Ok(None) };
        Header::parse(header).map(|header| Some(FRAME_HEADER_BYTES + header.payload_len))
    }

    /// Takes in a frame: exactly one, whole.
    ///
    /// # Errors
    /// When the length is off, the header does not match its check or the payload its chain value.
    pub fn decode(bytes: Bytes) -> Result<Self, FrameError> {
        let short = FrameError::Truncated { have: bytes.len(), need: FRAME_HEADER_BYTES };
        let header = Header::parse(bytes.get(..FRAME_HEADER_BYTES).ok_or(short)?)?;
        let need = FRAME_HEADER_BYTES + header.payload_len;
        if bytes.len() < need {
            return Err(FrameError::Truncated { have: bytes.len(), need });
        }
        if bytes.len() > need {
            return Err(FrameError::TooLong { len: bytes.len(), max: need });
        }
        if Chain(digest64(chain_seed(&bytes), &bytes[FRAME_HEADER_BYTES..])) != header.chain {
            return Err(FrameError::Payload { first: header.first });
        }
        let Header { first, count, prev, chain, .. } = header;
        Ok(Self { first, count, prev, chain, size: need, pieces: vec![bytes] })
    }

    /// Decodes its records.
    ///
    /// # Errors
    /// At the first record that does not decode, or when there are more or fewer than the header says.
    pub fn records(&self) -> Result<Vec<Record>, FrameError> {
        let mut reader = Reader::new(self.to_bytes().slice(FRAME_HEADER_BYTES..));
        let mut context = Context::default();
        let mut records = Vec::with_capacity(self.count as usize);
        for n in 0..u64::from(self.count) {
            let seq = Seq(self.first.0 + n);
            let record = record::decode(&mut context, &mut reader);
            records.push(record.map_err(|source| FrameError::Record { seq, source })?);
        }
        reader.finish().map_err(|source| FrameError::Record { seq: self.last(), source })?;
        Ok(records)
    }
}

struct Header {
    payload_len: usize,
    count: u32,
    first: Seq,
    prev: Chain,
    chain: Chain,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u32_at(32) != header_check(&bytes[..32]) {
            return Err(FrameError::Header);
        }
        let (payload_len, count, first) = (u32_at(0) as usize, u32_at(4), u64_at(8));
        if payload_len > MAX_FRAME_PAYLOAD {
            return Err(FrameError::TooLong { len: payload_len, max: MAX_FRAME_PAYLOAD });
        }
        let past_end = first > MAX_COUNTER;
        if count == 0 || count > MAX_FRAME_RECORDS || first == 0 || past_end {
            return Err(FrameError::Header);
        }
        let (prev, chain) = (Chain(u64_at(16)), Chain(u64_at(24)));
        Ok(Self { payload_len, count, first: Seq(first), prev, chain })
    }
}

fn header_check(header: &[u8]) -> u32 {
    digest64(0x4654_4652_414d_4531, header) as u32
}

/// What the payload's digest is seeded with: the header up to the chain value.
fn chain_seed(header: &[u8]) -> u64 {
    digest64(0, &header[..24])
}

/// The frame that is being filled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FrameBuilder {
    /// The first piece, which begins with the header, once there are others.
    first: Option<BytesMut>,
    /// Whole pieces between the first and `buf`.
    pieces: Vec<Bytes>,
    /// The piece that grows.
    buf: BytesMut,
    /// Bytes before `buf`.
    closed: usize,
    count: u32,
    context: Context,
}

impl FrameBuilder {
    pub(crate) fn new() -> Self {
        Self::expecting(FRAME_HEADER_BYTES)
    }

    /// An empty frame whose pieces are expected to grow to `expected` bytes.
    fn expecting(expected: usize) -> Self {
        let mut buf = BytesMut::with_capacity(expected.max(FRAME_HEADER_BYTES));
        buf.put_bytes(0, FRAME_HEADER_BYTES);
        Self { first: None, pieces: Vec::new(), buf, closed: 0, count: 0, context: Context::default() }
    }

    pub(crate) fn push(&mut self, record: &Record) {
        if let Some(content) = record::encode(record, &mut self.context, &mut self.buf) {
            self.close_piece();
            self.closed += content.len();
            self.pieces.push(content);
        }
        self.count += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far, header included.
    pub(crate) fn len(&self) -> usize {
        self.closed + self.buf.len()
    }

    fn close_piece(&mut self) {
        let piece = self.buf.split();
        self.closed += piece.len();
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.pieces.push(piece.freeze()),
        }
    }

    /// Closes the frame that continues `start`, and begins the next.
    pub(crate) fn seal(&mut self, start: LogEnd) -> Frame {
        assert!(self.count > 0, "an empty frame has no place in a log");
        // The next is likely to be as long as this one: room for it at once saves growing step by step.
        let mut built = std::mem::replace(self, Self::expecting(self.buf.len() + self.buf.len() / 8));
        if built.first.is_none() || !built.buf.is_empty() {
            built.close_piece();
        }
        let (size, count, mut rest) = (built.closed, built.count, built.pieces);
        let mut head = built.first.expect("the piece with the header was closed");
        let (first, prev) = (start.seq.next(), start.chain);
        let payload_len = size - FRAME_HEADER_BYTES;
        assert!(payload_len <= MAX_FRAME_PAYLOAD, "the log seals a frame before it outgrows the limit");
        head[0..4].copy_from_slice(&(payload_len as u32).to_le_bytes());
        head[4..8].copy_from_slice(&count.to_le_bytes());
        head[8..16].copy_from_slice(&first.0.to_le_bytes());
        head[16..24].copy_from_slice(&prev.0.to_le_bytes());
        let payload = std::iter::once(&head[FRAME_HEADER_BYTES..]).chain(rest.iter().map(|piece| &piece[..]));
        let chain = Chain(match rest.is_empty() {
            true => digest64(chain_seed(&head), &head[FRAME_HEADER_BYTES..]),
            false => digest64_pieces(chain_seed(&head), payload),
        });
        head[24..32].copy_from_slice(&chain.0.to_le_bytes());
        let check = header_check(&head[..32]);
        head[32..36].copy_from_slice(&check.to_le_bytes());
        rest.insert(0, head.freeze());
        Frame { first, count, prev, chain, size, pieces: rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::history;
    use proptest::prelude::*;

    fn seal(records: &[Record], start: LogEnd) -> Frame {
        let mut builder = FrameBuilder::new();
        records.iter().for_each(|record| builder.push(record));
        builder.seal(start)
    }

    fn a_history() -> impl Strategy<Value = Vec<Record>> {
        history(20).prop_filter("a frame holds at least one record", |records| !records.is_empty())
    }

    proptest! {
        #[test]
        fn frames_come_back(records in a_history(), seq in 0u64..1 << 60, prev: u64) {
            let start = LogEnd { seq: Seq(seq), chain: Chain(prev) };
            let frame = seal(&records, start);
            let again = Frame::decode(frame.to_bytes()).unwrap();
            prop_assert_eq!(&again, &frame);
            prop_assert_eq!(again.start(), start);
            prop_assert_eq!(again.records().unwrap(), records);
        }

        #[test]
        fn any_flipped_bit_is_noticed(records in a_history(), at: proptest::sample::Index, bit in 0u8..8) {
            let mut bytes = seal(&records, LogEnd::default()).to_bytes().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Frame::decode(Bytes::from(bytes)).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Frame::decode(Bytes::from(bytes)).is_err());
        }

        #[test]
        fn a_frame_cut_anywhere_says_how_much_it_needs(records in a_history(), at: proptest::sample::Index) {
            let whole = seal(&records, LogEnd::default()).to_bytes();
            let have = at.index(whole.len());
            let is_truncated = matches!(Frame::decode(whole.slice(..have)), Err(FrameError::Truncated { have: h, .. }) if h == have);
            prop_assert!(is_truncated);
        }
    }

    #[test]
    fn the_chain_depends_on_what_came_before() {
        let record = Record { point: Default::default(), event: crate::record::Event::Reset };
        let here = seal(std::slice::from_ref(&record), LogEnd::default());
        let there = seal(&[record], LogEnd { seq: Seq(0), chain: Chain(1) });
        assert_ne!(here.end().chain, there.end().chain);
    }
}
