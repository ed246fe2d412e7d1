//! The network card, as smoltcp sees it.

use super::memory;
use super::virtio::{Part, Queue, Slot};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

const SLOT: usize = 0;
const DEVICE_ID: u32 = 1;
/// Its line.
pub(crate) const LINE: u16 = 1 << 5;
const FEATURE_MAC: u32 = 1 << 5;
const QUEUE_RECEIVE: u32 = 0;
const QUEUE_TRANSMIT: u32 = 1;
const QUEUE_SIZE: u16 = 256;
/// Bytes in front of every frame (section 5.1.6), all zero without offloads.
const HEADER_BYTES: usize = 12;
const FRAME_BYTES_MAX: usize = 1514;
const BUFFER_BYTES: usize = 2048;

/// Buffers of one queue: number n belongs to descriptor n.
struct Ring {
    queue: Queue,
    buffers: *mut u8,
}

impl Ring {
    fn new(slot: Slot, number: u32, device_writes: bool) -> Option<Self> {
        let mut queue = Queue::new(slot, number, QUEUE_SIZE)?;
        let buffers = memory::pages(usize::from(queue.size()) * BUFFER_BYTES);
        for index in 0..queue.size() {
            let address = buffers as usize + usize::from(index) * BUFFER_BYTES;
            queue.describe(index, &[Part { address, bytes: BUFFER_BYTES, device_writes }]);
        }
        Some(Self { queue, buffers })
    }

    fn frame(&mut self, index: u16, bytes: usize) -> &mut [u8] {
        assert!(index < self.queue.size() && bytes <= BUFFER_BYTES - HEADER_BYTES, "a frame that is no buffer's");
        // SAFETY: inside the buffers, of which the device does not have this one now.
        unsafe {
            let start = self.buffers.add(usize::from(index) * BUFFER_BYTES + HEADER_BYTES);
            core::slice::from_raw_parts_mut(start, bytes)
        }
    }
}

/// The card.
pub(crate) struct Card {
    slot: Slot,
    receive: Ring,
    transmit: Ring,
    free: alloc::vec::Vec<u16>,
}

impl Card {
    /// Starts it, if there is one.
    pub(crate) fn open() -> Option<Self> {
        let (slot, _) = Slot::open(SLOT, DEVICE_ID, FEATURE_MAC)?;
        let mut receive = Ring::new(slot, QUEUE_RECEIVE, true)?;
        let mut transmit = Ring::new(slot, QUEUE_TRANSMIT, false)?;
        transmit.queue.set_interrupts(false);
        slot.start();
        (0..receive.queue.size()).for_each(|index| receive.queue.push(index));
        receive.queue.notify();
        let free = (0..transmit.queue.size()).collect();
        Some(Self { slot, receive, transmit, free })
    }

    /// Its address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        core::array::from_fn(|index| self.slot.config_byte(index))
    }

    /// It has interrupted: lowers the line.
    pub(crate) fn acknowledge(&self) {
        self.slot.acknowledge();
    }

    /// Whether frames wait.
    pub(crate) fn has_frames(&self) -> bool {
        self.receive.queue.peek().is_some()
    }

    /// Sends what was written, and gives received buffers back before the card can run out of them: it had all of the others when it
    /// was last told.
    pub(crate) fn flush(&mut self) {
        self.transmit.queue.notify();
        if self.receive.queue.unnotified() >= self.receive.queue.size() / 4 {
            self.receive.queue.notify();
        }
    }

    /// Takes back buffers of sent frames. Without any, asks for an interrupt when there is one.
    fn reclaim(&mut self) {
        if !self.free.is_empty() {
            return;
        }
        self.take_sent();
        if self.free.is_empty() {
            self.transmit.queue.set_interrupts(true);
            self.take_sent();
        } else {
            self.transmit.queue.set_interrupts(false);
        }
    }

    fn take_sent(&mut self) {
        while let Some((index, _)) = self.transmit.queue.pop() {
            self.free.push(index);
        }
    }
}

impl Device for Card {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, ToSend<'_>)> {
        let (index, bytes) = self.receive.queue.peek()?;
        self.reclaim();
        if self.free.is_empty() {
            return None;
        }
        let received = Received { ring: &mut self.receive, index, bytes: bytes.saturating_sub(HEADER_BYTES) };
        Some((received, ToSend { ring: &mut self.transmit, free: &mut self.free }))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        self.reclaim();
        (!self.free.is_empty()).then_some(ToSend { ring: &mut self.transmit, free: &mut self.free })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}

/// A frame that has come in.
pub(crate) struct Received<'a> {
    ring: &'a mut Ring,
    index: u16,
    bytes: usize,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(self.ring.frame(self.index, self.bytes));
        self.ring.queue.pop();
        self.ring.queue.push(self.index);
        result
    }
}

/// Room for a frame.
pub(crate) struct ToSend<'a> {
    ring: &'a mut Ring,
    free: &'a mut alloc::vec::Vec<u16>,
}

impl TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, f: F) -> R {
        let index = self.free.pop().expect("tokens are made only while a buffer is free");
        let result = f(self.ring.frame(index, bytes));
        self.ring.queue.set_bytes(index, HEADER_BYTES + bytes);
        self.ring.queue.push(index);
        result
    }
}
