//! The guest's memory, and which of its pages were written.
//!
//! Every write goes through here: from devices by `vm-memory`'s [`GuestMemory`](vm_memory::GuestMemory), whose bitmap is [`PageMap`], and from
//! the vCPU, which calls [`Ram::mark_written`] before it writes to a page for the first time after [`Ram::take_dirty`].
//!
//! Invariant: a page that has changed since the last [`Ram::take_dirty`] is marked. Pages that hold decoded instructions are marked
//! as code; a write to one of them raises [`Ram::code_was_written`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};

/// Bytes of a page, the unit of tracking.
pub const PAGE_BYTES: usize = 4096;

/// Where the hole for devices begins: RAM ends below it.
pub const RAM_BYTES_MAX: u64 = 0xc000_0000;

const DIRTY: u8 = 1;
const CODE: u8 = 2;

/// Guest memory as devices see it: pass it to `virtio-queue`.
pub type GuestRam = GuestMemoryMmap<PageMap>;

/// What is known of each page: written, decoded.
#[derive(Clone, Debug, Default)]
pub struct PageMap(Arc<Pages>);

#[derive(Debug, Default)]
struct Pages {
    flags: Vec<AtomicU8>,
    code_written: AtomicBool,
}

impl PageMap {
    fn mark(&self, first: usize, last: usize) {
        for flags in self.0.flags.iter().take(last + 1).skip(first) {
            // One thread owns the machine: nobody else writes between these two.
            let was = flags.load(Ordering::Relaxed);
            if was & CODE != 0 {
                self.0.code_written.store(true, Ordering::Relaxed);
            }
            flags.store(was | DIRTY, Ordering::Relaxed);
        }
    }
}

/// Part of a [`PageMap`], from an offset on.
#[derive(Clone, Debug)]
pub struct PageMapSlice {
    map: PageMap,
    offset: usize,
}

impl<'a> WithBitmapSlice<'a> for PageMap {
    type S = PageMapSlice;
}

impl Bitmap for PageMap {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if len > 0 {
            self.mark(offset / PAGE_BYTES, (offset + len - 1) / PAGE_BYTES);
        }
    }

    fn dirty_at(&self, offset: usize) -> bool {
        let flags = self.0.flags.get(offset / PAGE_BYTES);
        flags.is_some_and(|flags| flags.load(Ordering::Relaxed) & DIRTY != 0)
    }

    fn slice_at(&self, offset: usize) -> PageMapSlice {
        PageMapSlice { map: self.clone(), offset }
    }
}

impl NewBitmap for PageMap {
    fn with_len(len: usize) -> Self {
        let flags = std::iter::repeat_with(AtomicU8::default).take(len.div_ceil(PAGE_BYTES)).collect();
        Self(Arc::new(Pages { flags, code_written: AtomicBool::new(false) }))
    }
}

impl WithBitmapSlice<'_> for PageMapSlice {
    type S = Self;
}

impl BitmapSlice for PageMapSlice {}

impl Bitmap for PageMapSlice {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.map.mark_dirty(self.offset + offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.map.dirty_at(self.offset + offset)
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { map: self.map.clone(), offset: self.offset + offset }
    }
}

/// The guest's RAM: one region from address 0.
#[derive(Debug)]
pub struct Ram {
    memory: GuestRam,
    pages: PageMap,
    host: *mut u8,
    bytes: u64,
}

// SAFETY: `host` points into the mapping that `memory` owns, which lives as long as `self`; it is only handed out as an address.
unsafe impl Send for Ram {}

/// Memory that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// A size that no machine can have.
    #[error("{bytes} bytes of RAM: choose a multiple of 4096 up to {RAM_BYTES_MAX}")]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// The host does not give it.
    #[error("cannot map {bytes} bytes of guest memory: {reason}; choose less, or free some on this host")]
    Map {
        /// What was asked for.
        bytes: u64,
        /// The host's word.
        reason: String,
    },
}

