//! The store as clients see it at one moment: what a command needs beside its arguments.

use crate::store::{Full, Limits, NEVER, Store, cost};
use crate::store::{ALLOCATION_OVERHEAD_MAX, DEADLINE_COST, RECORD_OVERHEAD_BYTES};
use alloc::string::String;
use alloc::vec::Vec;

/// A moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since 1970.
    pub unix_us: u64,
    /// Microseconds since the guest started.
    pub up_us: u64,
}

impl Now {
    /// Milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        self.unix_us / 1000
    }
}

/// What was counted, for INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands executed.
    pub commands: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open.
    pub clients: u64,
    /// Keys that expired.
    pub expired: u64,
    /// Keys found.
    pub hits: u64,
    /// Keys not found.
    pub misses: u64,
}

/// The store and what belongs to it.
#[derive(Debug)]
pub struct Service {
    /// Keys and values. Changes go through [`Service`], so that they are logged.
    pub(crate) store: Store,
    /// What was counted.
    pub counters: Counters,
    /// The present moment: the same for all commands until [`Service::set_now`].
    pub(crate) now: Now,
}

impl Service {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self { store: Store::new(limits), counters: Counters::default(), now: Now::default() }
    }

    /// Time goes on; what has expired by now is gone, so that commands need not ask.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
        while let Some(key) = self.store.due(now.unix_ms()) {
            let key = Vec::from(key);
            self.remove(&key);
            self.counters.expired += 1;
        }
    }

    /// Whether an entry of this size can be added.
    ///
    /// # Errors
    /// What is full.
    pub(crate) fn admit(&self, key_bytes: usize, value_bytes: usize) -> Result<(), Full> {
        let record = (key_bytes + value_bytes) as u64 + RECORD_OVERHEAD_BYTES;
        self.store.admit(cost(key_bytes, value_bytes) + DEADLINE_COST, record)
    }

    /// The same for so many entries with so many bytes in all.
    ///
    /// # Errors
    /// What is full.
    pub(crate) fn admit_many(&self, entries: usize, key_bytes: usize, value_bytes: usize) -> Result<(), Full> {
        let one = cost(0, 0) + DEADLINE_COST + 2 * ALLOCATION_OVERHEAD_MAX;
        let bytes = (key_bytes + value_bytes) as u64;
        self.store.admit(entries as u64 * one + bytes, entries as u64 * RECORD_OVERHEAD_BYTES + bytes)
    }

    /// The value of a key, if it is there; counted.
    pub(crate) fn read(&mut self, key: &[u8]) -> Option<&[u8]> {
        let found = self.store.get(key);
        let counter = if found.is_some() { &mut self.counters.hits } else { &mut self.counters.misses };
        *counter += 1;
        found.map(|entry| entry.value())
    }

    /// Whether changes are kept on a disk.
    pub(crate) fn has_disk(&self) -> bool {
        false
    }

    /// The lines of INFO on the log.
    pub(crate) fn log_info(&self) -> String {
        "aof_enabled:0\r\n".into()
    }

    /// What was changed so far shall be on the disk soon.
    pub(crate) fn save_soon(&mut self) {}

    /// What was changed so far shall be on the disk soon. Returns what to ask [`Service::is_saved`] with.
    pub(crate) fn save(&mut self) -> u64 {
        0
    }

    /// Whether everything up to `ticket` is on the disk.
    pub(crate) fn is_saved(&self, _ticket: u64) -> bool {
        true
    }

    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], deadline: u64) {
        self.store.set(key, value, deadline);
    }

    pub(crate) fn append(&mut self, key: &[u8], tail: &[u8]) -> usize {
        self.store.append(key, tail)
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        self.store.remove(key)
    }

    pub(crate) fn set_deadline(&mut self, key: &[u8], deadline: u64) -> bool {
        // A deadline that has passed already is a removal.
        if deadline != NEVER && deadline <= self.now.unix_ms() {
            return self.remove(key);
        }
        self.store.set_deadline(key, deadline)
    }

    pub(crate) fn clear(&mut self) {
        self.store.clear();
    }
}
