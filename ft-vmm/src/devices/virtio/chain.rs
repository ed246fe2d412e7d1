//! Descriptor chains: buffers that a driver has lent to a device.
//!
//! Invariant: every segment of a [`Chain`] lies in RAM, those that the device may write come after those that it may read, and there are no more
//! than the queue has entries. `virtio-queue` ends its walk silently where a chain is not sound; here that is [`Broken`].
//!
//! Indirect tables are not offered, but followed: a driver that uses them all the same harms nobody.

use super::Broken;
use crate::ram::GuestRam;
use serde::{Deserialize, Serialize};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes as _, GuestAddress, GuestMemory as _, Permissions};

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u32,
}

/// Buffers of one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// By which the driver knows it.
    pub head: u16,
    /// What the device may read.
    pub readable: Vec<Segment>,
    /// What the device may write.
    pub writable: Vec<Segment>,
}

impl Chain {
    /// Walks a chain of a queue with `size` entries.
    pub(super) fn collect(
        descriptors: DescriptorChain<&GuestRam>,
        size: u16,
        memory: &GuestRam,
    ) -> Result<Self, Broken> {
        let mut chain = Self { head: descriptors.head_index(), readable: Vec::new(), writable: Vec::new() };
        let mut goes_on = true;
        for (count, descriptor) in descriptors.enumerate() {
            if count >= usize::from(size) {
                return Err(Broken);
            }
            goes_on = descriptor.has_next();
            let segment = Segment { gpa: descriptor.addr().0, len: descriptor.len() };
            chain.push(segment, descriptor.is_write_only(), memory)?;
        }
        if goes_on { Err(Broken) } else { Ok(chain) }
    }

    fn push(&mut self, segment: Segment, writable: bool, memory: &GuestRam) -> Result<(), Broken> {
        if !writable && !self.writable.is_empty() {
            return Err(Broken);
        }
        if segment.len > 0 && !segment.is_in(memory) {
            return Err(Broken);
        }
        let list = if writable { &mut self.writable } else { &mut self.readable };
        list.push(segment);
        Ok(())
    }

    /// How many bytes the device may read.
    pub fn readable_bytes(&self) -> u64 {
        total(&self.readable)
    }

    /// How many bytes the device may write.
    pub fn writable_bytes(&self) -> u64 {
        total(&self.writable)
    }

    /// Reads `buf.len()` bytes that begin after `skip`.
    pub fn read(&self, memory: &GuestRam, skip: u64, buf: &mut [u8]) -> Result<(), Broken> {
        let mut done = 0;
        for piece in pieces(&self.readable, skip, buf.len()) {
            let to = &mut buf[done..done + piece.len as usize];
            memory.read_slice(to, GuestAddress(piece.gpa)).map_err(|_| Broken)?;
            done += piece.len as usize;
        }
        if done == buf.len() { Ok(()) } else { Err(Broken) }
    }

    /// Reads all bytes after `skip`. Callers bound [`Chain::readable_bytes`] first.
    pub fn read_from(&self, memory: &GuestRam, skip: u64) -> Result<Vec<u8>, Broken> {
        let mut bytes = vec![0; self.readable_bytes().saturating_sub(skip) as usize];
        self.read(memory, skip, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes `bytes` after the first `skip`.
    pub fn write(&self, memory: &GuestRam, skip: u64, bytes: &[u8]) -> Result<(), Broken> {
        let mut done = 0;
        for piece in pieces(&self.writable, skip, bytes.len()) {
            let from = &bytes[done..done + piece.len as usize];
            memory.write_slice(from, GuestAddress(piece.gpa)).map_err(|_| Broken)?;
            done += piece.len as usize;
        }
        if done == bytes.len() { Ok(()) } else { Err(Broken) }
    }
}

impl Segment {
    fn is_in(&self, memory: &GuestRam) -> bool {
        memory.check_range(GuestAddress(self.gpa), self.len as usize, Permissions::ReadWrite)
    }
}

fn total(segments: &[Segment]) -> u64 {
    // At most 65536 lengths of 32 bits.
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// The parts of `segments` that hold `len` bytes after `skip`.
fn pieces(segments: &[Segment], skip: u64, len: usize) -> impl Iterator<Item = Segment> {
    let (mut skip, mut left) = (skip, len as u64);
    segments.iter().filter_map(move |segment| {
        let passed = skip.min(u64::from(segment.len));
        skip -= passed;
        let len = (u64::from(segment.len) - passed).min(left);
        left -= len;
        (len > 0).then_some(Segment { gpa: segment.gpa.saturating_add(passed), len: len as u32 })
    })
}
