//! Frames on a stream: each is preceded by its length, a big-endian u32.
//!
//! Invariant: a reader never holds more than its buffer, a queue never more than its bound, whatever the other side does.

use super::frame::HEADER;
use std::io::{self, Read, Write};

/// Bytes of a length.
const LENGTH: usize = 4;
/// Bytes read from a stream at once.
const READ: usize = 256 << 10;

/// A length that no frame has: the two sides have lost each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sent a frame of {length} bytes, where {HEADER} to {longest} are allowed")]
pub(super) struct BadLength {
    length: u32,
    longest: usize,
}

/// Cuts a stream into frames.
pub(super) struct FrameReader {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    longest: usize,
}

impl FrameReader {
    pub(super) fn new(longest: usize) -> Self {
        let buffer = vec![0; READ.max(2 * (LENGTH + longest))].into_boxed_slice();
        Self { buffer, start: 0, end: 0, longest }
    }

    /// Reads once. All complete frames must have been taken before.
    pub(super) fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = stream.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// The next complete frame. After an error the stream is useless.
    pub(super) fn next_frame(&mut self) -> Result<Option<&[u8]>, BadLength> {
        let Some((length, rest)) = self.buffer[self.start..self.end].split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if (length as usize) < HEADER || length as usize > self.longest {
            return Err(BadLength { length, longest: self.longest });
        }
        let frame = rest.get(..length as usize);
        if frame.is_some() {
            self.start += LENGTH + length as usize;
        }
        Ok(frame)
    }
}

/// Frames that wait to be written.
#[derive(Debug)]
pub(super) struct FrameQueue {
    bytes: Vec<u8>,
    head: usize,
    bound: usize,
}

impl FrameQueue {
    pub(super) fn new(bound: usize) -> Self {
        Self { bytes: Vec::new(), head: 0, bound }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there was room for it.
    pub(super) fn push(&mut self, frame: &[u8]) -> bool {
        if self.len() + LENGTH + frame.len() > self.bound {
            return false;
        }
        // Move the rest to the front only when that frees at least as much as it moves.
        if self.head > 0 && self.head >= self.len() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(frame);
        true
    }

    /// Writes until all is written, or the stream would block.
    pub(super) fn write_to(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            match stream.write(&self.bytes[self.head..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.head += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(())
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.head = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Gives one byte at a time, or takes seven.
    struct Narrow(Vec<u8>);

    impl Read for Narrow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            buffer[0] = self.0.remove(0);
            Ok(1)
        }
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(7);
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn frames_survive_a_stream_that_cuts_them() {
        let (mut queue, mut stream) = (FrameQueue::new(1 << 20), Narrow(Vec::new()));
        let frames: Vec<Vec<u8>> = (14..80).map(|length| vec![length as u8; length]).collect();
        for frame in &frames {
            assert!(queue.push(frame));
            queue.write_to(&mut stream).unwrap();
        }
        let (mut reader, mut got) = (FrameReader::new(80), Vec::new());
        while reader.fill(&mut stream).unwrap() > 0 {
            while let Some(frame) = reader.next_frame().unwrap() {
                got.push(frame.to_vec());
            }
        }
        assert_eq!(got, frames);
    }

    #[test]
    fn a_length_that_no_frame_has_is_an_error_before_its_bytes_are_there() {
        for (length, good) in
            [(0u32, false), (13, false), (14, true), (80, true), (81, false), (u32::MAX, false)]
        {
            let mut reader = FrameReader::new(80);
            reader.fill(&mut &length.to_be_bytes()[..]).unwrap();
            assert_eq!(reader.next_frame().is_ok(), good, "{length}");
        }
    }

    #[test]
    fn a_queue_takes_whole_frames_up_to_its_bound() {
        let mut queue = FrameQueue::new(100);
        assert!(queue.push(&[1; 60]));
        assert!(!queue.push(&[2; 60]));
        assert!(queue.push(&[3; 32]));
        assert_eq!(queue.len(), 100);
    }
}
