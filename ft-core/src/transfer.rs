//! Carrying the machine's state to a joining secondary while the machine runs (R8).
//!
//! The state is a row of pieces. The machine makes them between its runs; the last is made at a point and names the log's
//! end there, so that all pieces and the log from then on are the machine. What is in a piece is the machine's business:
//! a snapshot, or rounds of pre-copy.
//!
//! Invariant: at most `window` bytes are on their way; the receiver keeps no more than that out of order.

use crate::digest::StateDigest;
use crate::frame::LogEnd;
use crate::units::{EffectSeq, Instant, Span, Tick, VirtualTime};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Largest piece of a state, in bytes.
pub const MAX_CHUNK_BYTES: usize = 1 << 20;

/// Most pieces that a receiver keeps out of order.
const MAX_STRAY_CHUNKS: u32 = 256;

/// A piece of a machine's state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// Its place, from 0.
    pub index: u32,
    /// On the last piece: where the state belongs.
    pub head: Option<StateHead>,
    /// Content, at most [`MAX_CHUNK_BYTES`].
    pub bytes: Bytes,
}

/// Where a state belongs in the machine's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateHead {
    /// The log's end at this state.
    pub end: LogEnd,
    /// The machine's tick.
    pub tick: Tick,
    /// The machine's clock.
    pub clock: VirtualTime,
    /// The last effect that the machine had emitted.
    pub emitted: EffectSeq,
    /// Digest of the machine.
    pub digest: StateDigest,
}

/// The sending end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outgoing {
    /// Pieces that have not been acknowledged, the first of which is `acked`.
    pending: VecDeque<Chunk>,
    acked: u32,
    /// How many of `pending` have been sent.
    sent: usize,
    bytes: usize,
    window: usize,
    cut: Option<StateHead>,
    progress: Instant,
}

impl Outgoing {
    pub(crate) fn new(now: Instant, window: usize) -> Self {
        Self { pending: VecDeque::new(), acked: 0, sent: 0, bytes: 0, window, cut: None, progress: now }
    }

    /// Whether the machine should make another piece.
    pub(crate) fn wants_chunk(&self) -> bool {
        self.cut.is_none() && self.bytes < self.window
    }

    /// Whether no piece has been made yet.
    pub(crate) fn is_new(&self) -> bool {
        self.acked == 0 && self.pending.is_empty()
    }

    /// Whether pieces are due to be acknowledged.
    pub(crate) fn is_under_way(&self) -> bool {
        self.sent > 0
    }

    /// The last piece's head, once it has been made.
    pub(crate) fn cut(&self) -> Option<StateHead> {
        self.cut
    }

    /// Whether everything has arrived.
    pub(crate) fn is_done(&self) -> bool {
        self.cut.is_some() && self.pending.is_empty()
    }

    /// Takes in the next piece.
    pub(crate) fn push(&mut self, bytes: Bytes, head: Option<StateHead>) {
        assert!(self.cut.is_none(), "a piece of state after the last");
        assert!(bytes.len() <= MAX_CHUNK_BYTES, "a piece of state above the limit");
        let index = self.acked + self.pending.len() as u32;
        self.bytes += bytes.len();
        self.cut = head;
        self.pending.push_back(Chunk { index, head, bytes });
    }

    /// All pieces before `next` have arrived. Returns whether that is news.
    pub(crate) fn handle_ack(&mut self, now: Instant, next: u32) -> bool {
        let before = self.acked;
        while self.acked < next && !self.pending.is_empty() {
            let chunk = self.pending.pop_front().expect("checked in the loop's condition");
            self.bytes -= chunk.bytes.len();
            self.acked += 1;
            self.sent = self.sent.saturating_sub(1);
            self.progress = now;
        }
        self.acked > before
    }

    /// Starts again behind what is acknowledged, when nothing has moved for `resend_after`.
    pub(crate) fn handle_tick(&mut self, now: Instant, resend_after: Span) {
        if self.sent > 0 && now.since(self.progress) >= resend_after {
            self.resend(now);
        }
    }

