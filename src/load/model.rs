//! One connection's keys: what it asked for, and what each reply must therefore be.
//!
//! Requests of a connection are executed in their order and nobody else touches its keys, so the model runs ahead: it applies
//! a write when it is sent. What is known to be applied follows with the replies.
//!
//! Invariant: after a fault a key is given up for one with a name that was never used, and no reply about the old one
//! is checked, so that one fault counts once and cannot be the cause of another.

use super::config::LoadConfig;
use super::faults::Faults;
use super::keys::{Key, Kind, PIECE, Rng, State, compare_count};
use super::resp::{Reply, encode};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Instant;

/// Pieces of a log before it is deleted.
const LONGEST_LOG: u64 = 64;
/// Most registers written by one MSET.
const MOST_SET: usize = 4;

struct Entry {
    /// What the key holds once all requests are executed.
    sent: State,
    /// What it holds after those that were answered.
    acknowledged: State,
    /// Pieces of a log before it was last deleted.
    deleted: u64,
    generation: u32,
    /// The next request makes the key, because nothing is known about it: an earlier run may have left it.
    fresh: bool,
    /// Number of the next write.
    next: u64,
}

/// What a reply must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Ok,
    /// The number of deleted keys, when it is not known whether there was one.
    ZeroOrOne,
    /// Whether the key was there.
    There(bool),
    /// A counter after INCR.
    Count(u64),
    /// Pieces of a log after APPEND, and how many more there are if the last deletion is lost.
    Length {
        pieces: u64,
        deleted: u64,
    },
    /// What GET finds.
    Content(State),
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) key: Key,
    pub(super) expected: Expected,
    /// It makes the key, whatever was there before.
    pub(super) makes: bool,
    /// Keys that it changes, and what they hold then.
    pub(super) effects: Vec<(Key, State)>,
    pub(super) sent_at: Instant,
    /// Bytes of the request and, about, of the reply.
    pub(super) bytes: usize,
}

pub(super) struct Model {
    connection: usize,
    prefix: String,
    keys: usize,
    value_size: RangeInclusive<usize>,
    /// Of the next key that is made.
    next_generation: u32,
    entries: BTreeMap<(Kind, usize), Entry>,
    rng: Rng,
}

impl Model {
    pub(super) fn new(config: &LoadConfig, connection: usize) -> Self {
        let mut mix = Rng::new(config.seed);
        let seed = mix.next() ^ Rng::new(connection as u64).next();
        let mut model = Self {
            connection,
            prefix: config.prefix.clone(),
            keys: config.keys,
            value_size: config.value_size.clone(),
            next_generation: 1,
            entries: BTreeMap::new(),
            rng: Rng::new(seed),
        };
        for kind in [Kind::Register, Kind::Counter, Kind::Log] {
            for index in 0..config.keys {
                model.entries.insert((kind, index), Entry::fresh(0));
            }
        }
        model
    }

    /// Goes on with keys that nobody ever used, because requests under way may still change the old ones.
    pub(super) fn use_fresh_keys(&mut self) {
        for entry in self.entries.values_mut() {
            *entry = Entry::fresh(self.next_generation);
        }
        self.next_generation += 1;
    }

    /// The name of a key on the server.
    pub(super) fn name(&self, key: Key) -> Vec<u8> {
        key.name(&self.prefix)
    }

