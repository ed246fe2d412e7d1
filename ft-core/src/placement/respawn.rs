//! Keeps one VM redundant: when it has only one copy, sees to the next.
//!
//! Like the rest of this crate it does no I/O and has no clock. `handle_*` takes in what happened and when; [`Respawner::poll`] gives out
//! what to do.
//!
//! ```text
//!          solo                 decision              protected
//!   Idle ---------> Asking -----------------> Starting ---------> Idle
//!                     ^  `-- nothing fits --.     | failed, too late
//!                     |                     v     v
//!                     `--- later, or news -- Waiting
//! ```
//!
//! Invariants: one attempt at a time; the next begins only after the one before was protected or abandoned. An attempt ends by
//! [`Action::Abandon`], unless the VM is protected by it or has become live there.

use super::{Decision, Demand};
use crate::planted::{Bug, planted};
use crate::units::{HostId, Instant, Span};
use std::collections::{BTreeMap, VecDeque};

/// How long a respawner waits for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RespawnConfig {
    /// For a started copy to hold the machine and follow. Bounds how long the state may take to get there.
    pub follow_within: Span,
    /// For the pair to be protected then.
    pub protect_within: Span,
    /// Before it tries again for the first time; doubles with each failure in a row. Nothing makes it try sooner after a failure.
    pub retry: Span,
    /// The longest such pause.
    pub retry_max: Span,
    /// How long a host is tried last after a copy failed there.
    pub suspect_for: Span,
    /// A copy that was lost sooner than this after it was protected counts as a failure.
    pub calm: Span,
}

impl Default for RespawnConfig {
    fn default() -> Self {
        Self {
            follow_within: Span::from_ms(300_000),
            protect_within: Span::from_ms(60_000),
            retry: Span::from_ms(1_000),
            retry_max: Span::from_ms(60_000),
            suspect_for: Span::from_ms(60_000),
            calm: Span::from_ms(30_000),
        }
    }
}

/// What a respawner wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Choose a host, alone ([`place`](super::place)) or together with other VMs ([`plan`](super::plan)), and say which:
    /// [`Respawner::handle_decision`].
    Place(Box<Demand>),
    /// Start a copy.
    Start {
        /// Names the attempt in what is said of it.
        attempt: u64,
        /// Where.
        host: HostId,
    },
    /// Stop what there is of an attempt's copy, if there is any. It may have to be repeated when the host does not answer; a copy that is
    /// forgotten there is refused by the primary.
    Abandon {
        /// Which attempt.
        attempt: u64,
        /// Where it was.
        host: HostId,
    },
}

/// Sees to the next copy of one VM, beside its live one.
#[derive(Clone, Debug)]
pub struct Respawner {
    config: RespawnConfig,
    phase: Phase,
    attempts: u64,
    /// In a row.
    failures: u32,
    /// Until when each is tried last.
    suspects: BTreeMap<HostId, Instant>,
    /// The last that was made, for people.
    decision: Option<Decision>,
    actions: VecDeque<Action>,
}

#[derive(Clone, Debug)]
enum Phase {
    Idle { protected: Option<Protected> },
    Asking { demand: Demand },
    Starting { demand: Demand, attempt: Attempt },
    Waiting { demand: Demand, since: Instant, until: Instant, why: Why },
}

#[derive(Clone, Copy, Debug)]
struct Protected {
    host: HostId,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    number: u64,
    host: HostId,
    until: Instant,
    follows: bool,
}

#[derive(Clone, Debug)]
enum Why {
    NothingFits,
    Failed(HostId, String),
}

impl Respawner {
    /// For a VM of which nothing is known yet.
    pub fn new(config: RespawnConfig) -> Self {
        Self {
            config,
            phase: Phase::Idle { protected: None },
            attempts: 0,
            failures: 0,
            suspects: BTreeMap::new(),
            decision: None,
            actions: VecDeque::new(),
        }
    }

