//! The log: every change of the store, on the disk.
//!
//! Changes gather in a batch; batches are written one after the other, a few at a time, without anybody waiting. When an area is nearly
//! full, the log goes on in the other one, and compaction walks through the store and writes every entry there as it is then; what a
//! change says after that comes behind it, what it says before that is overtaken by the entry. When the walk is done, the new area alone
//! is the log.
//!
//! Invariants: a batch that is whole after a crash follows batches that are whole. The superblock changes only while nothing is being
//! written and all that was written has been flushed. This does no I/O: [`Log::poll`] says what to do, [`Log::handle_done`] hears that it
//! was done.

pub mod layout;
pub mod open;
pub mod record;
#[cfg(test)]
mod tests;

use crate::store::Store;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use layout::{
    BATCH_BYTES, Layout, PAYLOAD_BYTES_MAX, Part, SECTOR_BYTES, Superblock, batch_sectors, batch_start,
    payload_bytes, seal,
};
use record::Record;

/// Batches being written at a time.
const IN_FLIGHT_MAX: usize = 4;
/// What may wait for the disk before nothing should be added, at most.
const CONGESTED_BYTES_MAX: u64 = 2 << 20;
/// The walk goes on while less than this waits for the disk.
const WALK_BYTES: usize = 256 * 1024;

/// Something for the disk to do. Its end is told by [`Log::handle_done`] with its `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write whole sectors.
    Write {
        /// Which request.
        id: u64,
        /// Where.
        sector: u64,
        /// What.
        data: Vec<u8>,
    },
    /// Make everything survive that was written.
    Flush {
        /// Which request.
        id: u64,
    },
}

/// Where the next batch goes, and what it must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    area: u8,
    /// From the start of the area.
    sector: u64,
    number: u64,
    /// Of the batch before.
    checksum: u64,
}

impl Position {
    fn start(part: Part) -> Self {
        Self { area: part.area, sector: 0, number: part.first, checksum: part.seed }
    }

    fn advance(&mut self, sectors: u64, checksum: u64) {
        self.sector += sectors;
        self.number += 1;
        self.checksum = checksum;
    }
}

/// The walk through the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compaction {
    Walking {
        cursor: u64,
    },
    /// Everything is in batches up to this number.
    Walked {
        last: u64,
    },
}

/// The steps of changing the superblock. Nothing else is written meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Batches under way must end.
    Drain,
    /// All that the new superblock names is being flushed.
    Flushing,
    /// It has been.
    Flushed,
    /// The new superblock is being written.
    Writing,
    /// It has been.
    Written,
    /// And is being flushed.
    Sealing,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    layout: Layout,
    superblock: Superblock,
    position: Position,
    compaction: Option<Compaction>,
    /// Bytes that the walk must write because of changes meanwhile, so that it ends before the area does.
    walk_debt: usize,
    switch: Option<(Step, Superblock)>,
    /// Batches that take no more, oldest first, without their headers.
    full: VecDeque<Vec<u8>>,
    /// The batch that takes changes.
    open: Vec<u8>,
    /// The open batch has waited long enough.
    due: bool,
    /// Numbers of batches being written.
    writing: BTreeSet<u64>,
    flushing: Option<u64>,
    /// Batches below this number will survive.
    flushed: u64,
    /// Somebody waits until batches below this number will.
    wanted: u64,
    failed: bool,
    compactions: u64,
}

/// Requests that are no batches are told apart from them by this bit.
const NOT_A_BATCH: u64 = 1 << 63;

impl Log {
    fn new(
        layout: Layout,
        superblock: Superblock,
        position: Position,
        compaction: Option<Compaction>,
    ) -> Self {
        Self {
            layout,
            superblock,
            position,
            compaction,
            walk_debt: 0,
            switch: None,
            full: VecDeque::new(),
            open: batch_start(),
            due: false,
            writing: BTreeSet::new(),
            flushing: None,
            flushed: position.number,
            wanted: 0,
            failed: false,
            compactions: 0,
        }
    }

