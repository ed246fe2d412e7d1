//! A queue of packets in one piece of memory, so that a burst of them costs no allocation each.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Packets {
    bytes: Vec<u8>,
    lengths: VecDeque<usize>,
    head: usize,
}

impl Packets {
    /// Bytes of all packets.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Appends a packet of `length` zeros and lets `fill` write it.
    pub(super) fn push_with<R>(&mut self, length: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        if self.lengths.is_empty() {
            self.bytes.clear();
            self.head = 0;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + length, 0);
        self.lengths.push_back(length);
        fill(&mut self.bytes[start..])
    }

    pub(super) fn push(&mut self, packet: &[u8]) {
        self.push_with(packet.len(), |bytes| bytes.copy_from_slice(packet));
    }

    /// Takes out the oldest packet.
    pub(super) fn pop(&mut self) -> Option<&mut [u8]> {
        let length = self.lengths.pop_front()?;
        let start = self.head;
        self.head += length;
        Some(&mut self.bytes[start..self.head])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in() {
        let mut packets = Packets::default();
        for round in 0..3 {
            packets.push(&[1, 2, round]);
            packets.push_with(2, |bytes| bytes[1] = 9);
            assert_eq!(packets.size(), 5);
            assert_eq!(packets.pop().as_deref(), Some(&[1, 2, round][..]));
            assert_eq!(packets.pop().as_deref(), Some(&[0, 9][..]));
            assert_eq!(packets.pop(), None);
            assert_eq!(packets.size(), 0);
        }
    }
}