    /// What to do next; `None` until something happens.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The last that was decided, since the VM became live here.
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// When [`Respawner::handle_tick`] has something to do.
    pub fn wake(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle { .. } | Phase::Asking { .. } => None,
            Phase::Starting { attempt, .. } => Some(attempt.until),
            Phase::Waiting { until, .. } => Some(*until),
        }
    }

    /// The VM's live copy is alone. Said again, it brings the demand up to date.
    pub fn handle_solo(&mut self, now: Instant, demand: Demand) {
        match &mut self.phase {
            Phase::Idle { protected } => match protected.take() {
                Some(protected) => self.lost(now, protected, demand),
                None => self.ask(demand),
            },
            Phase::Asking { demand: old } | Phase::Waiting { demand: old, .. } => *old = demand,
            Phase::Starting { demand: old, .. } if old.live == demand.live => *old = demand,
            Phase::Starting { attempt, .. } => {
                let attempt = *attempt;
                if demand.live != Some(attempt.host) {
                    self.abandon(attempt);
                }
                self.ask(demand);
            }
        }
    }

    /// The host for [`Action::Place`]. Anything else than an answer to it is ignored.
    pub fn handle_decision(&mut self, now: Instant, decision: Decision) {
        let Phase::Asking { demand } = &self.phase else { return };
        let demand = demand.clone();
        // Whoever decided: never beside the live copy.
        let chosen = decision.chosen.filter(|host| demand.live != Some(*host));
        self.decision = Some(decision);
        let Some(host) = chosen else {
            self.wait(now, demand, Why::NothingFits);
            return;
        };
        self.attempts += 1;
        let attempt =
            Attempt { number: self.attempts, host, until: now + self.config.follow_within, follows: false };
        self.actions.push_back(Action::Start { attempt: attempt.number, host });
        self.phase = Phase::Starting { demand, attempt };
    }

    /// The attempt's copy holds the machine and follows.
    pub fn handle_following(&mut self, now: Instant, number: u64) {
        if let Phase::Starting { attempt, .. } = &mut self.phase
            && attempt.number == number
            && !attempt.follows
        {
            attempt.follows = true;
            attempt.until = now + self.config.protect_within;
        }
    }

    /// The attempt came to nothing.
    pub fn handle_failed(&mut self, now: Instant, number: u64, reason: String) {
        if let Phase::Starting { demand, attempt } = &self.phase
            && attempt.number == number
        {
            let (demand, attempt) = (demand.clone(), *attempt);
            self.fail(now, demand, attempt, reason);
        }
    }

    /// The VM has a second copy on `host`, whoever saw to it.
    pub fn handle_protected(&mut self, now: Instant, host: HostId) {
        match &self.phase {
            Phase::Idle { protected: Some(protected) } if protected.host == host => return,
            &Phase::Starting { attempt, .. } if attempt.host != host => self.abandon(attempt),
            _ => {}
        }
        self.suspects.remove(&host);
        self.phase = Phase::Idle { protected: Some(Protected { host, since: now }) };
        self.forget_question();
    }

    /// The VM has ended, or its live copy has moved to where others see to it.
    pub fn handle_over(&mut self) {
        if let Phase::Starting { attempt, .. } = self.phase {
            self.abandon(attempt);
        }
        self.forget_question();
        let actions = std::mem::take(&mut self.actions);
        *self = Self { attempts: self.attempts, actions, ..Self::new(self.config.clone()) };
    }

    /// A host has appeared, or can be reached again, or has got room.
    pub fn handle_hosts_changed(&mut self, now: Instant) {
        let Phase::Waiting { since, until, why, .. } = &mut self.phase else { return };
        *until = match why {
            Why::NothingFits => {
                self.failures = 0;
                now
            }
            Why::Failed(..) => (*until).min(*since + self.config.retry),
        };
        self.handle_tick(now);
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Instant) {
        self.suspects.retain(|_, until| *until > now);
        match &self.phase {
            Phase::Waiting { until, demand, .. } if now >= *until => {
                let demand = demand.clone();
                self.ask(demand);
            }
            Phase::Starting { demand, attempt } if now >= attempt.until => {
                let (demand, attempt) = (demand.clone(), *attempt);
                let (what, limit) = if attempt.follows {
                    ("protected", self.config.protect_within)
                } else {
                    ("in step", self.config.follow_within)
                };
                self.fail(now, demand, attempt, format!("not {what} within {}", seconds(limit)));
            }
            _ => {}
        }
    }

    /// How things stand, for people: a line, and below it what was last said of each host.
    pub fn explain(&self, now: Instant) -> String {
        let head = match &self.phase {
            Phase::Idle { protected: None } => return "nothing to see to".into(),
            Phase::Idle { protected: Some(Protected { host, .. }) } => format!("protected, with {host}"),
            Phase::Asking { .. } => "choosing a host".into(),
            Phase::Starting { attempt: Attempt { number, host, until, follows }, .. } => {
                let doing = if *follows { "follows" } else { "is being started" };
                let left = seconds(until.since(now));
                format!("attempt {number}: the copy on {host} {doing}; given up in {left}")
            }
            Phase::Waiting { until, why, .. } => {
                let left = seconds(until.since(now));
                match why {
                    Why::NothingFits => {
                        format!("no host fits; looks again in {left}, or when a host changes")
                    }
                    Why::Failed(host, reason) => format!("{host} failed: {reason}; tries again in {left}"),
                }
            }
        };
        match &self.decision {
            Some(decision) => format!("{head}\n{decision}"),
            None => head,
        }
    }

    /// The second copy is gone. If that was soon, the next one may go the same way.
    fn lost(&mut self, now: Instant, Protected { host, since }: Protected, demand: Demand) {
        if now.since(since) >= self.config.calm {
            self.failures = 0;
            self.suspects.insert(host, now + self.config.suspect_for);
            self.ask(demand);
        } else {
            self.wait(now, demand, Why::Failed(host, "lost soon after the pair was protected".into()));
        }
    }

    fn ask(&mut self, demand: Demand) {
        let mut asked = demand.clone();
        asked.suspects.extend(self.suspects.keys());
        self.actions.push_back(Action::Place(Box::new(asked)));
        self.phase = Phase::Asking { demand };
    }

    /// A question that nobody has heard yet need not be asked any more.
    fn forget_question(&mut self) {
        self.actions.retain(|action| !matches!(action, Action::Place(_)));
    }

    fn abandon(&mut self, attempt: Attempt) {
        self.actions.push_back(Action::Abandon { attempt: attempt.number, host: attempt.host });
    }

    fn fail(&mut self, now: Instant, demand: Demand, attempt: Attempt, reason: String) {
        if !planted(Bug::Respawn) {
            self.abandon(attempt);
        }
        self.wait(now, demand, Why::Failed(attempt.host, reason));
    }

    fn wait(&mut self, now: Instant, demand: Demand, why: Why) {
        if let Why::Failed(host, _) = &why {
            self.suspects.insert(*host, now + self.config.suspect_for);
        }
        let pause = Span(self.config.retry.0.saturating_mul(1 << self.failures.min(32)));
        self.failures = self.failures.saturating_add(1);
        let until = now + pause.min(self.config.retry_max);
        self.phase = Phase::Waiting { demand, since: now, until, why };
    }
}

fn seconds(span: Span) -> String {
    format!("{} s", span.0.div_ceil(1_000_000_000))
}

#[cfg(test)]
mod tests;
