//! Disk with 512-byte sectors and a write cache that FLUSH empties.
//!
//! A request becomes an operation that leaves the machine; its completion comes back as a record and is written to the guest's memory then.
//! Operations that have not completed are kept whole, so that a machine that goes live can issue them again, byte for byte (R7).
//!
//! Invariant: an operation transfers at most [`TRANSFER_BYTES_MAX`], and requests wait in the queue while more than [`IN_FLIGHT_BYTES_MAX`] are
//! under way (R9).

mod request;

use super::chain::Chain;
use super::{Broken, Device, Io};
use bytes::{BufMut as _, Bytes, BytesMut};
use ft_core::effect::{Effect, EffectKind, OpId};
use ft_core::error::Fault;
use request::Request;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;

/// Longest transfer of one request: what fits into a record.
pub const TRANSFER_BYTES_MAX: u32 = SEGMENTS_MAX * SEGMENT_BYTES_MAX;

/// Bytes under way at which requests begin to wait.
pub const IN_FLIGHT_BYTES_MAX: u64 = 8 << 20;

const SEGMENTS_MAX: u32 = 126;
const SEGMENT_BYTES_MAX: u32 = 8192;
const QUEUE_SIZE: u16 = 128;

const QUEUE: usize = 0;

const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEGMENTS_MAX: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_FLUSH: u64 = 1 << 9;

/// Status of a request, as virtio has it; also in [`Event::BlockDone`](ft_core::Event::BlockDone).
pub const STATUS_OK: u8 = 0;
/// The disk or the request failed.
pub const STATUS_IO_ERROR: u8 = 1;
/// No such request.
pub const STATUS_UNSUPPORTED: u8 = 2;

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    Read {
        sector: u64,
        len: u32,
    },
    /// The effect's payload: sector and data.
    Write {
        payload: Vec<u8>,
    },
    Flush,
}

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockOp {
    id: u64,
    action: Action,
    chain: Chain,
}

impl BlockOp {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    fn bytes(&self) -> u64 {
        match &self.action {
            Action::Read { len, .. } => u64::from(*len),
            Action::Write { payload } => payload.len() as u64,
            Action::Flush => 0,
        }
    }

    fn effect(&self) -> Effect {
        let (kind, payload) = match &self.action {
            Action::Read { sector, len } => {
                let mut payload = BytesMut::with_capacity(12);
                payload.put_u64_le(*sector);
                payload.put_u32_le(*len);
                (EffectKind::BlockRead, payload.freeze())
            }
            Action::Write { payload } => (EffectKind::BlockWrite, Bytes::copy_from_slice(payload)),
            Action::Flush => (EffectKind::BlockFlush, Bytes::new()),
        };
        Effect { kind, device: 0, op: Some(OpId(self.id)), payload }
    }
}

/// Everything that determines a disk's future, beside its transport and its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// Operations under way, oldest first.
    pub operations: Vec<BlockOp>,
}

/// A disk.
#[derive(Debug)]
pub struct Block {
    sectors: u64,
    read_only: bool,
    operations: VecDeque<BlockOp>,
}

impl Block {
    /// A disk of so many sectors.
    pub fn new(sectors: u64, read_only: bool) -> Self {
        Self { sectors, read_only, operations: VecDeque::new() }
    }

    /// An operation that has completed. None when it is unknown: it has completed before, or was forgotten in a reset.
    pub(crate) fn take(&mut self, id: u64) -> Option<BlockOp> {
        let at = self.operations.iter().position(|operation| operation.id == id)?;
        self.operations.remove(at)
    }

    /// Tells the guest how an operation ended, and goes on with what waits.
    pub(crate) fn complete(
        &mut self,
        operation: &BlockOp,
        status: u8,
        data: &[u8],
        io: &mut Io<'_>,
    ) -> Result<(), Broken> {
        let (mut status, mut written) = (status, 0);
        if let (Action::Read { len, .. }, STATUS_OK) = (&operation.action, status) {
            if data.len() == *len as usize {
                operation.chain.write(io.memory, 0, data)?;
                written = *len;
            } else {
                // Whoever read it did not read what was asked for.
                status = STATUS_IO_ERROR;
            }
        }
        answer(&operation.chain, status, written, io)?;
        self.process(QUEUE, io)
    }

    fn start(&mut self, chain: Chain, io: &mut Io<'_>) -> Result<(), Broken> {
        let action = match Request::parse(&chain, io.memory, self.sectors, self.read_only)? {
            Request::Read { sector, len } => Action::Read { sector, len },
            Request::Write { sector } => {
                let mut payload = sector.to_le_bytes().to_vec();
                payload.extend(chain.read_from(io.memory, request::HEADER_BYTES)?);
                Action::Write { payload }
            }
            Request::Flush => Action::Flush,
            Request::Identify => {
                let len = request::write_name(&chain, io.memory)?;
                return answer(&chain, STATUS_OK, len, io);
            }
            Request::Refused(status) => return answer(&chain, status, 0, io),
        };
        let operation = BlockOp { id: io.outbox.next_op().0, action, chain };
        io.outbox.emit_operation(operation.effect());
        self.operations.push_back(operation);
        Ok(())
    }

    fn has_room(&self) -> bool {
        let bytes: u64 = self.operations.iter().map(BlockOp::bytes).sum();
        self.operations.len() < usize::from(QUEUE_SIZE) && bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Operations that were emitted and have not completed.
    pub fn in_flight(&self) -> impl Iterator<Item = Effect> {
        self.operations.iter().map(BlockOp::effect)
    }

    /// The disk's state.
    pub fn state(&self) -> BlockState {
        BlockState { operations: self.operations.iter().cloned().collect() }
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// When more is under way than may be.
    pub fn set_state(&mut self, state: &BlockState) -> Result<(), Fault> {
        if state.operations.len() > usize::from(QUEUE_SIZE) {
            return Err(Fault("a disk's state with more operations than may be under way".into()));
        }
        self.operations = state.operations.iter().cloned().collect();
        Ok(())
    }
}

/// Writes the status, the last byte that the device may write, and gives the chain back.
fn answer(chain: &Chain, status: u8, written: u32, io: &mut Io<'_>) -> Result<(), Broken> {
    let at = chain.writable_bytes().checked_sub(1).ok_or(Broken)?;
    chain.write(io.memory, at, &[status])?;
    io.queues[QUEUE].give_back(io.memory, chain.head, written + 1)
}

impl Device for Block {
    const ID: u32 = 2;
    const QUEUE_SIZES: &'static [u16] = &[QUEUE_SIZE];

    fn features(&self) -> u64 {
        let read_only = if self.read_only { FEATURE_READ_ONLY } else { 0 };
        FEATURE_SIZE_MAX | FEATURE_SEGMENTS_MAX | FEATURE_FLUSH | read_only
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.sectors.to_le_bytes().to_vec();
        config.extend(SEGMENT_BYTES_MAX.to_le_bytes());
        config.extend(SEGMENTS_MAX.to_le_bytes());
        config
    }

    fn process(&mut self, _queue: usize, io: &mut Io<'_>) -> Result<(), Broken> {
        while self.has_room() {
            let Some(chain) = io.queues[QUEUE].pop(io.memory)? else { return Ok(()) };
            self.start(chain, io)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.operations.clear();
    }
}
