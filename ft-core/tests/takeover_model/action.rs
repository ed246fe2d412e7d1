//! The one thing that happens next.
//!
//! Invariant: a world that has broken a rule stands still, so that the trace ends where the rule broke.

use crate::world::{Flaw, HOSTS, World};
use ft_core::arbiter::ClaimOutcome;
use ft_core::message::Envelope;
use ft_core::secondary::Progress;
use ft_core::units::Term;
use std::fmt;
use std::sync::Arc;

/// What is left to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Steps of time, a heartbeat each.
    pub(crate) steps: u8,
    /// Ticks that hosts leave out: pauses.
    pub(crate) skips: u8,
    /// Effects that the machine emits.
    pub(crate) effects: u8,
    /// Hosts that crash.
    pub(crate) crashes: u8,
    /// Answers of the arbiter that are lost.
    pub(crate) lost_answers: u8,
    /// Messages that a wire remembers. It delivers each any number of times, in any order, or never; an older one is lost.
    pub(crate) wire: usize,
}

/// The one thing that happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Time passes on both hosts.
    Pass,
    /// A host notices it.
    Tick(usize),
    /// A message arrives.
    Deliver { to: usize, envelope: Arc<Envelope> },
    /// A live machine emits an effect.
    Emit(usize),
    /// A machine that is to go live does.
    GoLive(usize),
    /// A claim reaches the arbiter.
    Decide { host: usize, term: Term },
    /// The arbiter's answer arrives; or, if it is lost, only that there is none.
    Answer { to: usize, term: Term, outcome: ClaimOutcome, lost: bool },
    /// A host is gone.
    Crash(usize),
    /// The other host is told so.
    LearnGone(usize),
}

impl World {
    /// All that can happen next.
    pub(crate) fn actions(&self, actions: &mut Vec<Action>) {
        if self.history.breach.is_some() || self.solo().is_some() || self.is_extinct() {
            return;
        }
        for host in HOSTS.into_iter().filter(|host| self.term(*host).is_some()) {
            self.actions_on(host, actions);
        }
        actions.extend(self.requests.iter().map(|(host, term)| Action::Decide { host: *host, term: *term }));
        for (to, term, outcome) in self.answers.iter().copied() {
            actions.push(Action::Answer { to, term, outcome, lost: false });
            if self.left.lost_answers > 0 {
                actions.push(Action::Answer { to, term, outcome, lost: true });
            }
        }
        if self.left.steps > 0 && self.late() <= self.left.skips {
            actions.push(Action::Pass);
        }
    }

    fn actions_on(&self, host: usize, actions: &mut Vec<Action>) {
        if self.is_due(host) {
            actions.push(Action::Tick(host));
        }
        let deliver = |envelope: &Arc<Envelope>| Action::Deliver { to: host, envelope: Arc::clone(envelope) };
        actions.extend(self.wires[host].iter().map(deliver));
        if self.left.effects > 0 && self.standing(host).is_some() {
            actions.push(Action::Emit(host));
        }
        if self.progress(host) == Some(Progress::Promoting) {
            actions.push(Action::GoLive(host));
        }
        if self.left.crashes > 0 {
            actions.push(Action::Crash(host));
        }
        let is_gone = self.hosts[1 - host].replica.is_none() || self.flaw == Flaw::FalseProof;
        if is_gone && !self.hosts[host].knows_gone {
            actions.push(Action::LearnGone(host));
        }
    }

    /// Lets it happen.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Pass => {
                self.left.steps -= 1;
                self.left.skips -= self.late();
                self.pass();
            }
            Action::Tick(host) => self.tick(host),
            Action::Deliver { to, envelope } => self.deliver(to, &envelope),
            Action::Emit(host) => {
                self.left.effects -= 1;
                self.emit(host);
            }
            Action::GoLive(host) => self.step(host),
            Action::Decide { host, term } => self.decide(host, term),
            Action::Answer { to, term, outcome, lost } => {
                self.left.lost_answers -= u8::from(lost);
                self.answer(to, term, outcome, lost);
            }
            Action::Crash(host) => {
                self.left.crashes -= 1;
                self.crash(host);
            }
            Action::LearnGone(host) => self.learn_gone(host),
        }
    }

    /// Whether nothing more will come but what is on its way.
    pub(crate) fn is_over(&self) -> bool {
        let no_time = self.left.steps == 0 && self.late() == 0;
        self.history.breach.is_none() && (no_time || self.solo().is_some() || self.is_extinct())
    }

    /// How many ticks are left out if time passes now.
    fn late(&self) -> u8 {
        HOSTS.into_iter().filter(|host| self.is_due(*host)).count() as u8
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => write!(f, "time passes"),
            Self::Tick(host) => write!(f, "host {host} ticks"),
            Self::Deliver { to, envelope } => write!(f, "host {to} gets {envelope}"),
            Self::Emit(host) => write!(f, "the machine on host {host} emits an effect"),
            Self::GoLive(host) => write!(f, "the machine on host {host} goes live"),
            Self::Decide { host, term } => write!(f, "the arbiter gets host {host}'s claim of {term}"),
            Self::Answer { to, term, outcome, lost: false } => {
                write!(f, "host {to} hears of {term}: {outcome:?}")
            }
            Self::Answer { to, term, outcome, lost: true } => {
                write!(f, "host {to} does not hear of {term}: {outcome:?}")
            }
            Self::Crash(host) => write!(f, "host {host} crashes"),
            Self::LearnGone(host) => write!(f, "host {host} is told that the other is gone"),
        }
    }
}
