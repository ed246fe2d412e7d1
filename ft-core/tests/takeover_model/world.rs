//! Two hosts, two wires, an arbiter, and the one thing at a time that can happen to them.
//!
//! The replicas are the crate's own. The machine is no more than the count of its effects: each record marks one.
//!
//! Invariant: a world that has broken a rule stands still, so that the trace ends where the rule broke.

use bytes::Bytes;
use ft_core::arbiter::{Arbiter as _, ClaimOutcome, MemoryArbiter};
use ft_core::config::Config;
use ft_core::digest::StateDigest;
use ft_core::effect::{Effect, EffectKind, Numbered};
use ft_core::error::HaltReason;
use ft_core::message::{Envelope, Message, PROTOCOL_VERSION, Profile};
use ft_core::primary::Standing;
use ft_core::replica::{Identity, Notice, Output, Replica, Role};
use ft_core::secondary::Progress;
use ft_core::transfer::StateHead;
use ft_core::units::{EffectSeq, HostId, Instant, NodeId, Session, Span, Term, Tick, VirtualTime};
use ft_core::{Event, Point};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// How far time moves at once: one heartbeat. Ticks and messages come in any order within a step, so that a tick may follow
/// a message at once or a whole heartbeat later.
const STEP: Span = Span(100);

/// The host whose replica is the first primary, and the other.
pub(crate) const FIRST: usize = 0;
pub(crate) const SECOND: usize = 1;

/// The shortest silence and the longest lease that are valid: the hardest configuration for R4. Everything that only
/// repeats what was lost is put off beyond the world's end: the wires repeat what they carry anyway.
fn config() -> Config {
    let silence = STEP.scale(3, 1);
    let never = STEP.scale(1000, 1);
    Config {
        heartbeat: STEP,
        silence,
        lease: silence.scale(99, 100),
        resend_after: never,
        claim_retry: silence,
        lag_target: never,
        ..Config::default()
    }
}

/// What is left to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Steps of time.
    pub(crate) steps: u8,
    /// Ticks that hosts may leave out: pauses.
    pub(crate) skips: u8,
    /// Effects that the machine emits.
    pub(crate) effects: u8,
    /// Hosts that may crash.
    pub(crate) crashes: u8,
    /// Answers of the arbiter that may be lost.
    pub(crate) lost_answers: u8,
    /// Messages that a wire remembers. It delivers each of them any number of times, in any order, or never; an older one
    /// is lost for good.
    pub(crate) wire: usize,
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// Two nodes were live in one term.
    OneLive,
    /// A node was live in a term that another owned and had not renounced.
    Owner,
    /// A node let out an effect after another had become live in a later term.
    LateRelease,
    /// A node let out an effect after it was over.
    DeadRelease,
    /// An effect left before the secondary held its record.
    OutputRule,
    /// A new live machine did not know of an effect that had left, or kept one back.
    LostEffect,
    /// Effects left out of turn.
    Order,
    /// A copy halted for another reason than that it lost.
    Halt,
}

/// All that can be told of a world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) left: Bounds,
    /// The secondary's machine applies nothing before it must.
    lags: bool,
    pub(crate) hosts: [Host; 2],
    /// By receiver, oldest news first.
    wires: [Vec<Arc<Envelope>>; 2],
    pub(crate) arbiter: MemoryArbiter,
    requests: BTreeSet<(usize, Term)>,
    answers: BTreeSet<(usize, Term, ClaimOutcome)>,
    pub(crate) history: History,
}

/// A host and the process on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    /// `None` once it has crashed.
    pub(crate) replica: Option<Arc<Replica>>,
    /// It has ticked since time last passed.
    ticked: bool,
    /// The machine: how many effects it has emitted.
    emitted: EffectSeq,
    /// What the secondary here last held.
    covered: EffectSeq,
    /// It has been told that the other is gone.
    knows_gone: bool,
}

/// What the outside has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// Who was live in each term.
    live: BTreeMap<Term, usize>,
    /// Terms that their owner will not use.
    pub(crate) renounced: BTreeSet<Term>,
    /// The last effect that has left.
    pub(crate) released: EffectSeq,
    pub(crate) breach: Option<Breach>,
}

