//! The log: written by the primary into a bounded ring of frames, read by the secondary in order.
//!
//! Invariant: the ring holds every sealed record after `trimmed`, without a gap. Both sides check every link of the chain.
//! This is not where it is decided what is acknowledged or sent: see `primary` and `secondary`.

use crate::error::{FrameError, Misuse};
use crate::frame::{Frame, FrameBuilder, LogEnd, MAX_FRAME_PAYLOAD, MAX_FRAME_RECORDS};
use crate::point::Point;
use crate::record::{Event, MAX_EVENT_BYTES, MAX_RECORD_OVERHEAD, Record};
use crate::units::{Instant, Seq, Tick, VirtualTime};
use std::collections::VecDeque;

/// A [`Event::Time`] record carries the check of its point only every so many records: others always do.
const CHECK_EVERY: u64 = 16;

/// The writing end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogWriter {
    open: FrameBuilder,
    opened: Option<Instant>,
    /// Where the sealed part ends.
    sealed: LogEnd,
    ring: VecDeque<Frame>,
    ring_bytes: usize,
    trimmed: Seq,
    frame_bytes: usize,
}

impl LogWriter {
    /// Continues a log from `end`. Frames are sealed at about `frame_bytes`.
    pub fn new(end: LogEnd, frame_bytes: usize) -> Self {
        Self {
            open: FrameBuilder::new(),
            opened: None,
            sealed: end,
            ring: VecDeque::new(),
            ring_bytes: 0,
            trimmed: end.seq,
            frame_bytes: frame_bytes.min(MAX_FRAME_PAYLOAD - MAX_EVENT_BYTES - MAX_RECORD_OVERHEAD),
        }
    }

    /// Number of the last record, sealed or not.
    pub fn last(&self) -> Seq {
        Seq(self.sealed.seq.0 + u64::from(self.open.count()))
    }

    /// Where the sealed part ends.
    pub fn sealed(&self) -> LogEnd {
        self.sealed
    }

    /// Bytes in the ring and in the open frame.
    pub fn bytes(&self) -> usize {
        self.ring_bytes + self.open.len()
    }

    /// When the first record of the open frame was appended.
    pub fn opened(&self) -> Option<Instant> {
        self.opened
    }

    /// Whether the open frame has reached the size at which it is worth sealing.
    pub fn is_due(&self) -> bool {
        self.open.len() >= self.frame_bytes || self.open.count() >= MAX_FRAME_RECORDS
    }

    /// Appends a record and says its number. Seals first where the open frame is full.
    ///
    /// # Errors
    /// [`Misuse::EventTooLong`]; nothing was appended.
    ///
    /// # Panics
    /// When the point is before the last record's.
    pub fn append(&mut self, now: Instant, point: Point, event: Event) -> Result<(Seq, Record), Misuse> {
        event.validate()?;
        if self.is_due() {
            self.seal();
        }
        let seq = self.last().next();
        let elided = matches!(event, Event::Time(_)) && !seq.0.is_multiple_of(CHECK_EVERY);
        let check = if elided { None } else { point.check };
        let record = Record { point: Point { check, ..point }, event };
        self.open.push(&record);
        self.opened.get_or_insert(now);
        Ok((seq, record))
    }

    /// Closes the open frame and returns it; `None` where it is empty.
    pub fn seal(&mut self) -> Option<&Frame> {
        if self.open.is_empty() {
            return None;
        }
        let frame = self.open.seal(self.sealed);
        self.opened = None;
        self.sealed = frame.end();
        self.ring_bytes += frame.size();
        self.ring.push_back(frame);
        self.ring.back()
    }

    /// Forgets the frames that end at or before `acked`.
    pub fn trim(&mut self, acked: Seq) {
        while let Some(frame) = self.ring.front().filter(|frame| frame.last() <= acked) {
            self.ring_bytes -= frame.size();
            self.trimmed = frame.last();
            self.ring.pop_front();
        }
    }

