//! The MMIO transport, version 2 (virtio 1.2, section 4.2): one device in a page of registers.
//!
//! Registers are 32 bits wide and aligned; the configuration space takes any width. Other accesses read zeros and write nothing.

use super::queue::{VirtQueue, VirtQueueState};
use super::{Broken, Device, Io};
use crate::devices::Outbox;
use crate::ram::GuestRam;
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};

/// Bytes of a slot.
pub const SLOT_BYTES: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"FTVM");
const CONFIG: u64 = 0x100;

const VERSION_1: u64 = 1 << 32;

/// Status bits.
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 0x40;

/// Interrupt status bits.
const USED: u8 = 1;
const CONFIG_CHANGED: u8 = 2;

/// What a slot without a device reads.
pub(crate) fn read_empty(offset: u64) -> u32 {
    match offset {
        0x000 => MAGIC,
        0x004 => VERSION,
        _ => 0,
    }
}

/// Everything that determines a transport's future.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportState {
    /// Device status.
    pub status: u8,
    /// Interrupt status.
    pub interrupt: u8,
    /// Feature bits that the driver took.
    pub features: u64,
    /// DeviceFeaturesSel, DriverFeaturesSel and QueueSel.
    pub selected: [u32; 3],
    /// The queues.
    pub queues: Vec<VirtQueueState>,
}

/// A device and its registers.
#[derive(Debug)]
pub struct Slot<D> {
    device: D,
    queues: Vec<VirtQueue>,
    status: u8,
    interrupt: u8,
    features: u64,
    device_features_page: u32,
    driver_features_page: u32,
    queue: u32,
}

impl<D: Device> Slot<D> {
    /// A slot with that device.
    pub fn new(device: D) -> Self {
        let queues = D::QUEUE_SIZES.iter().map(|size| VirtQueue::new(*size)).collect();
        Self {
            device,
            queues,
            status: 0,
            interrupt: 0,
            features: 0,
            device_features_page: 0,
            driver_features_page: 0,
            queue: 0,
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device, for what needs no queues.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Whether the interrupt line is high.
    pub fn interrupt(&self) -> bool {
        self.interrupt != 0
    }

    /// Whether a driver runs it.
    pub fn is_live(&self) -> bool {
        self.status & DRIVER_OK != 0 && self.status & NEEDS_RESET == 0
    }

    /// Resets device and transport.
    pub fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(VirtQueue::reset);
        (self.status, self.interrupt, self.features) = (0, 0, 0);
        (self.device_features_page, self.driver_features_page, self.queue) = (0, 0, 0);
    }

    /// Lets the device work with its queues, if a driver runs it.
    pub fn work(
        &mut self,
        memory: &GuestRam,
        outbox: &mut Outbox,
        work: impl FnOnce(&mut D, &mut Io<'_>) -> Result<(), Broken>,
    ) {
        if !self.is_live() {
            return;
        }
        self.queues.iter_mut().for_each(VirtQueue::begin);
        let mut io = Io { queues: &mut self.queues, memory, outbox };
        let result = work(&mut self.device, &mut io);
        // Every queue is asked, because what it gave back is then told.
        if self.queues.iter_mut().fold(false, |wanted, queue| queue.take_interrupt(memory) | wanted) {
            self.interrupt |= USED;
        }
        if result.is_err() {
            self.fail();
        }
    }

    /// The driver broke the rules.
    fn fail(&mut self) {
        self.status |= NEEDS_RESET;
        if self.status & DRIVER_OK != 0 {
            self.interrupt |= CONFIG_CHANGED;
        }
    }

    /// A read at an offset into the slot.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= CONFIG {
            let config = self.device.config();
            for (to, from) in data.iter_mut().zip(config.iter().skip((offset - CONFIG) as usize)) {
                *to = *from;
            }
        } else if data.len() == 4 {
            data.copy_from_slice(&self.register(offset).to_le_bytes());
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue as usize);
        match offset {
            0x008 => D::ID,
            0x00c => VENDOR,
            0x010 => match self.device_features_page {
                0 => self.offered() as u32,
                1 => (self.offered() >> 32) as u32,
                _ => 0,
            },
            0x034 => queue.map_or(0, |queue| u32::from(queue.size_max())),
            0x044 => queue.map_or(0, |queue| u32::from(queue.ready())),
            0x060 => u32::from(self.interrupt),
            0x070 => u32::from(self.status),
            // The configuration never changes: its generation is 0.
            _ => read_empty(offset),
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | VERSION_1
    }

    /// A write at an offset into the slot.
    pub fn write(&mut self, offset: u64, data: &[u8], memory: &GuestRam, outbox: &mut Outbox) {
        // No device has anything to write in its configuration.
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x014 => self.device_features_page = value,
            0x020 => self.take_features(value),
            0x024 => self.driver_features_page = value,
            0x030 => self.queue = value,
            0x050 => self.work(memory, outbox, |device, io| match value as usize {
                queue if queue < io.queues.len() => device.process(queue, io),
                _ => Ok(()),
            }),
            0x064 => self.interrupt &= !(value as u8),
            0x070 => self.set_status(value, memory, outbox),
            _ => self.write_queue(offset, value, memory),
        }
    }

