//! A second secondary, which relieves the first: it is given the state while the pair stays a pair, then effects wait for both, and only when
//! it may claim does the first one retire. The machine is protected throughout.
//!
//! Invariant: whoever may claim the next term, effects wait for. Where one of two such secondaries is lost, effects wait for the arbiter, and
//! a won claim leaves the other.

use super::{Phase, Primary};
use crate::digest::digest64;
use crate::error::HaltReason;
use crate::message::{Ack, Envelope, Message};
use crate::peer::Peer;
use crate::replica::{Notice, Outbox};
use crate::transfer::Outgoing;
use crate::units::{HostId, Instant, NodeId, Seq, Session, Term};
use thiserror::Error;

/// The second secondary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Relief {
    /// None is wanted.
    #[default]
    None,
    /// One from this host would be taken in.
    Expected(HostId),
    /// It is being given the machine.
    Seeding(Peer, Outgoing),
    /// It may claim the next term, so effects wait for it too; the first is to retire once it knows that.
    Gating(Peer),
}

/// Why a secondary is not relieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ReliefRefused {
    /// There is nobody to relieve.
    #[error("the machine is not protected: a new secondary is taken in without relieving another")]
    NotProtected,
    /// It is there.
    #[error("the secondary is on that host already")]
    SameHost,
    /// The machine stands still.
    #[error("the machine is being handed over: try again when that is over")]
    Yielding,
    /// This copy is not the live one.
    #[error("this copy is not live: ask the one that is")]
    NotLive,
}

impl Relief {
    pub(super) fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Seeding(peer, _) | Self::Gating(peer) => Some(peer),
            Self::None | Self::Expected(_) => None,
        }
    }

    pub(super) fn peer_mut(&mut self) -> Option<&mut Peer> {
        match self {
            Self::Seeding(peer, _) | Self::Gating(peer) => Some(peer),
            Self::None | Self::Expected(_) => None,
        }
    }

    /// The one that effects wait for.
    pub(super) fn gating(&self) -> Option<&Peer> {
        if let Self::Gating(peer) = self { Some(peer) } else { None }
    }

    /// Whether one that effects wait for is lost.
    pub(super) fn is_lost(&self) -> bool {
        self.gating().is_some_and(Peer::is_lost)
    }

    /// The one that takes log.
    pub(super) fn reader(&mut self) -> Option<&mut Peer> {
        match self {
            Self::Seeding(peer, transfer) if transfer.is_done() => Some(peer),
            Self::Gating(peer) => Some(peer),
            _ => None,
        }
    }

    /// The log from here on must be kept for it.
    pub(super) fn needs_after(&self) -> Option<Seq> {
        match self {
            Self::Seeding(peer, transfer) if transfer.cut().is_some() => Some(peer.held),
            Self::Gating(peer) => Some(peer.held),
            _ => None,
        }
    }

    pub(super) fn transfer(&mut self) -> Option<(&mut Peer, &mut Outgoing)> {
        if let Self::Seeding(peer, transfer) = self { Some((peer, transfer)) } else { None }
    }
}

impl Primary {
    /// Takes in a second secondary from `host` when that says hello, and has it relieve the first.
    pub(crate) fn relieve(&mut self, host: HostId) -> Result<(), ReliefRefused> {
        let Phase::Paired(peer) = &self.phase else { return Err(ReliefRefused::NotProtected) };
        if !peer.protected {
            return Err(ReliefRefused::NotProtected);
        }
        if peer.host == host {
            return Err(ReliefRefused::SameHost);
        }
        if self.is_yielding() {
            return Err(ReliefRefused::Yielding);
        }
        if self.relief.peer().is_none() {
            self.relief = Relief::Expected(host);
        }
        Ok(())
    }

    /// Where the second secondary is, or is to come from.
    pub fn relief(&self) -> Option<HostId> {
        match &self.relief {
            Relief::None => None,
            Relief::Expected(host) => Some(*host),
            Relief::Seeding(peer, _) | Relief::Gating(peer) => Some(peer.host),
        }
    }

    pub(super) fn is_relief(&self, from: HostId, session: Session) -> bool {
        self.relief.peer().is_some_and(|peer| peer.host == from && peer.session == session)
    }

    /// The session of the relief that `host` greets as, new or known; `None`: it is not to be taken in.
    pub(super) fn greet_relief(
        &mut self,
        now: Instant,
        node: (HostId, NodeId),
        greeting: Session,
        out: &mut Outbox,
    ) -> Option<Session> {
        if let Some(peer) = self.relief.peer() {
            return (peer.host == node.0 && peer.greeting == greeting).then_some(peer.session);
        }
        if self.relief != Relief::Expected(node.0) || !matches!(self.phase, Phase::Paired(_)) {
            return None;
        }
        let session = self.next_session(greeting);
        let config = &self.identity.config;
        let peer = Peer::new(now, node, greeting, session, config);
        self.relief = Relief::Seeding(peer, Outgoing::new(now, config.transfer_bytes));
        out.notice(Notice::Seeding(node.0));
        Some(session)
    }

    /// A name for a join that none has had before.
    pub(super) fn next_session(&mut self, greeting: Session) -> Session {
        self.joins += 1;
        Session(digest64(self.identity.node.incarnation ^ greeting.0, &self.joins.to_le_bytes()))
    }

