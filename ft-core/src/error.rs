//! Errors, sorted by who is at fault.

use crate::point::Point;
use crate::units::{EffectSeq, Seq, Term};
use thiserror::Error;

/// Bytes that are not what they should be: the peer's or the file's fault. Offsets count from the start of the
/// piece being decoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum DecodeError {
    /// The input ends in the middle of a value.
    #[error("cut short at byte {offset}")]
    Truncated {
        /// Where the input ended.
        offset: usize,
    },
    /// A value that no encoder writes.
    #[error("{what} at byte {offset}")]
    Malformed {
        /// Where the value starts.
        offset: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A length above the limit for its field.
    #[error("length {len} at byte {offset} is above the limit of {max}")]
    TooLong {
        /// Where the length stands.
        offset: usize,
        /// The length that was read.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// A kind that this version does not know.
    #[error("unknown {what} {value} at byte {offset}")]
    Unknown {
        /// Where it stands.
        offset: usize,
        /// What kind of thing.
        what: &'static str,
        /// Its number.
        value: u64,
    },
}

/// A frame that cannot be taken: the peer's or the file's fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum FrameError {
    /// Fewer bytes than the header says.
    #[error("frame cut short: {have} of {need} bytes")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes that the frame needs.
        need: usize,
    },
    /// The header does not match its own check.
    #[error("frame header is corrupt")]
    Header,
    /// The payload does not match the chain value in the header.
    #[error("frame at record {first} is corrupt: its bytes do not match its checksum")]
    Payload {
        /// First record of the frame.
        first: Seq,
    },
    /// A sound frame that does not continue what came before it.
    #[error(
        "frame at record {first} continues another history: expected chain {expected:016x}, found {found:016x}"
    )]
    Chain {
        /// First record of the frame.
        first: Seq,
        /// The chain value of the frame before it here.
        expected: u64,
        /// The chain value that the frame continues.
        found: u64,
    },
    /// A length or count above the limit.
    #[error("frame of {len} bytes is above the limit of {max}")]
    TooLong {
        /// What the header says.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// A record inside does not decode.
    #[error("record {seq} does not decode")]
    Record {
        /// Which record.
        seq: Seq,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A record's point or clock is before the one that precedes it.
    #[error(
        "record {seq} goes back in time: its tick or clock is before that of the record that precedes it"
    )]
    Backwards {
        /// Which record.
        seq: Seq,
    },
}

/// Two sides that should be equal are not (R2, R11). Never silent: it names both values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum Divergence {
    /// The machine did not stop where the record enters.
    #[error("divergence at record {seq}: the primary was at {expected}, this side is at {actual}")]
    Point {
        /// The record.
        seq: Seq,
        /// Where the primary was.
        expected: Point,
        /// Where this side is.
        actual: Point,
    },
    /// The machine emitted other effects than the primary.
    #[error(
        "divergence at record {seq}: the primary emitted {expected_count} effects (digest {expected:08x}), \
         this side {actual_count} ({actual:08x})"
    )]
    Effects {
        /// The record that marks them.
        seq: Seq,
        /// How many the primary emitted since the mark before.
        expected_count: u32,
        /// How many this side emitted.
        actual_count: u32,
        /// Digest of the primary's.
        expected: u32,
        /// Digest of this side's.
        actual: u32,
    },
    /// The state digests differ.
    #[error(
        "divergence at record {seq}: the primary's state digest is {expected:016x}, this side's {actual:016x}"
    )]
    State {
        /// The record that carries the primary's digest.
        seq: Seq,
        /// The primary's.
        expected: u64,
        /// This side's.
        actual: u64,
    },
    /// The machine refused a record, or faulted on the way to its point.
    #[error("divergence at record {seq}: the machine stopped: {fault}")]
    Machine {
        /// The record.
        seq: Seq,
        /// What the machine said.
        fault: Fault,
    },
}

impl Divergence {
    /// The record at which it was found.
    pub fn seq(&self) -> Seq {
        match self {
            Self::Point { seq, .. }
            | Self::Effects { seq, .. }
            | Self::State { seq, .. }
            | Self::Machine { seq, .. } => *seq,
        }
    }
}

/// The machine cannot go on: the guest's or the host's fault, in the machine's own words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// Why a replica stopped for good (R5). What a person reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum HaltReason {
    /// Somebody else owns the next term.
    #[error("lost {term} to {owner}: another copy of the machine is live")]
    Lost {
        /// The term that was claimed.
        term: Term,
        /// Who owns it.
        owner: crate::units::NodeId,
    },
    /// The peer is live in a later term.
    #[error("superseded: another copy of the machine is live in {term}")]
    Superseded {
        /// The later term.
        term: Term,
    },
    /// This copy diverged from the primary and must be seeded again.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// What the primary sent cannot be part of its log.
    #[error("the primary's log cannot be followed")]
    Log(#[from] FrameError),
    /// The state that arrived does not have the digest that the primary sent with it.
    #[error("state transfer arrived damaged: digest {expected:016x} was sent, {actual:016x} restored")]
    Transfer {
        /// The primary's.
        expected: u64,
        /// This side's.
        actual: u64,
    },
    /// The primary refused the join.
    #[error("join refused: {0}")]
    Refused(crate::message::Refusal),
    /// The primary went silent before this copy was complete.
    #[error("the primary fell silent before this copy was complete; nothing of value is lost here")]
    Orphaned,
    /// The machine itself cannot go on.
    #[error("the machine stopped: {0}")]
    Machine(#[from] Fault),
    /// Another secondary has taken its place.
    #[error("relieved: another secondary has taken its place")]
    Relieved,
    /// The operator or the embedder asked for it.
    #[error("stopped on request")]
    Requested,
}

/// A wrong call: the embedder's fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum Misuse {
    /// A record's content above [`MAX_EVENT_BYTES`](crate::record::MAX_EVENT_BYTES).
    #[error("an event of {len} bytes is above the limit of {max}; split it")]
    EventTooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// An event that only the core makes.
    #[error("{event} is made by the core, at the right moments; hand in only what comes from outside")]
    NotAnInput {
        /// Which.
        event: &'static str,
    },
    /// A configuration value out of range.
    #[error("{field} = {value} is out of range: {hint}")]
    Config {
        /// Which value.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What to do.
        hint: &'static str,
    },
}

/// An effect that arrives out of turn: a broken invariant of the caller, named for the panic message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("effect {found} where {expected} was due")]
pub struct EffectOrder {
    /// What was due.
    pub expected: EffectSeq,
    /// What came.
    pub found: EffectSeq,
}
