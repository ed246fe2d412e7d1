//! A second secondary, which relieves the first: it is given the state while the pair stays a pair, then effects wait for both, and only when
//! it may claim does the first one retire. The machine is protected throughout.
//!
//! Invariant: whoever may claim the next term, effects wait for. One of two such secondaries leaves in one of two ways: it resigns and owns no
//! term beyond ours, which is how the first one retires; or it is lost, then effects wait for the arbiter, and a won claim leaves the other.

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
    #[error("a copy is on that host already")]
    SameHost,
    /// The machine stands still.
    #[error("the machine is being handed over: try again when that is over")]
    Yielding,
    /// One at a time.
    #[error("a secondary on {0} is about to relieve it already: try again when that is over")]
    Busy(HostId),
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
        if peer.host == host || self.identity.node.host == host {
            return Err(ReliefRefused::SameHost);
        }
        if self.is_yielding() {
            return Err(ReliefRefused::Yielding);
        }
        match self.relief.peer() {
            Some(other) if other.host != host => return Err(ReliefRefused::Busy(other.host)),
            Some(_) => {}
            None => self.relief = Relief::Expected(host),
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
        self.follow_lag();
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

    /// Goes on with the other one where one of two has resigned and owns no term beyond ours. It will never be live, so this needs no claim:
    /// nobody goes solo, and nobody is live in another term than before (R4).
    pub(super) fn part(&mut self, now: Instant, out: &mut Outbox) {
        let term = self.term();
        let (Phase::Paired(first) | Phase::Contested(first), Some(second)) =
            (&self.phase, self.relief.gating())
        else {
            return;
        };
        let first_left = first.has_left(term) && !second.is_lost();
        let second_left = second.has_left(term) && !first.is_lost();
        match std::mem::take(&mut self.relief) {
            Relief::Gating(second) if first_left => self.go_on_with(now, second, out),
            _ if second_left => self.trim(),
            relief => self.relief = relief,
        }
    }

    /// Has only this secondary from here on.
    fn go_on_with(&mut self, now: Instant, peer: Peer, out: &mut Outbox) {
        if peer.protected {
            out.notice(Notice::Protected(peer.host));
        }
        self.phase = Phase::Paired(peer);
        self.trim();
        self.send_heartbeat(now, out);
        self.release(now, out);
    }

    /// The pace follows the slowest of those who are given log.
    pub(super) fn follow_lag(&mut self) {
        let lags = [self.peer(), self.relief.peer()].into_iter().flatten().map(|peer| peer.lag);
        self.pacer.handle_lag(lags.max().unwrap_or_default());
    }

    /// Whether it is for the relief that so much of the log is kept.
    pub(super) fn is_held_up_by_relief(&self) -> bool {
        let needed = self.relief.needs_after();
        needed.is_some_and(|needed| self.peer().is_none_or(|peer| needed < peer.held))
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
        match std::mem::take(&mut self.relief) {
            relief if !peer.is_lost() => {
                self.relief = if relief.is_lost() { Relief::None } else { relief };
                self.go_on_with(now, peer, out);
            }
            Relief::Gating(relief) if !relief.is_lost() => self.go_on_with(now, relief, out),
            // Nobody depends on it yet, nor it on anybody: it is made the next secondary.
            Relief::Seeding(relief, transfer) => {
                let from = if transfer.cut().is_some() { relief.held } else { self.log.last() };
                self.phase = Phase::Seeding(relief, transfer);
                self.log.trim(from);
                self.announce(out);
                out.notice(Notice::Solo(term));
                self.release(now, out);
            }
            _ => self.go_solo(now, term, out),
        }
    }

    /// Forgets the log that everybody holds.
    pub(super) fn trim(&mut self) {
        let Some(peer) = self.peer() else { return };
        let held = self.relief.needs_after().map_or(peer.held, |needed| needed.min(peer.held));
        self.log.trim(held);
    }
}
