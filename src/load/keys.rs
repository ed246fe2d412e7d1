//! Names and contents of keys. Every content says which key it belongs to and which write it is from.

use super::faults::Faults;

/// First number of a counter is this times its place, so that no counter is mistaken for another.
const COUNTER_STEP: u64 = 1_000_000_000_000;
/// A counter that is further off than this is not a counter any more.
const FAR_OFF: u64 = 1_000_000_000;
/// Bytes of one piece of a log: six hexadecimal digits of the key, nine of the number, a semicolon.
pub(super) const PIECE: usize = 16;

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// SET, MSET, GET, DEL, EXISTS.
    Register,
    /// INCR, GET.
    Counter,
    /// APPEND, GET, DEL.
    Log,
}

/// A key of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) index: usize,
    pub(super) connection: usize,
    /// No two keys in the same place of a connection have the same.
    pub(super) generation: u32,
}

/// What a key should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    /// The value of a register's write with this number.
    Written {
        number: u64,
        size: usize,
    },
    Count(u64),
    /// Pieces of a log.
    Pieces {
        first: u64,
        count: u64,
    },
}

impl Key {
    pub(super) fn name(self, prefix: &str) -> Vec<u8> {
        format!("{prefix}:{}", self.tag()).into_bytes()
    }

    fn tag(self) -> String {
        let kind = match self.kind {
            Kind::Register => 'r',
            Kind::Counter => 'c',
            Kind::Log => 'l',
        };
        format!("{}.{}:{kind}{}", self.connection, self.generation, self.index)
    }

    /// Where a counter starts.
    pub(super) fn base(self) -> u64 {
        COUNTER_STEP * (1 + (self.connection * 1000 + self.index % 1000) as u64)
    }

    /// The value of a register's write: `<tag>#<number>#` and filler that depends on the number.
    pub(super) fn value(self, number: u64, size: usize) -> Vec<u8> {
        let mut value = format!("{}#{number}#", self.tag()).into_bytes();
        let mut filler = Rng::new(number);
        while value.len() < size {
            value.push(b'a' + (filler.next() % 26) as u8);
        }
        value
    }

    /// The number of the write whose value this is, if it looks like a value of this key.
    fn number_of(self, value: &[u8]) -> Option<u64> {
        let rest = value.strip_prefix(self.tag().as_bytes())?.strip_prefix(b"#")?;
        let digits = rest.split(|byte| *byte == b'#').next()?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    pub(super) fn piece(self, number: u64) -> [u8; PIECE] {
        let mut piece = [b';'; PIECE];
        let text = format!("{:06x}{number:09x}", self.owner());
        piece[..PIECE - 1].copy_from_slice(&text.as_bytes()[..PIECE - 1]);
        piece
    }

    /// What a piece says about its log.
    fn owner(self) -> u64 {
        (self.connection * 1000 + self.index % 1000) as u64 & 0xFF_FFFF
    }

    /// The number of a piece, if it is one of this log.
    fn number_of_piece(self, piece: &[u8]) -> Option<u64> {
        let text = std::str::from_utf8(piece).ok()?.strip_suffix(';')?;
        let (owner, number) = text.split_at_checked(6)?;
        let [owner, number] = [owner, number].map(|digits| u64::from_str_radix(digits, 16).ok());
        number.filter(|_| owner == Some(self.owner()))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.tag())
    }
}

impl State {
    /// What the key's content says about its writes.
    pub(super) fn compare(self, key: Key, content: Option<&[u8]>) -> Faults {
        match (self, content) {
            (Self::Absent, None) => Faults::NONE,
            (Self::Absent, Some(content)) => {
                let known = match key.kind {
                    Kind::Log => content.first_chunk::<PIECE>().and_then(|piece| key.number_of_piece(piece)),
                    Kind::Register | Kind::Counter => key.number_of(content),
                };
                // What was deleted, and is still there.
                known.map_or(Faults::CORRUPTED, |_| Faults::lost(1))
            }
            (Self::Written { .. }, None) => Faults::lost(1),
            (Self::Written { number, size }, Some(content)) => {
                if content == key.value(number, size) {
                    return Faults::NONE;
                }
                match key.number_of(content) {
                    Some(other) if other < number => Faults::lost(1),
                    Some(other) if other > number => Faults::MISORDERED,
                    _ => Faults::CORRUPTED,
                }
            }
            (Self::Count(count), None) => Faults::lost(count - key.base()),
            (Self::Count(count), Some(content)) => {
                let actual = std::str::from_utf8(content).ok().and_then(|text| text.parse().ok());
                actual.map_or(Faults::CORRUPTED, |actual| compare_count(key, count, actual))
            }
            (Self::Pieces { count, .. }, None) => Faults::lost(count),
            (Self::Pieces { first, count }, Some(content)) => compare_pieces(key, first, count, content),
        }
    }
}

