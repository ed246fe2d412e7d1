//! The live side's disk in pieces for a joining secondary, made while the guest runs (R8).
//!
//! First all blocks that hold something; then those written meanwhile, round after round, between the pieces of the machine's own; at last,
//! with the guest at rest and the disk quiet, what is left, and what all of them were.

use super::BLOCK_BYTES;
use super::piece::{Blocks, PIECE_BLOCKS, Sum, is_zero};
use super::store::Store;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Blocks that are read for one piece: most may be zero, and the guest waits meanwhile.
const READS_MAX: usize = 64;

/// After so many rounds a guest that writes faster than its disk is copied is slowed, more so in every further round.
const ROUNDS_AT_FULL_SPEED: u32 = 4;

/// For so many turns the guest rests in one go. When the other side takes nothing meanwhile, the guest goes on, and there are further rounds.
const REST_TURNS_MAX: u32 = 100;

/// Where a transfer stands.
#[derive(Debug)]
pub(super) struct Outgoing {
    file: File,
    phase: Phase,
    sum: Sum,
    /// What the other side was told that all pieces were.
    settled: Option<Sum>,
    /// The machine's own pieces have not begun.
    pub(super) first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All blocks, of which this one is next.
    All { next: u64 },
    /// Those written meanwhile, of which this is the next in this round.
    Written { next: u64, round: u32 },
    /// The guest rests until the disk is quiet and all of it has been sent; so many turns have passed since the last piece.
    Still { round: u32, waits: u32 },
}

/// What the next piece is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Blocks,
    Settle,
    Machine,
}

impl Outgoing {
    /// Everything is still to be sent.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn new(store: &Store) -> io::Result<Self> {
        let file = File::open(store.path())?;
        Ok(Self { file, phase: Phase::All { next: 0 }, sum: Sum::default(), settled: None, first: true })
    }

    /// Whether the guest is to rest, and nothing to be sent, until the disk is quiet.
    pub(super) fn is_still(&self) -> bool {
        matches!(self.phase, Phase::Still { .. })
    }

    /// Takes in that a turn of the guest has come in which a piece may be made or not.
    pub(super) fn handle_turn(&mut self) {
        if let Phase::Still { round, waits } = self.phase {
            self.phase = match waits < REST_TURNS_MAX {
                true => Phase::Still { round, waits: waits + 1 },
                false => Phase::Written { next: 0, round: round.max(ROUNDS_AT_FULL_SPEED) + 1 },
            };
        }
    }

    /// Whether the guest rests for this turn, so that the copy catches up. Sooner or later it does: after each round the guest rests for
    /// one turn more between two in which it runs.
    pub(super) fn rests(&self, turn: u32) -> bool {
        match self.phase {
            Phase::All { .. } => false,
            Phase::Written { round, .. } => {
                !turn.is_multiple_of(round.saturating_sub(ROUNDS_AT_FULL_SPEED) + 1)
            }
            Phase::Still { .. } => true,
        }
    }

    /// Says what the pieces of blocks so far were.
    pub(super) fn settle(&mut self) -> Sum {
        self.settled = Some(self.sum);
        self.sum
    }

    /// What comes next; when it matters, it asks whether what is left of the machine itself may fit its last piece.
    pub(super) fn next(&mut self, store: &Store, machine_is_nearly_done: impl FnOnce() -> bool) -> Next {
        let written = store.dirty().count();
        match self.phase {
            Phase::All { .. } => Next::Blocks,
            Phase::Written { .. } if written > PIECE_BLOCKS as u64 => Next::Blocks,
            Phase::Written { round, .. } if machine_is_nearly_done() => {
                self.phase = Phase::Still { round, waits: 0 };
                Next::Blocks
            }
            Phase::Written { .. } => Next::Machine,
            Phase::Still { round, .. } => {
                self.phase = Phase::Still { round, waits: 0 };
                match written {
                    0 if self.settled == Some(self.sum) => Next::Machine,
                    0 => Next::Settle,
                    _ => Next::Blocks,
                }
            }
        }
    }

    /// The next piece of blocks; it may hold none.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn piece(&mut self, store: &Store) -> io::Result<Vec<u8>> {
        let mut blocks = Blocks::new();
        let mut content = vec![0; BLOCK_BYTES];
        for _ in 0..READS_MAX {
            if blocks.is_full() {
                break;
            }
            let Some(index) = self.advance(store)? else { break };
            self.file.read_exact_at(&mut content, index * BLOCK_BYTES as u64)?;
            // The other side's copy begins with zeros.
            if !matches!(self.phase, Phase::All { .. }) || !is_zero(&content) {
                blocks.push(index, &content);
            }
        }
        Ok(blocks.finish(&mut self.sum))
    }

    /// The next block to be read, which is not marked any more.
    fn advance(&mut self, store: &Store) -> io::Result<Option<u64>> {
        match self.phase {
            Phase::All { next } => {
                let index = self.next_data(next)?.filter(|index| *index < store.blocks());
                self.phase = match index {
                    Some(index) => Phase::All { next: index + 1 },
                    None => Phase::Written { next: 0, round: 0 },
                };
                index.iter().for_each(|index| store.dirty().clear(*index));
                Ok(index)
            }
            Phase::Written { next, round } => {
                let index = store.dirty().take(next);
                self.phase = match index {
                    Some(index) => Phase::Written { next: index + 1, round },
                    None => Phase::Written { next: 0, round: round + 1 },
                };
                Ok(index)
            }
            Phase::Still { .. } => Ok(store.dirty().take(0)),
        }
    }

    /// The first block from `from` on that the file system does not know to be a hole.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        let block = BLOCK_BYTES as u64;
        let offset = i64::try_from(from * block).map_err(io::Error::other)?;
        match lseek(&self.file, offset, Whence::SeekData) {
            Ok(offset) => Ok(Some(offset.unsigned_abs() / block)),
            // Nothing but holes, or the end.
            Err(Errno::ENXIO) => Ok(None),
            // A file system that does not say.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(from)),
            Err(error) => Err(error.into()),
        }
    }
}
