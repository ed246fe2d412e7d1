//! The digest of the guest's memory, kept up page by page (R11).
//!
//! Invariant: after [`PageDigests::update`] with all pages written since the last call, the value depends on the memory's content alone,
//! not on how it came about. Pages that are all zero count as nothing, so memory that was never touched costs nothing.

use crate::ram::{PAGE_BYTES, Ram};
use twox_hash::XxHash3_64;

/// One digest for each page, and their sum.
#[derive(Clone, Debug)]
pub struct PageDigests {
    pages: Vec<u64>,
    sum: u64,
    zero: u64,
}

impl PageDigests {
    /// Of memory that is all zero.
    pub fn new(page_count: usize) -> Self {
        Self { pages: vec![0; page_count], sum: 0, zero: XxHash3_64::oneshot(&[0; PAGE_BYTES]) }
    }

    /// Takes in the pages that have been written.
    pub fn update(&mut self, ram: &Ram, written: &[usize]) {
        for page in written.iter().copied() {
            let digest = XxHash3_64::oneshot(&ram.page(page));
            let digest = if digest == self.zero { 0 } else { digest };
            let before = std::mem::replace(&mut self.pages[page], digest);
            self.sum = self.sum.wrapping_sub(placed(page, before)).wrapping_add(placed(page, digest));
        }
    }

    /// Of the whole memory.
    pub fn value(&self) -> u64 {
        self.sum
    }

    /// The pages that are not all zero, in order.
    pub fn nonzero(&self) -> impl Iterator<Item = usize> {
        self.pages.iter().enumerate().filter(|(_, digest)| **digest != 0).map(|(page, _)| page)
    }

    /// Whether a page is all zero.
    pub fn is_zero(&self, page: usize) -> bool {
        self.pages[page] == 0
    }
}

/// A page's share of the sum: the same content elsewhere is another share.
fn placed(page: usize, digest: u64) -> u64 {
    if digest == 0 { 0 } else { XxHash3_64::oneshot_with_seed(page as u64, &digest.to_le_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes as _, GuestAddress};

    fn digest(ram: &Ram, digests: &mut PageDigests) -> u64 {
        digests.update(ram, &ram.take_dirty());
        digests.value()
    }

    #[test]
    fn the_value_depends_on_content_and_place_and_not_on_history() {
        let (ram, other) = (Ram::new(1 << 20).unwrap(), Ram::new(1 << 20).unwrap());
        let (mut digests, mut others) = (PageDigests::new(256), PageDigests::new(256));
        assert_eq!(digest(&ram, &mut digests), 0);
        ram.memory().write_slice(b"hello", GuestAddress(0x5003)).unwrap();
        let hello = digest(&ram, &mut digests);
        other.memory().write_slice(b"jello", GuestAddress(0x5003)).unwrap();
        assert_ne!(digest(&other, &mut others), hello);
        other.memory().write_slice(b"h", GuestAddress(0x5003)).unwrap();
        assert_eq!(digest(&other, &mut others), hello);
        other.memory().write_slice(&[0; 5], GuestAddress(0x5003)).unwrap();
        other.memory().write_slice(b"hello", GuestAddress(0x6003)).unwrap();
        assert_ne!(digest(&other, &mut others), hello, "the same content elsewhere");
        assert_eq!(others.nonzero().collect::<Vec<_>>(), [6], "a page that is zero again counts as nothing");
    }
}
