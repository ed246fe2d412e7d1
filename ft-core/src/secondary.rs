//! The following side: takes in state and log, and takes over when the primary is gone.
//!
//! Invariant: what is acknowledged is in memory, whole, decoded and chained to all before it. From the moment this side
//! wins a term and means to use it, it acknowledges nothing more.

mod handover;

use crate::arbiter::ClaimOutcome;
use crate::config::Config;
use crate::detector::Detector;
use crate::digest::StateDigest;
use crate::effect::Numbered;
use crate::error::{FrameError, HaltReason};
use crate::frame::{Frame, LogEnd};
use crate::gate::Gate;
use crate::log::{Accepted, LogReader};
use crate::message::{Ack, Envelope, Hello, Message, Refusal, Welcome};
use crate::planted::{Bug, planted};
use crate::record::{Event, Record};
use crate::replica::{Identity, Notice, Outbox};
use crate::takeover::{Claims, Verdict};
use crate::transfer::{Chunk, Incoming, StateHead};
use crate::units::{EffectSeq, HostId, Instant, NodeId, Seq, Session, Span, Term};
use handover::{Offer, Terms, Yielding};
use std::collections::VecDeque;

/// The following side of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Secondary {
    identity: Identity,
    primary: HostId,
    /// Which life of the primary; known from its welcome on.
    primary_node: Option<NodeId>,
    /// As proposed, until the primary's welcome names the real one.
    session: Session,
    claims: Claims,
    phase: Phase,
    detector: Detector,
    /// Latest of the primary's times that has arrived.
    echo: Instant,
    /// The same of those that came while it had lost contact with us.
    probe: Instant,
    /// Effects up to here are known to have left.
    released: EffectSeq,
    /// This side owns terms up to here and will not be live in them.
    renounced: Term,
    next_send: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Has said hello.
    Greeting,
    /// The state is coming in.
    Receiving(Arrivals),
    /// All of the state is here; the machine is taking it in.
    Restoring(Copy, Arrivals),
    /// Follows the log.
    Following(Copy),
    /// Owns the next term, and applies what it holds (R7).
    Promoting(Copy),
    /// Was live, has handed the machine over, and waits to hear from its heir.
    Yielded(Copy, Yielding),
}

/// Pieces of state: those that are missing, and those that are for the machine to take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Arrivals {
    incoming: Incoming,
    ready: VecDeque<Chunk>,
    ack_due: bool,
}

impl Arrivals {
    /// The first piece that the machine has not taken: what is acknowledged makes room for more (R9).
    fn next(&self) -> u32 {
        self.incoming.next() - self.ready.len() as u32
    }
}

/// A whole copy of the machine, as of the last applied record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Copy {
    head: StateHead,
    reader: LogReader,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
    applied: Seq,
    verified: Seq,
    covered: EffectSeq,
    withheld: Gate,
    /// From which record on the primary holds effects for us.
    protect: Option<Seq>,
    /// The primary has yielded the machine to us.
    offer: Option<Offer>,
    gap: bool,
    ack_due: bool,
}

/// A record that the machine has not applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    record: Record,
    bytes: usize,
    since: Instant,
}

/// What is left of a secondary that goes live.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) term: Term,
    /// The log's end.
    pub(crate) end: LogEnd,
    /// The effects in doubt.
    pub(crate) withheld: Gate,
    /// The copy that handed the machine over, and the session in which it is going to follow.
    pub(crate) yielded: Option<(NodeId, Session)>,
}

/// What a secondary is doing, for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Waits to be accepted.
    Greeting,
    /// Receives the state.
    Receiving,
    /// Follows the log.
    Following {
        /// Whether it may claim the next term.
        eligible: bool,
    },
    /// Is about to go live.
    Promoting,
    /// Has handed the machine over, and has not heard from its heir.
    Yielded,
}

