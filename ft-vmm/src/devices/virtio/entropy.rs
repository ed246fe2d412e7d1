//! Entropy: random bytes from outside, so that both copies of the machine get the same.
//!
//! Records with random bytes carry no number: each serves the oldest request. Any bytes are as good as any others.

use super::chain::Chain;
use super::{Broken, Device, Io};
use bytes::Bytes;
use ft_core::effect::{Effect, EffectKind, OpId};
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Random bytes that one request gets, at most; it may always get fewer than it has room for.
pub const REQUEST_BYTES_MAX: u32 = 4096;

const QUEUE: usize = 0;
const QUEUE_SIZE: u16 = 8;

/// Requests that wait, at most: more than a queue holds, because its entries can be made available again and again.
const REQUESTS_MAX: usize = QUEUE_SIZE as usize;

/// A request that waits for its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntropyRequest {
    op: u64,
    len: u32,
    chain: Chain,
}

impl EntropyRequest {
    fn effect(&self) -> Effect {
        let payload = Bytes::copy_from_slice(&self.len.to_le_bytes());
        Effect { kind: EffectKind::EntropyRead, device: 0, op: Some(OpId(self.op)), payload }
    }
}

/// Everything that determines an entropy device's future, beside its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntropyState {
    /// Requests that wait, oldest first.
    pub requests: Vec<EntropyRequest>,
}

/// An entropy device.
#[derive(Debug, Default)]
pub struct Entropy {
    requests: VecDeque<EntropyRequest>,
}

impl Entropy {
    /// Random bytes for the oldest request. More than it asked for are lost.
    pub(crate) fn fill(&mut self, bytes: &[u8], io: &mut Io<'_>) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(request) = self.requests.pop_front() else { return Ok(()) };
        let bytes = &bytes[..bytes.len().min(request.len as usize)];
        request.chain.write(io.memory, 0, bytes)?;
        io.queues[QUEUE].give_back(io.memory, request.chain.head, bytes.len() as u32)?;
        self.process(QUEUE, io)
    }

    /// What was asked for and has not come.
    pub fn in_flight(&self) -> impl Iterator<Item = Effect> {
        self.requests.iter().map(EntropyRequest::effect)
    }

    /// The device's state.
    pub fn state(&self) -> EntropyState {
        EntropyState { requests: self.requests.iter().cloned().collect() }
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// When more waits than may.
    pub fn set_state(&mut self, state: &EntropyState) -> Result<(), Fault> {
        if state.requests.len() > REQUESTS_MAX {
            return Err(Fault("an entropy device's state with more requests than may wait".into()));
        }
        self.requests = state.requests.iter().cloned().collect();
        Ok(())
    }
}

impl Device for Entropy {
    const ID: u32 = 4;
    const QUEUE_SIZES: &'static [u16] = &[QUEUE_SIZE];

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn process(&mut self, _queue: usize, io: &mut Io<'_>) -> Result<(), Broken> {
        while self.requests.len() < REQUESTS_MAX {
            let Some(chain) = io.queues[QUEUE].pop(io.memory)? else { return Ok(()) };
            let len = chain.writable_bytes().min(u64::from(REQUEST_BYTES_MAX)) as u32;
            if len == 0 {
                io.queues[QUEUE].give_back(io.memory, chain.head, 0)?;
                continue;
            }
            let request = EntropyRequest { op: io.outbox.next_op().0, len, chain };
            io.outbox.emit_operation(request.effect());
            self.requests.push_back(request);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.requests.clear();
    }
}
