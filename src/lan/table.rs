//! Which port an address is behind: where its last frame came from.
//!
//! Invariant: the table never holds more than its bound; what does not fit is not learned, and is reached by flooding.

use super::fabric::PortId;
use super::frame::Mac;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often a full table looks for entries that have aged.
const PURGE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    /// Nothing once the port is gone: it is not known where the address went, but it is known since when it is silent.
    port: Option<PortId>,
    heard: Instant,
}

/// What a frame told about its sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// Nothing new.
    Same,
    /// An address that was not known.
    New,
    /// The address was behind another port, and silent since.
    Moved { from: Option<PortId>, silent: Duration },
    /// The table is full.
    Full,
}

#[derive(Debug)]
pub(super) struct Table {
    entries: BTreeMap<Mac, Entry>,
    bound: usize,
    ageing: Duration,
    purged: Option<Instant>,
}

impl Table {
    pub(super) fn new(bound: usize, ageing: Duration) -> Self {
        Self { entries: BTreeMap::new(), bound, ageing, purged: None }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A frame from `mac` came in at `port`.
    pub(super) fn learn(&mut self, mac: Mac, port: PortId, now: Instant) -> Learned {
        if let Some(entry) = self.entries.get_mut(&mac) {
            let (from, heard) = (entry.port, entry.heard);
            *entry = Entry { port: Some(port), heard: now };
            return match from == Some(port) {
                true => Learned::Same,
                false => Learned::Moved { from, silent: now.saturating_duration_since(heard) },
            };
        }
        if self.entries.len() >= self.bound {
            self.purge(now);
        }
        if self.entries.len() >= self.bound {
            return Learned::Full;
        }
        self.entries.insert(mac, Entry { port: Some(port), heard: now });
        Learned::New
    }

    /// The port behind which `mac` is.
    pub(super) fn port_of(&self, mac: Mac, now: Instant) -> Option<PortId> {
        let entry = self.entries.get(&mac)?;
        let aged = now.saturating_duration_since(entry.heard) > self.ageing;
        if aged { None } else { entry.port }
    }

    /// The port is gone. Its addresses may turn up anywhere.
    pub(super) fn forget_port(&mut self, port: PortId) {
        for entry in self.entries.values_mut().filter(|entry| entry.port == Some(port)) {
            entry.port = None;
        }
    }

    /// Drops what has aged; not at every frame of a flood of forged addresses, because it looks at all entries.
    fn purge(&mut self, now: Instant) {
        if self.purged.is_some_and(|purged| now.saturating_duration_since(purged) < PURGE_EVERY) {
            return;
        }
        self.purged = Some(now);
        let ageing = self.ageing;
        self.entries
            .retain(|_, entry| entry.port.is_some() && now.saturating_duration_since(entry.heard) <= ageing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PortId = PortId(1);
    const B: PortId = PortId(2);
    const SECOND: Duration = Duration::from_secs(1);

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    #[test]
    fn an_address_is_where_its_last_frame_came_from() {
        let (mut table, t0) = (Table::new(8, 10 * SECOND), Instant::now());
        assert_eq!(table.port_of(mac(1), t0), None);
        assert_eq!(table.learn(mac(1), A, t0), Learned::New);
        assert_eq!(table.learn(mac(1), A, t0 + SECOND), Learned::Same);
        assert_eq!(table.port_of(mac(1), t0), Some(A));
        let moved = Learned::Moved { from: Some(A), silent: 2 * SECOND };
        assert_eq!(table.learn(mac(1), B, t0 + 3 * SECOND), moved);
        assert_eq!(table.port_of(mac(1), t0), Some(B));
    }

    #[test]
    fn a_silent_address_ages() {
        let (mut table, t0) = (Table::new(8, 10 * SECOND), Instant::now());
        table.learn(mac(1), A, t0);
        assert_eq!(table.port_of(mac(1), t0 + 10 * SECOND), Some(A));
        assert_eq!(table.port_of(mac(1), t0 + 11 * SECOND), None);
    }

    #[test]
    fn a_full_table_learns_nothing_until_something_has_aged() {
        let (mut table, t0) = (Table::new(2, 10 * SECOND), Instant::now());
        table.learn(mac(1), A, t0);
        table.learn(mac(2), A, t0 + 5 * SECOND);
        assert_eq!(table.learn(mac(3), B, t0 + 6 * SECOND), Learned::Full);
        assert_eq!(table.learn(mac(2), B, t0 + 6 * SECOND), Learned::Moved { from: Some(A), silent: SECOND });
        assert_eq!(table.learn(mac(3), B, t0 + 11 * SECOND), Learned::New);
        assert_eq!((table.len(), table.port_of(mac(1), t0)), (2, None));
    }

    #[test]
    fn the_addresses_of_a_port_that_is_gone_are_nowhere() {
        let (mut table, t0) = (Table::new(8, 10 * SECOND), Instant::now());
        table.learn(mac(1), A, t0);
        table.learn(mac(2), B, t0);
        table.forget_port(A);
        assert_eq!((table.port_of(mac(1), t0), table.port_of(mac(2), t0)), (None, Some(B)));
        let moved = Learned::Moved { from: None, silent: SECOND };
        assert_eq!(table.learn(mac(1), B, t0 + SECOND), moved);
    }
}
