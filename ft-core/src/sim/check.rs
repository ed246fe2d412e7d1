//! What must hold in every world. The checkers see what the world sees, not what replicas believe.

use super::guest::{Speech, past_after};
use crate::effect::{Effect, Numbered};
use crate::pace::FULL_PACE;
use crate::primary::Standing;
use crate::units::{EffectSeq, NodeId, Session, Term};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Equal histories gave different machines.
    Determinism,
    /// An effect left before the secondary held the records it depends on.
    OutputRule,
    /// Two nodes were live in one term.
    OneLive,
    /// A node went on after another had become live in a later term.
    Loser,
    /// The effects that left are not those of one execution.
    History,
    /// A buffer outgrew its bound.
    Bounds,
    /// A machine was slowed for nobody's sake.
    Pace,
    /// Nothing moved after everything had healed.
    Progress,
    /// A copy was asked for on the live one's host, or beside another one that is being made.
    Respawn,
    /// A copy halted for a reason that no fault in this world explains.
    Halt,
}

/// A broken rule, and how.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub rule: Rule,
    /// How.
    pub detail: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

type Checked = Result<(), Failure>;

fn fail(rule: Rule, detail: String) -> Checked {
    Err(Failure { rule, detail })
}

/// What the outside world has seen.
#[derive(Default)]
pub(super) struct Checker {
    /// Every effect that left, by number.
    seen: BTreeMap<EffectSeq, Effect>,
    /// Without a gap up to here, and the digest of all that.
    upto: EffectSeq,
    past: u64,
    live: BTreeMap<Term, NodeId>,
    /// What each secondary's log covers, by session: what it has ever held, it can be asked for.
    covered: HashMap<Session, EffectSeq>,
    machines: HashMap<u64, u64>,
    pub(super) repeats: u64,
}

impl Checker {
    /// `node` is live in `term`.
    pub(super) fn live(&mut self, node: NodeId, term: Term) -> Checked {
        let first = *self.live.entry(term).or_insert(node);
        if first != node {
            return fail(Rule::OneLive, format!("{node} is live in {term}, and so was {first}"));
        }
        Ok(())
    }

    /// A secondary holds log that covers these effects.
    pub(super) fn covers(&mut self, session: Session, effects: EffectSeq) {
        let covered = self.covered.entry(session).or_default();
        *covered = effects.max(*covered);
    }

    /// `node` lets out an effect in `term`. `depends` are the sessions of those who may claim the next.
    pub(super) fn release(
        &mut self,
        node: NodeId,
        term: Term,
        depends: &[Session],
        numbered: &Numbered,
    ) -> Checked {
        if numbered.effect.kind.is_query() {
            return Ok(()); // Nobody outside can tell whether it happened.
        }
        self.live(node, term)?;
        if let Some((later, other)) = self.live.last_key_value().filter(|(later, _)| **later > term) {
            let seq = numbered.seq;
            return fail(
                Rule::Loser,
                format!("{node} emitted {seq} in {term}, but {other} is live in {later}"),
            );
        }
        for session in depends {
            let covered = self.covered.get(session).copied().unwrap_or_default();
            if covered < numbered.seq {
                let seq = numbered.seq;
                return fail(
                    Rule::OutputRule,
                    format!("{node} emitted {seq}, a secondary that may claim holds up to {covered}"),
                );
            }
        }
        self.see(numbered)?;
        if numbered.seq > self.upto {
            let (seq, upto) = (numbered.seq, self.upto);
            return fail(
                Rule::History,
                format!("{node} emitted {seq}, but nothing after {upto} has left before it"),
            );
        }
        Ok(())
    }

    fn see(&mut self, numbered: &Numbered) -> Checked {
        let Numbered { seq, effect } = numbered;
        if *seq == EffectSeq(0) {
            return self.see_again(effect);
        }
        if let Some(before) = self.seen.get(seq) {
            self.repeats += 1;
            if before != effect {
                return fail(Rule::History, format!("{seq} left as {before:?} and as {effect:?}"));
            }
            return Ok(());
        }
        self.seen.insert(*seq, effect.clone());
        while let Some(effect) = self.seen.get(&self.upto.next()) {
            let past = Speech::decode(&effect.payload).past;
            if past != self.past {
                let next = self.upto.next();
                return fail(
                    Rule::History,
                    format!("{next} continues another execution than the effects before it"),
                );
            }
            self.past = past_after(self.past, effect);
            self.upto = self.upto.next();
        }
        Ok(())
    }

    /// An operation is issued again: it must be one that this execution has issued.
    fn see_again(&mut self, effect: &Effect) -> Checked {
        self.repeats += 1;
        if effect.op.is_none() || !self.seen.values().rev().any(|seen| seen == effect) {
            return fail(Rule::History, format!("{effect:?} was issued again, but never before"));
        }
        Ok(())
    }

    /// A machine of this lineage has this hash.
    pub(super) fn machine(&mut self, lineage: u64, hash: u64) -> Checked {
        let first = *self.machines.entry(lineage).or_insert(hash);
        if first != hash {
            return fail(
                Rule::Determinism,
                format!("records {lineage:016x} gave {first:016x} and {hash:016x}"),
            );
        }
        Ok(())
    }

    /// A buffer holds `bytes` of at most `limit`.
    pub(super) fn bound(&self, what: &str, bytes: usize, limit: usize) -> Checked {
        if bytes > limit {
            return fail(Rule::Bounds, format!("{what} holds {bytes} bytes of at most {limit}"));
        }
        Ok(())
    }

    /// A machine that nobody follows runs at full speed.
    pub(super) fn pace(&self, standing: Standing, pace: u16) -> Checked {
        if standing == Standing::Solo && pace != FULL_PACE {
            return fail(Rule::Pace, format!("a machine that nobody follows runs at {pace} thousandths"));
        }
        Ok(())
    }

    /// How many effects have left, without a gap.
    pub(super) fn effects(&self) -> u64 {
        self.upto.0
    }
}