impl Secondary {
    pub(crate) fn join(
        now: Instant,
        identity: Identity,
        primary: HostId,
        session: Session,
        out: &mut Outbox,
    ) -> Self {
        let config = &identity.config;
        let mut secondary = Self {
            primary,
            primary_node: None,
            session,
            claims: Claims::new(Term(0), config.claim_retry, config.silence),
            phase: Phase::Greeting,
            detector: Detector::new(now, config.silence, config.heartbeat),
            echo: Instant(0),
            probe: Instant(0),
            released: EffectSeq(0),
            renounced: Term(0),
            next_send: now,
            identity,
        };
        secondary.speak(now, out);
        secondary
    }

    /// Its term: the primary's, as far as it knows.
    pub fn term(&self) -> Term {
        self.claims.term()
    }

    /// Who it is and how it works.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where its primary is.
    pub fn primary(&self) -> HostId {
        self.primary
    }

    /// The session with its primary.
    pub fn session(&self) -> Session {
        self.session
    }

    /// What it is doing.
    pub fn progress(&self) -> Progress {
        match &self.phase {
            Phase::Greeting => Progress::Greeting,
            Phase::Receiving(..) | Phase::Restoring(..) => Progress::Receiving,
            Phase::Following(copy) => Progress::Following { eligible: copy.is_eligible() },
            Phase::Promoting(_) => Progress::Promoting,
            Phase::Yielded(..) => Progress::Yielded,
        }
    }

    /// Last record that it holds.
    pub fn held(&self) -> Seq {
        self.copy().map_or(Seq(0), |copy| copy.reader.end().seq)
    }

    /// Last record that its machine has applied.
    pub fn applied(&self) -> Seq {
        self.copy().map_or(Seq(0), |copy| copy.applied)
    }

    /// Effects up to here follow from the records that it holds: it will emit them again if it goes live.
    pub fn covered(&self) -> EffectSeq {
        self.copy().map_or(EffectSeq(0), |copy| copy.covered)
    }

    /// Bytes of log that wait to be applied.
    pub fn backlog_bytes(&self) -> usize {
        self.copy().map_or(0, |copy| copy.backlog_bytes)
    }

    /// Bytes of effects that are withheld.
    pub fn withheld_bytes(&self) -> usize {
        self.copy().map_or(0, |copy| copy.withheld.bytes())
    }

