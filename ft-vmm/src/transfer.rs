//! A machine's state in pieces for a joining secondary, made while the guest runs (R8).
//!
//! First all pages that are not zero; then those written meanwhile, round after round; at last, with the machine standing still, what is
//! left and everything but memory. A piece is self-contained:
//!
//! ```text
//! pages     u32 count, then for each: u32 page number, with bit 31 set when it is all zero; 4096 bytes where it is not
//! sections  the rest of the state, see `sections`: in the last piece, and where it does not fit that, in those before it that were made at
//!           the same point, in order
//! ```

use crate::digests::PageDigests;
use crate::ram::{PAGE_BYTES, Ram};
use bytes::Bytes;
use ft_core::error::Fault;
use ft_core::transfer::MAX_CHUNK_BYTES;
use std::collections::BTreeSet;

/// Largest piece that a machine makes, in bytes: whoever puts it together with something else has room to say which is which.
pub const PIECE_BYTES_MAX: usize = MAX_CHUNK_BYTES - 16;

/// Bytes of a page in a piece.
const ENTRY_BYTES: usize = 4 + PAGE_BYTES;

/// The most that the sections of a machine take: writes under way, frames that wait, and room to spare.
pub(crate) const SECTIONS_BYTES_MAX: usize = 64 << 20;

/// Pages that may be left for the moment at which the machine stands still.
const LAST_PAGES_MAX: usize = (384 << 10) / ENTRY_BYTES;

const PIECE_PAGES_MAX: usize = (PIECE_BYTES_MAX - 4) / ENTRY_BYTES;

/// After so many rounds a guest that writes faster than it is copied is slowed.
const ROUNDS_AT_FULL_SPEED: u32 = 4;

const ZERO: u32 = 1 << 31;

/// Where a transfer stands.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Pages that the other side does not have as they are.
    pending: BTreeSet<usize>,
    /// Where in this round.
    next: usize,
    round: u32,
}

impl Outgoing {
    /// Everything is still to be sent.
    pub(crate) fn new(digests: &PageDigests) -> Self {
        Self { pending: digests.nonzero().collect(), next: 0, round: 0 }
    }

    /// Pages that were written since they were sent, or before they could be.
    pub(crate) fn handle_written(&mut self, pages: &[usize]) {
        self.pending.extend(pages);
    }

    /// Whether what is left fits the last piece.
    pub(crate) fn is_nearly_done(&self) -> bool {
        self.pending.len() <= LAST_PAGES_MAX
    }

    /// Whether the guest must be slowed for the copy to catch up.
    pub(crate) fn needs_a_slower_guest(&self) -> bool {
        self.round > ROUNDS_AT_FULL_SPEED
    }

    /// The next piece. With `last`, all that is left; otherwise as much as a piece holds.
    pub(crate) fn piece(&mut self, ram: &Ram, digests: &PageDigests, last: bool) -> Vec<u8> {
        let mut pages: Vec<usize> = self.pending.range(self.next..).take(PIECE_PAGES_MAX).copied().collect();
        if last || pages.is_empty() {
            self.round += 1;
            pages = self.pending.iter().take(PIECE_PAGES_MAX).copied().collect();
        }
        self.next = pages.last().map_or(0, |page| page + 1);
        for page in &pages {
            self.pending.remove(page);
        }
        encode_pages(ram, digests, &pages)
    }
}

/// Pages as they stand in a piece.
pub(crate) fn encode_pages(ram: &Ram, digests: &PageDigests, pages: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + pages.len() * ENTRY_BYTES);
    bytes.extend_from_slice(&(pages.len() as u32).to_le_bytes());
    for page in pages.iter().copied() {
        let zero = if digests.is_zero(page) { ZERO } else { 0 };
        bytes.extend_from_slice(&(page as u32 | zero).to_le_bytes());
        if zero == 0 {
            bytes.extend_from_slice(&ram.page(page));
        }
    }
    bytes
}

/// The pieces that end a state: `pages`, as [`encode_pages`] makes them, and all sections.
pub(crate) fn with_sections(mut pages: Vec<u8>, sections: &[u8]) -> Vec<Bytes> {
    let (first, rest) = sections.split_at(sections.len().min(PIECE_BYTES_MAX - pages.len()));
    pages.extend_from_slice(first);
    let no_pages = 0u32.to_le_bytes();
    let further = rest.chunks(PIECE_BYTES_MAX - no_pages.len()).map(|part| [&no_pages, part].concat());
    std::iter::once(pages).chain(further).map(Bytes::from).collect()
}