/// The one thing that happens next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Time passes on both hosts.
    Pass,
    /// A host notices that time has passed.
    Tick(usize),
    /// A message arrives.
    Deliver { to: usize, envelope: Arc<Envelope> },
    /// The machine emits an effect.
    Emit(usize),
    /// The machine of a secondary takes in what is there, and goes live if that is due.
    Step(usize),
    /// A claim reaches the arbiter.
    Decide(usize, Term),
    /// The arbiter's answer arrives, or instead of it only that there is none.
    Answer { to: usize, term: Term, outcome: ClaimOutcome, lost: bool },
    /// A host is gone.
    Crash(usize),
    /// Proof of that arrives.
    Gone(usize),
}

impl World {
    /// A protected pair that has just heard from each other, with `left` to happen.
    pub(crate) fn pair(left: Bounds, lags: bool) -> Self {
        let host = || Host {
            replica: None,
            ticked: true,
            emitted: EffectSeq(0),
            covered: EffectSeq(0),
            knows_gone: false,
        };
        let mut world = Self {
            now: Instant(0),
            left,
            lags: false,
            hosts: [host(), host()],
            wires: [Vec::new(), Vec::new()],
            arbiter: MemoryArbiter::default(),
            requests: BTreeSet::new(),
            answers: BTreeSet::new(),
            history: History::default(),
        };
        let first = Replica::create(world.now, identity(FIRST)).expect("the configuration is valid");
        world.hosts[FIRST].replica = Some(Arc::new(first));
        world.run_fairly(1);
        let second = Replica::join(world.now, identity(SECOND), host_id(FIRST), Session(1));
        world.hosts[SECOND].replica = Some(Arc::new(second.expect("the configuration is valid")));
        world.run_fairly(8);
        assert_eq!(world.standing(FIRST), Some(Standing::Paired { host: host_id(SECOND), protected: true }));
        assert_eq!(world.progress(SECOND), Some(Progress::Following { eligible: true }));
        world.lags = lags;
        world
    }

    /// What a primary on `host` is doing.
    pub(crate) fn standing(&self, host: usize) -> Option<Standing> {
        match self.hosts[host].replica.as_ref()?.role() {
            Role::Primary(primary) => Some(primary.standing()),
            _ => None,
        }
    }

    /// What a secondary on `host` is doing.
    pub(crate) fn progress(&self, host: usize) -> Option<Progress> {
        match self.hosts[host].replica.as_ref()?.role() {
            Role::Secondary(secondary) => Some(secondary.progress()),
            _ => None,
        }
    }

    /// Why the copy on `host` is over, if it is.
    pub(crate) fn halted(&self, host: usize) -> Option<&HaltReason> {
        match self.hosts[host].replica.as_ref()?.role() {
            Role::Halted(halted) => Some(&halted.reason),
            _ => None,
        }
    }

    /// The term of the copy on `host`; `None` where it has crashed or is over.
    pub(crate) fn term(&self, host: usize) -> Option<Term> {
        let replica = self.hosts[host].replica.as_ref()?;
        (!matches!(replica.role(), Role::Halted(_))).then(|| replica.term())
    }

    /// Whether the copies on both sides are in contact while a claim is underway.
    pub(crate) fn is_reunited(&self) -> bool {
        let claims = |host| {
            self.requests.iter().any(|(by, _)| *by == host) || self.answers.iter().any(|(to, ..)| *to == host)
        };
        matches!(self.standing(FIRST), Some(Standing::Paired { .. })) && claims(FIRST)
    }

