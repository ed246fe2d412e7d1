//! A piece of state of a machine with a mirrored disk.
//!
//! ```text
//! 1 machine  a piece of the machine's own
//! 2 blocks   u32 count, then for each: u32 block number, with bit 31 set when it is all zero; 65536 bytes where it is not
//! 3 settle   u64 how many pieces of blocks there were, u64 their digest: the disk is whole, unless more blocks follow
//! 5 last     the machine's last piece; a settle came after the last blocks
//! 4 failed   text: why the primary cannot go on
//! ```

use super::BLOCK_BYTES;
use bytes::Bytes;
use ft_core::digest::digest64;
use ft_core::error::Fault;
use ft_core::transfer::MAX_CHUNK_BYTES;
use ft_vmm::transfer::PIECE_BYTES_MAX;

const MACHINE: u8 = 1;
const BLOCKS: u8 = 2;
const SETTLE: u8 = 3;
const FAILED: u8 = 4;
const LAST: u8 = 5;

const ZERO: u32 = 1 << 31;

/// Blocks that a piece holds, none of them zero.
pub(super) const PIECE_BLOCKS: usize = (MAX_CHUNK_BYTES - 5) / (4 + BLOCK_BYTES);

/// A block on its way; without content where it is all zero.
pub(super) type Block<C> = (u64, Option<C>);

/// What a piece says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Machine(&'a [u8]),
    /// What [`blocks`] takes.
    Blocks(&'a [u8]),
    Settle(Sum),
    Last(&'a [u8]),
    Failed(String),
}

/// All pieces of blocks so far, as both sides count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) pieces: u64,
    pub(super) digest: u64,
}

impl Sum {
    /// Takes in the body of the next piece of blocks.
    pub(super) fn add(&mut self, body: &[u8]) {
        self.pieces += 1;
        self.digest = digest64(self.digest, body);
    }
}

/// Pieces of the machine's own; with `last`, the last of them ends the state.
pub(super) fn machine(pieces: &[Bytes], last: bool) -> Vec<Bytes> {
    const { assert!(PIECE_BYTES_MAX < MAX_CHUNK_BYTES, "a machine's piece and its kind fit a piece") };
    let end = if last { pieces.len() } else { 0 };
    let kind = |n: usize| if n + 1 == end { LAST } else { MACHINE };
    pieces.iter().enumerate().map(|(n, piece)| [&[kind(n)], &piece[..]].concat().into()).collect()
}

/// What all pieces of blocks have been.
pub(super) fn settle(sum: Sum) -> Vec<u8> {
    [&[SETTLE], &sum.pieces.to_le_bytes()[..], &sum.digest.to_le_bytes()].concat()
}

/// A piece that ends the transfer, and says why.
pub(super) fn failed(reason: &str) -> Vec<u8> {
    [&[FAILED], reason.as_bytes()].concat()
}

/// A piece of blocks in the making.
pub(super) struct Blocks {
    bytes: Vec<u8>,
    count: u32,
    whole: usize,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { bytes: vec![BLOCKS, 0, 0, 0, 0], count: 0, whole: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.whole == PIECE_BLOCKS - 1 || self.count as usize == ZEROS_MAX
    }

    pub(super) fn push(&mut self, index: u64, content: &[u8]) {
        let zero = is_zero(content);
        self.count += 1;
        self.bytes.extend_from_slice(&(index as u32 | if zero { ZERO } else { 0 }).to_le_bytes());
        if !zero {
            self.whole += 1;
            self.bytes.extend_from_slice(content);
        }
    }

    /// The piece, which is added to `sum`.
    pub(super) fn finish(mut self, sum: &mut Sum) -> Vec<u8> {
        self.bytes[1..5].copy_from_slice(&self.count.to_le_bytes());
        sum.add(&self.bytes[1..]);
        self.bytes
    }
}

/// Most blocks in a piece, zero or not: their numbers take the place of one whole block.
const ZEROS_MAX: usize = BLOCK_BYTES / 4;

/// Whether a block has nothing in it.
pub(super) fn is_zero(content: &[u8]) -> bool {
    content.iter().all(|byte| *byte == 0)
}

