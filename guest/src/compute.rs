//! Work for processor and memory whose result everybody can check: sorting, hashing, a matrix product, and a chase through memory.
//!
//! Invariant: the checksum is a function of the number of rounds alone.

use alloc::vec;
use alloc::vec::Vec;
use twox_hash::XxHash3_64;

/// Numbers sorted in a round.
const SORT_COUNT: usize = 32 * 1024;
/// Bytes hashed in a round.
const HASH_BYTES: usize = 1 << 20;
/// Rows and columns of the matrices.
const MATRIX_SIDE: usize = 64;
/// Links of the chase: 4 MiB of them.
const CHASE_COUNT: usize = 1 << 20;
/// Links followed in a round.
const CHASE_STEPS: usize = 100_000;

/// Links made at a time.
const CYCLE_BLOCK: usize = 64 * 1024;

/// Does the work; the checksum covers all rounds. Between two blocks of it, none of which takes long, `alive` is called.
pub fn run(rounds: u32, mut alive: impl FnMut()) -> u64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let links = cycle(&mut random, &mut alive);
    let mut place = 0;
    let mut checksum = 0;
    for _ in 0..rounds {
        place = chase(&links, place);
        alive();
        let sorted = sort(&mut random);
        alive();
        let hashed = hash(&mut random);
        alive();
        let parts = [checksum, sorted, hashed, multiply(&mut random), place as u64];
        alive();
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
        checksum = XxHash3_64::oneshot(&bytes);
    }
    checksum
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn sort(random: &mut Random) -> u64 {
    let mut numbers: Vec<u64> = (0..SORT_COUNT).map(|_| random.next()).collect();
    numbers.sort_unstable();
    numbers.iter().step_by(1000).fold(0, |sum, number| sum.rotate_left(5) ^ number)
}

fn hash(random: &mut Random) -> u64 {
    let mut bytes = vec![0u8; HASH_BYTES];
    for word in bytes.chunks_exact_mut(64) {
        word[..8].copy_from_slice(&random.next().to_le_bytes());
    }
    XxHash3_64::oneshot(&bytes)
}

fn multiply(random: &mut Random) -> u64 {
    let mut matrix = || -> Vec<f64> {
        let entry = |_| (random.next() >> 40) as f64 / 1024.0;
        (0..MATRIX_SIDE * MATRIX_SIDE).map(entry).collect()
    };
    let (left, right) = (matrix(), matrix());
    let mut product = vec![0.0; MATRIX_SIDE * MATRIX_SIDE];
    for (row, sums) in left.chunks_exact(MATRIX_SIDE).zip(product.chunks_exact_mut(MATRIX_SIDE)) {
        for (factor, line) in row.iter().zip(right.chunks_exact(MATRIX_SIDE)) {
            sums.iter_mut().zip(line).for_each(|(sum, entry)| *sum += factor * entry);
        }
    }
    product.iter().fold(0, |sum: u64, entry| sum.rotate_left(7) ^ entry.to_bits())
}

/// One cycle through all places, in an order that no cache foresees (Sattolo's algorithm).
fn cycle(random: &mut Random, alive: &mut impl FnMut()) -> Vec<u32> {
    let mut links: Vec<u32> = (0..CHASE_COUNT as u32).collect();
    for last in (1..CHASE_COUNT).rev() {
        let other = (random.next() % last as u64) as usize;
        links.swap(last, other);
        if last % CYCLE_BLOCK == 0 {
            alive();
        }
    }
    links
}

fn chase(links: &[u32], from: u32) -> u32 {
    (0..CHASE_STEPS).fold(from, |place, _| links[place as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_depends_on_the_rounds_only() {
        let mut calls = 0;
        assert_eq!(run(1, || calls += 1), run(1, || {}));
        assert_eq!(calls, CHASE_COUNT / CYCLE_BLOCK - 1 + 4);
        assert_ne!(run(1, || {}), run(2, || {}));
        assert_eq!(run(0, || {}), 0);
    }

    #[test]
    fn the_chase_is_one_cycle() {
        let links = cycle(&mut Random(1), &mut || {});
        let mut place = 0;
        let steps = (1..).find(|_| {
            place = links[place as usize];
            place == 0
        });
        assert_eq!(steps, Some(CHASE_COUNT));
    }
}