    pub(super) fn handle_relief(
        &mut self,
        now: Instant,
        term: Term,
        message: Message,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        match message {
            Message::Ack(ack) => self.handle_relief_ack(now, &ack, out),
            Message::StateAck { next } => {
                if let Some((peer, transfer)) = self.relief.transfer() {
                    let moved = transfer.handle_ack(now, next);
                    peer.handle_state_ack(now, moved);
                }
                self.send_state(now, out);
                self.send_log(now, out);
            }
            Message::Resign { renounced, reason } => {
                if let Some(peer) = self.relief.peer_mut() {
                    let is_news = peer.resigned.replace(renounced).is_none();
                    let host = peer.host;
                    if is_news && self.relief.gating().is_some() {
                        out.notice(Notice::Resigned(host, reason));
                    }
                }
                self.follow_contact(now, out);
            }
            Message::Refuse(refusal) => self.dismiss_relief(&refusal.to_string(), out),
            Message::Superseded if term > self.term() => return Err(HaltReason::Superseded { term }),
            _ => {}
        }
        Ok(())
    }

    fn handle_relief_ack(&mut self, now: Instant, ack: &Ack, out: &mut Outbox) {
        if ack.held > self.log.sealed().seq {
            return;
        }
        let config = self.identity.config.clone();
        if let Some(peer) = self.relief.peer_mut() {
            peer.handle_ack(now, ack, &config);
        }
        if let Some((_, transfer)) = self.relief.transfer() {
            transfer.handle_ack(now, u32::MAX);
        }
        if self.relief.gating().is_some() {
            self.pacer.handle_lag(ack.lag);
        }
        if ack.renounced > self.term() {
            self.claims.adopt(ack.renounced);
        }
        self.trim();
        self.follow_contact(now, out);
        self.follow_relief(now, out);
        self.send_log(now, out);
        self.release(now, out);
    }

    /// Depends on the relief once it is close, and has the first secondary retire once the relief knows that.
    fn follow_relief(&mut self, now: Instant, out: &mut Outbox) {
        let near = self.log.bytes() <= self.identity.config.catch_up_bytes;
        let is_paired = matches!(self.phase, Phase::Paired(_));
        // What the machine had emitted before its state was taken is not in the log from there on: it must have left, or it would be lost
        // with us.
        let released = self.gate.released();
        let has_left = |transfer: &Outgoing| transfer.cut().is_some_and(|head| head.emitted <= released);
        self.relief = match std::mem::take(&mut self.relief) {
            Relief::Seeding(mut peer, transfer)
                if transfer.is_done() && has_left(&transfer) && peer.follows && near && is_paired =>
            {
                peer.protect(now, self.log.last());
                Relief::Gating(peer)
            }
            Relief::Gating(mut peer) => {
                let reached = peer.gate_from.is_some_and(|from| peer.held >= from);
                peer.protected |= peer.eligible && reached;
                Relief::Gating(peer)
            }
            other => other,
        };
        if self.relief.gating().is_some() {
            self.flush(now, out);
            self.send_heartbeat(now, out);
        }
        self.retire(out);
    }

    /// Asks the first secondary to retire, again and again, once it has been relieved.
    pub(super) fn retire(&self, out: &mut Outbox) {
        if let (Phase::Paired(peer), Some(relief)) = (&self.phase, self.relief.gating())
            && relief.protected
        {
            let envelope = Envelope { session: peer.session, term: self.term(), message: Message::Retire };
            out.send(peer.host, envelope);
        }
    }

    /// Gives up a relief that is not depended on.
    pub(super) fn dismiss_relief(&mut self, why: &str, out: &mut Outbox) {
        if let Relief::Seeding(peer, _) = &self.relief {
            out.notice(Notice::SeedingFailed(peer.host, why.to_owned()));
            self.relief = Relief::None;
            self.trim();
        }
    }

    pub(super) fn dismiss_lost_relief(&mut self, out: &mut Outbox) {
        if matches!(&self.relief, Relief::Seeding(peer, _) if peer.is_lost()) {
            self.dismiss_relief("contact was lost", out);
        }
    }

    /// A claim is won while somebody was lost whom effects wait for: goes on with who is left.
    pub(super) fn settle(&mut self, now: Instant, term: Term, out: &mut Outbox) {
        let Phase::Contested(peer) = std::mem::replace(&mut self.phase, Phase::Solo) else {
            unreachable!("claims are used only while contested")
        };
        let left = match (std::mem::take(&mut self.relief), peer.is_lost()) {
            (relief, false) => {
                self.relief = if relief.is_lost() { Relief::None } else { relief };
                peer
            }
            (Relief::Gating(relief), true) if !relief.is_lost() => relief,
            (relief, true) => {
                if let Relief::Seeding(peer, _) = &relief {
                    // It greets again, and is the next secondary.
                    out.notice(Notice::SeedingFailed(peer.host, "the first secondary was lost".into()));
                }
                return self.go_solo(now, term, out);
            }
        };
        if left.protected {
            out.notice(Notice::Protected(left.host));
        }
        self.phase = Phase::Paired(left);
        self.trim();
        self.send_heartbeat(now, out);
        self.release(now, out);
    }

    /// Forgets the log that everybody holds.
    pub(super) fn trim(&mut self) {
        let Some(peer) = self.peer() else { return };
        let held = self.relief.needs_after().map_or(peer.held, |needed| needed.min(peer.held));
        self.log.trim(held);
    }
}
