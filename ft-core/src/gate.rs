//! Holds effects until the records they depend on are acknowledged (R3).
//!
//! Both sides have one. On the primary effects leave it for the outside world, in order; on the secondary they are forgotten
//! as they become known to have left, and what remains when it goes live is what is in doubt (R7).

use crate::effect::Numbered;
use crate::units::{EffectSeq, Seq};
use std::collections::VecDeque;

/// What an effect counts beside its payload, in bytes.
const EFFECT_OVERHEAD: usize = 64;

/// Effects that wait, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gate {
    held: VecDeque<(Seq, Numbered)>,
    bytes: usize,
    limit: usize,
    released: EffectSeq,
}

impl Gate {
    /// An empty gate; all effects up to `released` have left before. Full at `limit` bytes.
    pub fn new(released: EffectSeq, limit: usize) -> Self {
        Self { held: VecDeque::new(), bytes: 0, limit, released }
    }

    /// Effects up to this one have left.
    pub fn released(&self) -> EffectSeq {
        self.released
    }

    /// The last effect that came in.
    pub fn emitted(&self) -> EffectSeq {
        self.held.back().map_or(self.released, |(_, last)| last.seq)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that wait, some overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the machine must not emit more until some have left (R9).
    pub fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    /// Takes in an effect that may leave once record `cover` is acknowledged.
    ///
    /// # Panics
    /// When effects or covers come out of order.
    pub fn hold(&mut self, cover: Seq, numbered: Numbered) {
        let last = self.held.back().map_or(Seq(0), |(cover, _)| *cover);
        assert!(cover >= last, "an effect is covered by a record before the last effect's");
        assert_eq!(numbered.seq, self.emitted().next(), "effects come one after the other");
        self.bytes += EFFECT_OVERHEAD + numbered.effect.payload.len();
        self.held.push_back((cover, numbered));
    }

    /// Lets the next effect out if record `acked` covers it.
    pub fn release(&mut self, acked: Seq) -> Option<Numbered> {
        self.held.front().filter(|(cover, _)| *cover <= acked)?;
        self.pop()
    }

    /// Drops the effects that are known to have left elsewhere.
    pub fn forget(&mut self, released: EffectSeq) {
        while self.held.front().is_some_and(|(_, numbered)| numbered.seq <= released) {
            self.pop();
        }
    }

    /// The effects that wait, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Numbered> {
        self.held.iter().map(|(_, numbered)| numbered)
    }

    fn pop(&mut self) -> Option<Numbered> {
        let (_, numbered) = self.held.pop_front()?;
        self.bytes -= EFFECT_OVERHEAD + numbered.effect.payload.len();
        self.released = numbered.seq;
        Some(numbered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::{Effect, EffectKind};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn numbered(seq: u64, len: usize) -> Numbered {
        let payload = Bytes::from(vec![0; len]);
        Numbered {
            seq: EffectSeq(seq),
            effect: Effect { kind: EffectKind::Net, device: 0, op: None, payload },
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Hold { records: u64, len: usize },
        Release { upto: u64 },
        Forget { upto: u64 },
    }

    proptest! {
        /// Against a model: effects leave in order, none before its record, none twice, and the bytes always add up.
        #[test]
        fn r3_effects_leave_in_order_and_not_early(ops in proptest::collection::vec(prop_oneof![
            (0u64..3, 0usize..40).prop_map(|(records, len)| Op::Hold { records, len }),
            (0u64..60).prop_map(|upto| Op::Release { upto }),
            (0u64..60).prop_map(|upto| Op::Forget { upto }),
        ], 0..80)) {
            let mut gate = Gate::new(EffectSeq(0), 300);
            let (mut cover, mut next, mut gone) = (0, 1, 0);
            let mut model: Vec<(u64, u64, usize)> = Vec::new();
            for op in ops {
                match op {
                    Op::Hold { records, len } => {
                        cover += records;
                        gate.hold(Seq(cover), numbered(next, len));
                        model.push((cover, next, len));
                        next += 1;
                    }
                    Op::Release { upto } => while let Some(out) = gate.release(Seq(upto)) {
                        let (cover, seq, _) = model.remove(0);
                        prop_assert!(cover <= upto);
                        prop_assert_eq!(out.seq, EffectSeq(seq));
                        gone = seq;
                    },
                    Op::Forget { upto } => {
                        gate.forget(EffectSeq(upto));
                        while model.first().is_some_and(|(_, seq, _)| *seq <= upto) { gone = model.remove(0).1 }
                    }
                }
                prop_assert!(model.first().is_none_or(|(_, seq, _)| *seq == gone + 1));
                prop_assert_eq!(gate.released(), EffectSeq(gone));
                prop_assert_eq!(gate.len(), model.len());
                let bytes: usize = model.iter().map(|(_, _, len)| len + EFFECT_OVERHEAD).sum();
                prop_assert_eq!(gate.bytes(), bytes);
                prop_assert_eq!(gate.is_full(), bytes >= 300);
            }
        }
    }
}
