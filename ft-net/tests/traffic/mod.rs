//! What hosts say to each other: logs, states, and noise from a seed.

use bytes::Bytes;
use ft_core::frame::{Frame, LogEnd};
use ft_core::log::LogWriter;
use ft_core::message::{Ack, Envelope, Message};
use ft_core::transfer::Chunk;
use ft_core::units::{EffectSeq, Instant, Seq, Session, Term, Tick};
use ft_core::{Event, Point};

/// Numbers from a seed (SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
#[derive(Debug)]
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// What does not compress.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.draw().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// What compresses well.
pub(crate) fn text(len: usize) -> Vec<u8> {
    b"the same again, and again ".iter().copied().cycle().take(len).collect()
}

/// A record that brings `content` at tick `n`.
pub(crate) fn append(log: &mut LogWriter, n: u64, content: Vec<u8>) {
    let event = Event::Net { device: 0, frame: content.into() };
    log.append(Instant(0), Point::new(Tick(n), 0, 0), event).unwrap();
}

/// A log with a frame for each of `contents`.
pub(crate) fn frames(contents: impl IntoIterator<Item = Vec<u8>>) -> Vec<Frame> {
    let mut log = LogWriter::new(LogEnd::default(), 1);
    let frame = |(n, content)| {
        append(&mut log, n, content);
        let frame = log.seal().unwrap().clone();
        log.trim(frame.last());
        frame
    };
    (1..).zip(contents).map(frame).collect()
}

pub(crate) fn envelope(message: Message) -> Envelope {
    Envelope { session: Session(7), term: Term(3), message }
}

pub(crate) fn log(frame: &Frame) -> Envelope {
    envelope(Message::Log { time: Instant(5), released: EffectSeq(2), frame: frame.clone() })
}

pub(crate) fn state(index: u32, bytes: Bytes) -> Envelope {
    envelope(Message::State(Chunk { index, head: None, bytes }))
}

/// All is held, and `applied` is applied.
pub(crate) fn ack(held: Seq, applied: Seq) -> Envelope {
    envelope(Message::Ack(Ack { held, applied, ..Ack::default() }))
}