    pub(crate) fn resend(&mut self, now: Instant) {
        self.sent = 0;
        self.progress = now;
    }

    /// The next piece to send.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Chunk> {
        let chunk = self.pending.get(self.sent)?.clone();
        if self.sent == 0 {
            self.progress = now;
        }
        self.sent += 1;
        Some(chunk)
    }
}

/// The receiving end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Incoming {
    next: u32,
    stray: BTreeMap<u32, Chunk>,
    stray_bytes: usize,
}

impl Incoming {
    /// The piece that is due next.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Takes in a piece and returns all that are now in order. One that is early is kept within `window` bytes: it will be
    /// sent again.
    pub(crate) fn accept(&mut self, chunk: Chunk, window: usize) -> Vec<Chunk> {
        let early = chunk.index.checked_sub(self.next);
        let fits = early == Some(0) || self.stray_bytes + chunk.bytes.len() <= window;
        if fits
            && early.is_some_and(|early| early < MAX_STRAY_CHUNKS)
            && !self.stray.contains_key(&chunk.index)
        {
            self.stray_bytes += chunk.bytes.len();
            self.stray.insert(chunk.index, chunk);
        }
        let mut ready = Vec::new();
        while let Some(chunk) = self.stray.remove(&self.next) {
            self.stray_bytes -= chunk.bytes.len();
            self.next += 1;
            ready.push(chunk);
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Pieces lost, repeated and reordered in any way: the receiver gets each once, in order, and the sender never
        /// has more than the window (and one piece) on its way.
        #[test]
        fn r8_pieces_arrive_once_and_in_order(
            sizes in proptest::collection::vec(0usize..50, 1..20),
            luck in proptest::collection::vec((any::<bool>(), any::<bool>()), 400),
        ) {
            let mut out = Outgoing::new(Instant(0), 100);
            let (mut incoming, mut got, mut made) = (Incoming::default(), Vec::new(), 0);
            let mut line: Vec<Chunk> = Vec::new();
            let mut luck = luck.into_iter();
            let mut now = 0;
            while !out.is_done() {
                now += 1;
                while out.wants_chunk() && made < sizes.len() {
                    let head = (made + 1 == sizes.len()).then(StateHead::default);
                    out.push(Bytes::from(vec![made as u8; sizes[made]]), head);
                    made += 1;
                }
                prop_assert!(out.bytes < 150);
                out.handle_tick(Instant(now), Span(3));
                while let Some(chunk) = out.poll(Instant(now)) { line.push(chunk) }
                // After the luck has run out the line is perfect, so that the loop ends.
                let (last_first, lose) = luck.next().unwrap_or((false, false));
                if let Some(chunk) = if last_first { line.pop() } else { (!line.is_empty()).then(|| line.remove(0)) }
                    && !lose
                {
                    got.extend(incoming.accept(chunk, 100));
                    out.handle_ack(Instant(now), incoming.next());
                }
            }
            let indices: Vec<u32> = got.iter().map(|chunk| chunk.index).collect();
            prop_assert_eq!(indices, (0..sizes.len() as u32).collect::<Vec<_>>());
            prop_assert!(got.iter().zip(&sizes).all(|(chunk, size)| chunk.bytes.len() == *size));
        }
    }

    #[test]
    fn r9_a_piece_far_ahead_is_not_kept() {
        let mut incoming = Incoming::default();
        let far = Chunk { index: MAX_STRAY_CHUNKS, head: None, bytes: Bytes::new() };
        assert!(incoming.accept(far, 100).is_empty());
        assert!(incoming.stray.is_empty());
        for index in 1..5 {
            incoming.accept(Chunk { index, head: None, bytes: Bytes::from(vec![0; 40]) }, 100);
        }
        assert_eq!((incoming.stray.len(), incoming.stray_bytes), (2, 80), "what does not fit is dropped");
    }
}