    /// What all entries of the store may take here: so much that an area has room for all of them, for the changes during the walk, and
    /// for what waits.
    pub fn record_bytes_max(&self) -> u64 {
        self.area_bytes() / 8 * 3
    }

    /// Whether so much waits for the disk that nothing should be added.
    pub fn is_congested(&self) -> bool {
        !self.failed && self.waiting_bytes() as u64 > (self.area_bytes() / 16).min(CONGESTED_BYTES_MAX)
    }

    /// Whether a write has failed. Nothing more is written: what is on the disk is a whole log up to some moment before.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Bytes of the current area that are taken.
    pub fn used_bytes(&self) -> u64 {
        self.position.sector * SECTOR_BYTES as u64
    }

    /// Bytes of an area.
    pub fn area_bytes(&self) -> u64 {
        self.layout.area_sectors * SECTOR_BYTES as u64
    }

    /// Compactions since the start.
    pub fn compactions(&self) -> u64 {
        self.compactions
    }

    /// Whether one is under way.
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Adds a change.
    pub fn append(&mut self, record: Record<'_>) {
        if self.failed {
            return;
        }
        let bytes = self.put(record);
        if matches!(self.compaction, Some(Compaction::Walking { .. })) {
            self.walk_debt += 2 * bytes;
        }
    }

    fn put(&mut self, record: Record<'_>) -> usize {
        if payload_bytes(&self.open) >= BATCH_BYTES {
            self.close();
        }
        let before = self.open.len();
        record.encode(&mut self.open);
        debug_assert!(payload_bytes(&self.open) <= PAYLOAD_BYTES_MAX, "a record longer than any batch");
        self.open.len() - before
    }

    /// Time goes by: what has gathered is written.
    pub fn tick(&mut self) {
        self.due = payload_bytes(&self.open) > 0;
    }

    /// All changes so far shall survive. Returns what to ask [`Log::is_saved`] with.
    pub fn save(&mut self) -> u64 {
        self.wanted = self.next_number();
        self.due = true;
        self.wanted
    }

    /// Whether all changes before the call of [`Log::save`] that returned `ticket` will survive.
    pub fn is_saved(&self, ticket: u64) -> bool {
        self.flushed >= ticket
    }

    /// What the disk should do next. Call it until there is nothing.
    pub fn poll(&mut self, store: &Store) -> Option<Request> {
        if self.failed {
            return None;
        }
        self.plan();
        if self.switch.is_some() {
            return self.poll_switch();
        }
        let batch = if self.writing.len() < IN_FLIGHT_MAX { self.poll_batch(store) } else { None };
        batch.or_else(|| self.poll_flush())
    }

    /// A request is done, or could not be.
    pub fn handle_done(&mut self, id: u64, ok: bool) {
        if !ok {
            self.failed = true;
        } else if id & NOT_A_BATCH == 0 {
            self.writing.remove(&id);
        } else if let Some(number) = self.flushing.take() {
            self.flushed = self.flushed.max(number);
        } else if let Some((step, superblock)) = self.switch {
            self.handle_step(step, superblock);
        }
    }

    fn waiting_bytes(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.open.len()
    }

    /// Number of the first batch that nothing has been added to.
    fn next_number(&self) -> u64 {
        let open = u64::from(payload_bytes(&self.open) > 0);
        self.position.number + self.full.len() as u64 + open
    }

    fn close(&mut self) {
        if payload_bytes(&self.open) > 0 {
            self.full.push_back(core::mem::replace(&mut self.open, batch_start()));
            self.due = false;
        }
    }

    /// Whether the superblock has to change.
    fn plan(&mut self) {
        let superblock = match self.compaction {
            _ if self.switch.is_some() => return,
            None if self.position.sector >= self.layout.area_sectors / 4 * 3 => {
                let Position { area, number: first, checksum: seed, .. } = self.position;
                Superblock { second: Some(Part { area: 1 - area, first, seed }), ..self.superblock }
            }
            Some(Compaction::Walked { last }) if self.position.number > last => {
                let first = self.superblock.second.unwrap_or(self.superblock.first);
                Superblock { first, second: None, ..self.superblock }
            }
            None | Some(_) => return,
        };
        let generation = superblock.generation + 1;
        self.switch = Some((Step::Drain, Superblock { generation, ..superblock }));
    }