/// Takes a piece apart.
///
/// # Errors
/// When it is none.
pub(super) fn parse(bytes: &[u8]) -> Result<Piece<'_>, Fault> {
    let unknown = || {
        Fault("a piece of state that is none of a machine with a mirrored disk: give both hosts the same build and VM file".into())
    };
    let (kind, body) = bytes.split_first().ok_or_else(unknown)?;
    match *kind {
        MACHINE => Ok(Piece::Machine(body)),
        BLOCKS => Ok(Piece::Blocks(body)),
        SETTLE => {
            let (pieces, rest) = body.split_first_chunk().ok_or_else(unknown)?;
            let digest = rest.try_into().map_err(|_| unknown())?;
            Ok(Piece::Settle(Sum { pieces: u64::from_le_bytes(*pieces), digest: u64::from_le_bytes(digest) }))
        }
        LAST => Ok(Piece::Last(body)),
        FAILED => Ok(Piece::Failed(String::from_utf8_lossy(body).into_owned())),
        _ => Err(unknown()),
    }
}

/// The blocks in the body of a piece, for a disk of so many.
///
/// # Errors
/// When it is malformed, or a block is beyond the disk.
pub(super) fn blocks(body: &[u8], disk: u64) -> Result<Vec<Block<&[u8]>>, Fault> {
    let cut = || Fault("a piece of a disk that is too short or too long".into());
    let (count, mut rest) = body.split_first_chunk().ok_or_else(cut)?;
    let mut blocks = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (entry, after) = rest.split_first_chunk().ok_or_else(cut)?;
        let entry = u32::from_le_bytes(*entry);
        let index = u64::from(entry & !ZERO);
        if index >= disk {
            return Err(Fault(format!("a piece of a disk with block {index}; this disk has {disk}")));
        }
        let len = if entry & ZERO == 0 { BLOCK_BYTES } else { 0 };
        let (content, after) = after.split_at_checked(len).ok_or_else(cut)?;
        blocks.push((index, (len > 0).then_some(content)));
        rest = after;
    }
    if rest.is_empty() { Ok(blocks) } else { Err(cut()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pieces_arrive_as_they_were_made() {
        let mut sum = Sum::default();
        let mut made = Blocks::new();
        made.push(3, &[7; BLOCK_BYTES]);
        made.push(4, &[0; BLOCK_BYTES]);
        let piece = made.finish(&mut sum);
        let Piece::Blocks(body) = parse(&piece).unwrap() else { panic!("{piece:?}") };
        assert_eq!(blocks(body, 5).unwrap(), [(3, Some(&[7; BLOCK_BYTES][..])), (4, None)]);
        assert!(blocks(body, 4).unwrap_err().0.contains("block 4"));
        let mut theirs = Sum::default();
        theirs.add(body);
        assert_eq!(theirs, sum);
        assert_eq!(parse(&settle(sum)).unwrap(), Piece::Settle(sum));
        let own = [Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        for (last, end) in [(false, Piece::Machine(b"b")), (true, Piece::Last(b"b"))] {
            let made = machine(&own, last);
            let parsed: Vec<_> = made.iter().map(|piece| parse(piece).unwrap()).collect();
            assert_eq!(parsed, [Piece::Machine(b"a"), end]);
        }
        assert_eq!(parse(&failed("no")).unwrap(), Piece::Failed("no".into()));
    }

    #[test]
    fn a_full_piece_is_within_the_limit() {
        let mut made = Blocks::new();
        for index in 0.. {
            if made.is_full() {
                break;
            }
            // The worst: zeros to the brim, then whole ones.
            let zero = index < ZEROS_MAX as u64 - PIECE_BLOCKS as u64;
            made.push(index, &[u8::from(!zero); BLOCK_BYTES]);
        }
        assert!(made.finish(&mut Sum::default()).len() <= MAX_CHUNK_BYTES);
    }

    #[test]
    fn pieces_that_are_not_ours_are_refused() {
        for piece in [&b""[..], b"\0", b"\x06abc", &[3, 1, 2, 3]] {
            assert!(parse(piece).is_err(), "{piece:?}");
        }
        for body in [&b""[..], &[1, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 9], &[0, 0, 0, 0, 1]] {
            assert!(blocks(body, 8).is_err(), "{body:?}");
        }
    }
}
