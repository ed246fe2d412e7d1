//! The layout of a log on disk: a header that says whose log it is and where it starts, then the frames as
//! [`frame`](crate::frame) lays them out, with nothing between them and nothing after them.
//!
//! ```text
//! offset  bytes  little-endian
//!      0      8  89 "FTREC" 0D 0A
//!      8      4  version of this layout
//!     12      4  length of the header
//!     16      4  the same of bytes 0-16, cut to 32 bits, so that version and length can be trusted
//!     20      4  protocol version: that of frames and records
//!     24      8  hash of the machine's configuration
//!     32      8  last record before the segment
//!     40      8  chain value there
//!     48      8  tick at which the machine stands there
//!     56      .  VM, build, CPU model, tick kind: varint length and UTF-8 each
//!  end-8      8  XXH3-64, seed 0x46545345474d5431, of all that comes before
//! ```
//!
//! A writer that dies leaves a torn tail: the file ends inside a frame, or was extended and never filled and holds zeros
//! from the end of a frame on. The reader says where to cut. Everything else that is not right is damage and is refused,
//! in the last frame too: a tail is only torn where bytes are missing, never where they are wrong. Two losses cannot be
//! told from something harmless: a file that ends where a frame ends is whole, whatever followed; and wrong bytes among
//! those of a cut frame are cut off with it.
//!
//! Invariant: a reader holds at most one frame. What it has let through is a prefix of one history: every check of frame,
//! chain, record and order has passed.
//!
//! This does no I/O and repairs nothing.

mod header;

pub use header::{MAX_SEGMENT_HEADER_BYTES, SEGMENT_VERSION, SegmentHeader};

use crate::error::{DecodeError, FrameError};
use crate::frame::{FRAME_HEADER_BYTES, Frame};
use crate::log::{Accepted, LogReader};
use crate::record::Record;
use crate::units::Seq;
use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Zeros after the last frame are looked through in pieces of this many bytes.
const PADDING_BYTES: usize = 4096;

