//! Digests that both sides compute and compare. XXH3-64: fast, stable across versions and machines; a guard against
//! error, not against forgery (the channel's TLS guards against that).

use std::hash::Hasher as _;
use twox_hash::XxHash3_64;

/// Digest of a whole machine: registers, device state and memory (R11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateDigest(pub u64);

/// The XXH3-64 of `bytes` under `seed`.
pub fn digest64(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// The XXH3-64 of `pieces`, one after the other, under `seed`.
pub(crate) fn digest64_pieces<'a>(seed: u64, pieces: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = XxHash3_64::with_seed(seed);
    pieces.into_iter().for_each(|piece| hasher.write(piece));
    hasher.finish()
}

/// Digests a state that is in several pieces. Integers go in as little-endian bytes; pieces are not delimited.
pub struct Digester(XxHash3_64);

impl Digester {
    /// An empty digest.
    pub fn new() -> Self {
        Self(XxHash3_64::with_seed(0))
    }

    /// Takes in bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.write(bytes);
        self
    }

    /// Takes in an integer.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// The digest of all that went in.
    pub fn finish(&self) -> StateDigest {
        StateDigest(self.0.finish())
    }
}

impl Default for Digester {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests travel between hosts and stay in files: these values may never change.
    #[test]
    fn known_values() {
        assert_eq!(digest64(0, b""), 0x2d06_8005_38d3_94c2);
        let whole = Digester::new().bytes(b"abcdefgh").u64(1).finish();
        assert_eq!(whole.0, digest64(0, b"abcdefgh\x01\0\0\0\0\0\0\0"));
        assert_ne!(digest64(0, b"a"), digest64(1, b"a"));
    }
}
