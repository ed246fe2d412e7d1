//! A virtio-mmio device with its queues (virtio 1.2, sections 2.7 and 4.2), identity mapped.
//!
//! Invariant: every notification leaves the machine, so drivers push all they have and notify once; the device's own wish not to be
//! notified is respected.

use super::memory;
use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{Ordering, fence};

const SLOTS: usize = 0xd000_0000;
const SLOT_BYTES: usize = 0x1000;

const MAGIC: usize = 0x00;
const DEVICE_ID: usize = 0x08;
const DEVICE_FEATURES: usize = 0x10;
const DEVICE_FEATURES_SEL: usize = 0x14;
const DRIVER_FEATURES: usize = 0x20;
const DRIVER_FEATURES_SEL: usize = 0x24;
const QUEUE_SEL: usize = 0x30;
const QUEUE_NUM_MAX: usize = 0x34;
const QUEUE_NUM: usize = 0x38;
const QUEUE_READY: usize = 0x44;
const QUEUE_NOTIFY: usize = 0x50;
const INTERRUPT_ACK: usize = 0x64;
const STATUS: usize = 0x70;
const QUEUE_DESC: usize = 0x80;
const QUEUE_DRIVER: usize = 0x90;
const QUEUE_DEVICE: usize = 0xa0;
const CONFIG: usize = 0x100;

const MAGIC_VALUE: u32 = 0x7472_6976;
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
/// VIRTIO_F_VERSION_1, in the second word of features.
const VERSION_1: u32 = 1;

const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

/// The registers of one slot.
#[derive(Clone, Copy)]
pub(crate) struct Slot(usize);

impl Slot {
    /// Starts the device in slot `number` if it is the kind `device_id` with a feature set that this driver can use: VERSION_1, and those of
    /// `wanted` (bits 0-31) that it has. Returns which of them.
    pub(crate) fn open(number: usize, device_id: u32, wanted: u32) -> Option<(Self, u32)> {
        let slot = Self(SLOTS + SLOT_BYTES * number);
        if slot.read(MAGIC) != MAGIC_VALUE || slot.read(DEVICE_ID) != device_id {
            return None;
        }
        slot.write(STATUS, 0);
        slot.write(STATUS, ACKNOWLEDGE | DRIVER);
        slot.write(DEVICE_FEATURES_SEL, 0);
        let features = slot.read(DEVICE_FEATURES) & wanted;
        slot.write(DRIVER_FEATURES_SEL, 0);
        slot.write(DRIVER_FEATURES, features);
        slot.write(DRIVER_FEATURES_SEL, 1);
        slot.write(DRIVER_FEATURES, VERSION_1);
        slot.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        (slot.read(STATUS) & FEATURES_OK != 0).then_some((slot, features))
    }

    /// All queues are set up.
    pub(crate) fn start(self) {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Lowers the interrupt line.
    pub(crate) fn acknowledge(self) {
        self.write(INTERRUPT_ACK, 3);
    }

    /// A byte of the configuration space.
    pub(crate) fn config_byte(self, offset: usize) -> u8 {
        // SAFETY: the slot is mapped, and this is its configuration space.
        unsafe { read_volatile((self.0 + CONFIG + offset) as *const u8) }
    }

    /// A word of the configuration space.
    pub(crate) fn config(self, offset: usize) -> u32 {
        self.read(CONFIG + offset)
    }

    fn read(self, register: usize) -> u32 {
        // SAFETY: the slot is mapped, and these registers have 32 bits.
        unsafe { read_volatile((self.0 + register) as *const u32) }
    }

    fn write(self, register: usize, value: u32) {
        // SAFETY: as in `read`; the device touches only memory that its queues name.
        unsafe { write_volatile((self.0 + register) as *mut u32, value) }
    }

    fn write_address(self, register: usize, address: usize) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }
}

#[repr(C)]
struct Descriptor {
    address: u64,
    bytes: u32,
    flags: u16,
    next: u16,
}

#[repr(C)]
struct UsedElement {
    head: u32,
    bytes: u32,
}

/// Part of a request.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Where.
    pub(crate) address: usize,
    /// How much.
    pub(crate) bytes: usize,
    /// Whether the device writes it.
    pub(crate) device_writes: bool,
}

/// A split virtqueue. Descriptors belong to their driver, which numbers them itself.
pub(crate) struct Queue {
    slot: Slot,
    number: u32,
    size: u16,
    descriptors: *mut Descriptor,
    available: *mut u16,
    used: *mut u16,
    available_index: u16,
    used_index: u16,
    notified_index: u16,
}