    /// Keys about which something is known, and what they hold after all requests that were answered.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = (Key, State)> {
        let known = self.entries.iter().filter(|(_, entry)| !entry.fresh);
        known.map(|((kind, index), entry)| (self.key(*kind, *index), entry.acknowledged))
    }

    /// Makes the next request and appends it to `out`.
    pub(super) fn next_request(&mut self, out: &mut Vec<u8>, now: Instant) -> Pending {
        let before = out.len();
        let index = self.rng.below(self.keys);
        // Half of the requests are for registers, the rest for counters and logs.
        let kind = match self.rng.below(8) {
            0..4 => Kind::Register,
            4..6 => Kind::Counter,
            _ => Kind::Log,
        };
        let key = self.key(kind, index);
        let makes = self.entries[&(kind, index)].fresh;
        let (expected, effects) = if makes {
            self.make(key, out)
        } else {
            match kind {
                Kind::Register => self.use_register(key, out),
                Kind::Counter => self.use_counter(key, out),
                Kind::Log => self.use_log(key, out),
            }
        };
        for (key, state) in &effects {
            self.entry(*key).sent = *state;
        }
        let bytes = out.len() - before + expected.size();
        Pending { key, expected, makes, effects, sent_at: now, bytes }
    }

    /// The key that is now in this place.
    fn key(&self, kind: Kind, index: usize) -> Key {
        Key { kind, index, connection: self.connection, generation: self.entries[&(kind, index)].generation }
    }

    fn entry(&mut self, key: Key) -> &mut Entry {
        self.entries.get_mut(&(key.kind, key.index)).expect("all places are filled at the start")
    }

    fn make(&mut self, key: Key, out: &mut Vec<u8>) -> (Expected, Vec<(Key, State)>) {
        let name = self.name(key);
        self.entry(key).fresh = false;
        if key.kind == Kind::Counter {
            encode(out, &[b"SET", &name, key.base().to_string().as_bytes()]);
            (Expected::Ok, vec![(key, State::Count(key.base()))])
        } else {
            encode(out, &[b"DEL", &name]);
            (Expected::ZeroOrOne, vec![(key, State::Absent)])
        }
    }

    fn use_register(&mut self, key: Key, out: &mut Vec<u8>) -> (Expected, Vec<(Key, State)>) {
        let (name, state) = (self.name(key), self.entry(key).sent);
        let there = state != State::Absent;
        match self.rng.below(16) {
            0..6 => {
                encode(out, &[b"GET", &name]);
                (Expected::Content(state), Vec::new())
            }
            6..11 => {
                let written = self.write(key);
                encode(out, &[b"SET", &name, &content(key, written)]);
                (Expected::Ok, vec![(key, written)])
            }
            11..13 => {
                let mut effects = Vec::new();
                for offset in 0..MOST_SET.min(self.keys) {
                    let key = self.key(key.kind, (key.index + offset) % self.keys);
                    if !self.entry(key).fresh {
                        let written = self.write(key);
                        effects.push((key, written));
                    }
                }
                let mut words = vec![b"MSET".to_vec()];
                for (key, written) in &effects {
                    words.extend([self.name(*key), content(*key, *written)]);
                }
                encode(out, &words.iter().map(Vec::as_slice).collect::<Vec<_>>());
                (Expected::Ok, effects)
            }
            13 => {
                encode(out, &[b"DEL", &name]);
                (Expected::There(there), vec![(key, State::Absent)])
            }
            _ => {
                encode(out, &[b"EXISTS", &name]);
                (Expected::There(there), Vec::new())
            }
        }
    }

    /// The next write of a register.
    fn write(&mut self, key: Key) -> State {
        let (shortest, longest) = (*self.value_size.start(), *self.value_size.end());
        let size = shortest + self.rng.below(longest - shortest + 1);
        let entry = self.entry(key);
        let number = entry.next;
        entry.next += 1;
        State::Written { number, size }
    }

    fn use_counter(&mut self, key: Key, out: &mut Vec<u8>) -> (Expected, Vec<(Key, State)>) {
        let (name, state) = (self.name(key), self.entry(key).sent);
        let State::Count(count) = state else { return self.make(key, out) };
        if self.rng.below(8) == 0 {
            encode(out, &[b"GET", &name]);
            return (Expected::Content(state), Vec::new());
        }
        encode(out, &[b"INCR", &name]);
        (Expected::Count(count + 1), vec![(key, State::Count(count + 1))])
    }

    fn use_log(&mut self, key: Key, out: &mut Vec<u8>) -> (Expected, Vec<(Key, State)>) {
        let (name, entry) = (self.name(key), self.entry(key));
        let (state, next, deleted) = (entry.sent, entry.next, entry.deleted);
        let (first, count) = match state {
            State::Pieces { first, count } => (first, count),
            _ => (next, 0),
        };
        if count >= LONGEST_LOG {
            entry.deleted = count;
            encode(out, &[b"DEL", &name]);
            return (Expected::There(true), vec![(key, State::Absent)]);
        }
        if self.rng.below(4) == 0 {
            encode(out, &[b"GET", &name]);
            return (Expected::Content(state), Vec::new());
        }
        self.entry(key).next += 1;
        encode(out, &[b"APPEND", &name, &key.piece(next)]);
        let pieces = count + 1;
        (Expected::Length { pieces, deleted }, vec![(key, State::Pieces { first, count: pieces })])
    }

    /// A request was answered.
    pub(super) fn acknowledge(&mut self, pending: &Pending) {
        for (key, state) in &pending.effects {
            if self.is_current(*key) {
                self.entry(*key).acknowledged = *state;
            }
        }
    }

    /// Whether the key was not given up since.
    pub(super) fn is_current(&self, key: Key) -> bool {
        self.entries.get(&(key.kind, key.index)).is_some_and(|entry| entry.generation == key.generation)
    }

    /// Nothing is known about the keys of this request any more.
    pub(super) fn give_up(&mut self, pending: &Pending) {
        let changed = pending.effects.iter().map(|(key, _)| *key);
        for key in changed.chain([pending.key]) {
            if self.is_current(key) {
                *self.entry(key) = Entry::fresh(self.next_generation);
            }
        }
        self.next_generation += 1;
    }
}

