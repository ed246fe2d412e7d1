//! The live side: logs what enters the machine, holds what leaves it, and knows at each moment on whom that depends.
//!
//! Invariant: in `Solo` and `Seeding` no other node may claim the next term, so effects leave at once. From the first message
//! that tells a secondary it may claim (`Paired`), effects wait for that secondary, until a won claim ends the pair.

mod handover;
mod relief;

pub use handover::HandoverRefused;
pub use relief::ReliefRefused;

use relief::Relief;

use crate::arbiter::ClaimOutcome;
use crate::config::Verify;
use crate::effect::{Effect, Numbered};
use crate::error::{HaltReason, Misuse};
use crate::frame::LogEnd;
use crate::gate::Gate;
use crate::log::LogWriter;
use crate::message::{Ack, Envelope, Hello, Message, Refusal, Welcome};
use crate::pace::Pacer;
use crate::peer::Peer;
use crate::planted::{Bug, planted};
use crate::point::Point;
use crate::record::{Event, Record};
use crate::replica::{Identity, Notice, Outbox};
use crate::secondary::{Parts, Secondary};
use crate::takeover::{Claims, Verdict};
use crate::transfer::{Outgoing, StateHead};
use crate::units::{EffectSeq, HostId, Instant, NodeId, Session, Span, Term};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The live side of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Primary {
    identity: Identity,
    claims: Claims,
    log: LogWriter,
    gate: Gate,
    pacer: Pacer,
    phase: Phase,
    /// Whether the machine runs here, and those around it have been told so.
    live: bool,
    /// While the machine stands still to be handed over (only in `Paired`): until when at most.
    yielding_until: Option<Instant>,
    /// Only in `Paired` and `Contested`.
    relief: Relief,
    idle: bool,
    /// How many joins were accepted: makes every session's number new.
    joins: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Waits for term 1. The machine does not run.
    Creating,
    /// Nobody else has the machine.
    Solo,
    /// A secondary is being given the machine. It may not claim anything yet.
    Seeding(Peer, Outgoing),
    /// The secondary may claim the next term, so effects wait for it.
    Paired(Peer),
    /// Contact is lost: effects wait for the arbiter (R6).
    Contested(Peer),
}

/// What a primary is doing, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Waits for its first term.
    Creating,
    /// The only copy.
    Solo,
    /// The only copy; another is being made.
    Seeding(HostId),
    /// In step with a secondary, or about to be.
    Paired {
        /// Where the secondary is.
        host: HostId,
        /// Whether either side may fail.
        protected: bool,
    },
    /// Lost contact with the secondary, and waits for the arbiter.
    Contested(HostId),
}

impl Primary {
    pub(crate) fn create(now: Instant, identity: Identity, after: Term, out: &mut Outbox) -> Self {
        let mut primary = Self::new(identity, after, LogEnd::default(), EffectSeq(0), Phase::Creating);
        out.claim(primary.claims.begin(now));
        primary
    }

    /// Continues as the live machine where a secondary has applied all it held (R7): alone, or as one of a pair with the copy that
    /// handed the machine over.
    pub(crate) fn take_over(
        now: Instant,
        secondary: Secondary,
        in_flight: Vec<Effect>,
        out: &mut Outbox,
    ) -> Self {
        assert!(secondary.is_drained(), "a secondary goes live only when it has applied all it holds");
        let Parts { identity, term, end, withheld, yielded } = secondary.into_parts();
        let mut primary = Self::new(identity, term, end, withheld.emitted(), Phase::Solo);
        match yielded {
            None => {
                primary.announce(out);
                out.notice(Notice::Solo(term));
            }
            Some((node, session)) => {
                let mut peer = Peer::new(now, (node.host, node), session, session, &primary.identity.config);
                peer.yielded(end.seq);
                primary.phase = Phase::Paired(peer);
                primary.send_heartbeat(now, out);
            }
        }
        let waiting: BTreeSet<_> =
            withheld.waiting().filter_map(|n| Some((n.effect.device, n.effect.op?))).collect();
        let known = |effect: &Effect| effect.op.is_some_and(|op| waiting.contains(&(effect.device, op)));
        for effect in in_flight.into_iter().filter(|effect| !known(effect)) {
            out.release(Numbered { seq: EffectSeq(0), effect });
        }
        if planted(Bug::R7) {
            return primary;
        }
        withheld.waiting().for_each(|numbered| out.release(numbered.clone()));
        primary
    }