    /// The sealed frames that hold records after `seq`, oldest first; `None` where some of them have been trimmed.
    pub fn after(&self, seq: Seq) -> Option<impl Iterator<Item = &Frame>> {
        let from = self.ring.partition_point(|frame| frame.last() <= seq);
        (seq >= self.trimmed).then(|| self.ring.range(from..))
    }
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It continues the log: these are its records, in order.
    New(Vec<Record>),
    /// All of it is here already.
    Duplicate,
    /// Something before it is missing.
    Gap,
}

/// The reading end: lets only the next frame of one history through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogReader {
    end: LogEnd,
    tick: Tick,
    clock: VirtualTime,
}

impl LogReader {
    /// Continues a log from `end`, the machine standing at `tick`.
    pub fn new(end: LogEnd, tick: Tick) -> Self {
        Self { end, tick, clock: VirtualTime(0) }
    }

    /// Where the log ends here.
    pub fn end(&self) -> LogEnd {
        self.end
    }

    /// Takes in a frame.
    ///
    /// # Errors
    /// A frame that continues another history, or holds records that do not decode or go back in time. The log stays as it
    /// was.
    pub fn accept(&mut self, frame: &Frame) -> Result<Accepted, FrameError> {
        if frame.last() <= self.end.seq {
            return Ok(Accepted::Duplicate);
        }
        if frame.first() > self.end.seq.next() {
            return Ok(Accepted::Gap);
        }
        let start = frame.start();
        if start != self.end {
            let (expected, found) = (self.end.chain.0, start.chain.0);
            return Err(FrameError::Chain { first: frame.first(), expected, found });
        }
        let records = frame.records()?;
        let (mut tick, mut clock) = (self.tick, self.clock);
        for (n, record) in records.iter().enumerate() {
            let now = if let Event::Time(now) = record.event { now } else { clock };
            if record.point.tick < tick || now < clock {
                return Err(FrameError::Backwards { seq: Seq(frame.first().0 + n as u64) });
            }
            (tick, clock) = (record.point.tick, now);
        }
        (self.tick, self.clock) = (tick, clock);
        self.end = frame.end();
        Ok(Accepted::New(records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::history;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn writer(records: &[Record], frame_bytes: usize) -> LogWriter {
        let mut log = LogWriter::new(LogEnd::default(), frame_bytes);
        for record in records {
            log.append(Instant(0), record.point, record.event.clone()).unwrap();
        }
        log.seal();
        log
    }

    /// One step of a reader and a writer with a bad line between them.
    #[derive(Clone, Debug)]
    enum Op {
        Append(usize),
        Seal,
        Deliver(prop::sample::Index),
        Ack,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0usize..40).prop_map(Op::Append),
            Just(Op::Seal),
            any::<prop::sample::Index>().prop_map(Op::Deliver),
            Just(Op::Ack),
        ]
    }

    proptest! {
        /// Frames lost, repeated and out of order in any mixture: the reader's records are always a prefix of the writer's,
        /// the ring never has a gap, and a resend from what is acknowledged always completes the log.
        #[test]
        fn a_reader_holds_a_prefix(ops in proptest::collection::vec(op(), 0..80)) {
            let mut log = LogWriter::new(LogEnd::default(), 200);
            let mut reader = LogReader::new(LogEnd::default(), Tick(0));
            let (mut written, mut read, mut sent) = (Vec::new(), Vec::new(), Vec::<Frame>::new());
            let mut take = |reader: &mut LogReader, frame: &Frame| match reader.accept(frame).unwrap() {
                Accepted::New(mut records) => read.append(&mut records),
                Accepted::Duplicate | Accepted::Gap => {}
            };
            for op in ops {
                match op {
                    Op::Append(len) => {
                        let event = Event::Entropy(Bytes::from(vec![7; len]));
                        let point = Point::new(Tick(written.len() as u64), 0, 0);
                        written.push(log.append(Instant(0), point, event).unwrap().1);
                    }
                    Op::Seal => { log.seal(); }
                    Op::Deliver(index) if !sent.is_empty() => take(&mut reader, &sent[index.index(sent.len())]),
                    Op::Deliver(_) => {}
                    Op::Ack => log.trim(reader.end().seq),
                }
                let kept: Vec<Frame> = log.after(reader.end().seq).expect("unacknowledged frames are kept").cloned().collect();
                for frame in kept { if !sent.contains(&frame) { sent.push(frame) } }
                prop_assert!(log.ring.iter().zip(log.ring.iter().skip(1)).all(|(a, b)| a.end() == b.start()));
                prop_assert_eq!(log.ring_bytes, log.ring.iter().map(|frame| frame.size()).sum::<usize>());
            }
            log.seal();
            let rest: Vec<Frame> = log.after(reader.end().seq).expect("kept").cloned().collect();
            rest.iter().for_each(|frame| take(&mut reader, frame));
            prop_assert_eq!(read, written);
            prop_assert_eq!(reader.end(), log.sealed());
        }

        #[test]
        fn a_log_is_read_as_it_was_written(records in history(60), frame_bytes in 1usize..400) {
            let log = writer(&records, frame_bytes);
            let mut reader = LogReader::new(LogEnd::default(), Tick(0));
            let mut read = Vec::new();
            for frame in log.after(Seq(0)).unwrap() {
                let Accepted::New(mut records) = reader.accept(frame).unwrap() else { panic!("in order") };
                read.append(&mut records);
            }
            prop_assert_eq!(read.len(), records.len());
            for (read, written) in read.iter().zip(&records) {
                prop_assert_eq!(&read.event, &written.event);
                prop_assert!(read.point.agrees(&written.point));
            }
        }
    }

    fn entropy(log: &mut LogWriter, tick: u64) {
        log.append(Instant(0), Point::new(Tick(tick), 0, 0), Event::Entropy(Bytes::from_static(b"x")))
            .unwrap();
    }

    #[test]
    fn another_history_is_refused() {
        let mut one = LogWriter::new(LogEnd::default(), 100);
        entropy(&mut one, 1);
        one.seal();
        let mut two = one.clone();
        entropy(&mut one, 2);
        entropy(&mut two, 3);
        one.seal();
        two.seal();
        entropy(&mut two, 4);
        two.seal();
        let mut reader = LogReader::new(LogEnd::default(), Tick(0));
        for frame in one.after(Seq(0)).unwrap() {
            reader.accept(frame).unwrap();
        }
        let end = reader.end();
        let last = two.after(Seq(2)).unwrap().next().unwrap();
        assert!(matches!(reader.accept(last), Err(FrameError::Chain { first: Seq(3), .. })));
        assert_eq!(reader.end(), end);
    }

    #[test]
    fn a_frame_that_goes_back_in_time_is_refused() {
        let mut log = LogWriter::new(LogEnd::default(), 100);
        entropy(&mut log, 5);
        log.seal();
        let mut reader = LogReader::new(LogEnd::default(), Tick(9));
        let frame = log.after(Seq(0)).unwrap().next().unwrap();
        assert_eq!(reader.accept(frame), Err(FrameError::Backwards { seq: Seq(1) }));
    }

    #[test]
    fn trimmed_frames_cannot_be_asked_for_again() {
        let mut log = LogWriter::new(LogEnd::default(), 100);
        entropy(&mut log, 1);
        log.seal();
        entropy(&mut log, 2);
        log.seal();
        log.trim(Seq(1));
        assert!(log.after(Seq(0)).is_none());
        assert_eq!(log.after(Seq(1)).unwrap().count(), 1);
        assert_eq!(log.after(Seq(2)).unwrap().count(), 0);
    }

    #[test]
    fn an_event_above_the_limit_is_the_callers_fault() {
        let mut log = LogWriter::new(LogEnd::default(), 100);
        let event = Event::Entropy(Bytes::from(vec![0; MAX_EVENT_BYTES + 1]));
        assert!(matches!(log.append(Instant(0), Point::default(), event), Err(Misuse::EventTooLong { .. })));
        assert_eq!(log.last(), Seq(0));
        let event = Event::Entropy(Bytes::from(vec![0; MAX_EVENT_BYTES]));
        log.append(Instant(0), Point::default(), event).unwrap();
        log.append(Instant(0), Point::default(), Event::Entropy(Bytes::from(vec![0; MAX_EVENT_BYTES])))
            .unwrap();
        log.seal();
        assert_eq!(log.after(Seq(0)).unwrap().count(), 2, "the second did not fit");
    }
}