impl Entry {
    fn fresh(generation: u32) -> Self {
        let absent = State::Absent;
        Self { sent: absent, acknowledged: absent, deleted: 0, generation, fresh: true, next: 1 }
    }
}

fn content(key: Key, state: State) -> Vec<u8> {
    match state {
        State::Written { number, size } => key.value(number, size),
        State::Absent | State::Count(_) | State::Pieces { .. } => Vec::new(),
    }
}

impl Expected {
    /// What a reply to a request for `key` says.
    pub(super) fn compare(self, key: Key, reply: &Reply<&[u8]>) -> Faults {
        match (self, reply) {
            (Self::Ok, Reply::Simple(b"OK")) | (Self::ZeroOrOne, Reply::Integer(0 | 1)) => Faults::NONE,
            // Either the write or the deletion before it left no trace.
            (Self::There(there), Reply::Integer(number @ (0 | 1))) => match (*number == 1) == there {
                true => Faults::NONE,
                false => Faults::lost(1),
            },
            (Self::Count(count), Reply::Integer(number)) => {
                u64::try_from(*number).map_or(Faults::CORRUPTED, |actual| compare_count(key, count, actual))
            }
            (Self::Length { pieces, deleted }, Reply::Integer(length)) => match usize::try_from(*length) {
                Ok(length) if length % PIECE == 0 => compare_length(pieces, deleted, (length / PIECE) as u64),
                _ => Faults::CORRUPTED,
            },
            (Self::Content(state), Reply::Bulk(content)) => state.compare(key, *content),
            _ => Faults::CORRUPTED,
        }
    }

    /// About the bytes of the reply.
    fn size(self) -> usize {
        match self {
            Self::Content(State::Written { size, .. }) => size + 16,
            Self::Content(State::Pieces { count, .. }) => count as usize * PIECE + 16,
            _ => 16,
        }
    }
}

/// A log that should have `expected` pieces, after `deleted` ones were deleted.
fn compare_length(expected: u64, deleted: u64, actual: u64) -> Faults {
    match deleted > 0 && actual == expected + deleted {
        true => Faults::lost(1),
        false => Faults::of_count(expected, actual),
    }
}