    /// The next piece of state for the machine. After the last, which has a head, call [`Secondary::restored`].
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        let (Phase::Receiving(arrivals) | Phase::Restoring(_, arrivals)) = &mut self.phase else {
            return None;
        };
        let chunk = arrivals.ready.pop_front()?;
        arrivals.ack_due = true;
        Some(chunk)
    }

    /// The machine has taken in the last piece, and now has this digest.
    ///
    /// # Errors
    /// When it is not the primary's: the replica is over.
    pub fn restored(
        &mut self,
        now: Instant,
        digest: StateDigest,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        match std::mem::replace(&mut self.phase, Phase::Greeting) {
            Phase::Restoring(copy, _) if copy.head.digest != digest => {
                let reason = HaltReason::Transfer { expected: copy.head.digest.0, actual: digest.0 };
                self.phase = Phase::Following(copy);
                Err(reason)
            }
            Phase::Restoring(copy, _) => {
                out.notice(Notice::Following(self.primary));
                self.phase = Phase::Following(copy);
                self.acknowledge(now, out);
                Ok(())
            }
            other => {
                self.phase = other;
                Ok(())
            }
        }
    }

    /// The next record for the machine to run to and apply. Stays the next until [`Secondary::applied_next`].
    pub fn next_record(&self) -> Option<(Seq, &Record)> {
        match &self.phase {
            // Effects that the primary never reports as released must not pile up without end.
            Phase::Following(copy) if copy.withheld.is_full() => None,
            Phase::Following(copy) | Phase::Promoting(copy) => {
                copy.backlog.front().map(|waiting| (copy.applied.next(), &waiting.record))
            }
            _ => None,
        }
    }

    /// The machine has applied the next record, and emitted `effects` up to there.
    pub fn applied_next(&mut self, effects: Vec<Numbered>) {
        let released = self.released;
        let (Phase::Following(copy) | Phase::Promoting(copy)) = &mut self.phase else { return };
        let Waiting { record, bytes, .. } =
            copy.backlog.pop_front().expect("the machine applies what next_record gave it");
        copy.backlog_bytes -= bytes;
        copy.applied = copy.applied.next();
        if matches!(record.event, Event::Digest(_)) {
            copy.verified = copy.applied;
        }
        for numbered in effects {
            copy.withheld.hold(copy.applied, numbered);
        }
        copy.withheld.forget(released);
        // With strict verification the primary's effects wait for this.
        copy.ack_due |= matches!(record.event, Event::Digest(_));
    }

    /// Says what has become due since: call it when the machine has done its share.
    pub fn flush(&mut self, now: Instant, out: &mut Outbox) {
        match &mut self.phase {
            Phase::Receiving(arrivals) | Phase::Restoring(_, arrivals) if arrivals.ack_due => {
                self.speak(now, out)
            }
            _ => self.acknowledge_due(now, out),
        }
    }

    /// Whether it has won its term and applied all it holds: the machine may go live.
    pub fn is_drained(&self) -> bool {
        matches!(&self.phase, Phase::Promoting(copy) if copy.backlog.is_empty())
    }

    /// What the primary that it becomes goes on with.
    pub(crate) fn into_parts(self) -> Parts {
        let term = self.term();
        match self.phase {
            Phase::Promoting(copy) => Parts {
                identity: self.identity,
                term,
                end: copy.reader.end(),
                withheld: copy.withheld,
                yielded: copy.offer.filter(|_| !planted(Bug::Heir)).map(|offer| (offer.from, offer.session)),
            },
            _ => unreachable!("checked by is_drained"),
        }
    }

    /// What to tell the primary when this side is over.
    pub(crate) fn farewell(&self, reason: &HaltReason) -> Option<(HostId, Envelope)> {
        let message = match (&self.phase, reason) {
            (_, HaltReason::Superseded { .. } | HaltReason::Lost { .. } | HaltReason::Orphaned) => {
                return None;
            }
            (Phase::Promoting(_), _) => return None,
            (Phase::Greeting, HaltReason::Refused(refusal @ Refusal::Mismatch { .. })) => {
                Message::Refuse(refusal.clone())
            }
            (Phase::Greeting, _) => return None,
            _ => Message::Resign { renounced: self.claims.reach(), reason: reason.to_string() },
        };
        Some((self.primary, self.envelope(message)))
    }

    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        from: HostId,
        envelope: Envelope,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        let Envelope { session, term, message } = envelope;
        if matches!(message, Message::Hello(_)) {
            let message = Message::Refuse(Refusal::NotPrimary);
            out.send(from, Envelope { session, term: self.term(), message });
            return Ok(());
        }
        if from != self.primary || self.handle_heir(now, session, &message, out) || session != self.session {
            return Ok(());
        }
        if matches!(self.phase, Phase::Promoting(_)) {
            match message {
                Message::Superseded => {}
                // Who has yielded need not be told that it is superseded, only that it is heard.
                Message::Handover { .. } => self.accept(out),
                _ => out.send(from, self.envelope(Message::Superseded)),
            }
            return Ok(());
        }
        if matches!(message, Message::Log { .. } | Message::Heartbeat { .. }) {
            self.follow_heir(term, out);
        }
        match message {
            Message::Superseded if self.copy().is_some_and(Copy::is_eligible) => {
                return Err(HaltReason::Superseded { term });
            }
            Message::Superseded => return Err(HaltReason::Orphaned),
            Message::Retire if self.may_retire(term) => return Err(HaltReason::Relieved),
            Message::Refuse(refusal) if self.phase == Phase::Greeting => {
                return Err(HaltReason::Refused(refusal));
            }
            Message::Welcome(welcome) => self.handle_welcome(now, term, welcome, out)?,
            Message::State(chunk) => self.handle_chunk(now, chunk, out),
            Message::Log { time, released, frame } => {
                self.handle_contact(now, term, time, released);
                self.handle_frame(now, &frame, out)?;
            }
            Message::Heartbeat { time, probe: true, .. } => {
                self.probe = self.probe.max(time);
                self.acknowledge(now, out);
            }
            Message::Heartbeat { time, released, protect, probe: false } => {
                self.handle_contact(now, term, time, released);
                if let Some(copy) = self.copy_mut() {
                    let was = copy.is_eligible();
                    copy.protect = copy.protect.max(protect);
                    copy.ack_due |= copy.is_eligible() && !was;
                }
                self.acknowledge_due(now, out);
            }
            Message::Handover { session, end, released, confirmed } => {
                self.handle_handover(now, Terms { session, end, released, confirmed }, out);
            }
            // Only secondaries send these, or it is too late for them.
            Message::Accept
            | Message::Retire
            | Message::Hello(_)
            | Message::Refuse(_)
            | Message::Ack(_)
            | Message::StateAck { .. }
            | Message::Resign { .. } => {}
        }
        Ok(())
    }

    /// Whether it may end because another secondary has its place. Not in another term: that one may be lost by now. And not while the next
    /// may be won here: nobody would use it, and the other could not.
    fn may_retire(&self, term: Term) -> bool {
        term == self.term() && !self.claims.is_pending() && !self.detector.is_silent()
    }

    pub(crate) fn handle_tick(&mut self, now: Instant, out: &mut Outbox) -> Result<(), HaltReason> {
        self.detector.handle_tick(now);
        out.claim(self.claims.handle_tick(now));
        self.follow_contact(now, out)?;
        self.acknowledge_due(now, out);
        if now >= self.next_send {
            self.speak(now, out);
        }
        Ok(())
    }

    pub(crate) fn handle_claim(
        &mut self,
        now: Instant,
        term: Term,
        outcome: ClaimOutcome,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        let verdict = self.claims.handle_outcome(term, outcome);
        let decided = self.detector.is_silent() || self.is_changing_roles();
        if self.concede(&verdict) {
            return Ok(());
        }
        match verdict {
            Verdict::Won(term) if decided => {
                self.promote(term, out);
                Ok(())
            }
            // The primary came back first (R6): it goes on, and may count this term as its own.
            Verdict::Won(term) => {
                self.renounced = term;
                out.notice(Notice::Renounced(term));
                self.acknowledge(now, out);
                Ok(())
            }
            Verdict::Lost(term, owner) if decided => Err(HaltReason::Lost { term, owner }),
            // The primary owns the next term and is in contact: its messages will say so.
            Verdict::Lost(..) | Verdict::Nothing => Ok(()),
        }
    }

    pub(crate) fn handle_peer_gone(
        &mut self,
        now: Instant,
        node: NodeId,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        if self.primary_node != Some(node) {
            return Ok(());
        }
        self.detector.gone();
        self.follow_contact(now, out)
    }

    /// Claims the next term when the primary is silent; gives up where there is nothing to take over.
    fn follow_contact(&mut self, now: Instant, out: &mut Outbox) -> Result<(), HaltReason> {
        if !self.detector.is_silent() {
            return Ok(());
        }
        match &self.phase {
            Phase::Greeting | Phase::Promoting(_) => {}
            Phase::Following(copy) | Phase::Yielded(copy, _) if copy.is_eligible() => {
                out.claim(self.claims.begin(now))
            }
            Phase::Receiving(..) | Phase::Restoring(..) | Phase::Following(_) | Phase::Yielded(..) => {
                return Err(HaltReason::Orphaned);
            }
        }
        Ok(())
    }

    fn promote(&mut self, term: Term, out: &mut Outbox) {
        match std::mem::replace(&mut self.phase, Phase::Greeting) {
            Phase::Following(copy) | Phase::Yielded(copy, _) => {
                out.notice(Notice::Promoting(term));
                self.phase = Phase::Promoting(copy);
            }
            other => self.phase = other,
        }
    }

    fn handle_welcome(
        &mut self,
        now: Instant,
        term: Term,
        welcome: Welcome,
        out: &mut Outbox,
    ) -> Result<(), HaltReason> {
        if self.phase != Phase::Greeting {
            return Ok(());
        }
        if let Some(mismatch) = welcome.profile.mismatch(&self.identity.profile) {
            return Err(HaltReason::Refused(mismatch));
        }
        self.session = welcome.session;
        self.primary_node = Some(welcome.node);
        self.detector.heard(now);
        self.claims.adopt(term);
        self.phase = Phase::Receiving(Arrivals::default());
        self.speak(now, out);
        Ok(())
    }

    fn handle_chunk(&mut self, now: Instant, chunk: Chunk, out: &mut Outbox) {
        let Config { gate_bytes, transfer_bytes, .. } = self.identity.config;
        self.detector.heard(now);
        let next = match &mut self.phase {
            // The welcome is still on its way.
            Phase::Greeting => return,
            Phase::Receiving(arrivals) => {
                arrivals.ready.extend(arrivals.incoming.accept(chunk, transfer_bytes));
                let next = arrivals.next();
                if let Some(head) = arrivals.ready.back().and_then(|chunk| chunk.head) {
                    let copy = Copy::new(head, gate_bytes * 2);
                    self.phase = Phase::Restoring(copy, std::mem::take(arrivals));
                }
                next
            }
            Phase::Restoring(_, arrivals) => arrivals.next(),
            // All are taken: the acknowledgement of this one was lost.
            _ => chunk.index.saturating_add(1),
        };
        self.next_send = now + self.identity.config.heartbeat;
        out.send(self.primary, self.envelope(Message::StateAck { next }));
    }

    /// Takes in that the primary was live in `term` at `time`, and what it had released.
    fn handle_contact(&mut self, now: Instant, term: Term, time: Instant, released: EffectSeq) {
        self.detector.heard(now);
        self.claims.adopt(term);
        self.echo = self.echo.max(time);
        self.released = self.released.max(released);
        let released = self.released;
        if let Some(copy) = self.copy_mut() {
            copy.withheld.forget(released);
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: &Frame, out: &mut Outbox) -> Result<(), HaltReason> {
        let limit = self.identity.config.backlog_bytes;
        let Some(copy) = self.copy_mut() else { return Ok(()) };
        copy.take_in(now, frame, limit)?;
        self.next_send = self.next_send.min(now + self.identity.config.ack_after);
        self.acknowledge_due(now, out);
        Ok(())
    }

    fn acknowledge_due(&mut self, now: Instant, out: &mut Outbox) {
        if matches!(&self.phase, Phase::Following(copy) if copy.ack_due) {
            self.acknowledge(now, out);
        }
    }

    fn acknowledge(&mut self, now: Instant, out: &mut Outbox) {
        let (echo, probe, renounced) = (self.echo, self.probe, self.renounced);
        let Phase::Following(copy) = &mut self.phase else { return };
        copy.ack_due = false;
        let ack = Ack {
            held: copy.reader.end().seq,
            applied: copy.applied,
            verified: copy.verified,
            echo,
            probe,
            lag: copy.lag(now),
            renounced,
            eligible: copy.is_eligible(),
            gap: std::mem::take(&mut copy.gap),
        };
        self.next_send = now + self.identity.config.heartbeat;
        out.send(self.primary, self.envelope(Message::Ack(ack)));
    }

    /// Says whatever shows the primary that this side is there.
    fn speak(&mut self, now: Instant, out: &mut Outbox) {
        let config = &self.identity.config;
        let (message, pause) = match &mut self.phase {
            Phase::Greeting => {
                let Identity { node, profile, .. } = &self.identity;
                let hello = Hello { node: *node, profile: profile.clone() };
                (Message::Hello(hello), config.hello_retry)
            }
            Phase::Receiving(arrivals) | Phase::Restoring(_, arrivals) => {
                arrivals.ack_due = false;
                (Message::StateAck { next: arrivals.next() }, config.heartbeat)
            }
            Phase::Following(_) => return self.acknowledge(now, out),
            Phase::Promoting(_) => return,
            Phase::Yielded(..) => {
                self.next_send = now + self.offer(out);
                return;
            }
        };
        self.next_send = now + pause;
        out.send(self.primary, self.envelope(message));
    }

    fn envelope(&self, message: Message) -> Envelope {
        Envelope { session: self.session, term: self.term(), message }
    }

    fn copy(&self) -> Option<&Copy> {
        match &self.phase {
            Phase::Restoring(copy, _)
            | Phase::Following(copy)
            | Phase::Promoting(copy)
            | Phase::Yielded(copy, _) => Some(copy),
            Phase::Greeting | Phase::Receiving(..) => None,
        }
    }

    fn copy_mut(&mut self) -> Option<&mut Copy> {
        match &mut self.phase {
            Phase::Restoring(copy, _)
            | Phase::Following(copy)
            | Phase::Promoting(copy)
            | Phase::Yielded(copy, _) => Some(copy),
            Phase::Greeting | Phase::Receiving(..) => None,
        }
    }
}

