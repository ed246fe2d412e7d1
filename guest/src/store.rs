//! The keys and their values.
//!
//! Keys are ordered by a hash of theirs, which never changes. So a scan's cursor is a place in that order: whatever is added or removed
//! meanwhile, a key that was there all the time is returned. A tree grows by one node at a time: there is no moment at which everything
//! is moved, and no allocation that grows with the number of keys.
//!
//! Invariant: `used` is the sum of what the entries cost, `record_bytes` of what they take in the log; `deadlines` names exactly the
//! entries that have one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::iter::successors;

/// Longest key.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// The deadline of what never expires.
pub const NEVER: u64 = u64::MAX;
/// What an entry takes in the log beside key and value, at most.
pub const RECORD_OVERHEAD_BYTES: u64 = 32;

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    key: Box<[u8]>,
    value: Vec<u8>,
    deadline: u64,
    /// Another key with the same hash.
    next: Option<Box<Entry>>,
}

impl Entry {
    /// Its key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// When it expires, in milliseconds since 1970, or [`NEVER`].
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    fn chain(&self) -> impl Iterator<Item = &Entry> {
        successors(Some(self), |entry| entry.next.as_deref())
    }

    fn cost(&self) -> u64 {
        let deadline = if self.deadline == NEVER { 0 } else { DEADLINE_COST };
        cost(self.key.len(), self.value.capacity()) + deadline
    }

    fn record_bytes(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64 + RECORD_OVERHEAD_BYTES
    }
}

/// No room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// In memory.
    Memory,
    /// On the disk.
    Disk,
}

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, overhead included.
    pub memory_bytes: u64,
    /// Bytes of records in the log.
    pub record_bytes: u64,
}

/// The keys and their values.
#[derive(Clone, Debug)]
pub struct Store {
    entries: BTreeMap<u64, Entry>,
    deadlines: BTreeSet<(u64, u64)>,
    count: usize,
    used: u64,
    record_bytes: u64,
    limits: Limits,
    hash: fn(&[u8]) -> u64,
}

/// What a deadline adds to the cost of an entry.
pub const DEADLINE_COST: u64 = 48;

/// What the allocator adds to the bytes of an allocation in [`cost`], at most.
pub const ALLOCATION_OVERHEAD_MAX: u64 = 39;

/// The memory that an entry takes, roughly and rather too much: its place in the tree, and two allocations.
pub fn cost(key_bytes: usize, value_bytes: usize) -> u64 {
    let allocation = |bytes: usize| if bytes == 0 { 0 } else { (bytes as u64 + 8).next_multiple_of(16) + 16 };
    112 + allocation(key_bytes) + allocation(value_bytes)
}

/// 63 bits: clients that take a cursor for a signed number get along.
fn hash(key: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(key) >> 1
}

