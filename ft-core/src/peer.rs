//! What a primary knows of its secondary.

use crate::config::{Config, Verify};
use crate::detector::Detector;
use crate::message::Ack;
use crate::units::{HostId, Instant, NodeId, Seq, Session, Span, Term};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) host: HostId,
    pub(crate) node: NodeId,
    pub(crate) session: Session,
    /// The session that its Hello proposed: one that comes again is the same greeting.
    pub(crate) greeting: Session,
    /// Contact in both directions: counts the time since it showed that it had heard us.
    contact: Detector,
    /// Progress: counts the time for which it has held back what is due.
    progress: Detector,
    /// It holds the log up to here.
    pub(crate) held: Seq,
    pub(crate) applied: Seq,
    pub(crate) verified: Seq,
    /// How far its machine is behind.
    pub(crate) lag: Span,
    /// It acknowledges log, so it has restored the state.
    pub(crate) follows: bool,
    /// From which record on effects wait for it; `None` until they do.
    pub(crate) gate_from: Option<Seq>,
    /// It knows that it may claim the next term.
    pub(crate) eligible: bool,
    /// Both of us have said so.
    pub(crate) protected: bool,
    /// It has promised never to claim again, and not to be live in terms up to this.
    pub(crate) resigned: Option<Term>,
    /// Latest of our times that it has echoed: it will not be live before its silence limit from then on.
    echo: Instant,
    /// The same of those that it heard while we had lost contact.
    probe: Instant,
    /// Log up to here has been sent.
    pub(crate) sent: Seq,
    /// When log was last sent after all before it had arrived, or sent again.
    sent_at: Instant,
    pub(crate) next_heartbeat: Instant,
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        (host, node): (HostId, NodeId),
        greeting: Session,
        session: Session,
        config: &Config,
    ) -> Self {
        Self {
            host,
            node,
            session,
            greeting,
            contact: Detector::new(now, config.silence, config.heartbeat),
            progress: Detector::new(now, config.stall, config.heartbeat),
            held: Seq(0),
            applied: Seq(0),
            verified: Seq(0),
            lag: Span::ZERO,
            follows: false,
            gate_from: None,
            eligible: false,
            protected: false,
            resigned: None,
            echo: Instant(0),
            probe: Instant(0),
            sent: Seq(0),
            sent_at: now,
            next_heartbeat: now,
        }
    }

    /// Whether it must be counted as lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.resigned.is_some() || self.contact.is_silent() || self.progress.is_silent()
    }

    /// Whether effects may leave: it cannot be live yet, even if it has heard nothing since its last echo.
    pub(crate) fn has_lease(&self, now: Instant, config: &Config) -> bool {
        !self.is_lost() && now < self.lease_end(config)
    }

    /// Until then it cannot be live, whatever it has heard or not (R4).
    pub(crate) fn lease_end(&self, config: &Config) -> Instant {
        self.echo + config.lease
    }

    /// Log up to here counts as acknowledged for the effects that wait for it.
    pub(crate) fn covered(&self, config: &Config) -> Seq {
        if config.verify == Verify::Strict { self.held.min(self.verified) } else { self.held }
    }

    /// Whether `owner` is it, and it has promised not to be live in `term`.
    pub(crate) fn has_renounced(&self, owner: NodeId, term: Term) -> bool {
        owner == self.node && self.resigned.is_some_and(|renounced| term <= renounced)
    }

    /// Whether it has promised never to claim again, and owns no term after `term`.
    pub(crate) fn has_left(&self, term: Term) -> bool {
        self.resigned.is_some_and(|renounced| renounced <= term)
    }

    /// There is proof that its process has ended.
    pub(crate) fn handle_gone(&mut self) {
        self.contact.gone();
    }

    /// The state it was given ends at `seq`: the log goes on from there.
    pub(crate) fn start_from(&mut self, seq: Seq) {
        self.held = self.held.max(seq);
        self.sent = self.sent.max(seq);
    }

    /// It has yielded the machine with the log's end at `seq`: it holds all of it, effects wait for it from the first, and it may claim the
    /// next term. Until it answers, nobody knows when it heard of us: there is no lease.
    pub(crate) fn yielded(&mut self, seq: Seq) {
        self.start_from(seq);
        self.follows = true;
        self.gate_from = Some(seq);
    }

    /// From now on effects wait for it, and it will be told so. Nobody has told it before, so it cannot be live before
    /// its silence limit from now.
    pub(crate) fn protect(&mut self, now: Instant, gate_from: Seq) {
        self.gate_from = Some(gate_from);
        self.echo = now;
        self.next_heartbeat = now;
    }

    /// It takes the state in: `moved` says whether it has taken more than before.
    pub(crate) fn handle_state_ack(&mut self, now: Instant, moved: bool) {
        self.contact.heard(now);
        if moved {
            self.progress.heard(now);
        }
    }

    pub(crate) fn handle_ack(&mut self, now: Instant, ack: &Ack, config: &Config) {
        // Hearing it is not enough: it must have heard us meanwhile, or it is about to take over.
        let (echo, probe) = (ack.echo.min(now), ack.probe.min(now));
        if echo > self.echo || probe > self.probe {
            self.contact.heard(now);
        }
        self.echo = self.echo.max(echo);
        self.probe = self.probe.max(probe);
        self.follows = true;
        if ack.held > self.held {
            self.held = ack.held;
            self.sent_at = now;
            self.progress.heard(now);
        }
        self.applied = self.applied.max(ack.applied);
        self.verified = self.verified.max(ack.verified);
        self.lag = ack.lag;
        self.eligible |= ack.eligible;
        self.sent = self.sent.max(self.held);
        if ack.gap && self.sent > self.held && now.since(self.sent_at) >= config.resend_after.scale(1, 8) {
            self.resend(now);
        }
    }

    pub(crate) fn handle_sent(&mut self, now: Instant, last: Seq) {
        if self.sent <= self.held {
            self.sent_at = now;
        }
        self.sent = last;
    }

    /// Takes in that time has passed, and whether state is due from it.
    pub(crate) fn handle_tick(&mut self, now: Instant, state_due: bool, config: &Config) {
        self.contact.handle_tick(now);
        self.progress.handle_tick(now);
        if self.sent <= self.held && !state_due {
            self.progress.heard(now);
        }
        if self.sent > self.held && now.since(self.sent_at) >= config.resend_after {
            self.resend(now);
        }
    }

    /// Sends the log again from what it holds.
    pub(crate) fn resend(&mut self, now: Instant) {
        self.sent = self.held;
        self.sent_at = now;
    }
}
