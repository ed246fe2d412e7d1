//! Whether a message is worth compressing.
//!
//! While the link keeps up, compression saves bandwidth and costs time nobody waits for. Once messages queue, it must earn
//! its time: it pays only where packing and sending the rest takes less than sending all.

use bytes::Bytes;
use std::time::Duration;

/// Fast enough for a network; higher levels are for disks.
const LEVEL: i32 = 1;

/// Below this a message fits a packet anyway.
const MIN_BYTES: usize = 400;

/// Packed to more than this share of its size (in thousandths), it does not pay.
const WORTH: usize = 900;

/// After a failure this many messages go plain, twice as many after each further one.
const REST_MIN: u32 = 4;
const REST_MAX: u32 = 1024;

/// When a saturated link is tried again with compression, in messages.
const PROBE_EVERY: u32 = 256;

/// Decides and compresses, for one stream.
pub(crate) struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    rest: u32,
    next_rest: u32,
    since_probe: u32,
    /// Moving averages: compressing, nanoseconds for a raw byte; the wire, nanoseconds for a sent byte while messages
    /// queue; and what remains of a byte.
    pack_ns: f64,
    wire_ns: f64,
    ratio: f64,
}

impl Compressor {
    pub(crate) fn new(enabled: bool) -> Self {
        let zstd = enabled.then(|| zstd::bulk::Compressor::new(LEVEL).ok()).flatten();
        Self { zstd, rest: 0, next_rest: REST_MIN, since_probe: 0, pack_ns: 0.0, wire_ns: 0.0, ratio: 1.0 }
    }

    /// Compresses a message in pieces if that is expected to pay. `queued` says whether other messages wait behind it.
    pub(crate) fn compress(&mut self, head: &[u8], bulk: &[Bytes], queued: bool) -> Option<Vec<u8>> {
        let len = head.len() + bulk.iter().map(Bytes::len).sum::<usize>();
        if len < MIN_BYTES || !self.is_worth_trying(queued) {
            return None;
        }
        let started = std::time::Instant::now();
        let mut joined = Vec::with_capacity(len);
        joined.extend_from_slice(head);
        bulk.iter().for_each(|piece| joined.extend_from_slice(piece));
        let packed = self.zstd.as_mut()?.compress(&joined).ok()?;
        self.pack_ns = average(self.pack_ns, started.elapsed().as_nanos() as f64 / len as f64);
        self.ratio = average(self.ratio, packed.len() as f64 / len as f64);
        if packed.len() * 1000 > len * WORTH {
            self.rest = self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST_MAX);
            return None;
        }
        self.next_rest = REST_MIN;
        Some(packed)
    }

    /// Takes in how long `bytes` took to leave while others queued.
    pub(crate) fn handle_sent(&mut self, bytes: usize, took: Duration) {
        if bytes > 0 {
            self.wire_ns = average(self.wire_ns, took.as_nanos() as f64 / bytes as f64);
        }
    }

    fn is_worth_trying(&mut self, queued: bool) -> bool {
        if self.zstd.is_none() {
            return false;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        if !queued || self.pack_ns == 0.0 || self.wire_ns == 0.0 {
            return true;
        }
        let pays = self.pack_ns + self.ratio * self.wire_ns < self.wire_ns;
        self.since_probe = if pays { 0 } else { self.since_probe + 1 };
        // Figures age: now and then a message finds out whether they still hold.
        pays || self.since_probe.is_multiple_of(PROBE_EVERY)
    }
}

fn average(before: f64, now: f64) -> f64 {
    if before == 0.0 { now } else { before * 0.8 + now * 0.2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut seed = 1u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn noise_is_soon_left_alone() {
        let mut compressor = Compressor::new(true);
        let noise = noise(4000);
        for _ in 0..1000 {
            assert!(compressor.compress(&noise, &[], false).is_none());
        }
        assert!(compressor.next_rest >= 512, "tries become rare");
    }

    #[test]
    fn a_fast_link_that_queues_gets_plain_messages_and_a_slow_one_compressed() {
        let text = [Bytes::from(b"the same again and again ".repeat(400))];
        let mut compressor = Compressor::new(true);
        assert!(compressor.compress(b"", &text, false).is_some());
        compressor.pack_ns = 2.0;
        compressor.wire_ns = 0.8;
        assert!(compressor.compress(b"", &text, true).is_none(), "10 Gbit/s");
        assert!(compressor.compress(b"", &text, false).is_some(), "nobody waits");
        compressor.pack_ns = 2.0;
        compressor.wire_ns = 8.0;
        assert!(compressor.compress(b"", &text, true).is_some(), "1 Gbit/s");
    }

    #[test]
    fn small_messages_and_a_disabled_compressor_leave_bytes_alone() {
        assert!(Compressor::new(true).compress(&[0; 300], &[], false).is_none());
        assert!(Compressor::new(false).compress(&[0; 30_000], &[], false).is_none());
    }
}
