//! Planned change of roles, the live side's part: it stands still until the secondary has everything and every effect has left, and
//! becomes the secondary of its secondary.
//!
//! Invariant: from the moment a primary has yielded it emits nothing, and is eligible in its heir's first term, because the heir holds its
//! effects for it from the first.

use super::{Phase, Primary, Relief};
use crate::digest::digest64;
use crate::replica::{Notice, Outbox};
use crate::secondary::Secondary;
use crate::transfer::StateHead;
use crate::units::{Instant, Session};
use thiserror::Error;

/// Why a primary does not hand its machine over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum HandoverRefused {
    /// There is nobody to hand it to.
    #[error("the machine is not protected: there is no secondary in step to hand it to; wait until there is")]
    NotProtected,
    /// The pair does not know yet who owns the next term.
    #[error("the arbiter has not answered an earlier claim; try again when it can be reached")]
    ClaimPending,
    /// The secondary is being relieved.
    #[error("another secondary is being made: try again when it has relieved this one")]
    Relieving,
    /// This copy is not the live one.
    #[error("this copy is not live: ask the one that is")]
    NotLive,
}

impl Primary {
    /// Begins to hand the machine over. It stands still from now on, until the other side is live or this one has found that it is not
    /// ready within [`Config::handover_patience`](crate::config::Config::handover_patience).
    pub(crate) fn hand_over(&mut self, now: Instant) -> Result<(), HandoverRefused> {
        if !self.is_protected() {
            return Err(HandoverRefused::NotProtected);
        }
        if self.relief.peer().is_some() {
            return Err(HandoverRefused::Relieving);
        }
        if self.claims.is_pending() {
            return Err(HandoverRefused::ClaimPending);
        }
        // Whoever was expected may come later, to the heir.
        self.relief = Relief::None;
        self.yielding_until.get_or_insert(now + self.identity.config.handover_patience);
        Ok(())
    }

    /// Whether the machine stands still to be handed over: what comes in still enters, and a digest closes the log.
    pub fn is_yielding(&self) -> bool {
        self.yielding_until.is_some()
    }

    /// Whether the secondary has applied the whole log and found the digest at its end equal, and every effect has left.
    pub(crate) fn is_settled(&self) -> bool {
        let (Phase::Paired(peer), None) = (&self.phase, self.relief.peer()) else { return false };
        self.is_yielding()
            && self.gate.is_empty()
            && peer.verified == self.log.last()
            && !self.claims.is_pending()
    }

    /// Goes on with the machine where it cannot be handed over after all.
    pub(super) fn keep(&mut self, why: &str, out: &mut Outbox) {
        if self.yielding_until.take().is_some() {
            out.notice(Notice::HandoverFailed(why.to_owned()));
        }
    }

    pub(super) fn keep_when_late(&mut self, now: Instant, out: &mut Outbox) {
        if self.yielding_until.is_some_and(|end| now >= end) {
            self.keep("operations of the machine or the secondary took too long", out);
        }
    }

    /// Becomes the secondary of its secondary. `head` says where the machine stands.
    ///
    /// # Panics
    /// Unless [`Primary::is_settled`].
    pub(crate) fn into_secondary(self, now: Instant, head: StateHead, out: &mut Outbox) -> Secondary {
        assert!(self.is_settled(), "a machine is handed over only to who has all of it");
        let Phase::Paired(peer) = self.phase else { unreachable!("checked by is_settled") };
        let former = peer.session;
        // Unheard of before: no two primaries derive from one session, and one primary yields in a session only once.
        let session = Session(digest64(self.identity.node.incarnation ^ former.0, b"handover"));
        out.notice(Notice::Yielded(peer.host));
        Secondary::yielded(now, self.identity, self.claims, (peer.node, session, former), head, out)
    }
}
