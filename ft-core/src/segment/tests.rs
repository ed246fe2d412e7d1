#![allow(clippy::unwrap_used)]

use super::header::tests::header;
use super::*;
use crate::frame::{FrameBuilder, LogEnd};
use crate::log::LogWriter;
use crate::point::Point;
use crate::record::tests::history;
use crate::record::{Event, MAX_EVENT_BYTES};
use crate::units::{Instant, Tick};
use proptest::prelude::*;

/// A segment as it stands in a file.
#[derive(Clone, Debug)]
struct Segment {
    header: SegmentHeader,
    frames: Vec<Frame>,
    bytes: Vec<u8>,
    /// Where the frames start; at last, where the file ends.
    starts: Vec<u64>,
}

impl Segment {
    fn new(header: SegmentHeader, frames: Vec<Frame>) -> Self {
        let mut bytes = header.encode().unwrap().to_vec();
        let mut starts = vec![bytes.len() as u64];
        for frame in &frames {
            bytes.extend_from_slice(&frame.to_bytes());
            starts.push(bytes.len() as u64);
        }
        Self { header, frames, bytes, starts }
    }

    /// Where the header or frame starts that holds the byte at `offset`.
    fn start_of(&self, offset: u64) -> u64 {
        self.starts.iter().rev().find(|start| **start <= offset).copied().unwrap_or(0)
    }

    fn end(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// A history that begins where the header says.
fn segment() -> impl Strategy<Value = Segment> {
    (header(), history(30), 1usize..300).prop_map(|(header, records, frame_bytes)| {
        let mut log = LogWriter::new(header.start, frame_bytes);
        for record in records {
            let tick = Tick(header.start_tick.0 + record.point.tick.0);
            log.append(Instant(0), Point { tick, ..record.point }, record.event).unwrap();
        }
        log.seal();
        let frames = log.after(header.start.seq).unwrap().cloned().collect();
        Segment::new(header, frames)
    })
}

fn segment_of(at_least: usize) -> impl Strategy<Value = Segment> {
    segment().prop_filter("it holds too few frames", move |segment| segment.frames.len() >= at_least)
}

/// What comes of reading `bytes` in pieces of these sizes, over and over: frames, and how it ends.
fn read_in(sizes: &[usize], mut bytes: &[u8]) -> (Vec<Verified>, Result<Tail, SegmentError>) {
    let mut reader = SegmentReader::new();
    let mut frames = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !bytes.is_empty() {
        let size = bytes.len().min(*sizes.next().unwrap());
        let taken = reader.push(&bytes[..size]);
        bytes = &bytes[taken..];
        loop {
            match reader.poll() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.poll(), Err(error.clone()), "what is refused stays refused");
                    return (frames, Err(error));
                }
            }
        }
        assert!(taken > 0, "a reader that has been polled has room");
    }
    (frames, reader.finish())
}

fn read(bytes: &[u8]) -> (Vec<Verified>, Result<Tail, SegmentError>) {
    read_in(&[usize::MAX], bytes)
}