impl Ram {
    /// RAM of `bytes` bytes, all zero.
    ///
    /// # Errors
    /// [`RamError`].
    pub fn new(bytes: u64) -> Result<Self, RamError> {
        if bytes == 0 || bytes > RAM_BYTES_MAX || !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(RamError::Size { bytes });
        }
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), bytes as usize)])
            .map_err(|error| RamError::Map { bytes, reason: error.to_string() })?;
        let region = memory.iter().next().expect("one range makes one region");
        let pages = region.bitmap().map;
        let host = region.as_ptr();
        Ok(Self { memory, pages, host, bytes })
    }

    /// For devices and loaders. What they write is tracked.
    pub fn memory(&self) -> &GuestRam {
        &self.memory
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its size in pages.
    pub fn page_count(&self) -> usize {
        (self.bytes / PAGE_BYTES as u64) as usize
    }

    /// The host's address of guest physical address 0, for vCPUs; valid for [`Ram::bytes`] bytes while this lives. Whoever writes
    /// through it calls [`Ram::mark_written`] first.
    pub fn host(&self) -> *mut u8 {
        self.host
    }

    /// Notes that the page at `gpa` is being written. Returns whether it holds decoded instructions: then every write must come here.
    pub fn mark_written(&self, gpa: u64) -> bool {
        let page = gpa as usize / PAGE_BYTES;
        self.pages.mark(page, page);
        self.is_code(page)
    }

    /// Notes that instructions were decoded from this page.
    pub fn mark_code(&self, page: usize) {
        self.pages.0.flags[page].fetch_or(CODE, Ordering::Relaxed);
    }

    /// Notes that what was decoded from this page has been forgotten.
    pub fn forget_code(&self, page: usize) {
        self.pages.0.flags[page].fetch_and(!CODE, Ordering::Relaxed);
    }

    /// Whether instructions were decoded from this page.
    pub fn is_code(&self, page: usize) -> bool {
        self.pages.0.flags[page].load(Ordering::Relaxed) & CODE != 0
    }

    /// Whether a page with decoded instructions was written since this was last called. Cheap: vCPUs ask before they go on.
    pub fn code_was_written(&self) -> bool {
        self.pages.0.code_written.load(Ordering::Relaxed)
            && self.pages.0.code_written.swap(false, Ordering::Relaxed)
    }

    /// The pages written since this was last called, in order. vCPUs must then mark again what they write: call it only after
    /// [`Vcpu::forget_writes`](crate::vcpu::Vcpu::forget_writes).
    pub fn take_dirty(&self) -> Vec<usize> {
        let take = |(page, flags): (usize, &AtomicU8)| {
            let was = flags.load(Ordering::Relaxed);
            flags.store(was & !DIRTY, Ordering::Relaxed);
            (was & DIRTY != 0).then_some(page)
        };
        self.pages.0.flags.iter().enumerate().filter_map(take).collect()
    }

    /// Replaces the content of a page, as a device would.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn write_page(&self, page: usize, content: &[u8; PAGE_BYTES]) {
        use vm_memory::Bytes as _;
        self.memory.write_slice(content, page_address(page)).expect("a page of this RAM");
    }

    /// The content of a page.
    ///
    /// # Panics
    /// When there is no such page.
    pub fn page(&self, page: usize) -> [u8; PAGE_BYTES] {
        use vm_memory::Bytes as _;
        let mut content = [0; PAGE_BYTES];
        self.memory.read_slice(&mut content, page_address(page)).expect("a page of this RAM");
        content
    }
}

fn page_address(page: usize) -> GuestAddress {
    GuestAddress((page * PAGE_BYTES) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes as _;

    #[test]
    fn writes_of_devices_are_seen() {
        let ram = Ram::new(1 << 20).unwrap();
        ram.memory().write_slice(&[1; 5000], GuestAddress(0x2ff0)).unwrap();
        ram.mark_written(0x8000);
        assert_eq!(ram.take_dirty(), [2, 3, 4, 8]);
        assert_eq!(ram.take_dirty(), Vec::<usize>::new());
        assert_eq!(ram.page(3), [1; PAGE_BYTES]);
    }

    #[test]
    fn a_write_to_decoded_instructions_is_told() {
        let ram = Ram::new(1 << 20).unwrap();
        ram.mark_code(5);
        ram.memory().write_obj(7u32, GuestAddress(0x4000)).unwrap();
        assert!(!ram.code_was_written());
        ram.memory().write_obj(7u32, GuestAddress(0x5010)).unwrap();
        assert!(ram.code_was_written());
        assert!(!ram.code_was_written(), "told once");
        ram.forget_code(5);
        assert!(!ram.mark_written(0x5000));
        assert!(!ram.code_was_written());
    }

    #[test]
    fn senseless_sizes_are_refused() {
        for bytes in [0, 4095, RAM_BYTES_MAX + 4096, u64::MAX] {
            assert!(Ram::new(bytes).is_err());
        }
    }
}