impl Queue {
    /// Queue `number` of a device, with `size` descriptors or as many as the device can. `None` if it has no such queue.
    pub(crate) fn new(slot: Slot, number: u32, size: u16) -> Option<Self> {
        slot.write(QUEUE_SEL, number);
        let size = u32::from(size).min(slot.read(QUEUE_NUM_MAX)) as u16;
        if size == 0 {
            return None;
        }
        let size = 1 << size.ilog2();
        let count = usize::from(size);
        let descriptors = memory::pages(count * size_of::<Descriptor>());
        let available = memory::pages(6 + count * 2);
        let used = memory::pages(6 + count * size_of::<UsedElement>());
        slot.write(QUEUE_NUM, u32::from(size));
        slot.write_address(QUEUE_DESC, descriptors as usize);
        slot.write_address(QUEUE_DRIVER, available as usize);
        slot.write_address(QUEUE_DEVICE, used as usize);
        slot.write(QUEUE_READY, 1);
        Some(Self {
            slot,
            number,
            size,
            descriptors: descriptors.cast(),
            available: available.cast(),
            used: used.cast(),
            available_index: 0,
            used_index: 0,
            notified_index: 0,
        })
    }

    /// How many descriptors it has.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Fills descriptors from `first` on with the parts of a request.
    pub(crate) fn describe(&mut self, first: u16, parts: &[Part]) {
        assert!(usize::from(first) + parts.len() <= usize::from(self.size), "descriptors beyond the queue");
        for (index, part) in (first..).zip(parts) {
            let last = usize::from(index - first) + 1 == parts.len();
            let flags = if last { 0 } else { NEXT } | if part.device_writes { DEVICE_WRITES } else { 0 };
            let next = if last { 0 } else { index + 1 };
            let descriptor = Descriptor { address: part.address as u64, bytes: part.bytes as u32, flags, next };
            // SAFETY: inside the table, which is ours: the device does not have this request now.
            unsafe { self.descriptors.add(usize::from(index)).write_volatile(descriptor) };
        }
    }

    /// Changes the length of a described request's only part.
    pub(crate) fn set_bytes(&mut self, index: u16, bytes: usize) {
        assert!(index < self.size, "descriptors beyond the queue");
        // SAFETY: as in `describe`.
        unsafe { (&raw mut (*self.descriptors.add(usize::from(index))).bytes).write_volatile(bytes as u32) };
    }

    /// Hands the request at descriptor `head` to the device, which learns of it by [`Queue::notify`] at the latest.
    pub(crate) fn push(&mut self, head: u16) {
        let entry = 2 + usize::from(self.available_index % self.size);
        self.available_index = self.available_index.wrapping_add(1);
        // SAFETY: inside the ring. The fence keeps the order: descriptors, entry, index.
        unsafe {
            self.available.add(entry).write_volatile(head);
            fence(Ordering::Release);
            self.available.add(1).write_volatile(self.available_index);
        }
    }

    /// How many requests were pushed since the last notification.
    pub(crate) fn unnotified(&self) -> u16 {
        self.available_index.wrapping_sub(self.notified_index)
    }

    /// Tells the device of what was pushed, unless there is nothing or it does not care.
    pub(crate) fn notify(&mut self) {
        if self.unnotified() == 0 {
            return;
        }
        self.notified_index = self.available_index;
        fence(Ordering::SeqCst);
        // SAFETY: inside the ring.
        if unsafe { self.used.read_volatile() } & NO_NOTIFY == 0 {
            self.slot.write(QUEUE_NOTIFY, self.number);
        }
    }

    /// Whether the device is asked to interrupt when it is done with a request.
    pub(crate) fn set_interrupts(&mut self, on: bool) {
        // SAFETY: inside the ring.
        unsafe { self.available.write_volatile(if on { 0 } else { NO_INTERRUPT }) };
        fence(Ordering::SeqCst);
    }

    /// The next request that the device is done with: its head, and the bytes written.
    pub(crate) fn peek(&self) -> Option<(u16, usize)> {
        // SAFETY: inside the ring.
        if unsafe { self.used.add(1).read_volatile() } == self.used_index {
            return None;
        }
        fence(Ordering::Acquire);
        let entry = usize::from(self.used_index % self.size);
        // SAFETY: inside the ring; the device has filled this entry.
        let element = unsafe { self.used.add(2).cast::<UsedElement>().add(entry).read_volatile() };
        Some((element.head as u16, element.bytes as usize))
    }

    /// Like [`Queue::peek`], and goes on to the next.
    pub(crate) fn pop(&mut self) -> Option<(u16, usize)> {
        let done = self.peek()?;
        self.used_index = self.used_index.wrapping_add(1);
        Some(done)
    }
}
