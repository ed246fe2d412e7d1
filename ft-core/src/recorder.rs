//! Record and replay of a machine that has no secondary: for embedders that want to run a machine again, exactly as it
//! went.
//!
//! A [`Recorder`] is a primary without a pair: it makes a record of each event, logs it and applies it, and marks what the
//! machine emits. A [`Replayer`] is a secondary without a pair: it runs to each record's point, compares and applies it.
//! Both run the machine in the same [`Executor`] as a pair does, so what a pair can follow, a replay can, and the reverse.
//!
//! Invariant: a record is in the log before it enters the machine; the mark of an effect is in the log before the effect
//! is handed out.
//!
//! This keeps no file and no clock: frames go out through [`Recorder::poll_frame`], and [`segment`](crate::segment) is
//! their layout on disk. Nothing is held back for the log's sake: an effect may leave before its mark is on disk.
//!
//! ```
//! use ft_core::effect::{Effect, EffectKind};
//! use ft_core::frame::LogEnd;
//! use ft_core::machine::{Machine, Stop};
//! use ft_core::recorder::{Progress, Recorder, Replayed, Replayer};
//! use ft_core::units::{Instant, Tick};
//! use ft_core::{Event, Point, Record};
//! # use ft_core::{digest::StateDigest, error::Fault, machine::Saved};
//!
//! /// Adds up what is typed, and says the sum at every tenth tick.
//! #[derive(Default)]
//! struct Adder {
//!     tick: u64,
//!     sum: u64,
//!     said: Option<Effect>,
//! }
//!
//! impl Machine for Adder {
//!     fn point(&self) -> Point {
//!         Point::new(Tick(self.tick), 0, self.sum as u32)
//!     }
//!     fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
//!         while self.tick < until.0 {
//!             self.tick += 1;
//!             if self.tick.is_multiple_of(10) {
//!                 let payload = self.sum.to_string().into();
//!                 self.said = Some(Effect { kind: EffectKind::Console, device: 0, op: None, payload });
//!                 return Ok(Stop::Effect);
//!             }
//!         }
//!         Ok(Stop::Reached)
//!     }
//!     fn apply(&mut self, record: &Record) -> Result<(), Fault> {
//!         self.sum += record.event.payload().iter().map(|byte| u64::from(*byte)).sum::<u64>();
//!         Ok(())
//!     }
//!     fn take_effect(&mut self) -> Option<Effect> {
//!         self.said.take()
//!     }
//!     // And so on.
//! #   fn in_flight(&self) -> Vec<Effect> {
//! #       Vec::new()
//! #   }
//! #   fn digest(&mut self) -> StateDigest {
//! #       StateDigest(self.tick << 32 | self.sum)
//! #   }
//! #   fn save(&mut self, _first: bool) -> Saved {
//! #       unimplemented!("there is no secondary")
//! #   }
//! #   fn restore(&mut self, _: &[u8], _: bool) -> Result<(), Fault> {
//! #       unimplemented!("there is no secondary")
//! #   }
//! }
//!
//! // Recording: whatever happens outside enters as an event.
//! let mut recorder = Recorder::new(Adder::default(), 32 << 10);
//! for word in ["one", "two", "three"] {
//!     let now = Instant(0); // The host's monotonic clock.
//!     recorder.enter(now, Event::Console { device: 0, bytes: word.into() })?;
//!     recorder.run(now, 25)?;
//!     while let Some(numbered) = recorder.poll_effect() {
//!         assert_eq!(numbered.effect.kind, EffectKind::Console); // Print its payload.
//!     }
//! }
//! recorder.finish(Instant(0))?;
//!
//! // Replaying: the frames are all it takes.
//! let mut replayer = Replayer::new(Adder::default(), LogEnd::default());
//! while let Some(frame) = recorder.poll_frame() {
//!     replayer.push(&frame)?;
//! }
//! while replayer.step(1_000)? != Replayed::Drained {}
//! // Three words, three marks and the digest at the end.
//! assert_eq!(replayer.progress(), Progress { records: 7, ticks: 30, effects: 3, digests: 1 });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod replayer;

pub use replayer::{Progress, ReplayError, Replayed, Replayer};

use crate::digest::StateDigest;
use crate::effect::Numbered;
use crate::error::{Fault, Misuse};
use crate::executor::Executor;
use crate::frame::{Frame, LogEnd};
use crate::log::LogWriter;
use crate::machine::{Machine, Stop};
use crate::point::Point;
use crate::record::Event;
use crate::units::{EffectSeq, Instant, Seq, VirtualTime};
use std::collections::VecDeque;
use thiserror::Error;

