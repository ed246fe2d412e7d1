//! One virtqueue: `virtio-queue`'s, with chains that are whole or [`Broken`].

use super::Broken;
use super::chain::Chain;
use crate::ram::GuestRam;
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueOwnedT as _, QueueState, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

/// Flag of the available ring: the driver does not want to be interrupted.
const NO_INTERRUPT: u16 = 1;

/// Everything that determines a queue's future. `virtio-queue`'s state, for snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtQueueState {
    /// Entries that the driver chose.
    pub size: u16,
    /// The driver has set it up.
    pub ready: bool,
    /// Next entry of the available ring.
    pub next_avail: u16,
    /// Next entry of the used ring.
    pub next_used: u16,
    /// Guest physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest physical address of the available ring.
    pub available: u64,
    /// Guest physical address of the used ring.
    pub used: u64,
}

/// A virtqueue.
#[derive(Debug)]
pub struct VirtQueue {
    queue: Queue,
    /// Buffers were given back since the device began to work: whether the driver wants to hear of it is still to be asked.
    gave_back: bool,
    /// Chains that may still be popped while the device works: one turn of the ring, even if what the device writes is the ring.
    turn: u16,
}

impl VirtQueue {
    /// A queue of at most `size_max` entries.
    ///
    /// # Panics
    /// When that is not a power of two up to 32768.
    pub fn new(size_max: u16) -> Self {
        let queue = Queue::new(size_max).expect("device types have valid queue sizes");
        Self { queue, gave_back: false, turn: 0 }
    }

    /// Whether the driver has set it up.
    pub fn ready(&self) -> bool {
        self.queue.ready()
    }

    /// The largest number of entries.
    pub(super) fn size_max(&self) -> u16 {
        self.queue.max_size()
    }

    pub(super) fn reset(&mut self) {
        self.queue.reset();
        self.gave_back = false;
    }

    /// The driver says that it is set up, or takes that back.
    pub(super) fn set_ready(&mut self, ready: bool, memory: &GuestRam) -> Result<(), Broken> {
        self.queue.set_ready(ready);
        if ready && !self.queue.is_valid(memory) {
            self.queue.set_ready(false);
            return Err(Broken);
        }
        Ok(())
    }

    /// Sizes that cannot be are not taken.
    pub(super) fn set_size(&mut self, size: u32) {
        if let Ok(size) = u16::try_from(size) {
            self.queue.set_size(size);
        }
    }

    pub(super) fn set_descriptors(&mut self, low: Option<u32>, high: Option<u32>) {
        self.queue.set_desc_table_address(low, high);
    }

    pub(super) fn set_available(&mut self, low: Option<u32>, high: Option<u32>) {
        self.queue.set_avail_ring_address(low, high);
    }

    pub(super) fn set_used(&mut self, low: Option<u32>, high: Option<u32>) {
        self.queue.set_used_ring_address(low, high);
    }

    /// The device begins to work.
    pub(super) fn begin(&mut self) {
        self.turn = self.queue.size();
    }

    /// The next chain that the driver has made available.
    ///
    /// # Errors
    /// [`Broken`] when ring or chain are not sound.
    pub fn pop(&mut self, memory: &GuestRam) -> Result<Option<Chain>, Broken> {
        if !self.queue.ready() {
            return Ok(None);
        }
        let size = self.queue.size();
        let Some(chain) = self.queue.iter(memory).map_err(|_| Broken)?.next() else { return Ok(None) };
        self.turn = self.turn.checked_sub(1).ok_or(Broken)?;
        Chain::collect(chain, size, memory).map(Some)
    }

    /// Leaves the chain that was popped last for later.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
        self.turn += 1;
    }

    /// Gives a chain back, of which `written` bytes were written.
    ///
    /// # Errors
    /// [`Broken`] when it is none of this queue's any more.
    pub fn give_back(&mut self, memory: &GuestRam, head: u16, written: u32) -> Result<(), Broken> {
        if !self.queue.ready() {
            return Ok(());
        }
        self.gave_back = true;
        self.queue.add_used(memory, head, written).map_err(|_| Broken)
    }

    /// Whether the driver is to be interrupted for what was given back since this was last asked.
    pub(super) fn take_interrupt(&mut self, memory: &GuestRam) -> bool {
        if !std::mem::take(&mut self.gave_back) {
            return false;
        }
        let flags = memory.load::<u16>(GuestAddress(self.queue.avail_ring()), Ordering::Acquire);
        flags.is_ok_and(|flags| u16::from_le(flags) & NO_INTERRUPT == 0)
    }

    pub(super) fn state(&self) -> VirtQueueState {
        let state = self.queue.state();
        VirtQueueState {
            size: state.size,
            ready: state.ready,
            next_avail: state.next_avail,
            next_used: state.next_used,
            descriptors: state.desc_table,
            available: state.avail_ring,
            used: state.used_ring,
        }
    }

    pub(super) fn set_state(&mut self, state: &VirtQueueState) -> Result<(), Fault> {
        let raw = QueueState {
            max_size: self.queue.max_size(),
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_idx_enabled: false,
            size: state.size,
            ready: state.ready,
            desc_table: state.descriptors,
            avail_ring: state.available,
            used_ring: state.used,
        };
        self.queue = Queue::try_from(raw).map_err(|error| Fault(format!("a virtqueue's state: {error}")))?;
        self.gave_back = false;
        Ok(())
    }
}
