//! Who decides which side owns the next term: an atomic test-and-set outside both hosts (R4).

use crate::units::{NodeId, Term};
use std::collections::BTreeMap;

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimOutcome {
    /// The claimer owns the term, by this claim or by an earlier one whose answer was lost.
    Won,
    /// Another node owns it.
    Lost {
        /// Who.
        owner: NodeId,
    },
    /// Not known: the arbiter did not answer. The claim may still take effect.
    Unreachable,
}

/// Decides who owns a term of one VM. Implementations do I/O; the core only ever sees outcomes.
///
/// For each term, the first claimer that reaches it wins, for ever, whatever fails. A claim that is repeated by its owner
/// is won again. A claim whose outcome was [`ClaimOutcome::Unreachable`] may have won.
pub trait Arbiter {
    /// Claims `term` for `node`.
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome;
}

impl<A: Arbiter + ?Sized> Arbiter for Box<A> {
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome {
        (**self).claim(term, node)
    }
}

/// An arbiter in memory: for simulations, tests, and two replicas in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryArbiter {
    owners: BTreeMap<Term, NodeId>,
}

impl MemoryArbiter {
    /// Who owns each term that was ever claimed.
    pub fn owners(&self) -> &BTreeMap<Term, NodeId> {
        &self.owners
    }
}

impl Arbiter for MemoryArbiter {
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome {
        match *self.owners.entry(term).or_insert(node) {
            owner if owner == node => ClaimOutcome::Won,
            owner => ClaimOutcome::Lost { owner },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::HostId;

    #[test]
    fn r4_one_claim_wins_for_ever_and_its_owner_wins_again() {
        let node = |incarnation| NodeId { host: HostId(1), incarnation };
        let mut arbiter = MemoryArbiter::default();
        assert_eq!(arbiter.claim(Term(1), node(1)), ClaimOutcome::Won);
        assert_eq!(arbiter.claim(Term(1), node(2)), ClaimOutcome::Lost { owner: node(1) });
        assert_eq!(arbiter.claim(Term(1), node(1)), ClaimOutcome::Won);
        assert_eq!(arbiter.claim(Term(2), node(2)), ClaimOutcome::Won);
    }
}