impl Store {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            entries: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            count: 0,
            used: 0,
            record_bytes: 0,
            limits,
            hash,
        }
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many keys have a deadline, but for those that share hash and deadline.
    pub fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Memory taken.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// What all entries take in the log.
    pub fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// How much may be kept.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Sets how much may be kept. What is there stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The entry of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(&(self.hash)(key))?.chain().find(|entry| *entry.key == *key)
    }

    /// Whether entries can be added that cost `bytes` of memory and take `record_bytes` in the log.
    ///
    /// # Errors
    /// What is full.
    pub fn admit(&self, bytes: u64, record_bytes: u64) -> Result<(), Full> {
        if self.used + bytes > self.limits.memory_bytes {
            return Err(Full::Memory);
        }
        if self.record_bytes + record_bytes > self.limits.record_bytes {
            return Err(Full::Disk);
        }
        Ok(())
    }

    /// Sets a key, whether or not it was there. Whoever must keep within the limits asks [`Store::admit`] first.
    pub fn set(&mut self, key: &[u8], value: &[u8], deadline: u64) {
        self.change(key, |entry| {
            // A much smaller value gives the memory of the old one back.
            if entry.value.capacity() / 2 > value.len() {
                entry.value = Vec::new();
            }
            entry.value.clear();
            entry.value.reserve_exact(value.len());
            entry.value.extend_from_slice(value);
            entry.deadline = deadline;
        });
    }

    /// Appends to a value, from nothing if there is none. Returns its length.
    pub fn append(&mut self, key: &[u8], tail: &[u8]) -> usize {
        let mut bytes = 0;
        self.change(key, |entry| {
            // A quarter of slack: appending is cheap, and so is what it wastes.
            let wanted = entry.value.len() + tail.len();
            if wanted > entry.value.capacity() {
                entry.value.reserve_exact(tail.len() + wanted / 4);
            }
            entry.value.extend_from_slice(tail);
            bytes = entry.value.len();
        });
        bytes
    }

    /// Sets when a key expires. Returns whether there is such a key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: u64) -> bool {
        let found = self.get(key).is_some();
        if found {
            self.change(key, |entry| entry.deadline = deadline);
        }
        found
    }

    /// Removes a key. Returns whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let hash = (self.hash)(key);
        let Some(first) = self.entries.get_mut(&hash) else { return false };
        let removed = if *first.key == *key {
            let Some(mut first) = self.entries.remove(&hash) else { return false };
            if let Some(next) = first.next.take() {
                self.entries.insert(hash, *next);
            }
            first
        } else {
            let mut place = &mut first.next;
            while place.as_ref().is_some_and(|entry| *entry.key != *key) {
                place = &mut place.as_mut().expect("just seen").next;
            }
            let Some(mut removed) = place.take() else { return false };
            *place = removed.next.take();
            *removed
        };
        self.count -= 1;
        self.used -= removed.cost();
        self.record_bytes -= removed.record_bytes();
        self.forget_deadline(hash, removed.deadline);
        true
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        let hash = self.hash;
        *self = Self { hash, ..Self::new(self.limits) };
    }

    /// A key that has expired by now, if any.
    pub fn due(&self, now: u64) -> Option<&[u8]> {
        let (deadline, hash) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        let mut chain = self.entries.get(hash)?.chain();
        chain.find(|entry| entry.deadline == *deadline).map(Entry::key)
    }

    /// Entries from `cursor` on (0: the first), at least `count` of them unless there are no more. Returns the cursor to go on with,
    /// 0 at the end.
    pub fn scan<'a>(&'a self, cursor: u64, count: usize, mut each: impl FnMut(&'a Entry)) -> u64 {
        let mut seen = 0;
        for (hash, first) in self.entries.range(cursor..) {
            if seen >= count {
                return *hash;
            }
            for entry in first.chain() {
                each(entry);
                seen += 1;
            }
        }
        0
    }

    /// Changes an entry, made empty first if there is none, and keeps the sums.
    fn change(&mut self, key: &[u8], change: impl FnOnce(&mut Entry)) {
        let hash = (self.hash)(key);
        let (entry, fresh) = place(&mut self.entries, hash, key);
        if !fresh {
            self.used -= entry.cost();
            self.record_bytes -= entry.record_bytes();
        }
        let was = entry.deadline;
        change(entry);
        let deadline = entry.deadline;
        self.count += usize::from(fresh);
        self.used += entry.cost();
        self.record_bytes += entry.record_bytes();
        if deadline != was {
            self.forget_deadline(hash, was);
        }
        if deadline != was && deadline != NEVER {
            self.deadlines.insert((deadline, hash));
        }
    }

    fn forget_deadline(&mut self, hash: u64, deadline: u64) {
        let shared = self
            .entries
            .get(&hash)
            .is_some_and(|first| first.chain().any(|entry| entry.deadline == deadline));
        if deadline != NEVER && !shared {
            self.deadlines.remove(&(deadline, hash));
        }
    }
}