    fn take_features(&mut self, value: u32) {
        if self.status & FEATURES_OK != 0 {
            return;
        }
        match self.driver_features_page {
            0 => self.features = self.features & !0xffff_ffff | u64::from(value),
            1 => self.features = self.features & 0xffff_ffff | u64::from(value) << 32,
            _ => {}
        }
    }

    fn write_queue(&mut self, offset: u64, value: u32, memory: &GuestRam) {
        let Some(queue) = self.queues.get_mut(self.queue as usize) else { return };
        if offset == 0x044 {
            if queue.set_ready(value & 1 != 0, memory).is_err() {
                self.fail();
            }
            return;
        }
        if queue.ready() {
            return;
        }
        match offset {
            0x038 => queue.set_size(value),
            0x080 => queue.set_descriptors(Some(value), None),
            0x084 => queue.set_descriptors(None, Some(value)),
            0x090 => queue.set_available(Some(value), None),
            0x094 => queue.set_available(None, Some(value)),
            0x0a0 => queue.set_used(Some(value), None),
            0x0a4 => queue.set_used(None, Some(value)),
            _ => {}
        }
    }

    /// Status bits stay until a reset; those that the driver may not set now are not taken.
    fn set_status(&mut self, value: u32, memory: &GuestRam, outbox: &mut Outbox) {
        if value == 0 {
            return self.reset();
        }
        let mut added = value as u8 & !self.status & !NEEDS_RESET;
        let agreed = self.features & !self.offered() == 0 && self.features & VERSION_1 != 0;
        if !agreed {
            added &= !FEATURES_OK;
        }
        if (self.status | added) & FEATURES_OK == 0 {
            added &= !DRIVER_OK;
        }
        self.status |= added;
        if added & DRIVER_OK != 0 {
            // Buffers that were made available before are good now.
            self.work(memory, outbox, |device, io| {
                (0..io.queues.len()).try_for_each(|queue| device.process(queue, io))
            });
        }
    }

    /// The transport's state. The device has its own.
    pub fn state(&self) -> TransportState {
        TransportState {
            status: self.status,
            interrupt: self.interrupt,
            features: self.features,
            selected: [self.device_features_page, self.driver_features_page, self.queue],
            queues: self.queues.iter().map(VirtQueue::state).collect(),
        }
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// When it has other queues.
    pub fn set_state(&mut self, state: &TransportState) -> Result<(), Fault> {
        if state.queues.len() != self.queues.len() {
            let (found, expected) = (state.queues.len(), self.queues.len());
            return Err(Fault(format!("a virtio slot's state with {found} queues instead of {expected}")));
        }
        for (queue, state) in self.queues.iter_mut().zip(&state.queues) {
            queue.set_state(state)?;
        }
        (self.status, self.interrupt, self.features) = (state.status, state.interrupt, state.features);
        [self.device_features_page, self.driver_features_page, self.queue] = state.selected;
        Ok(())
    }
}