    /// All that can happen next.
    pub(crate) fn actions(&self, actions: &mut Vec<Action>) {
        if self.history.breach.is_some() || self.is_settled() {
            return;
        }
        for (host, other) in [(FIRST, SECOND), (SECOND, FIRST)] {
            if self.hosts[host].replica.is_none() {
                continue;
            }
            if self.is_due(host) {
                actions.push(Action::Tick(host));
            }
            let deliver = |envelope: &Arc<Envelope>| Action::Deliver { to: host, envelope: envelope.clone() };
            actions.extend(self.wires[host].iter().map(deliver));
            if self.standing(host).is_some() && self.left.effects > 0 {
                actions.push(Action::Emit(host));
            }
            if self.progress(host) == Some(Progress::Promoting) {
                actions.push(Action::Step(host));
            }
            if self.left.crashes > 0 {
                actions.push(Action::Crash(host));
            }
            if self.hosts[other].replica.is_none() && !self.hosts[host].knows_gone {
                actions.push(Action::Gone(host));
            }
        }
        actions.extend(self.requests.iter().map(|(host, term)| Action::Decide(*host, *term)));
        for (to, term, outcome) in self.answers.iter().copied() {
            actions.push(Action::Answer { to, term, outcome, lost: false });
            if self.left.lost_answers > 0 {
                actions.push(Action::Answer { to, term, outcome, lost: true });
            }
        }
        let late = [FIRST, SECOND].into_iter().filter(|host| self.is_due(*host)).count();
        if self.left.steps > 0 && late <= usize::from(self.left.skips) {
            actions.push(Action::Pass);
        }
    }

    /// Lets it happen.
    pub(crate) fn act(&mut self, action: Action) {
        match action {
            Action::Pass => {
                self.left.steps -= 1;
                self.left.skips -=
                    [FIRST, SECOND].into_iter().filter(|host| self.is_due(*host)).count() as u8;
                self.pass();
            }
            Action::Tick(host) => self.tick(host),
            Action::Deliver { to, envelope } => self.deliver(to, &envelope),
            Action::Emit(host) => {
                self.left.effects -= 1;
                self.emit(host);
            }
            Action::Step(host) => self.step(host),
            Action::Decide(host, term) => self.decide(host, term),
            Action::Answer { to, term, outcome, lost } => {
                self.left.lost_answers -= u8::from(lost);
                self.answer(to, term, outcome, lost);
            }
            Action::Crash(host) => {
                self.left.crashes -= 1;
                self.hosts[host].replica = None;
                self.forget(host);
            }
            Action::Gone(host) => {
                self.hosts[host].knows_gone = true;
                self.with(host, |now, replica| replica.handle_peer_gone(now, host_id(1 - host)));
            }
        }
    }

    /// Loses all that is on its way.
    pub(crate) fn lose_all(&mut self) {
        self.wires.iter_mut().for_each(Vec::clear);
        self.requests.clear();
        self.answers.clear();
    }

    /// Time passes, and all arrives at once and in order.
    pub(crate) fn run_fairly(&mut self, steps: usize) {
        for _ in 0..steps {
            self.exchange();
            self.pass();
            self.tick(FIRST);
            self.tick(SECOND);
            self.exchange();
        }
    }

    fn exchange(&mut self) {
        loop {
            for host in [FIRST, SECOND] {
                self.step(host);
            }
            if let Some((host, term)) = self.requests.first().copied() {
                self.decide(host, term);
            } else if let Some((to, term, outcome)) = self.answers.first().copied() {
                self.answer(to, term, outcome, false);
            } else if let Some(to) = [FIRST, SECOND].into_iter().find(|to| !self.wires[*to].is_empty()) {
                let envelope = self.wires[to].remove(0);
                self.deliver(to, &envelope);
            } else {
                return;
            }
        }
    }

    fn pass(&mut self) {
        self.now = self.now + STEP;
        self.hosts.iter_mut().for_each(|host| host.ticked = false);
    }

    fn tick(&mut self, host: usize) {
        self.hosts[host].ticked = true;
        self.with(host, |now, replica| replica.handle_tick(now));
    }

    /// Whether a host has not noticed yet that time has passed.
    fn is_due(&self, host: usize) -> bool {
        !self.hosts[host].ticked && self.term(host).is_some()
    }

    /// Whether nothing can happen any more that matters: at most one copy is left, and nobody is in its way.
    fn is_settled(&self) -> bool {
        match (self.term(FIRST), self.term(SECOND)) {
            (None, None) => true,
            (Some(_), None) => self.standing(FIRST) == Some(Standing::Solo),
            (None, Some(_)) => self.standing(SECOND) == Some(Standing::Solo),
            (Some(_), Some(_)) => false,
        }
    }

