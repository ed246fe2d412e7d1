//! The bytes that are sent.
//!
//! A pool is filled before the clock starts and then sent over and over. It is larger than any frame, so a contender
//! that compresses frame by frame finds no repetition in random data.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Close to the core, as a log is that has just been written: reading it from memory instead would cost every
/// contender the same and blur the ratios.
const POOL_BYTES: usize = 2 << 20;

/// What the bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Data {
    /// Incompressible
    Random,
    /// Compressible, like the log of a busy guest
    Realistic,
}

/// Fills a pool with content.
type Fill = fn(&mut [u8]);

impl Data {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Realistic => "realistic",
        }
    }

    /// The generator of this kind of content: the one place to change when the log can generate its own.
    fn fill(self) -> Fill {
        match self {
            Self::Random => fill_random,
            Self::Realistic => fill_log_like,
        }
    }
}

/// A volume of bytes, ready to be sent without copying.
#[derive(Clone)]
pub(super) struct Payload {
    pool: Bytes,
    bytes: u64,
}

impl Payload {
    pub(super) fn new(data: Data, bytes: u64) -> Self {
        let mut pool = vec![0; POOL_BYTES];
        data.fill()(&mut pool);
        Self { pool: pool.into(), bytes }
    }

    /// The volume in bytes.
    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// The whole volume in pieces of at most `piece` bytes; they share the pool's memory.
    pub(super) fn pieces(&self, piece: usize) -> impl Iterator<Item = Bytes> {
        let (mut offset, mut left) = (0, self.bytes);
        std::iter::from_fn(move || {
            if offset == self.pool.len() {
                offset = 0;
            }
            let room = piece.min(self.pool.len() - offset);
            let size = usize::try_from(left).map_or(room, |left| left.min(room));
            if size == 0 {
                return None;
            }
            let bytes = self.pool.slice(offset..offset + size);
            offset += size;
            left -= size as u64;
            Some(bytes)
        })
    }
}

/// SplitMix64 with a fixed seed: incompressible, and the same in every run.
fn fill_random(pool: &mut [u8]) {
    let mut state = 0x66745f_u64;
    for word in pool.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..word.len()]);
    }
}

/// Records with a rising counter, a few changing bytes and a text body: about as compressible as a log. Contenders
/// without compression only need its volume.
fn fill_log_like(pool: &mut [u8]) {
    const BODY: &[u8] = b"INVITE sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060\r\n";
    for (index, record) in pool.chunks_mut(128).enumerate() {
        let index = index as u64;
        let head = [index.to_le_bytes(), (index * 7919).to_le_bytes()].concat();
        for (byte, source) in record.iter_mut().zip(head.iter().chain(BODY)) {
            *byte = *source;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_volume() {
        for bytes in [0, 1, 4095, 4096, (POOL_BYTES as u64) * 2 + 17] {
            let payload = Payload::new(Data::Realistic, bytes);
            let total: u64 = payload.pieces(4096 + 1).map(|piece| piece.len() as u64).sum();
            assert_eq!(total, bytes);
        }
    }

    #[test]
    fn pieces_share_the_pool() {
        let payload = Payload::new(Data::Random, POOL_BYTES as u64 + 10);
        let pieces: Vec<Bytes> = payload.pieces(POOL_BYTES).collect();
        assert_eq!(pieces[0].as_ptr(), pieces[1].as_ptr());
    }

    #[test]
    fn random_bytes_use_every_value_about_equally() {
        let mut pool = vec![0; 1 << 20];
        fill_random(&mut pool);
        let mut counts = [0_u32; 256];
        pool.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least > Some(&3700) && most < Some(&4500), "{least:?}..{most:?}");
    }
}