    fn new(identity: Identity, term: Term, end: LogEnd, emitted: EffectSeq, phase: Phase) -> Self {
        let config = &identity.config;
        Self {
            claims: Claims::new(term, config.claim_retry, config.silence),
            log: LogWriter::new(end, config.frame_bytes),
            gate: Gate::new(emitted, config.gate_bytes),
            pacer: Pacer::new(config.lag_target),
            phase,
            live: false,
            yielding_until: None,
            relief: Relief::None,
            idle: false,
            joins: 0,
            identity,
        }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.claims.term()
    }

    /// Who it is and how it works.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The log.
    pub fn log(&self) -> &LogWriter {
        &self.log
    }

    /// The effects that wait.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Thousandths of the time for which the machine may run (R9).
    pub fn pace(&self) -> u16 {
        self.pacer.pace()
    }

    /// How far the secondary's machine is behind.
    pub fn lag(&self) -> Span {
        self.pacer.lag()
    }

    /// Whether the machine runs here.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// What it is doing.
    pub fn standing(&self) -> Standing {
        match &self.phase {
            Phase::Creating => Standing::Creating,
            Phase::Solo => Standing::Solo,
            Phase::Seeding(peer, _) => Standing::Seeding(peer.host),
            Phase::Paired(peer) => Standing::Paired { host: peer.host, protected: peer.protected },
            Phase::Contested(peer) => Standing::Contested(peer.host),
        }
    }

    /// The session with its secondary, if it has one.
    pub fn session(&self) -> Option<Session> {
        self.peer().map(|peer| peer.session)
    }

    /// Whether the machine must stand still: it is not live yet, or a bounded buffer is full (R9).
    pub fn is_blocked(&self) -> bool {
        let depends = matches!(self.phase, Phase::Paired(_) | Phase::Contested(_));
        !self.live || self.gate.is_full() || depends && self.log.bytes() >= self.identity.config.ring_bytes
    }

