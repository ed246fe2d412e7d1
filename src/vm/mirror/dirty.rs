//! Which blocks of a disk were written since they were last read: set by whoever writes, cleared by whoever is about to read.
//!
//! Invariant: a block is marked after it was written and cleared before it is read. So a block that is not marked was read as it is.

use super::BLOCK_BYTES;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each block.
#[derive(Debug)]
pub(super) struct Dirty {
    words: Box<[AtomicU64]>,
    blocks: u64,
    count: AtomicU64,
}

impl Dirty {
    /// No block of a disk of so many is marked.
    pub(super) fn new(blocks: u64) -> Self {
        let words = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { words, blocks, count: AtomicU64::new(0) }
    }

    /// How many blocks are marked.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Marks the blocks that these bytes touch, as far as the disk has them.
    pub(super) fn mark(&self, bytes: Range<u64>) {
        let block = BLOCK_BYTES as u64;
        for index in bytes.start / block..bytes.end.div_ceil(block).min(self.blocks) {
            let word = &self.words[(index / 64) as usize];
            if word.fetch_or(1 << (index % 64), Ordering::AcqRel) & 1 << (index % 64) == 0 {
                self.count.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Clears one block. Whoever does so reads it next.
    pub(super) fn clear(&self, index: u64) {
        let Some(word) = self.words.get((index / 64) as usize) else { return };
        if word.fetch_and(!(1 << (index % 64)), Ordering::AcqRel) & 1 << (index % 64) != 0 {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Clears the first marked block from `from` on, and returns it.
    pub(super) fn take(&self, from: u64) -> Option<u64> {
        let first = (from / 64) as usize;
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let below = if at == first { (1 << (from % 64)) - 1 } else { 0 };
            let marked = word.load(Ordering::Acquire) & !below;
            if marked != 0 {
                let index = at as u64 * 64 + u64::from(marked.trailing_zeros());
                self.clear(index);
                return Some(index);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_taken_once_and_in_order() {
        let block = BLOCK_BYTES as u64;
        let dirty = Dirty::new(200);
        dirty.mark(3 * block + 5..3 * block + 6);
        dirty.mark(63 * block..65 * block + 1);
        dirty.mark(3 * block..4 * block);
        dirty.mark(199 * block..300 * block);
        assert_eq!(dirty.count(), 5);
        assert_eq!(dirty.take(4), Some(63));
        dirty.clear(64);
        assert_eq!([dirty.take(0), dirty.take(4), dirty.take(66)], [Some(3), Some(65), Some(199)]);
        assert_eq!((dirty.take(0), dirty.count()), (None, 0));
    }

    #[test]
    fn no_bytes_are_no_block() {
        let dirty = Dirty::new(2);
        dirty.mark(0..0);
        assert_eq!(dirty.count(), 0);
    }
}