proptest! {
    #[test]
    fn segments_come_back(segment in segment(), sizes in proptest::collection::vec(1usize..500, 1..5)) {
        let (frames, tail) = read_in(&sizes, &segment.bytes);
        prop_assert_eq!(tail, Ok(Tail::Whole));
        for (verified, start) in frames.iter().zip(&segment.starts) {
            prop_assert_eq!(verified.offset, *start);
            prop_assert_eq!(&verified.records, &verified.frame.records().unwrap());
        }
        let frames: Vec<Frame> = frames.into_iter().map(|verified| verified.frame).collect();
        prop_assert_eq!(frames, segment.frames);
        let mut reader = SegmentReader::new();
        let mut rest = &segment.bytes[..];
        while reader.header().is_none() {
            rest = &rest[reader.push(rest)..];
            prop_assert_eq!(reader.poll(), Ok(None));
        }
        prop_assert_eq!(reader.header(), Some(&segment.header));
    }

    /// Every byte of the file, the last frame's included. No exception: a whole segment has no byte whose change could be
    /// taken for a torn tail.
    #[test]
    fn every_flipped_byte_is_refused_at_or_before_its_frame(segment in segment(), flip in 1u8..) {
        let mut bytes = segment.bytes.clone();
        for at in 0..bytes.len() {
            bytes[at] ^= flip;
            let (frames, tail) = read(&bytes);
            bytes[at] ^= flip;
            let start = segment.start_of(at as u64);
            let Err(error) = tail else { panic!("byte {at} ^ {flip:#x} was taken as {tail:?}") };
            prop_assert!(error.offset() <= start, "byte {at}: {error} is behind {start}");
            let sound = segment.starts.iter().filter(|start| **start <= error.offset()).count();
            prop_assert_eq!(frames.len(), sound.saturating_sub(1), "what comes before is sound");
        }
    }

    /// Cut anywhere: what is whole comes back, and the cut is where it ends. At the end of a frame nothing is torn.
    #[test]
    fn every_truncation_is_a_torn_tail(segment in segment()) {
        for len in 0..segment.bytes.len() {
            let (frames, tail) = read(&segment.bytes[..len]);
            let offset = segment.start_of(len as u64);
            let torn = Tail::Torn { offset, bytes: len as u64 - offset };
            let expected = if segment.starts.contains(&(len as u64)) { Tail::Whole } else { torn };
            prop_assert_eq!(tail, Ok(expected));
            let whole = segment.starts.iter().filter(|start| **start <= len as u64).count();
            prop_assert_eq!(frames.len(), whole.saturating_sub(1));
        }
    }

    /// A file that was extended and not filled; one byte among the zeros is damage.
    #[test]
    fn zeros_to_the_end_are_a_torn_tail(
        segment in segment(), zeros in 1usize..3 * PADDING_BYTES, at: proptest::sample::Index, size in 1usize..9000,
    ) {
        let mut bytes = segment.bytes.clone();
        bytes.resize(bytes.len() + zeros, 0);
        let torn = Tail::Torn { offset: segment.end(), bytes: zeros as u64 };
        prop_assert_eq!(read_in(&[size], &bytes).1, Ok(torn));
        if zeros >= FRAME_HEADER_BYTES {
            bytes[segment.bytes.len() + at.index(zeros)] = 1;
            let corrupt = SegmentError::Frame { offset: segment.end(), source: FrameError::Header };
            prop_assert_eq!(read_in(&[size], &bytes).1, Err(corrupt));
        }
    }

    /// The exception: of a frame that was cut, less than its header is left, or its payload has no end. Bytes that are
    /// wrong there are cut off with the rest; a whole header that is wrong is still refused.
    #[test]
    fn wrong_bytes_in_a_torn_frame_are_cut_with_it_or_refused(
        segment in segment_of(1), which: proptest::sample::Index, cut: proptest::sample::Index,
        at: proptest::sample::Index, flip in 1u8..,
    ) {
        let which = which.index(segment.frames.len());
        let (start, torn) = (segment.starts[which], 1 + cut.index(segment.frames[which].size() - 1));
        let mut bytes = segment.bytes[..start as usize + torn].to_vec();
        let at = at.index(torn);
        bytes[start as usize + at] ^= flip;
        let (frames, tail) = read(&bytes);
        let hidden = torn < FRAME_HEADER_BYTES || at >= FRAME_HEADER_BYTES;
        let corrupt = SegmentError::Frame { offset: start, source: FrameError::Header };
        let expected = if hidden { Ok(Tail::Torn { offset: start, bytes: torn as u64 }) } else { Err(corrupt) };
        prop_assert_eq!(tail, expected);
        prop_assert_eq!(frames.len(), which);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        segment in segment(), junk in proptest::collection::vec(any::<u8>(), 1..200), keep: proptest::sample::Index,
        size in 1usize..100,
    ) {
        prop_assert!(!matches!(read_in(&[size], &junk).1, Ok(Tail::Whole)));
        let keep = keep.index(segment.bytes.len() + 1);
        let _ = read_in(&[size], &[&segment.bytes[..keep], &junk].concat());
    }

    /// Frames left out, repeated or swapped.
    #[test]
    fn only_the_whole_row_of_frames_is_taken(segment in segment_of(2), at: proptest::sample::Index, edit in 0u8..3) {
        let mut frames = segment.frames.clone();
        // A last frame left out cannot be missed.
        let at = at.index(frames.len() - 1);
        match edit {
            0 => drop(frames.remove(at)),
            1 => frames.insert(at, frames[at].clone()),
            _ => frames.swap(at, at + 1),
        }
        let tail = read(&Segment::new(segment.header.clone(), frames).bytes).1;
        let offset = segment.starts[if edit == 1 { at + 1 } else { at }];
        let is_refused = matches!(tail, Err(SegmentError::Order { offset: found, .. }) if found == offset);
        prop_assert!(is_refused);
    }
}

