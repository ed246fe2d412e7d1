//! Planned change of roles, both parts of who is not live meanwhile: the heir, which is offered the machine, and the copy that has yielded
//! it and waits to hear from its heir.
//!
//! The heir goes live in a term that it wins, as after a failure, but as one of a pair: its effects wait for the copy that yielded. So that
//! copy may claim the term after, should the heir be lost in between: either may fail at any moment, and the other goes on.
//!
//! Invariant: an heir that has accepted is never live without waiting for the copy that yielded, until it has won a further term.

use super::{Copy, Phase, Secondary};
use crate::detector::Detector;
use crate::message::{Envelope, Message};
use crate::replica::{Identity, Notice, Outbox};
use crate::takeover::{Claims, Verdict};
use crate::transfer::StateHead;
use crate::units::{EffectSeq, Instant, NodeId, Seq, Session, Span, Term};

/// What a copy that has yielded knows of its heir.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Yielding {
    /// The session in which the heir still is.
    former: Session,
    /// The term in which the heir will be live.
    term: Term,
    /// The heir has said that it knows.
    accepted: bool,
    released: EffectSeq,
}

/// What an heir knows of the copy that yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Offer {
    /// The session in which that copy is going to follow.
    pub(super) session: Session,
    pub(super) from: NodeId,
}

/// The body of [`Message::Handover`].
pub(super) struct Terms {
    pub(super) session: Session,
    pub(super) end: Seq,
    pub(super) released: EffectSeq,
    pub(super) confirmed: bool,
}

impl Secondary {
    /// The secondary that a primary becomes when it yields to `heir`.
    pub(crate) fn yielded(
        now: Instant,
        identity: Identity,
        claims: Claims,
        (heir, session, former): (NodeId, Session, Session),
        head: StateHead,
        out: &mut Outbox,
    ) -> Self {
        let config = &identity.config;
        let mut copy = Copy::new(head, config.gate_bytes * 2);
        copy.protect = Some(head.end.seq);
        let yielding =
            Yielding { former, term: claims.term().next(), accepted: false, released: head.emitted };
        let mut secondary = Self {
            primary: heir.host,
            primary_node: Some(heir),
            session,
            claims,
            phase: Phase::Yielded(copy, yielding),
            detector: Detector::new(now, config.silence, config.heartbeat),
            echo: Instant(0),
            probe: Instant(0),
            released: head.emitted,
            renounced: Term(0),
            next_send: now,
            identity,
        };
        secondary.speak(now, out);
        secondary
    }

    /// Offers the machine to the heir, again and again until it is heard of. Returns the pause until the next time.
    pub(super) fn offer(&self, out: &mut Outbox) -> Span {
        if let Phase::Yielded(copy, yielding) = &self.phase {
            let Yielding { former, accepted, released, .. } = *yielding;
            let end = copy.reader.end().seq;
            let message = Message::Handover { session: self.session, end, released, confirmed: accepted };
            out.send(self.primary, Envelope { session: former, term: self.term(), message });
        }
        self.identity.config.heartbeat.scale(1, 4)
    }

    /// Takes in what the heir says in the session that is over. Returns whether the message was of that session.
    pub(super) fn handle_heir(
        &mut self,
        now: Instant,
        session: Session,
        message: &Message,
        out: &mut Outbox,
    ) -> bool {
        let Phase::Yielded(_, yielding) = &mut self.phase else { return false };
        if session != yielding.former {
            return false;
        }
        match message {
            Message::Accept => {
                self.detector.heard(now);
                if !std::mem::replace(&mut yielding.accepted, true) {
                    self.speak(now, out);
                }
            }
            // It will never be live.
            Message::Resign { .. } => self.detector.gone(),
            _ => {}
        }
        true
    }

    /// The heir is live in `term`: this copy follows it.
    pub(super) fn follow_heir(&mut self, term: Term, out: &mut Outbox) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Greeting) {
            Phase::Yielded(copy, _) => {
                self.claims.adopt(term);
                out.notice(Notice::Following(self.primary));
                Phase::Following(copy)
            }
            other => other,
        };
    }

    /// Takes in that the primary has yielded: accepts, and claims the next term once the primary knows that.
    pub(super) fn handle_handover(&mut self, now: Instant, terms: Terms, out: &mut Outbox) {
        let Some(from) = self.primary_node else { return };
        let Phase::Following(copy) = &mut self.phase else { return };
        if !copy.is_eligible() || copy.reader.end().seq != terms.end {
            return;
        }
        copy.offer = Some(Offer { session: terms.session, from });
        self.detector.heard(now);
        self.released = self.released.max(terms.released);
        copy.withheld.forget(self.released);
        self.accept(out);
        if terms.confirmed {
            out.claim(self.claims.begin(now));
        }
    }

    /// Says that it knows of the offer.
    pub(super) fn accept(&self, out: &mut Outbox) {
        out.send(self.primary, self.envelope(Message::Accept));
    }

    /// Whether a won term is to be used although the peer may be in contact: it has the machine, and expects us to take it or take it
    /// back.
    pub(super) fn is_changing_roles(&self) -> bool {
        match &self.phase {
            Phase::Yielded(..) => true,
            Phase::Following(copy) => copy.offer.is_some(),
            _ => false,
        }
    }

    /// A copy that has yielded tried to take the machine back, and its heir was first. The heir waits for us in that term, so the next
    /// may be ours.
    pub(super) fn concede(&mut self, verdict: &Verdict) -> bool {
        let (Phase::Yielded(_, yielding), Verdict::Lost(term, owner)) = (&self.phase, *verdict) else {
            return false;
        };
        let conceded = yielding.accepted && term == yielding.term && Some(owner) == self.primary_node;
        if conceded {
            self.claims.adopt(term);
        }
        conceded
    }
}
