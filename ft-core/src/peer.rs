//! What a primary knows of its secondary.

use crate::config::Config;
use crate::detector::Detector;
use crate::message::Ack;
use crate::units::{HostId, Instant, Seq, Session};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) host: HostId,
    pub(crate) session: Session,
    pub(crate) detector: Detector,
    /// It holds the log up to here.
    pub(crate) held: Seq,
    pub(crate) applied: Seq,
    pub(crate) verified: Seq,
    /// It acknowledges log, so it has restored the state.
    pub(crate) follows: bool,
    /// From which record on effects wait for it; `None` until they do.
    pub(crate) gate_from: Option<Seq>,
    /// It knows that it may claim the next term.
    pub(crate) eligible: bool,
    /// Both of us have said so.
    pub(crate) protected: bool,
    /// It has promised never to claim again.
    pub(crate) resigned: bool,
    /// Latest of our times that it has echoed: it will not be live before its silence limit from then on.
    echo: Instant,
    /// Log up to here has been sent.
    pub(crate) sent: Seq,
    progress: Instant,
    pub(crate) next_heartbeat: Instant,
}

impl Peer {
    pub(crate) fn new(now: Instant, host: HostId, session: Session, config: &Config) -> Self {
        Self {
            host,
            session,
            detector: Detector::new(now, config.silence, config.heartbeat),
            held: Seq(0),
            applied: Seq(0),
            verified: Seq(0),
            follows: false,
            gate_from: None,
            eligible: false,
            protected: false,
            resigned: false,
            echo: Instant(0),
            sent: Seq(0),
            progress: now,
            next_heartbeat: now,
        }
    }

    /// Whether it must be counted as lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.resigned || self.detector.is_silent()
    }

    /// Whether effects may leave: it cannot be live yet, even if it has heard nothing since its last echo.
    pub(crate) fn has_lease(&self, now: Instant, config: &Config) -> bool {
        !self.is_lost() && now < self.echo + config.lease
    }

    /// The state it was given ends at `seq`: the log goes on from there.
    pub(crate) fn start_from(&mut self, seq: Seq) {
        self.held = self.held.max(seq);
        self.sent = self.sent.max(seq);
    }

    /// From now on effects wait for it, and it will be told so. Nobody has told it before, so it cannot be live before
    /// its silence limit from now.
    pub(crate) fn protect(&mut self, now: Instant, gate_from: Seq) {
        self.gate_from = Some(gate_from);
        self.echo = now;
        self.next_heartbeat = now;
    }

    pub(crate) fn handle_ack(&mut self, now: Instant, ack: &Ack, config: &Config) {
        self.detector.heard();
        self.follows = true;
        if ack.held > self.held {
            self.held = ack.held;
            self.progress = now;
        }
        self.applied = self.applied.max(ack.applied);
        self.verified = self.verified.max(ack.verified);
        self.echo = self.echo.max(ack.echo.min(now));
        self.eligible |= ack.eligible;
        self.sent = self.sent.max(self.held);
        if ack.gap && self.sent > self.held && now.since(self.progress) >= config.resend_after.scale(1, 8) {
            self.resend(now);
        }
    }

    pub(crate) fn handle_sent(&mut self, now: Instant, last: Seq) {
        if self.sent <= self.held {
            self.progress = now;
        }
        self.sent = last;
    }

    pub(crate) fn handle_tick(&mut self, now: Instant, config: &Config) {
        self.detector.handle_tick(now);
        if self.sent > self.held && now.since(self.progress) >= config.resend_after {
            self.resend(now);
        }
    }

    /// Sends the log again from what it holds.
    pub(crate) fn resend(&mut self, now: Instant) {
        self.sent = self.held;
        self.progress = now;
    }
}