/// A file that cannot be taken as a segment: the file's fault. Offsets count from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum SegmentError {
    /// It does not begin as a segment does.
    #[error("not a recording")]
    Foreign,
    /// Written by a build that knows more than this one.
    #[error("{what} version {found} is newer than {known}, the newest that this build reads")]
    Newer {
        /// Whose version.
        what: &'static str,
        /// The file's.
        found: u32,
        /// This build's.
        known: u32,
    },
    /// Written by a build that this one no longer follows.
    #[error(
        "{what} version {found} is older than {known}, the oldest that this build reads: use the build that wrote it"
    )]
    Older {
        /// Whose version.
        what: &'static str,
        /// The file's.
        found: u32,
        /// This build's.
        known: u32,
    },
    /// The segment's header does not match its check.
    #[error("the recording's header is corrupt")]
    Corrupt,
    /// The header matches its check and makes no sense.
    #[error("the recording's header does not decode")]
    Header(#[from] DecodeError),
    /// A frame that is damaged, or does not continue the one before it.
    #[error("bad frame at byte {offset}")]
    Frame {
        /// Where the frame starts.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// A sound frame in the wrong place.
    #[error("the frame at byte {offset} starts with record {found}, where {expected} is due")]
    Order {
        /// Where the frame starts.
        offset: u64,
        /// The record that is due.
        expected: Seq,
        /// The record that is there.
        found: Seq,
    },
}

impl SegmentError {
    /// Where the header or frame starts at which it was found. What comes before is sound.
    pub fn offset(&self) -> u64 {
        match self {
            Self::Foreign | Self::Newer { .. } | Self::Older { .. } | Self::Corrupt | Self::Header(_) => 0,
            Self::Frame { offset, .. } | Self::Order { offset, .. } => *offset,
        }
    }
}

/// A frame that continues the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where it starts in the file.
    pub offset: u64,
    /// The frame.
    pub frame: Frame,
    /// Its records, in order.
    pub records: Vec<Record>,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tail {
    /// Where its last frame ends.
    Whole,
    /// In the middle of a frame, or of the header where `offset` is 0.
    Torn {
        /// Where to cut.
        offset: u64,
        /// How much that cuts off.
        bytes: u64,
    },
}

/// What the bytes at hand are part of.
#[derive(Clone, Debug)]
enum Part {
    Header,
    Frame(LogReader),
    /// Zeros after the last frame; how many have been seen and dropped.
    Padding(u64),
    Refused(SegmentError),
}

/// Reads a segment from pieces of any size: [`push`](Self::push) what there is, [`poll`](Self::poll) until nothing comes,
/// [`finish`](Self::finish) where the file ends.
#[derive(Clone, Debug)]
pub struct SegmentReader {
    part: Part,
    header: Option<SegmentHeader>,
    /// Where the part starts.
    offset: u64,
    buffer: BytesMut,
    /// Bytes of the part, as far as is known.
    need: usize,
}

impl SegmentReader {
    /// At the start of a file.
    pub fn new() -> Self {
        let need = header::PREFIX_BYTES;
        Self { part: Part::Header, header: None, offset: 0, buffer: BytesMut::new(), need }
    }

    /// The header, once it is there.
    pub fn header(&self) -> Option<&SegmentHeader> {
        self.header.as_ref()
    }

    /// Takes in the file's next bytes and says how many: no more than the frame at hand needs. The rest is to be pushed
    /// again after [`Self::poll`].
    #[must_use = "bytes that were not taken in must be pushed again"]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.need - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// The next frame; `None` until more is pushed.
    ///
    /// # Errors
    /// When the segment is damaged, foreign or newer than this build. It stays refused.
    pub fn poll(&mut self) -> Result<Option<Verified>, SegmentError> {
        if let Part::Refused(error) = &self.part {
            return Err(error.clone());
        }
        while self.buffer.len() == self.need {
            match self.advance() {
                Ok(None) => {}
                Err(error) => {
                    self.part = Part::Refused(error.clone());
                    return Err(error);
                }
                frame => return frame,
            }
        }
        Ok(None)
    }

    /// How the segment ends, the file being over.
    ///
    /// # Errors
    /// As [`Self::poll`].
    ///
    /// # Panics
    /// When a frame is still to be polled.
    pub fn finish(mut self) -> Result<Tail, SegmentError> {
        assert_eq!(self.poll()?, None, "a segment is finished before its last frame was polled");
        let (offset, bytes) = (self.offset, self.buffer.len() as u64);
        match self.part {
            Part::Header => header::check_magic(&self.buffer).map(|()| Tail::Torn { offset, bytes }),
            Part::Frame(_) if bytes == 0 => Ok(Tail::Whole),
            Part::Frame(_) => Ok(Tail::Torn { offset, bytes }),
            Part::Padding(dropped) if is_zero(&self.buffer) => {
                Ok(Tail::Torn { offset, bytes: dropped + bytes })
            }
            Part::Padding(_) => Err(not_padding(offset)),
            Part::Refused(error) => Err(error),
        }
    }

    /// Goes on with as many bytes as were needed: they are a part, or say how long it is.
    fn advance(&mut self) -> Result<Option<Verified>, SegmentError> {
        let length = match &mut self.part {
            Part::Header => SegmentHeader::length(&self.buffer)?,
            Part::Frame(_) if is_zero(&self.buffer) => {
                self.part = Part::Padding(0);
                return Ok(None);
            }
            Part::Frame(_) => {
                let offset = self.offset;
                Frame::length(&self.buffer).map_err(|source| SegmentError::Frame { offset, source })?
            }
            Part::Padding(dropped) if is_zero(&self.buffer) => {
                *dropped += self.buffer.len() as u64;
                self.buffer.clear();
                self.need = PADDING_BYTES;
                return Ok(None);
            }
            Part::Padding(_) => return Err(not_padding(self.offset)),
            Part::Refused(error) => return Err(error.clone()),
        };
        match length {
            Some(length) if length == self.buffer.len() => self.take_part(),
            length => {
                self.need = length.expect("as much was needed as names the length");
                self.buffer.reserve(self.need - self.buffer.len());
                Ok(None)
            }
        }
    }

    /// Takes the part out of the buffer, which holds it whole.
    fn take_part(&mut self) -> Result<Option<Verified>, SegmentError> {
        let offset = self.offset;
        let bytes = self.buffer.split().freeze();
        self.offset += bytes.len() as u64;
        self.need = FRAME_HEADER_BYTES;
        if let Part::Frame(log) = &mut self.part {
            return accept(log, offset, bytes).map(Some);
        }
        let header = SegmentHeader::decode(bytes)?;
        self.part = Part::Frame(LogReader::new(header.start, header.start_tick));
        self.header = Some(header);
        Ok(None)
    }
}

impl Default for SegmentReader {
    fn default() -> Self {
        Self::new()
    }
}

fn accept(log: &mut LogReader, offset: u64, bytes: Bytes) -> Result<Verified, SegmentError> {
    let bad = |source| SegmentError::Frame { offset, source };
    let expected = log.end().seq.next();
    let frame = Frame::decode(bytes).map_err(bad)?;
    match log.accept(&frame).map_err(bad)? {
        Accepted::New(records) => Ok(Verified { offset, frame, records }),
        Accepted::Duplicate | Accepted::Gap => {
            Err(SegmentError::Order { offset, expected, found: frame.first() })
        }
    }
}

/// Something follows the zeros: they are a damaged frame, not a torn tail.
fn not_padding(offset: u64) -> SegmentError {
    SegmentError::Frame { offset, source: FrameError::Header }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