    fn deliver(&mut self, to: usize, envelope: &Envelope) {
        self.with(to, |now, replica| replica.handle_message(now, host_id(1 - to), envelope.clone()));
        if !self.lags && self.progress(to) != Some(Progress::Promoting) {
            self.step(to);
        }
    }

    fn decide(&mut self, host: usize, term: Term) {
        self.requests.remove(&(host, term));
        let outcome = self.arbiter.claim(term, node_id(host));
        if self.hosts[host].replica.is_some() {
            self.answers.insert((host, term, outcome));
        }
    }

    fn answer(&mut self, to: usize, term: Term, outcome: ClaimOutcome, lost: bool) {
        self.answers.remove(&(to, term, outcome));
        let outcome = if lost { ClaimOutcome::Unreachable } else { outcome };
        self.with(to, |now, replica| replica.handle_claim(now, term, outcome));
    }

    /// The live machine on `host` emits an effect, if it may run.
    pub(crate) fn emit(&mut self, host: usize) {
        let Host { replica: Some(replica), emitted, .. } = &mut self.hosts[host] else { return };
        let Some((primary, out)) =
            Arc::make_mut(replica).primary().filter(|(primary, _)| !primary.is_blocked())
        else {
            return;
        };
        *emitted = emitted.next();
        let record = primary.record(self.now, Point::default(), Event::Emit { count: 1, digest: 0 }, out);
        record.expect("a mark is not too long");
        primary.hold(self.now, vec![effect(*emitted)], out);
        self.carry_out(host);
    }

    fn step(&mut self, host: usize) {
        let now = self.now;
        let Host { replica: Some(replica), emitted, .. } = &mut self.hosts[host] else { return };
        let replica = Arc::make_mut(replica);
        if let Some((primary, out)) = replica.primary().filter(|(primary, _)| primary.wants_chunk()) {
            primary.flush(now, out);
            let (end, emitted) = (primary.log().sealed(), *emitted);
            let (tick, clock, digest) = (Tick(0), VirtualTime(0), StateDigest(0));
            let head = StateHead { end, tick, clock, emitted, digest };
            primary.add_chunk(now, Bytes::new(), Some(head), out);
        }
        if let Some((secondary, out)) = replica.secondary() {
            while let Some(chunk) = secondary.next_chunk() {
                *emitted = chunk.head.expect("there is one piece").emitted;
                secondary.restored(now, StateDigest(0), out).expect("the digests are equal");
            }
            while secondary.next_record().is_some() {
                *emitted = emitted.next();
                secondary.applied_next(vec![effect(*emitted)]);
            }
            if secondary.is_drained() {
                self.go_live(host);
            }
        }
        self.carry_out(host);
    }

    fn go_live(&mut self, host: usize) {
        let Some(replica) = &mut self.hosts[host].replica else { return };
        Arc::make_mut(replica).go_live(Vec::new());
        self.carry_out(host);
        if self.hosts[host].emitted != self.history.released {
            self.breach(Breach::LostEffect);
        }
    }

    fn with(&mut self, host: usize, handle: impl FnOnce(Instant, &mut Replica)) {
        let now = self.now;
        if let Some(replica) = &mut self.hosts[host].replica {
            handle(now, Arc::make_mut(replica));
            self.carry_out(host);
        }
    }

    fn carry_out(&mut self, host: usize) {
        let poll = |replica: &mut Arc<Replica>| Arc::make_mut(replica).poll();
        while let Some(output) = self.hosts[host].replica.as_mut().and_then(poll) {
            match output {
                Output::Send { envelope, .. } => self.send(1 - host, Arc::new(envelope)),
                Output::Claim(term) => {
                    self.requests.insert((host, term));
                }
                Output::Release(numbered) => self.release(host, numbered.seq),
                Output::Notice(notice) => self.hear(notice),
            }
        }
        self.inspect(host);
    }

    fn send(&mut self, to: usize, envelope: Arc<Envelope>) {
        let exists = self.term(to).is_some();
        let wire = &mut self.wires[to];
        if !exists || wire.contains(&envelope) {
            return;
        }
        wire.push(envelope);
        wire.sort_by_cached_key(|envelope| (age(envelope), envelope.encode()));
        if wire.len() > self.left.wire {
            wire.remove(0);
        }
    }