/// Takes the pages of a piece into `ram`. Returns what follows them.
///
/// # Errors
/// When it is not what [`encode_pages`] makes.
pub(crate) fn take_pages<'a>(ram: &Ram, mut bytes: &'a [u8]) -> Result<&'a [u8], Fault> {
    let cut = || Fault("a piece of state that ends too early".into());
    let mut take = |len: usize| {
        let (taken, rest) = bytes.split_at_checked(len).ok_or_else(cut)?;
        bytes = rest;
        Ok::<_, Fault>(taken)
    };
    let mut word = [0; 4];
    word.copy_from_slice(take(4)?);
    for _ in 0..u32::from_le_bytes(word) {
        word.copy_from_slice(take(4)?);
        let entry = u32::from_le_bytes(word);
        let page = (entry & !ZERO) as usize;
        if page >= ram.page_count() {
            let pages = ram.page_count();
            return Err(Fault(format!("a piece of state with page {page}; this machine has {pages}")));
        }
        let mut content = [0; PAGE_BYTES];
        if entry & ZERO == 0 {
            content.copy_from_slice(take(PAGE_BYTES)?);
        }
        ram.write_page(page, &content);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes as _, GuestAddress};

    /// A guest may have megabytes of writes under way when its state is cut.
    #[test]
    fn r9_sections_of_any_length_arrive_in_pieces_within_the_limit() {
        let (from, to) = (Ram::new(1 << 20).unwrap(), Ram::new(1 << 20).unwrap());
        let digests = PageDigests::new(from.page_count());
        for (len, count) in
            [(0, 1), (1000, 1), (PIECE_BYTES_MAX - 16384, 1), (PIECE_BYTES_MAX, 2), (9 << 20, 10)]
        {
            let sections: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let pieces = with_sections(encode_pages(&from, &digests, &[1, 2, 3]), &sections);
            assert_eq!(pieces.len(), count, "{len}");
            let mut arrived = Vec::new();
            for piece in &pieces {
                assert!(piece.len() <= PIECE_BYTES_MAX);
                arrived.extend_from_slice(take_pages(&to, piece).unwrap());
            }
            assert!(arrived == sections, "{len}");
        }
    }

    #[test]
    fn pages_arrive_while_the_guest_goes_on_writing() {
        let (from, to) = (Ram::new(16 << 20).unwrap(), Ram::new(16 << 20).unwrap());
        let mut digests = PageDigests::new(from.page_count());
        let write = |page: usize, byte: u8| {
            from.memory().write_obj(byte, GuestAddress((page * PAGE_BYTES) as u64)).unwrap();
        };
        (0..3000).for_each(|page| write(page, 1));
        digests.update(&from, &from.take_dirty());
        let mut outgoing = Outgoing::new(&digests);
        let mut step = 0;
        let refresh = |outgoing: &mut Outgoing, digests: &mut PageDigests| {
            let written = from.take_dirty();
            digests.update(&from, &written);
            outgoing.handle_written(&written);
        };
        while !outgoing.is_nearly_done() {
            let piece = outgoing.piece(&from, &digests, false);
            assert!(piece.len() <= PIECE_BYTES_MAX);
            assert_eq!(take_pages(&to, &piece).unwrap(), b"");
            step += 1;
            // Some pages become zero, some are written again.
            (0..20).for_each(|n| write((step * 131 + n * 17) % 3000, (n % 2) as u8 * 7));
            refresh(&mut outgoing, &mut digests);
        }
        let last = outgoing.piece(&from, &digests, true);
        take_pages(&to, &last).unwrap();
        for page in 0..from.page_count() {
            assert_eq!(from.page(page), to.page(page), "page {page}");
        }
    }

    #[test]
    fn pieces_that_are_not_ours_are_refused() {
        let ram = Ram::new(1 << 20).unwrap();
        for piece in [&b""[..], &[1, 0, 0, 0], &[1, 0, 0, 0, 5, 0, 0, 0, 1, 2], &[1, 0, 0, 0, 0, 1, 0, 0x80]]
        {
            assert!(take_pages(&ram, piece).is_err(), "{piece:?}");
        }
    }
}
