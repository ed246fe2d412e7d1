//! Console, port 0 only.
//!
//! What the guest makes available in one go leaves as one effect. What is typed beyond the guest's buffers waits in a bounded backlog.

use super::{Broken, Device, Io};
use bytes::Bytes;
use ft_core::effect::EffectKind;
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The number of this console; that of the serial port is 0.
pub const DEVICE: u8 = 1;

/// Typed bytes that wait for a buffer of the guest, at most (R9). More are lost.
pub const BACKLOG_BYTES: usize = 4096;

/// Longest output in one chain. A driver that sends more breaks the rules.
pub const CHAIN_BYTES_MAX: u64 = 1 << 16;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// Everything that determines a console's future, beside its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Typed bytes that wait for a buffer.
    pub backlog: Vec<u8>,
}

/// A console.
#[derive(Debug, Default)]
pub struct Console {
    backlog: VecDeque<u8>,
}

impl Console {
    /// Bytes that somebody typed. They wait also for a driver that does not run yet.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        let room = BACKLOG_BYTES - self.backlog.len();
        self.backlog.extend(bytes.iter().take(room));
    }

    /// Puts typed bytes into the guest's buffers.
    pub(crate) fn deliver(&mut self, io: &mut Io<'_>) -> Result<(), Broken> {
        let queue = &mut io.queues[RECEIVE];
        while !self.backlog.is_empty() {
            let Some(chain) = queue.pop(io.memory)? else { return Ok(()) };
            let count = self.backlog.len().min(chain.writable_bytes() as usize);
            let bytes: Vec<u8> = self.backlog.drain(..count).collect();
            chain.write(io.memory, 0, &bytes)?;
            queue.give_back(io.memory, chain.head, count as u32)?;
        }
        Ok(())
    }

    fn transmit(io: &mut Io<'_>) -> Result<(), Broken> {
        let mut output = Vec::new();
        let result = Self::gather(&mut output, io);
        if !output.is_empty() {
            io.outbox.emit(EffectKind::Console, DEVICE, Bytes::from(output));
        }
        result
    }

    fn gather(output: &mut Vec<u8>, io: &mut Io<'_>) -> Result<(), Broken> {
        let queue = &mut io.queues[TRANSMIT];
        while let Some(chain) = queue.pop(io.memory)? {
            if chain.readable_bytes() > CHAIN_BYTES_MAX {
                return Err(Broken);
            }
            output.extend(chain.read_from(io.memory, 0)?);
            queue.give_back(io.memory, chain.head, 0)?;
        }
        Ok(())
    }

    /// The console's state.
    pub fn state(&self) -> ConsoleState {
        ConsoleState { backlog: self.backlog.iter().copied().collect() }
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// When more waits than may.
    pub fn set_state(&mut self, state: &ConsoleState) -> Result<(), Fault> {
        if state.backlog.len() > BACKLOG_BYTES {
            return Err(Fault("a console's state with more waiting than may wait".into()));
        }
        self.backlog = state.backlog.iter().copied().collect();
        Ok(())
    }
}

impl Device for Console {
    const ID: u32 = 3;
    const QUEUE_SIZES: &'static [u16] = &[64, 64];

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
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