    fn release(&mut self, host: usize, seq: EffectSeq) {
        let (Some(standing), Some(term)) = (self.standing(host), self.term(host)) else {
            return self.breach(Breach::DeadRelease);
        };
        if self.history.live.last_key_value().is_some_and(|(later, other)| *later > term && *other != host) {
            self.breach(Breach::LateRelease);
        }
        let depends = matches!(standing, Standing::Paired { .. } | Standing::Contested(_));
        if depends && seq > self.hosts[1 - host].covered {
            self.breach(Breach::OutputRule);
        }
        if seq > self.history.released.next() {
            self.breach(Breach::Order);
        }
        self.history.released = self.history.released.max(seq);
    }

    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Renounced(term) => {
                self.history.renounced.insert(term);
            }
            Notice::Halted(HaltReason::Lost { .. } | HaltReason::Superseded { .. }) => {}
            Notice::Halted(_) => self.breach(Breach::Halt),
            _ => {}
        }
    }

    /// What is on its way to a copy that has crashed or is over does not matter.
    fn forget(&mut self, host: usize) {
        self.wires[host].clear();
        self.answers.retain(|(to, ..)| *to != host);
    }

    fn inspect(&mut self, host: usize) {
        let Some(replica) = &self.hosts[host].replica else { return };
        match replica.role() {
            Role::Primary(primary) if primary.standing() != Standing::Creating => {
                let term = primary.term();
                let owns = self.arbiter.owners().get(&term) == Some(&node_id(host));
                if !owns && !self.history.renounced.contains(&term) {
                    self.breach(Breach::Owner);
                }
                if *self.history.live.entry(term).or_insert(host) != host {
                    self.breach(Breach::OneLive);
                }
            }
            Role::Secondary(secondary) => self.hosts[host].covered = secondary.covered(),
            Role::Primary(_) => {}
            Role::Halted(_) => self.forget(host),
        }
    }

    /// Notes the first breach.
    fn breach(&mut self, breach: Breach) {
        self.history.breach.get_or_insert(breach);
    }
}

/// Names a host for the replicas.
pub(crate) fn host_id(host: usize) -> HostId {
    HostId(host as u64)
}

/// Names the process on a host for the arbiter.
pub(crate) fn node_id(host: usize) -> NodeId {
    NodeId { host: host_id(host), incarnation: 1 }
}

/// When a message was news. What one side says gets newer and newer, so this is the order in which it was said first.
fn age(envelope: &Envelope) -> Instant {
    match &envelope.message {
        Message::Log { time, .. } | Message::Heartbeat { time, .. } => *time,
        Message::Ack(ack) => ack.echo,
        _ => Instant(u64::MAX),
    }
}

fn identity(host: usize) -> Identity {
    let profile = Profile { protocol: PROTOCOL_VERSION, ..Profile::default() };
    Identity { node: node_id(host), profile, config: config() }
}

fn effect(seq: EffectSeq) -> Numbered {
    let effect = Effect { kind: EffectKind::Console, device: 0, op: None, payload: Bytes::new() };
    Numbered { seq, effect }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => write!(f, "time passes"),
            Self::Tick(host) => write!(f, "host {host} ticks"),
            Self::Deliver { to, envelope } => write!(f, "host {to} gets {envelope}"),
            Self::Emit(host) => write!(f, "the machine on host {host} emits an effect"),
            Self::Step(host) => write!(f, "the machine on host {host} takes in what is there"),
            Self::Decide(host, term) => write!(f, "the arbiter gets host {host}'s claim of {term}"),
            Self::Answer { to, term, outcome, lost: false } => {
                write!(f, "host {to} hears of {term}: {outcome:?}")
            }
            Self::Answer { to, term, outcome, lost: true } => {
                write!(f, "host {to} does not hear of {term}: {outcome:?}")
            }
            Self::Crash(host) => write!(f, "host {host} crashes"),
            Self::Gone(host) => write!(f, "host {host} learns that the other is gone"),
        }
    }
}
