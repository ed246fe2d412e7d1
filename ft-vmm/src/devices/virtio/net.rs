//! Network card: one pair of queues, no offloads. Frames enter and leave as they are on the wire, without a header of virtio's.

use super::{Broken, Device, Io};
use bytes::Bytes;
use ft_core::effect::EffectKind;
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Frames that wait for a buffer of the guest, at most (R9). More are lost, as on any network.
pub const BACKLOG_FRAMES: usize = 256;

/// Longest frame in either direction. Longer ones are lost.
pub const FRAME_BYTES_MAX: usize = 1 << 16;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// `struct virtio_net_hdr_v1`: no checksum, no segmentation, one buffer.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

const FEATURE_MAC: u64 = 1 << 5;
const FEATURE_STATUS: u64 = 1 << 16;
const LINK_UP: u16 = 1;

/// Everything that determines a network card's future, beside its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// Frames that wait for a buffer, oldest first.
    pub backlog: Vec<Vec<u8>>,
}

/// A network card.
#[derive(Debug)]
pub struct Net {
    mac: [u8; 6],
    backlog: VecDeque<Bytes>,
}

impl Net {
    /// A card with that address.
    pub fn new(mac: [u8; 6]) -> Self {
        Self { mac, backlog: VecDeque::new() }
    }

    /// A frame comes in.
    pub(crate) fn receive(&mut self, frame: Bytes, io: &mut Io<'_>) -> Result<(), Broken> {
        if self.backlog.len() < BACKLOG_FRAMES && frame.len() <= FRAME_BYTES_MAX {
            self.backlog.push_back(frame);
        }
        self.deliver(io)
    }

    /// Puts waiting frames into the guest's buffers.
    fn deliver(&mut self, io: &mut Io<'_>) -> Result<(), Broken> {
        let queue = &mut io.queues[RECEIVE];
        while let Some(frame) = self.backlog.front() {
            let Some(chain) = queue.pop(io.memory)? else { return Ok(()) };
            let bytes = HEADER.len() + frame.len();
            if chain.writable_bytes() < bytes as u64 {
                // Without mergeable buffers a frame has to fit into one: this one is lost, the buffer is not.
                queue.unpop();
            } else {
                chain.write(io.memory, 0, &HEADER)?;
                chain.write(io.memory, HEADER.len() as u64, frame)?;
                queue.give_back(io.memory, chain.head, bytes as u32)?;
            }
            self.backlog.pop_front();
        }
        Ok(())
    }

    fn transmit(io: &mut Io<'_>) -> Result<(), Broken> {
        let queue = &mut io.queues[TRANSMIT];
        while let Some(chain) = queue.pop(io.memory)? {
            let bytes = chain.readable_bytes().saturating_sub(HEADER.len() as u64);
            if (1..=FRAME_BYTES_MAX as u64).contains(&bytes) {
                let frame = chain.read_from(io.memory, HEADER.len() as u64)?;
                io.outbox.emit(EffectKind::Net, 0, Bytes::from(frame));
            }
            queue.give_back(io.memory, chain.head, 0)?;
        }
        Ok(())
    }

    /// The card's state.
    pub fn state(&self) -> NetState {
        NetState { backlog: self.backlog.iter().map(|frame| frame.to_vec()).collect() }
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// When more waits than may.
    pub fn set_state(&mut self, state: &NetState) -> Result<(), Fault> {
        if state.backlog.len() > BACKLOG_FRAMES
            || state.backlog.iter().any(|frame| frame.len() > FRAME_BYTES_MAX)
        {
            return Err(Fault("a network card's state with more waiting than may wait".into()));
        }
        self.backlog = state.backlog.iter().cloned().map(Bytes::from).collect();
        Ok(())
    }
}

impl Device for Net {
    const ID: u32 = 1;
    const QUEUE_SIZES: &'static [u16] = &[256, 256];

    fn features(&self) -> u64 {
        FEATURE_MAC | FEATURE_STATUS
    }

    fn config(&self) -> Vec<u8> {
        [&self.mac[..], &LINK_UP.to_le_bytes()].concat()
    }

    fn process(&mut self, queue: usize, io: &mut Io<'_>) -> Result<(), Broken> {
        match queue {
            RECEIVE => self.deliver(io),
            _ => Self::transmit(io),
        }
    }

    fn reset(&mut self) {
        self.backlog.clear();
    }
}
