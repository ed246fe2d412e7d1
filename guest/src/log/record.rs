//! Changes of the store, as bytes.

use crate::store::Store;
use alloc::vec::Vec;

const SET: u8 = 1;
const APPEND: u8 = 2;
const REMOVE: u8 = 3;
const DEADLINE: u8 = 4;
const CLEAR: u8 = 5;
const WALKED: u8 = 6;

/// A change of the store. All but `Append` say how things are afterwards: applied to an older or a newer state, they do no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A key has this value and this deadline.
    Set {
        /// The key.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When it expires.
        deadline: u64,
    },
    /// A value became longer.
    Append {
        /// Its key.
        key: &'a [u8],
        /// What was appended.
        tail: &'a [u8],
    },
    /// A key is gone.
    Remove {
        /// The key.
        key: &'a [u8],
    },
    /// A key has another deadline.
    Deadline {
        /// The key.
        key: &'a [u8],
        /// When it expires.
        deadline: u64,
    },
    /// All keys are gone.
    Clear,
    /// No change: compaction has written all entries below this cursor to where this record is.
    Walked {
        /// Where it goes on.
        cursor: u64,
    },
}

impl<'a> Record<'a> {
    /// Appends it to `to`.
    pub fn encode(&self, to: &mut Vec<u8>) {
        match *self {
            Self::Set { key, value, deadline } => {
                to.push(SET);
                to.extend_from_slice(&deadline.to_le_bytes());
                put(to, key);
                put(to, value);
            }
            Self::Append { key, tail } => {
                to.push(APPEND);
                put(to, key);
                put(to, tail);
            }
            Self::Remove { key } => {
                to.push(REMOVE);
                put(to, key);
            }
            Self::Deadline { key, deadline } => {
                to.push(DEADLINE);
                to.extend_from_slice(&deadline.to_le_bytes());
                put(to, key);
            }
            Self::Clear => to.push(CLEAR),
            Self::Walked { cursor } => {
                to.push(WALKED);
                to.extend_from_slice(&cursor.to_le_bytes());
            }
        }
    }

    /// Takes one from the front of `from`; `None` when that is no record.
    pub fn decode(from: &mut &'a [u8]) -> Option<Self> {
        let kind = from.split_off_first()?;
        Some(match *kind {
            SET => {
                let deadline = number(from)?;
                Self::Set { key: bytes(from)?, value: bytes(from)?, deadline }
            }
            APPEND => Self::Append { key: bytes(from)?, tail: bytes(from)? },
            REMOVE => Self::Remove { key: bytes(from)? },
            DEADLINE => {
                let deadline = number(from)?;
                Self::Deadline { key: bytes(from)?, deadline }
            }
            CLEAR => Self::Clear,
            WALKED => Self::Walked { cursor: number(from)? },
            _ => return None,
        })
    }

    /// Makes the change.
    pub fn apply(&self, store: &mut Store) {
        match *self {
            Self::Set { key, value, deadline } => store.set(key, value, deadline),
            Self::Append { key, tail } => {
                store.append(key, tail);
            }
            Self::Remove { key } => {
                store.remove(key);
            }
            Self::Deadline { key, deadline } => {
                store.set_deadline(key, deadline);
            }
            Self::Clear => store.clear(),
            Self::Walked { .. } => {}
        }
    }
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    to.extend_from_slice(bytes);
}

fn number(from: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(u64::from_le_bytes(*bytes))
}

fn bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk()?;
    *from = rest;
    from.split_off(..u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_their_pieces_do_not() {
        let records = [
            Record::Set { key: b"k", value: b"value", deadline: 7 },
            Record::Append { key: b"", tail: b"xyz" },
            Record::Remove { key: &[0; 300] },
            Record::Deadline { key: b"k", deadline: u64::MAX },
            Record::Clear,
            Record::Walked { cursor: 1 << 62 },
        ];
        for record in records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let mut rest = &bytes[..];
            assert_eq!(Record::decode(&mut rest), Some(record));
            assert!(rest.is_empty());
            for length in 0..bytes.len() {
                assert_eq!(Record::decode(&mut &bytes[..length]), None, "{record:?} cut to {length}");
            }
        }
        assert_eq!(Record::decode(&mut &[9u8; 20][..]), None);
    }
}
