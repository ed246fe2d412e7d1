//! The store as clients see it at one moment: what a command needs beside its arguments.

use crate::log::record::Record;
use crate::log::{Log, Request};
use crate::store::{ALLOCATION_OVERHEAD_MAX, DEADLINE_COST, RECORD_OVERHEAD_BYTES};
use crate::store::{Full, Store, cost};
use alloc::format;
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
    /// Whether clients may make the machine hang and crash, for tests of what comes of it.
    pub debug: bool,
    /// Where changes are kept, if there is a disk.
    log: Option<Log>,
    /// The present moment: the same for all commands until [`Service::set_now`].
    pub(crate) now: Now,
}

impl Service {
    /// A store that keeps its changes in `log`, which it was read from.
    pub fn new(store: Store, log: Option<Log>) -> Self {
        Self { store, log, counters: Counters::default(), debug: false, now: Now::default() }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the disk should do next.
    pub fn poll_log(&mut self) -> Option<Request> {
        self.log.as_mut()?.poll(&self.store)
    }

    /// The log, if there is one.
    pub fn log_mut(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    /// Whether no more commands should be executed before the disk has caught up.
    pub fn is_congested(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_congested)
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
        self.is_writable()?;
        let record = (key_bytes + value_bytes) as u64 + RECORD_OVERHEAD_BYTES;
        self.store.admit(cost(key_bytes, value_bytes) + DEADLINE_COST, record)
    }

    fn is_writable(&self) -> Result<(), Full> {
        if self.log.as_ref().is_some_and(Log::has_failed) { Err(Full::Disk) } else { Ok(()) }
    }

    /// The same for so many entries with so many bytes in all.
    ///
    /// # Errors
    /// What is full.
    pub(crate) fn admit_many(
        &self,
        entries: usize,
        key_bytes: usize,
        value_bytes: usize,
    ) -> Result<(), Full> {
        self.is_writable()?;
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
        self.log.is_some()
    }

    /// The lines of INFO on the log.
    pub(crate) fn log_info(&self) -> String {
        let Some(log) = &self.log else { return "aof_enabled:0\r\n".into() };
        format!(
            "aof_enabled:1\r\naof_rewrite_in_progress:{}\r\naof_rewrites:{}\r\naof_last_write_status:{}\r\n\
             aof_current_size:{}\r\naof_area_size:{}\r\naof_base_size:{}\r\n",
            u8::from(log.is_compacting()),
            log.compactions(),
            if log.has_failed() { "err" } else { "ok" },
            log.used_bytes(),
            log.area_bytes(),
            self.store.record_bytes()
        )
    }

    /// What was changed so far shall be on the disk soon. Returns what to ask [`Service::is_saved`] with.
    pub(crate) fn save(&mut self) -> u64 {
        self.log.as_mut().map_or(0, Log::save)
    }

    /// Whether everything up to `ticket` is on the disk; without a disk there is nothing to wait for.
    ///
    /// # Errors
    /// When it never will be.
    pub(crate) fn is_saved(&self, ticket: u64) -> Result<bool, Full> {
        match &self.log {
            Some(log) if log.has_failed() => Err(Full::Disk),
            log => Ok(log.as_ref().is_none_or(|log| log.is_saved(ticket))),
        }
    }

    fn record(&mut self, record: Record<'_>) {
        if let Some(log) = &mut self.log {
            log.append(record);
        }
    }

    pub(crate) fn set(&mut self, key: &[u8], value: &[u8], deadline: u64) {
        self.store.set(key, value, deadline);
        self.record(Record::Set { key, value, deadline });
    }

    pub(crate) fn append(&mut self, key: &[u8], tail: &[u8]) -> usize {
        let bytes = self.store.append(key, tail);
        self.record(Record::Append { key, tail });
        bytes
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.store.remove(key);
        if removed {
            self.record(Record::Remove { key });
        }
        removed
    }

    pub(crate) fn set_deadline(&mut self, key: &[u8], deadline: u64) -> bool {
        // A deadline that has passed already is a removal.
        if deadline <= self.now.unix_ms() {
            return self.remove(key);
        }
        let found = self.store.set_deadline(key, deadline);
        if found {
            self.record(Record::Deadline { key, deadline });
        }
        found
    }

    pub(crate) fn clear(&mut self) {
        if !self.store.is_empty() {
            self.store.clear();
            self.record(Record::Clear);
        }
    }
}