/// What a recording cannot take in, or not go on after.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum RecordError {
    /// Emit and Digest say what the machine did, and are made here: the caller's fault.
    #[error("{event} is no input: the recorder makes it by itself")]
    NotAnInput {
        /// Name of the event.
        event: &'static str,
    },
    /// The machine's clock only goes forward: the caller's fault.
    #[error("the machine's clock stands at {clock} and cannot go back to {asked}")]
    ClockBack {
        /// What the clock shows.
        clock: VirtualTime,
        /// What the event wants it to show.
        asked: VirtualTime,
    },
    /// The event is too long: the caller's fault.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The machine cannot go on. What it did up to here is in the log: [`Recorder::flush`] it.
    #[error("the machine stopped: {0}")]
    Machine(Fault),
}

/// Runs a machine and logs all it takes to run it again.
///
/// The embedder drains [`Self::poll_frame`] and [`Self::poll_effect`] after each call; until then both wait here.
#[derive(Clone, Debug)]
pub struct Recorder<M> {
    executor: Executor<M>,
    log: LogWriter,
    /// The last record that has gone out in a frame.
    polled: Seq,
    effects: VecDeque<Numbered>,
}

impl<M: Machine> Recorder<M> {
    /// Records `machine` from where it stands, in frames of about `frame_bytes`. A replay starts with an equal machine.
    pub fn new(machine: M, frame_bytes: usize) -> Self {
        Self {
            executor: Executor::new(machine, EffectSeq(0)),
            log: LogWriter::new(LogEnd::default(), frame_bytes),
            polled: Seq(0),
            effects: VecDeque::new(),
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

    /// The machine's clock, as of the last Time event.
    pub fn clock(&self) -> VirtualTime {
        self.executor.clock()
    }

    /// Where the sealed part of the log ends: another segment may start here, at the next frame.
    pub fn end(&self) -> LogEnd {
        self.log.sealed()
    }

    /// When the oldest record was made that is in no frame yet. How long it may wait for [`Self::flush`] is the
    /// embedder's choice: a crash loses it.
    pub fn opened(&self) -> Option<Instant> {
        self.log.opened()
    }

    /// Lets an event enter where the machine stands.
    ///
    /// # Errors
    /// When the event is none that may enter, which changes nothing, and when the machine cannot go on.
    pub fn enter(&mut self, now: Instant, event: Event) -> Result<(), RecordError> {
        self.check(&event)?;
        self.mark(now)?;
        self.log_and_apply(now, event)?;
        self.mark(now)
    }

    /// Runs the machine for at most `ticks`.
    ///
    /// # Errors
    /// When the machine cannot go on.
    pub fn run(&mut self, now: Instant, ticks: u64) -> Result<Stop, RecordError> {
        let stop = self.executor.run(ticks).map_err(RecordError::Machine)?;
        self.mark(now)?;
        Ok(stop)
    }

    /// Logs the digest of the machine where it stands, for the replay to compare (R11).
    ///
    /// # Errors
    /// When the machine cannot go on.
    pub fn digest(&mut self, now: Instant) -> Result<StateDigest, RecordError> {
        let digest = self.executor.machine_mut().digest();
        self.log_and_apply(now, Event::Digest(digest))?;
        Ok(digest)
    }

    /// Closes the open frame, for [`Self::poll_frame`] to hand out.
    pub fn flush(&mut self) {
        self.log.seal();
    }

    /// Ends the recording: a digest names the point at which it ends, and what is left goes out through
    /// [`Self::poll_frame`]. Without it a replay ends at the last record, however far the machine ran on.
    ///
    /// # Errors
    /// When the machine cannot go on.
    pub fn finish(&mut self, now: Instant) -> Result<(), RecordError> {
        self.digest(now)?;
        self.flush();
        Ok(())
    }

    /// The next full frame.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        if self.log.is_due() {
            self.log.seal();
        }
        let frame = self.log.after(self.polled)?.next()?.clone();
        self.polled = frame.last();
        self.log.trim(self.polled);
        Some(frame)
    }

    /// The next effect, in the order in which the machine emitted them but for queries, which come first.
    pub fn poll_effect(&mut self) -> Option<Numbered> {
        self.effects.pop_front()
    }

    /// Whether `event` may enter.
    fn check(&self, event: &Event) -> Result<(), RecordError> {
        let clock = self.clock();
        match event {
            Event::Emit { .. } | Event::Digest(_) => Err(RecordError::NotAnInput { event: event.name() }),
            Event::Time(asked) if *asked < clock => Err(RecordError::ClockBack { clock, asked: *asked }),
            other => Ok(other.validate()?),
        }
    }

    fn log_and_apply(&mut self, now: Instant, event: Event) -> Result<(), RecordError> {
        let (_, record) = self.log.append(now, self.executor.point(), event)?;
        let effects = self.executor.apply(&record).map_err(RecordError::Machine)?;
        self.effects.extend(effects);
        Ok(())
    }

    /// Logs what the machine has emitted, and hands it out.
    fn mark(&mut self, now: Instant) -> Result<(), RecordError> {
        let unnumbered = |effect| Numbered { seq: EffectSeq(0), effect };
        self.effects.extend(self.executor.take_queries().into_iter().map(unnumbered));
        while let Some(mark) = self.executor.mark() {
            self.log_and_apply(now, mark)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