/// The entry of `key`, made empty if there is none; and whether it was made.
fn place<'a>(entries: &'a mut BTreeMap<u64, Entry>, hash: u64, key: &[u8]) -> (&'a mut Entry, bool) {
    let new = || Entry { key: key.into(), value: Vec::new(), deadline: NEVER, next: None };
    let mut fresh = false;
    let mut entry = entries.entry(hash).or_insert_with(|| {
        fresh = true;
        new()
    });
    while *entry.key != *key {
        entry = entry.next.get_or_insert_with(|| {
            fresh = true;
            Box::new(new())
        });
    }
    (entry, fresh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const ROOMY: Limits = Limits { memory_bytes: u64::MAX / 2, record_bytes: u64::MAX / 2 };

    /// Nearly all keys collide.
    fn colliding() -> Store {
        Store { hash: |key| key.first().map_or(0, |byte| u64::from(*byte % 3)), ..Store::new(ROOMY) }
    }

    fn check(store: &Store) {
        let mut entries = Vec::new();
        assert_eq!(store.scan(0, usize::MAX, |entry| entries.push(entry)), 0);
        assert_eq!(entries.len(), store.len());
        assert_eq!(entries.iter().map(|entry| entry.cost()).sum::<u64>(), store.used());
        assert_eq!(entries.iter().map(|entry| entry.record_bytes()).sum::<u64>(), store.record_bytes());
        let deadlines: BTreeSet<_> = entries
            .iter()
            .filter(|entry| entry.deadline != NEVER)
            .map(|entry| (entry.deadline, (store.hash)(&entry.key)))
            .collect();
        assert_eq!(deadlines, store.deadlines);
    }

    #[derive(Clone, Debug)]
    enum Change {
        Set(u8, Vec<u8>, u64),
        Append(u8, Vec<u8>),
        Remove(u8),
        Deadline(u8, u64),
        Expire(u64),
        Clear,
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let value = || prop::collection::vec(any::<u8>(), 0..50);
        let deadline = prop_oneof![Just(NEVER), 1u64..10];
        prop_oneof![
            4 => (0u8..12, value(), deadline.clone()).prop_map(|(k, v, d)| Change::Set(k, v, d)),
            2 => (0u8..12, value()).prop_map(|(k, v)| Change::Append(k, v)),
            3 => (0u8..12).prop_map(Change::Remove),
            2 => (0u8..12, deadline).prop_map(|(k, d)| Change::Deadline(k, d)),
            1 => (1u64..10).prop_map(Change::Expire),
            1 => Just(Change::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_store_is_a_map(changes in prop::collection::vec(any_change(), 0..60)) {
            let mut store = colliding();
            let mut model: HashMap<Vec<u8>, (Vec<u8>, u64)> = HashMap::new();
            for change in changes {
                match change {
                    Change::Set(key, value, deadline) => {
                        store.set(&[key], &value, deadline);
                        model.insert(vec![key], (value, deadline));
                    }
                    Change::Append(key, tail) => {
                        let bytes = store.append(&[key], &tail);
                        let entry = model.entry(vec![key]).or_insert((Vec::new(), NEVER));
                        entry.0.extend(tail);
                        prop_assert_eq!(bytes, entry.0.len());
                    }
                    Change::Remove(key) => {
                        prop_assert_eq!(store.remove(&[key]), model.remove(&vec![key]).is_some());
                    }
                    Change::Deadline(key, deadline) => {
                        let entry = model.get_mut(&vec![key]);
                        prop_assert_eq!(store.set_deadline(&[key], deadline), entry.is_some());
                        entry.into_iter().for_each(|entry| entry.1 = deadline);
                    }
                    Change::Expire(now) => {
                        while let Some(key) = store.due(now).map(Vec::from) {
                            prop_assert!(store.remove(&key));
                        }
                        model.retain(|_, (_, deadline)| *deadline > now);
                    }
                    Change::Clear => {
                        store.clear();
                        model.clear();
                    }
                }
                check(&store);
                prop_assert_eq!(store.len(), model.len());
                for (key, (value, deadline)) in &model {
                    let entry = store.get(key).expect("the model has it");
                    prop_assert_eq!((entry.value(), entry.deadline()), (&value[..], *deadline));
                }
            }
        }
    }

    /// What Redis promises: who is there from beginning to end is returned, whatever comes and goes.
    #[test]
    fn a_scan_misses_no_key_that_stays() {
        let mut store = Store::new(ROOMY);
        let stays = |index: u32| format!("stays:{index}").into_bytes();
        let goes = |index: u32| format!("goes:{index}").into_bytes();
        (0..500).for_each(|index| store.set(&stays(index), b"", NEVER));
        (0..500).for_each(|index| store.set(&goes(index), b"", NEVER));
        let mut seen = BTreeSet::new();
        let (mut cursor, mut calls) = (0, 0);
        loop {
            cursor = store.scan(cursor, 7, |entry| {
                seen.insert(entry.key().to_vec());
            });
            if cursor == 0 {
                break;
            }
            for index in calls * 5..calls * 5 + 5 {
                store.remove(&goes(index));
                store.set(&format!("new:{index}").into_bytes(), b"", NEVER);
            }
            calls += 1;
        }
        assert!(calls > 100, "in many calls");
        assert!((0..500).all(|index| seen.contains(&stays(index))));
    }

    #[test]
    fn limits_are_kept() {
        let limits = Limits { memory_bytes: 1000, record_bytes: 400 };
        let mut store = Store::new(limits);
        assert_eq!(store.admit(cost(1, 900), 1), Err(Full::Memory));
        assert_eq!(store.admit(1, 401), Err(Full::Disk));
        store.set(b"k", &[0; 300], NEVER);
        assert_eq!(store.admit(1, 1), Ok(()));
        assert_eq!(store.admit(1, 400), Err(Full::Disk));
    }

    #[test]
    fn memory_of_a_large_value_is_given_back() {
        let mut store = Store::new(ROOMY);
        store.set(b"k", &[0; 100_000], NEVER);
        store.set(b"k", b"x", NEVER);
        assert!(store.used() < 1000);
    }
}