/// A counter that should be at `expected`.
pub(super) fn compare_count(key: Key, expected: u64, actual: u64) -> Faults {
    match actual {
        _ if actual.abs_diff(expected) < FAR_OFF => Faults::of_count(expected, actual),
        // It began again from nothing.
        _ if actual < FAR_OFF => Faults::lost(expected - key.base()),
        _ => Faults::CORRUPTED,
    }
}

fn compare_pieces(key: Key, first: u64, count: u64, content: &[u8]) -> Faults {
    let pieces = content.chunks_exact(PIECE);
    if !pieces.remainder().is_empty() {
        return Faults::CORRUPTED;
    }
    let mut faults = Faults::NONE;
    let mut seen = vec![0u64; count as usize];
    let (mut latest, mut undeleted) = (0, false);
    for piece in pieces {
        match key.number_of_piece(piece) {
            // From before a deletion, which then is lost.
            Some(number) if number < first => undeleted = true,
            Some(number) if number < first + count => {
                let at = (number - first) as usize;
                faults.misordered += u64::from(seen[at] == 0 && at < latest);
                seen[at] += 1;
                latest = latest.max(at);
            }
            _ => return Faults::CORRUPTED,
        }
    }
    faults.lost = seen.iter().filter(|times| **times == 0).count() as u64 + u64::from(undeleted);
    faults.duplicated = seen.iter().map(|times| times.saturating_sub(1)).sum();
    faults
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Kind) -> Key {
        Key { kind, index: 3, connection: 2, generation: 1 }
    }

    #[test]
    fn a_register_says_what_became_of_its_writes() {
        let key = key(Kind::Register);
        let state = State::Written { number: 5, size: 100 };
        let compare = |content: Option<&[u8]>| state.compare(key, content);
        assert_eq!(compare(Some(&key.value(5, 100))), Faults::NONE);
        assert_eq!(compare(Some(&key.value(4, 70))), Faults::lost(1));
        assert_eq!(compare(None), Faults::lost(1));
        assert_eq!(compare(Some(&key.value(6, 70))), Faults::MISORDERED);
        let mut broken = key.value(5, 100);
        broken[60] ^= 1;
        assert_eq!(compare(Some(&broken)), Faults::CORRUPTED);
        assert_eq!(compare(Some(&broken[..99])), Faults::CORRUPTED);
        assert_eq!(State::Absent.compare(key, Some(&key.value(1, 9))), Faults::lost(1));
        assert_eq!(State::Absent.compare(key, Some(b"?")), Faults::CORRUPTED);
        assert_eq!(State::Absent.compare(key, None), Faults::NONE);
    }

    #[test]
    fn a_counter_says_how_many_are_missing_or_too_many() {
        let key = key(Kind::Counter);
        let state = State::Count(key.base() + 10);
        let compare = |content: u64| state.compare(key, Some(content.to_string().as_bytes()));
        assert_eq!(compare(key.base() + 10), Faults::NONE);
        assert_eq!(compare(key.base() + 8), Faults::lost(2));
        assert_eq!(compare(key.base() + 11), Faults::duplicated(1));
        assert_eq!(compare(1), Faults::lost(10));
        assert_eq!(compare(2 * key.base()), Faults::CORRUPTED);
        assert_eq!(state.compare(key, None), Faults::lost(10));
        assert_eq!(state.compare(key, Some(b"x")), Faults::CORRUPTED);
    }

    #[test]
    fn a_log_says_which_pieces_are_missing_or_too_many() {
        let key = key(Kind::Log);
        let state = State::Pieces { first: 7, count: 4 };
        let compare = |numbers: &[u64]| {
            let content: Vec<u8> = numbers.iter().flat_map(|number| key.piece(*number)).collect();
            state.compare(key, Some(&content))
        };
        assert_eq!(compare(&[7, 8, 9, 10]), Faults::NONE);
        assert_eq!(compare(&[7, 9, 10]), Faults::lost(1));
        assert_eq!(compare(&[8]), Faults::lost(3));
        assert_eq!(compare(&[7, 8, 8, 9, 10]), Faults::duplicated(1));
        assert_eq!(compare(&[7, 8, 7, 10]), Faults { lost: 1, duplicated: 1, ..Faults::NONE });
        assert_eq!(compare(&[7, 9, 8, 10]), Faults::MISORDERED);
        assert_eq!(compare(&[5, 6, 7, 8, 9, 10]), Faults::lost(1));
        assert_eq!(compare(&[7, 8, 9, 11]), Faults::CORRUPTED);
        assert_eq!(state.compare(key, Some(&[0; 15])), Faults::CORRUPTED);
        assert_eq!(state.compare(key, None), Faults::lost(4));
    }
}
