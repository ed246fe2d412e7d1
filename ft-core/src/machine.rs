//! What an embedder's machine must be able to do.

use crate::digest::StateDigest;
use crate::effect::Effect;
use crate::error::Fault;
use crate::point::Point;
use crate::record::Record;
use crate::units::Tick;
use bytes::Bytes;

/// A virtual machine: vCPU, memory and device front ends; a deterministic function of its start state and the records that
/// were applied to it (R1).
///
/// Nothing else may get in: no clock, no randomness, no map iteration order, no pointer value, no uninitialised byte.
pub trait Machine {
    /// Where the machine stands, with its check (R2).
    fn point(&self) -> Point;

    /// Runs to tick `until` and not beyond, or until it has emitted effects, or until only a record can make it go on.
    ///
    /// Whatever it does here takes at least a tick: while the tick stands still, so does the machine. Otherwise no point
    /// would lie between two of its deeds, and a secondary could not stop there.
    ///
    /// # Errors
    /// When the machine cannot go on at all: a triple fault, a failed emulation, a host error.
    fn run(&mut self, until: Tick) -> Result<Stop, Fault>;

    /// Applies a record where the machine stands: the only door into the guest.
    ///
    /// # Errors
    /// When the record makes no sense to this machine.
    fn apply(&mut self, record: &Record) -> Result<(), Fault>;

    /// Takes the next effect that has been emitted, in order.
    fn take_effect(&mut self) -> Option<Effect>;

    /// The operations that have been emitted and not completed, oldest first: a machine that goes live issues them again
    /// (R7). Completions of an operation beyond the first must be ignored.
    fn in_flight(&self) -> Vec<Effect>;

    /// Digest of everything that determines the machine's future (R11). May be incremental.
    fn digest(&mut self) -> StateDigest;

    /// Whether the machine may go on with its copies: as the live side make a piece of its state, otherwise take one in or go on to the
    /// next record. Asked before each; `false` puts it off to the next step. For what goes with a machine and takes its time, such as a
    /// disk that is mirrored: a secondary that it holds up is behind, and the primary slows down for it (R9). While its state is copied the
    /// live side is asked in every step, also where there is no room for a piece: it can hold its guest back until the copy is whole, and
    /// is not asked any more once the copy is given up.
    fn is_ready(&mut self) -> bool {
        true
    }

    /// Makes the next piece of the state for a secondary. The machine may run between two calls; the pieces from the first up
    /// to a last one restore the machine as it stands when the last is made. `first` starts over: an earlier row of
    /// pieces may have been given up half-way.
    fn save(&mut self, first: bool) -> Saved;

    /// Takes in a piece of state. After the last one the machine is where the primary's was.
    ///
    /// # Errors
    /// When the piece is not one that this machine makes.
    fn restore(&mut self, piece: &[u8], last: bool) -> Result<(), Fault>;
}

/// Why a machine stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// It stands at the tick that was asked for.
    Reached,
    /// It has emitted effects.
    Effect,
    /// It waits for a record.
    Idle,
}

/// Pieces of a machine's state that were made where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Saved {
    /// At least one; each at most [`MAX_CHUNK_BYTES`](crate::transfer::MAX_CHUNK_BYTES).
    pub pieces: Vec<Bytes>,
    /// Whether the last of them is the last of all.
    pub last: bool,
}

impl Saved {
    /// A whole state that fits one piece.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { pieces: vec![bytes.into()], last: true }
    }
}
