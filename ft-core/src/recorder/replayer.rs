//! The reading twin of the recorder.

use crate::effect::Numbered;
use crate::error::{Divergence, FrameError};
use crate::executor::{Executor, Reached};
use crate::frame::{Frame, LogEnd};
use crate::log::{Accepted, LogReader};
use crate::machine::Machine;
use crate::point::Point;
use crate::record::{Event, Record};
use crate::units::{EffectSeq, Seq, Tick};
use std::collections::VecDeque;
use thiserror::Error;

/// A frame that a replay cannot go on with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum ReplayError {
    /// It is damaged, or of another history: the file's fault.
    #[error("the recording cannot be followed")]
    Frame(#[from] FrameError),
    /// It is not the next one: the caller's fault.
    #[error("a frame starts with record {found}, where {expected} is due")]
    Order {
        /// The record that is due.
        expected: Seq,
        /// The record that came.
        found: Seq,
    },
}

/// How far a replay came in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The machine ran to this record, agreed with it and took it in.
    Applied {
        /// Its number.
        seq: Seq,
        /// The record.
        record: Record,
        /// For an Emit record, the effects that it marks: they have left once and are to leave no more.
        effects: Vec<Numbered>,
    },
    /// The machine has run its ticks and is not at the next record yet.
    Underway,
    /// All records have been applied: push the next frame, or the replay is over.
    Drained,
}

/// What a replay has gone through and found equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Progress {
    /// Records applied.
    pub records: u64,
    /// Ticks run.
    pub ticks: u64,
    /// Effects compared.
    pub effects: u64,
    /// State digests compared.
    pub digests: u64,
}

/// Runs a machine as it was recorded, and compares.
#[derive(Clone, Debug)]
pub struct Replayer<M> {
    executor: Executor<M>,
    reader: LogReader,
    records: VecDeque<(Seq, Record)>,
    from: Tick,
    progress: Progress,
    diverged: Option<Divergence>,
}

impl<M: Machine> Replayer<M> {
    /// Replays onto `machine`, which stands where the recording's machine stood at `start`: for a recording from its
    /// beginning, that is `LogEnd::default()`.
    pub fn new(machine: M, start: LogEnd) -> Self {
        let from = machine.point().tick;
        Self {
            executor: Executor::new(machine, EffectSeq(0)),
            reader: LogReader::new(start, from),
            records: VecDeque::new(),
            from,
            progress: Progress::default(),
            diverged: None,
        }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        self.executor.machine()
    }

    /// Where the machine stands.
    pub fn point(&self) -> Point {
        self.executor.point()
    }

    /// What has been replayed.
    pub fn progress(&self) -> Progress {
        let ticks = self.point().tick.0 - self.from.0;
        Progress { ticks, ..self.progress }
    }

    /// Records that wait to be applied. To keep memory bounded, push no frame before there are none.
    pub fn pending(&self) -> usize {
        self.records.len()
    }

    /// Takes in the next frame.
    ///
    /// # Errors
    /// When it is not the next frame of this recording; it is not taken in.
    pub fn push(&mut self, frame: &Frame) -> Result<(), ReplayError> {
        let expected = self.reader.end().seq.next();
        match self.reader.accept(frame)? {
            Accepted::New(records) => {
                self.records.extend((expected.0..).map(Seq).zip(records));
                Ok(())
            }
            Accepted::Duplicate | Accepted::Gap => Err(ReplayError::Order { expected, found: frame.first() }),
        }
    }

    /// Runs towards the next record, at most `ticks`, and applies it there.
    ///
    /// # Errors
    /// When this machine does not do what the recorded one did (R2, R11). It stays so.
    pub fn step(&mut self, ticks: u64) -> Result<Replayed, Divergence> {
        if let Some(divergence) = &self.diverged {
            return Err(divergence.clone());
        }
        let Some((seq, record)) = self.records.front() else { return Ok(Replayed::Drained) };
        let reached = self.executor.follow(*seq, record, ticks);
        let reached = reached.inspect_err(|divergence| self.diverged = Some(divergence.clone()))?;
        // Queries were answered when the machine was recorded: the answers are in the log.
        self.executor.take_queries();
        let Reached::Applied(effects) = reached else { return Ok(Replayed::Underway) };
        let (seq, record) = self.records.pop_front().expect("the first record has just been applied");
        self.progress.records += 1;
        self.progress.effects += effects.len() as u64;
        self.progress.digests += u64::from(matches!(record.event, Event::Digest(_)));
        Ok(Replayed::Applied { seq, record, effects })
    }
}
