//! Claims to the next term (R4, R6): one at a time, repeated until the arbiter's answer is known.
//!
//! Invariant: once a claim has been sent, it is followed up until it is known to be won or lost, even when the peer comes
//! back meanwhile: an unanswered claim may have been won, and a term that is owned without its owner's knowledge would stop
//! the next takeover.

use crate::arbiter::ClaimOutcome;
use crate::units::{Instant, NodeId, Span, Term};

/// The term of a replica, and its claim to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claims {
    term: Term,
    pending: Option<Pending>,
    retry: Span,
    retry_max: Span,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    target: Term,
    again: Instant,
    pause: Span,
}

/// What an arbiter's answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// The term is ours.
    Won(Term),
    /// The term is somebody else's.
    Lost(Term, NodeId),
    /// Nothing new: unreachable, or an answer to a claim that no longer matters.
    Nothing,
}

impl Claims {
    pub(crate) fn new(term: Term, retry: Span, retry_max: Span) -> Self {
        Self { term, pending: None, retry, retry_max: retry_max.max(retry) }
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// The last term that may be ours: the one claimed, if a claim is on its way.
    pub(crate) fn reach(&self) -> Term {
        self.pending.as_ref().map_or(self.term, |pending| pending.target)
    }

    /// Whether a claim is on its way.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Claims the next term unless a claim is already on its way. Returns the term to ask for.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Term> {
        if self.pending.is_some() {
            return None;
        }
        let target = self.term.next();
        self.pending = Some(Pending { target, again: now + self.retry, pause: self.retry });
        Some(target)
    }

    /// The term to ask for again, when it is time.
    pub(crate) fn handle_tick(&mut self, now: Instant) -> Option<Term> {
        let pending = self.pending.as_mut().filter(|pending| now >= pending.again)?;
        pending.pause = pending.pause.scale(2, 1).min(self.retry_max);
        pending.again = now + pending.pause;
        Some(pending.target)
    }

    /// Takes in the arbiter's answer to a claim of `target`.
    pub(crate) fn handle_outcome(&mut self, target: Term, outcome: ClaimOutcome) -> Verdict {
        if self.pending.as_ref().is_none_or(|pending| pending.target != target) {
            return Verdict::Nothing;
        }
        match outcome {
            ClaimOutcome::Unreachable => Verdict::Nothing,
            ClaimOutcome::Won => {
                self.pending = None;
                self.term = target;
                Verdict::Won(target)
            }
            ClaimOutcome::Lost { owner } => {
                self.pending = None;
                Verdict::Lost(target, owner)
            }
        }
    }

    /// Moves on to `term`, which the peer owns and has handed over or is live in. A claim to it or before it is settled.
    pub(crate) fn adopt(&mut self, term: Term) {
        self.term = self.term.max(term);
        self.pending.take_if(|pending| pending.target <= term);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::HostId;

    const OTHER: NodeId = NodeId { host: HostId(2), incarnation: 9 };

    fn claims() -> Claims {
        Claims::new(Term(5), Span(10), Span(40))
    }

    #[test]
    fn r6_an_unanswered_claim_is_repeated_with_growing_pauses() {
        let mut claims = claims();
        assert_eq!(claims.begin(Instant(0)), Some(Term(6)));
        assert_eq!(claims.begin(Instant(0)), None, "one at a time");
        assert_eq!(claims.handle_outcome(Term(6), ClaimOutcome::Unreachable), Verdict::Nothing);
        let asked: Vec<u64> =
            (0..200).filter(|now| claims.handle_tick(Instant(*now)) == Some(Term(6))).collect();
        assert_eq!(asked, [10, 30, 70, 110, 150, 190]);
        assert_eq!(claims.handle_outcome(Term(6), ClaimOutcome::Won), Verdict::Won(Term(6)));
        assert_eq!(claims.term(), Term(6));
    }

    #[test]
    fn r4_answers_to_settled_claims_change_nothing() {
        let mut claims = claims();
        claims.begin(Instant(0));
        claims.adopt(Term(6));
        assert_eq!(claims.handle_outcome(Term(6), ClaimOutcome::Lost { owner: OTHER }), Verdict::Nothing);
        assert_eq!(claims.term(), Term(6));
        assert_eq!(claims.begin(Instant(0)), Some(Term(7)));
        assert_eq!(
            claims.handle_outcome(Term(7), ClaimOutcome::Lost { owner: OTHER }),
            Verdict::Lost(Term(7), OTHER)
        );
        assert_eq!(claims.term(), Term(6), "a lost claim is not a term");
    }
}
