//! Where things are in both address spaces, and what memory holds before a case.
//!
//! ```text
//! 0x1_0000  two pages of code, readable and executable
//! 0x2_0000  a read-only page       } the image
//! 0x2_1000  four writable pages    }
//! ```
//!
//! Everything else below 2^47 is unmapped (natively: as good as, it is where the test's own process lives, at random addresses).
//! What the emulated machine needs for itself is mapped for ring 0 in the upper half, where Linux reports every fault of ring 3 as one on
//! a present page.

use super::dice::Dice;
use super::values;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// First address of the code pages.
pub(crate) const CODE: u64 = 0x1_0000;
/// How many there are.
pub(crate) const CODE_PAGES: usize = 2;
/// First address of the image: its first page is read-only, the others are writable.
pub(crate) const IMAGE: u64 = 0x2_0000;
/// How many pages it has.
pub(crate) const IMAGE_PAGES: usize = 5;
/// First writable address.
pub(crate) const WRITABLE: u64 = IMAGE + PAGE as u64;
/// First address after the image: unmapped.
pub(crate) const IMAGE_END: u64 = IMAGE + (IMAGE_PAGES * PAGE) as u64;
/// Base of FS.
pub(crate) const FS_BASE: u64 = WRITABLE + 0x810;
/// Base of GS.
pub(crate) const GS_BASE: u64 = WRITABLE + 0x2008;

/// Content of the image before every case that uses it.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(4096))]
pub(crate) struct Image(pub(crate) [[u8; PAGE]; IMAGE_PAGES]);

impl Image {
    /// The image of a seed: integers, pointers into both areas and floating-point numbers.
    pub(crate) fn new(seed: u64) -> Box<Self> {
        let mut dice = Dice::new(seed);
        let mut image = Box::new(Self([[0; PAGE]; IMAGE_PAGES]));
        for page in &mut image.0 {
            for word in page.chunks_exact_mut(8) {
                word.copy_from_slice(&values::memory_word(&mut dice).to_le_bytes());
            }
        }
        image
    }
}