    /// Whether the machine should make another piece of its state, to be given to [`Primary::add_chunk`]: `Some(true)` for
    /// the first of a row.
    pub fn wants_chunk(&self) -> Option<bool> {
        match &self.phase {
            Phase::Seeding(_, transfer) if transfer.wants_chunk() => Some(transfer.is_new()),
            Phase::Paired(_) if self.is_yielding() => None,
            Phase::Paired(_) => match &self.relief {
                Relief::Seeding(_, transfer) if transfer.wants_chunk() => Some(transfer.is_new()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether a digest is needed for effects that wait (R11, strict).
    pub fn wants_digest(&self) -> bool {
        self.identity.config.verify == Verify::Strict
    }

    /// Logs an event that enters the machine at `point`. The caller applies the returned record to the machine next.
    ///
    /// # Errors
    /// [`Misuse::EventTooLong`]; nothing was logged.
    pub fn record(
        &mut self,
        now: Instant,
        point: Point,
        event: Event,
        out: &mut Outbox,
    ) -> Result<Record, Misuse> {
        if self.log.is_due() {
            self.flush(now, out);
        }
        let (_, record) = self.log.append(now, point, event)?;
        Ok(record)
    }

    /// Holds effects that the log's last record covers, and sends the log at once because they wait (R3).
    pub fn hold(&mut self, now: Instant, effects: Vec<Numbered>, out: &mut Outbox) {
        let cover = self.log.last();
        for numbered in effects {
            self.gate.hold(cover, numbered);
        }
        // With strict verification the digest that follows completes the cover.
        if self.identity.config.verify != Verify::Strict {
            self.flush(now, out);
        }
        self.release(now, out);
    }

    /// Lets queries out: they change nothing that anybody can see, so they do not wait.
    pub fn ask(&self, queries: Vec<Effect>, out: &mut Outbox) {
        for effect in queries {
            out.release(Numbered { seq: EffectSeq(0), effect });
        }
    }

    /// Takes in a piece of the machine's state, made now; `head` on the last one, which must be made at the log's end.
    pub fn add_chunk(&mut self, now: Instant, bytes: Bytes, head: Option<StateHead>, out: &mut Outbox) {
        self.flush(now, out);
        if let Phase::Seeding(_, transfer) = &mut self.phase {
            transfer.push(bytes, head);
        } else if let Some((_, transfer)) = self.relief.transfer() {
            transfer.push(bytes, head);
        }
        self.send_state(now, out);
    }

    /// Takes in whether the guest idles, so that records need not hurry.
    pub fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// Seals the open frame and sends it to whom it concerns.
    pub fn flush(&mut self, now: Instant, out: &mut Outbox) {
        if let Some(frame) = self.log.seal() {
            let last = frame.last();
            if self.identity.config.record {
                out.sealed(frame.clone());
            }
            match &self.phase {
                Phase::Creating | Phase::Solo => self.log.trim(last),
                Phase::Seeding(_, transfer) if transfer.cut().is_none() => self.log.trim(last),
                Phase::Seeding(..) | Phase::Paired(_) | Phase::Contested(_) => {}
            }
            if matches!(self.phase, Phase::Seeding(..)) && self.log.bytes() >= self.identity.config.ring_bytes
            {
                self.abandon("it cannot keep up with the log", out);
            }
            // Half of it: a machine must not have to wait for one that it does not depend on.
            if self.log.bytes() >= self.identity.config.ring_bytes / 2 && self.is_held_up_by_relief() {
                self.dismiss_relief("it cannot keep up with the log", out);
            }
        }
        self.send_log(now, out);
    }

    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        from: HostId,
        envelope: Envelope,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        let Envelope { session, term, message } = envelope;
        if let Message::Hello(hello) = message {
            self.handle_hello(now, from, session, hello, out);
            return Ok(());
        }
        if self.phase == Phase::Creating || matches!(message, Message::Refuse(_)) && self.peer().is_none() {
            return Ok(());
        }
        if self.is_relief(from, session) {
            return self.handle_relief(now, term, message, out);
        }
        if self.peer().is_none_or(|peer| peer.host != from || peer.session != session) {
            self.handle_stranger(from, session, term, &message, out);
            return Ok(());
        }
        match message {
            Message::Ack(ack) => self.handle_ack(now, ack, out),
            Message::StateAck { next } => self.handle_state_ack(now, next, out),
            Message::Resign { renounced, reason } => self.handle_resign(now, renounced, reason, out),
            Message::Refuse(refusal) => self.abandon(&refusal.to_string(), out),
            Message::Superseded if term > self.term() => return Err(HaltReason::Superseded { term }),
            // Only primaries send these.
            Message::Superseded
            | Message::Hello(_)
            | Message::Welcome(_)
            | Message::Log { .. }
            | Message::Heartbeat { .. }
            | Message::State(_)
            | Message::Handover { .. }
            | Message::Retire => {}
            // An heir that has not heard that this side has taken the machine back.
            Message::Accept => {}
        }
        Ok(())
    }

    pub(crate) fn handle_tick(&mut self, now: Instant, out: &mut Outbox) {
        let config = self.identity.config.clone();
        let patience = if self.idle { config.flush_idle_after } else { config.flush_after };
        if self.log.opened().is_some_and(|opened| now.since(opened) >= patience) {
            self.flush(now, out);
        }
        out.claim(self.claims.handle_tick(now));
        match &mut self.phase {
            Phase::Seeding(peer, transfer) => peer.handle_tick(now, transfer.is_under_way(), &config),
            Phase::Paired(peer) | Phase::Contested(peer) => peer.handle_tick(now, false, &config),
            Phase::Creating | Phase::Solo => {}
        }
        match &mut self.relief {
            Relief::Seeding(peer, transfer) => peer.handle_tick(now, transfer.is_under_way(), &config),
            Relief::Gating(peer) => peer.handle_tick(now, false, &config),
            Relief::None | Relief::Expected(_) => {}
        }
        self.follow_contact(now, out);
        self.retire(out);
        self.keep_when_late(now, out);
        self.send_heartbeat(now, out);
        if let Phase::Seeding(_, transfer) = &mut self.phase {
            transfer.handle_tick(now, config.resend_after);
        } else if let Some((_, transfer)) = self.relief.transfer() {
            transfer.handle_tick(now, config.resend_after);
        }
        self.send_state(now, out);
        self.send_log(now, out);
        self.release(now, out);
    }

    pub(crate) fn handle_claim(
        &mut self,
        now: Instant,
        term: Term,
        outcome: ClaimOutcome,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        match (self.claims.handle_outcome(term, outcome), &self.phase) {
            (Verdict::Won(term), Phase::Creating) => {
                self.phase = Phase::Solo;
                self.announce(out);
                out.notice(Notice::Solo(term));
            }
            (Verdict::Won(term), Phase::Contested(_)) => self.settle(now, term, out),
            // The peer may have won it, but has promised never to use it: it counts as ours, and the next is free.
            (Verdict::Lost(term, owner), Phase::Contested(peer))
                if [Some(peer), self.relief.peer()]
                    .into_iter()
                    .flatten()
                    .any(|peer| peer.has_renounced(owner, term)) =>
            {
                self.claims.adopt(term);
                out.claim(self.claims.begin(now));
            }
            (Verdict::Lost(term, owner), Phase::Creating | Phase::Contested(_)) => {
                if planted(Bug::R5) && self.phase != Phase::Creating {
                    self.go_solo(now, term, out);
                    return Ok(());
                }
                return Err(HaltReason::Lost { term, owner });
            }
            // The peer came back first (R6): the pair goes on, in the new term if it is ours. If it is the secondary's,
            // that will say whether it renounces it or is live.
            (Verdict::Won(_) | Verdict::Lost(..), _) | (Verdict::Nothing, _) => {}
        }
        Ok(())
    }

    pub(crate) fn handle_link_up(&mut self, now: Instant, host: HostId, out: &mut Outbox) {
        match &mut self.phase {
            Phase::Seeding(peer, transfer) if peer.host == host => {
                transfer.resend(now);
                peer.resend(now);
            }
            Phase::Paired(peer) | Phase::Contested(peer) if peer.host == host => peer.resend(now),
            _ => match &mut self.relief {
                Relief::Seeding(peer, transfer) if peer.host == host => {
                    transfer.resend(now);
                    peer.resend(now);
                }
                Relief::Gating(peer) if peer.host == host => peer.resend(now),
                _ => return,
            },
        }
        self.send_state(now, out);
        self.send_log(now, out);
    }

    pub(crate) fn handle_peer_gone(&mut self, now: Instant, node: NodeId, out: &mut Outbox) {
        let Self { phase, relief, .. } = self;
        for peer in [phase.peer_mut(), relief.peer_mut()].into_iter().flatten() {
            if peer.node == node {
                peer.handle_gone();
            }
        }
        self.follow_contact(now, out);
    }

    fn handle_hello(
        &mut self,
        now: Instant,
        from: HostId,
        greeting: Session,
        hello: Hello,
        out: &mut Outbox,
    ) {
        let is_repeated = self.peer().is_some_and(|peer| peer.host == from && peer.greeting == greeting);
        let answer = match (&self.phase, self.identity.profile.mismatch(&hello.profile)) {
            // Not live yet, but soon: it will ask again.
            (Phase::Creating, _) => return,
            (_, Some(mismatch)) => Message::Refuse(mismatch),
            (Phase::Solo, None) => {
                self.seed(now, (from, hello.node), greeting, out);
                self.welcome()
            }
            (_, None) if is_repeated => self.welcome(),
            (_, None) => match self.greet_relief(now, (from, hello.node), greeting, out) {
                Some(session) => self.welcome_to(session),
                None => Message::Refuse(Refusal::Busy),
            },
        };
        out.send(from, Envelope { session: greeting, term: self.term(), message: answer });
    }

    fn seed(&mut self, now: Instant, (host, node): (HostId, NodeId), greeting: Session, out: &mut Outbox) {
        let session = self.next_session(greeting);
        let config = &self.identity.config;
        let peer = Peer::new(now, (host, node), greeting, session, config);
        self.phase = Phase::Seeding(peer, Outgoing::new(now, config.transfer_bytes));
        self.pacer = Pacer::new(config.lag_target);
        out.notice(Notice::Seeding(host));
    }

    fn welcome(&self) -> Message {
        self.welcome_to(self.session().expect("a welcome is for a peer"))
    }

    fn welcome_to(&self, session: Session) -> Message {
        let Identity { node, profile, .. } = &self.identity;
        Message::Welcome(Welcome { session, node: *node, profile: profile.clone() })
    }

    /// Answers a message of a session that is not, or no longer, this primary's.
    fn handle_stranger(
        &self,
        from: HostId,
        session: Session,
        term: Term,
        message: &Message,
        out: &mut Outbox,
    ) {
        let from_secondary = matches!(message, Message::Ack(_) | Message::StateAck { .. } | Message::Accept);
        let from_primary =
            matches!(message, Message::Log { .. } | Message::Heartbeat { .. } | Message::State(_));
        if from_secondary || from_primary && term < self.term() {
            out.send(from, Envelope { session, term: self.term(), message: Message::Superseded });
        }
    }

    fn handle_ack(&mut self, now: Instant, ack: Ack, out: &mut Outbox) {
        let sealed = self.log.sealed().seq;
        let config = self.identity.config.clone();
        let Some(peer) = self.peer_mut() else { return };
        if ack.held > sealed {
            return; // Nobody holds what was never sent: not an acknowledgement of this log.
        }
        peer.handle_ack(now, &ack, &config);
        self.trim();
        if let Phase::Seeding(_, transfer) = &mut self.phase {
            // Who acknowledges log has restored the whole state.
            transfer.handle_ack(now, u32::MAX);
        }
        self.follow_lag();
        // The peer owns every term from ours to this one, and will not be live in any: it claims one at a time, and passes
        // over none but those that it has heard of from us. Earlier news of them may have been lost.
        if ack.renounced > self.term() {
            self.claims.adopt(ack.renounced);
        }
        self.follow_contact(now, out);
        self.follow_progress(now, out);
        self.send_log(now, out);
        self.release(now, out);
    }

    fn handle_state_ack(&mut self, now: Instant, next: u32, out: &mut Outbox) {
        if let Phase::Seeding(peer, transfer) = &mut self.phase {
            let moved = transfer.handle_ack(now, next);
            peer.handle_state_ack(now, moved);
        }
        self.send_state(now, out);
        self.send_log(now, out);
    }

    fn handle_resign(&mut self, now: Instant, renounced: Term, reason: String, out: &mut Outbox) {
        let Some(peer) = self.peer_mut() else { return };
        let host = peer.host;
        if peer.resigned.is_none() {
            peer.resigned = Some(renounced);
            out.notice(Notice::Resigned(host, reason));
        }
        self.follow_contact(now, out);
    }

    /// Moves between phases as contact with the peer is lost and found.
    fn follow_contact(&mut self, now: Instant, out: &mut Outbox) {
        self.dismiss_lost_relief(out);
        self.part(now, out);
        let relief_is_lost = self.relief.is_lost();
        match std::mem::replace(&mut self.phase, Phase::Solo) {
            Phase::Seeding(peer, transfer) => {
                let failed = peer.is_lost();
                self.phase = Phase::Seeding(peer, transfer);
                if failed {
                    self.abandon("contact was lost", out);
                }
            }
            Phase::Paired(peer) if peer.is_lost() || relief_is_lost => {
                self.keep("contact with the secondary was lost", out);
                out.notice(Notice::Contested(peer.host));
                self.phase = Phase::Contested(peer);
                if planted(Bug::R4) {
                    return self.go_solo(now, self.term().next(), out);
                }
                out.claim(self.claims.begin(now));
            }
            Phase::Contested(peer) if !peer.is_lost() && !relief_is_lost => {
                out.notice(Notice::Reunited(peer.host));
                self.phase = Phase::Paired(peer);
            }
            Phase::Contested(peer) => {
                self.phase = Phase::Contested(peer);
                // A claim that was settled while the peer was back leaves the next one to be made.
                out.claim(self.claims.begin(now));
            }
            other => self.phase = other,
        }
    }

    /// Depends on a joining secondary once it is close, and says so once it knows (R8).
    fn follow_progress(&mut self, now: Instant, out: &mut Outbox) {
        let near = self.log.bytes() <= self.identity.config.catch_up_bytes;
        match std::mem::replace(&mut self.phase, Phase::Solo) {
            Phase::Seeding(mut peer, transfer) if transfer.is_done() && peer.follows && near => {
                let gate_from = self.log.last();
                peer.protect(now, gate_from);
                self.phase = Phase::Paired(peer);
                self.flush(now, out);
                self.send_heartbeat(now, out);
            }
            Phase::Paired(mut peer) => {
                if peer.has_lease(now, &self.identity.config) {
                    self.announce(out);
                }
                let reached = peer.gate_from.is_some_and(|from| peer.held >= from);
                if peer.eligible && reached && !peer.protected {
                    peer.protected = true;
                    out.notice(Notice::Protected(peer.host));
                }
                self.phase = Phase::Paired(peer);
            }
            other => self.phase = other,
        }
    }

    /// The machine runs here from now on. An heir waits with this until it is sure that who yielded follows (R4): it may have won its term,
    /// or heard of that, long after that one took the machine back.
    fn announce(&mut self, out: &mut Outbox) {
        if !std::mem::replace(&mut self.live, true) {
            out.notice(Notice::Live(self.term()));
        }
    }

    fn go_solo(&mut self, now: Instant, term: Term, out: &mut Outbox) {
        self.phase = Phase::Solo;
        self.relief = Relief::None;
        self.pacer = Pacer::new(self.identity.config.lag_target);
        self.log.trim(self.log.last());
        self.announce(out);
        out.notice(Notice::Solo(term));
        self.release(now, out);
    }

    /// Gives up making a secondary that does not depend on us, nor we on it.
    fn abandon(&mut self, why: &str, out: &mut Outbox) {
        if let Phase::Seeding(peer, _) = &self.phase {
            out.notice(Notice::SeedingFailed(peer.host, why.to_owned()));
            self.phase = Phase::Solo;
            self.pacer = Pacer::new(self.identity.config.lag_target);
            self.log.trim(self.log.last());
        }
    }

    /// Until when nobody else can be live (R4): what was released and has not been carried out by then must wait until this is later
    /// again, or for ever. `Instant(u64::MAX)` where nobody else may claim.
    pub fn lease_end(&self) -> Instant {
        match &self.phase {
            Phase::Solo | Phase::Seeding(..) => Instant(u64::MAX),
            Phase::Paired(peer) | Phase::Contested(peer) => {
                let ends = [Some(peer), self.relief.gating()].into_iter().flatten();
                ends.map(|peer| peer.lease_end(&self.identity.config)).min().unwrap_or_default()
            }
            Phase::Creating => Instant(0),
        }
    }

    /// Lets out what may leave now (R3, and R4's lease).
    fn release(&mut self, now: Instant, out: &mut Outbox) {
        let upto = match &self.phase {
            Phase::Solo | Phase::Seeding(..) => self.log.last(),
            Phase::Paired(peer) => {
                let config = &self.identity.config;
                let relief = if planted(Bug::Relief) { None } else { self.relief.gating() };
                let upto = [Some(peer), relief].into_iter().flatten();
                let upto = upto.map(|peer| peer.has_lease(now, config).then(|| peer.covered(config)));
                match upto.min().flatten() {
                    Some(upto) => upto,
                    None => return,
                }
            }
            Phase::Creating | Phase::Contested(_) => return,
        };
        let early = planted(Bug::R3) || planted(Bug::R8) && !self.is_protected();
        let upto = if early { self.log.last() } else { upto };
        while let Some(numbered) = self.gate.release(upto) {
            out.release(numbered);
        }
    }

    fn send_log(&mut self, now: Instant, out: &mut Outbox) {
        let (term, released) = (self.term(), self.gate.released());
        let Self { phase, relief, log, .. } = self;
        let reader = match phase {
            Phase::Seeding(peer, transfer) if transfer.is_done() => Some(peer),
            Phase::Paired(peer) | Phase::Contested(peer) => Some(peer),
            _ => None,
        };
        // Who is lost is only probed: log would have it believe that we are in contact.
        for peer in [reader, relief.reader()].into_iter().flatten().filter(|peer| !peer.is_lost()) {
            let Some(frames) = log.after(peer.sent) else { continue };
            let (host, session) = (peer.host, peer.session);
            for frame in frames {
                peer.handle_sent(now, frame.last());
                let message = Message::Log { time: now, released, frame: frame.clone() };
                out.send(host, Envelope { session, term, message });
            }
        }
    }

    fn send_state(&mut self, now: Instant, out: &mut Outbox) {
        let term = self.term();
        let Self { phase, relief, .. } = self;
        let first = if let Phase::Seeding(peer, transfer) = phase { Some((peer, transfer)) } else { None };
        for (peer, transfer) in [first, relief.transfer()].into_iter().flatten() {
            while let Some(chunk) = transfer.poll(now) {
                if let Some(head) = chunk.head {
                    peer.start_from(head.end.seq);
                }
                let message = Message::State(chunk);
                out.send(peer.host, Envelope { session: peer.session, term, message });
            }
        }
    }

    fn send_heartbeat(&mut self, now: Instant, out: &mut Outbox) {
        let (term, released, every) = (self.term(), self.gate.released(), self.identity.config.heartbeat);
        let Self { phase, relief, .. } = self;
        let is_contested = matches!(phase, Phase::Contested(_));
        for peer in [phase.peer_mut(), relief.peer_mut()].into_iter().flatten() {
            if now < peer.next_heartbeat {
                continue;
            }
            peer.next_heartbeat = now + every;
            let probe = is_contested && peer.is_lost();
            let message = Message::Heartbeat { time: now, released, protect: peer.gate_from, probe };
            out.send(peer.host, Envelope { session: peer.session, term, message });
        }
    }

    fn is_protected(&self) -> bool {
        matches!(&self.phase, Phase::Paired(peer) if peer.protected)
    }

    fn peer(&self) -> Option<&Peer> {
        self.phase.peer()
    }

    fn peer_mut(&mut self) -> Option<&mut Peer> {
        self.phase.peer_mut()
    }
}

impl Phase {
    fn peer(&self) -> Option<&Peer> {
        match self {
            Self::Seeding(peer, _) | Self::Paired(peer) | Self::Contested(peer) => Some(peer),
            Self::Creating | Self::Solo => None,
        }
    }

    fn peer_mut(&mut self) -> Option<&mut Peer> {
        match self {
            Self::Seeding(peer, _) | Self::Paired(peer) | Self::Contested(peer) => Some(peer),
            Self::Creating | Self::Solo => None,
        }
    }
}