impl Copy {
    fn new(head: StateHead, withheld_bytes: usize) -> Self {
        Self {
            head,
            reader: LogReader::new(head.end, head.tick),
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            applied: head.end.seq,
            verified: Seq(0),
            covered: head.emitted,
            withheld: Gate::new(head.emitted, withheld_bytes),
            protect: None,
            offer: None,
            gap: false,
            ack_due: false,
        }
    }

    /// Whether this copy may claim the next term: the primary waits for it, and it holds all that was before (R8).
    fn is_eligible(&self) -> bool {
        self.protect.is_some_and(|from| self.reader.end().seq >= from)
    }

    /// How long this side has been late: since the log went on beyond what it is working on. The way to a record can only be begun
    /// when the record is here, so the time from one to the next is no lag.
    fn lag(&self, now: Instant) -> Span {
        let Some(front) = self.backlog.front() else { return Span::ZERO };
        let next = self.backlog.partition_point(|waiting| waiting.since <= front.since);
        self.backlog.get(next).map_or(Span::ZERO, |waiting| now.since(waiting.since))
    }

    /// Takes a frame into the backlog. One that does not fit is dropped: it will be sent again (R9).
    fn take_in(&mut self, now: Instant, frame: &Frame, limit: usize) -> Result<(), FrameError> {
        // What a record takes in memory, or its part of the frame that holds its content.
        let share = (frame.size() / frame.count() as usize + 1).max(std::mem::size_of::<Waiting>());
        if self.backlog_bytes + share * frame.count() as usize > limit && !self.backlog.is_empty() {
            self.gap = true;
            return Ok(());
        }
        // Effects wait for their marks, and the primary waits for a copy that catches up.
        let is_late = !self.is_eligible();
        match self.reader.accept(frame)? {
            Accepted::New(records) => {
                self.backlog_bytes += share * records.len();
                let emitted = records.iter().map(|record| match record.event {
                    Event::Emit { count, .. } => u64::from(count),
                    _ => 0,
                });
                let emitted: u64 = emitted.sum();
                self.covered.0 = self.covered.0.saturating_add(emitted);
                self.ack_due |= emitted > 0 || is_late;
                self.backlog.extend(records.into_iter().map(|record| Waiting {
                    record,
                    bytes: share,
                    since: now,
                }));
            }
            // An acknowledgement may have been lost.
            Accepted::Duplicate => self.ack_due = true,
            Accepted::Gap => {
                self.gap = true;
                self.ack_due = true;
            }
        }
        Ok(())
    }
}