    fn poll_switch(&mut self) -> Option<Request> {
        let (step, superblock) = self.switch?;
        let id = NOT_A_BATCH;
        let (next, request) = match step {
            Step::Drain if self.writing.is_empty() && self.flushing.is_none() => {
                (Step::Flushing, Request::Flush { id })
            }
            Step::Flushed => {
                let (sector, data) = (superblock.sector(), superblock.encode());
                (Step::Writing, Request::Write { id, sector, data })
            }
            Step::Written => (Step::Sealing, Request::Flush { id }),
            Step::Drain | Step::Flushing | Step::Writing | Step::Sealing => return None,
        };
        self.switch = Some((next, superblock));
        Some(request)
    }

    fn handle_step(&mut self, step: Step, superblock: Superblock) {
        let next = match step {
            Step::Flushing => {
                self.flushed = self.position.number;
                Step::Flushed
            }
            Step::Writing => Step::Written,
            Step::Sealing => return self.switched(superblock),
            Step::Drain | Step::Flushed | Step::Written => step,
        };
        self.switch = Some((next, superblock));
    }

    /// The new superblock counts.
    fn switched(&mut self, superblock: Superblock) {
        self.switch = None;
        self.superblock = superblock;
        self.walk_debt = 0;
        match superblock.second {
            Some(second) => {
                self.position = Position::start(second);
                self.compaction = Some(Compaction::Walking { cursor: 0 });
            }
            None => {
                self.compaction = None;
                self.compactions += 1;
            }
        }
    }

    fn poll_batch(&mut self, store: &Store) -> Option<Request> {
        if let Some(Compaction::Walking { cursor }) = self.compaction {
            self.walk(cursor, store);
        }
        if self.full.is_empty() && (self.due || payload_bytes(&self.open) >= BATCH_BYTES) {
            self.close();
        }
        let mut data = self.full.pop_front()?;
        let sectors = batch_sectors(payload_bytes(&data));
        let Position { area, sector, number, checksum } = self.position;
        if sector + sectors > self.layout.area_sectors {
            // Limits and the walk's pace prevent this; if not, what is there stays whole.
            self.failed = true;
            return None;
        }
        let checksum = seal(&mut data, number, checksum);
        self.position.advance(sectors, checksum);
        self.writing.insert(number);
        Some(Request::Write { id: number, sector: self.layout.start(area) + sector, data })
    }

    /// Writes entries, until enough waits for the disk and changes are paid for.
    fn walk(&mut self, from: u64, store: &Store) {
        let mut cursor = from;
        let mut ended = false;
        while !ended && (self.waiting_bytes() < WALK_BYTES || self.walk_debt > 0) {
            let next = store.scan(cursor, 1, |entry| {
                let record =
                    Record::Set { key: entry.key(), value: entry.value(), deadline: entry.deadline() };
                let bytes = self.put(record);
                self.walk_debt = self.walk_debt.saturating_sub(bytes);
            });
            ended = next == 0;
            cursor = next;
        }
        if ended {
            self.close();
            let last = self.next_number() - 1;
            self.compaction = Some(Compaction::Walked { last });
        } else if cursor != from {
            self.put(Record::Walked { cursor });
            self.compaction = Some(Compaction::Walking { cursor });
        }
    }

    fn poll_flush(&mut self) -> Option<Request> {
        let written = self.writing.first().copied().unwrap_or(self.position.number);
        if self.flushing.is_some() || self.wanted <= self.flushed || written < self.wanted {
            return None;
        }
        self.flushing = Some(written);
        Some(Request::Flush { id: NOT_A_BATCH })
    }
}