fn plain() -> SegmentHeader {
    let mut header = SegmentHeader::default();
    header.profile.protocol = crate::message::PROTOCOL_VERSION;
    header
}

fn frame(start: LogEnd, tick: u64, len: usize) -> Frame {
    let event = Event::Entropy(Bytes::from(vec![7; len]));
    let mut builder = FrameBuilder::new();
    builder.push(&Record { point: Point { tick: Tick(tick), check: None }, event });
    builder.seal(start)
}

fn refusal(header: SegmentHeader, frames: Vec<Frame>) -> SegmentError {
    read(&Segment::new(header, frames).bytes).1.unwrap_err()
}

#[test]
fn frames_of_another_history_are_refused() {
    let first = frame(LogEnd::default(), 1, 0);
    let other = frame(LogEnd::default(), 2, 0);
    let second = frame(other.end(), 3, 0);
    let offset = Segment::new(plain(), vec![first.clone()]).end();
    let error = refusal(plain(), vec![first, second]);
    assert!(matches!(error, SegmentError::Frame { source: FrameError::Chain { .. }, .. }), "{error:?}");
    assert_eq!(error.offset(), offset);
}

#[test]
fn a_log_that_goes_back_in_time_is_refused() {
    let frames = vec![frame(LogEnd::default(), 8, 0)];
    let header = SegmentHeader { start_tick: Tick(9), ..plain() };
    let offset = header.encode().unwrap().len() as u64;
    let source = FrameError::Backwards { seq: Seq(1) };
    assert_eq!(refusal(header, frames), SegmentError::Frame { offset, source });
}

#[test]
fn a_foreign_file_is_not_a_recording() {
    for bytes in [&b"#!/bin/sh\n"[..], b"\x89PNG\r\n\x1a\n", &[0; 4096], b"\x89FTREC\n"] {
        let (_, tail) = read(bytes);
        assert_eq!(tail.unwrap_err().to_string(), "not a recording");
    }
    assert_eq!(
        read(b"").1,
        Ok(Tail::Torn { offset: 0, bytes: 0 }),
        "an empty file can be a recording's beginning"
    );
}

#[test]
fn a_reader_holds_one_frame_at_most() {
    let large = frame(LogEnd::default(), 1, MAX_EVENT_BYTES);
    let bytes = Segment::new(plain(), vec![large.clone()]).bytes;
    let mut reader = SegmentReader::new();
    let mut rest = &bytes[..];
    let mut most = 0;
    while !rest.is_empty() {
        rest = &rest[reader.push(rest)..];
        assert!(rest.is_empty() || reader.push(rest) == 0, "no room before the next poll");
        most = most.max(reader.buffer.len());
        reader.poll().unwrap();
    }
    assert_eq!(most, large.size());
}
