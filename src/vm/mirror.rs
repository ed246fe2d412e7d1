//! Mirrored disks: each host has its own copy of a VM's disk, and nothing is shared.
//!
//! Both sides execute the writes. On the live side they stay effects under the output rule (R3). A secondary carries out each write and
//! flush that its machine has emitted once their mark has been compared; no completion comes from that, for completions are in the log. A
//! joining secondary is given the disk with the machine's state, in rounds, while the guest runs.
//!
//! | file | what |
//! |---|---|
//! | [`machine`] | a VM with its disk, as one [`Machine`](ft_core::machine::Machine): what is mirrored, and what a transfer adds |
//! | [`store`] | the copy on this host, and the thread that carries out all that happens to it, in order |
//! | `outgoing`, `piece` | the disk in pieces for a joining secondary |
//! | `dirty` | which blocks were written |
//! | [`files`] | the files of a copy, and whether a VM may be started from it |
//!
//! Invariant: what goes to a copy goes through one queue. So a secondary that goes live has carried out all that it mirrored before its
//! first operation as the live side, and operations that are issued again (R7) come after what was mirrored of them, in their order.
//!
//! Invariant: at the cut of a transfer every write that the machine has emitted is in the primary's file, and the file is in the pieces.
//! The guest rests for the moment that this takes.
//!
//! It does not compare whole disks while the pair runs: equal disks at the cut (compared) and equal writes since (R3's marks, compared byte
//! for byte) are equal disks, unless a host's storage changes what it was given.

mod dirty;
pub mod files;
pub mod machine;
mod outgoing;
mod piece;

pub mod store;
#[cfg(test)]
mod tests;

/// Bytes of a block: what is marked, read and sent as a whole. Disks are whole MiB.
const BLOCK_BYTES: usize = 64 << 10;
