//! virtio 1.x devices on the MMIO transport, version 2.
//!
//! [`mmio::Slot`] is the transport: registers, feature negotiation, queues and the interrupt. A [`Device`] behind it sees queues that are set
//! up, and chains that are whole.
//!
//! Guests are hostile: whatever a driver writes into registers or shared memory, a device reads and writes RAM only, does bounded work,
//! and does not panic. A driver that breaks the rules of the queues is [`Broken`]: the device asks for a reset, as virtio has it, and does
//! nothing until it gets one.

pub mod block;
pub mod chain;
pub mod console;
pub mod entropy;
pub mod mmio;
pub mod net;
pub mod queue;

use super::Outbox;
use crate::ram::GuestRam;
use queue::VirtQueue;

/// The driver broke the rules: only a reset of the device helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// What a device reaches while it works.
pub struct Io<'a> {
    /// Its queues.
    pub queues: &'a mut [VirtQueue],
    /// Guest memory.
    pub memory: &'a GuestRam,
    /// For what leaves the machine.
    pub outbox: &'a mut Outbox,
}

/// A device behind a slot.
pub trait Device {
    /// Its number in the virtio specification.
    const ID: u32;

    /// The largest size of each of its queues.
    const QUEUE_SIZES: &'static [u16];

    /// Feature bits that it offers, without those of the transport.
    fn features(&self) -> u64;

    /// Its configuration space.
    fn config(&self) -> Vec<u8>;

    /// The driver has made buffers of a queue available.
    ///
    /// # Errors
    /// [`Broken`] when what it made available breaks the rules.
    fn process(&mut self, queue: usize, io: &mut Io<'_>) -> Result<(), Broken>;

    /// The driver resets it: requests and buffers are forgotten.
    fn reset(&mut self);
}
