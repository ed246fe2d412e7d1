//! Two hosts, two wires and an arbiter.
//!
//! The replicas are the crate's own. The machine is no more than the count of its effects: each record marks one.

use crate::action::Bounds;
use crate::history::{Breach, History};
use bytes::Bytes;
use ft_core::arbiter::{Arbiter as _, ClaimOutcome, MemoryArbiter};
use ft_core::config::Config;
use ft_core::digest::StateDigest;
use ft_core::effect::{Effect, EffectKind, Numbered};
use ft_core::error::HaltReason;
use ft_core::message::{Envelope, Message, PROTOCOL_VERSION, Profile};
use ft_core::primary::Standing;
use ft_core::replica::{Identity, Output, Replica, Role};
use ft_core::secondary::Progress;
use ft_core::transfer::StateHead;
use ft_core::units::{EffectSeq, HostId, Instant, NodeId, Session, Span, Term, Tick, VirtualTime};
use ft_core::{Event, Point};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How far time moves at once: a heartbeat. Within a step ticks and messages come in any order, so a tick follows a message
/// at once or a whole heartbeat later.
const STEP: Span = Span(100);

/// The host of the first primary, and the other.
pub(crate) const FIRST: usize = 0;
pub(crate) const SECOND: usize = 1;
pub(crate) const HOSTS: [usize; 2] = [FIRST, SECOND];

/// The shortest silence and the longest lease that are valid: the hardest configuration for R4.
fn config() -> Config {
    let silence = STEP.scale(3, 1);
    let never = STEP.scale(1000, 1);
    let config = Config {
        heartbeat: STEP,
        silence,
        lease: STEP.scale(2, 1).scale(99, 100),
        stall: never,
        resend_after: STEP.scale(4, 1),
        claim_retry: silence,
        ack_after: Span::ZERO,
        lag_target: never,
        ..Config::default()
    };
    let longer = Config { lease: Span(config.lease.0 + 1), ..config.clone() };
    assert!(config.validate().is_ok() && longer.validate().is_err(), "the longest valid lease");
    config
}

/// What is broken on purpose, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// Hosts are told that the other is gone when it is not.
    FalseProof,
    /// The arbiter says yes to everybody.
    ForgetfulArbiter,
}

/// How a world begins: as a protected pair, whose two sides know of each other what they should, or not quite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Start {
    /// They have just heard from each other.
    InStep,
    /// The same; and the secondary's machine applies nothing before it must.
    Lagging,
    /// The secondary has won a term too late, and the primary has not heard that it does not use it.
    Renounced,
    /// The primary has won a term too late, and the secondary has not heard that they are in it.
    WonLate,
}

/// All that can be told of a world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) left: Bounds,
    pub(crate) flaw: Flaw,
    pub(crate) start: Start,
    pub(crate) hosts: [Host; 2],
    /// By receiver, oldest news first.
    pub(crate) wires: [Vec<Arc<Envelope>>; 2],
    pub(crate) arbiter: MemoryArbiter,
    /// Claims on their way to the arbiter.
    pub(crate) requests: BTreeSet<(usize, Term)>,
    /// What it said to them, on its way back.
    pub(crate) answers: BTreeSet<(usize, Term, ClaimOutcome)>,
    pub(crate) history: History,
}

/// A host and the process on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    /// `None` once it has crashed.
    pub(crate) replica: Option<Arc<Replica>>,
    /// The machine: how many effects it has emitted.
    pub(crate) emitted: EffectSeq,
    /// What the secondary here last held.
    pub(crate) covered: EffectSeq,
    /// It has ticked since time last passed.
    pub(crate) ticked: bool,
    /// It has been told that the other is gone.
    pub(crate) knows_gone: bool,
}

impl World {
    /// A protected pair, with `left` to happen.
    pub(crate) fn new(left: Bounds, flaw: Flaw, start: Start) -> Self {
        let (emitted, covered) = (EffectSeq(0), EffectSeq(0));
        let host = || Host { replica: None, emitted, covered, ticked: true, knows_gone: false };
        let mut world = Self {
            now: Instant(0),
            left,
            flaw,
            start: Start::InStep,
            hosts: [host(), host()],
            wires: [Vec::new(), Vec::new()],
            arbiter: MemoryArbiter::default(),
            requests: BTreeSet::new(),
            answers: BTreeSet::new(),
            history: History::default(),
        };
        let first = Replica::create(world.now, identity(FIRST), Term(0)).expect("a valid configuration");
        world.hosts[FIRST].replica = Some(Arc::new(first));
        world.run_fairly(1);
        let second = Replica::join(world.now, identity(SECOND), host_id(FIRST), Session(1));
        world.hosts[SECOND].replica = Some(Arc::new(second.expect("a valid configuration")));
        world.run_fairly(8);
        world.start = start;
        assert!(world.is_protected());
        let terms = match start {
            Start::InStep | Start::Lagging => [1, 1],
            Start::Renounced => {
                world.win_late(SECOND);
                [1, 2]
            }
            Start::WonLate => {
                world.win_late(FIRST);
                [2, 1]
            }
        };
        assert!(world.is_protected());
        assert_eq!(HOSTS.map(|host| world.term(host)), terms.map(|term| Some(Term(term))));
        world
    }

    /// One side hears nothing until it claims the next term; then it does, and wins the term too late. The other has not
    /// been told.
    fn win_late(&mut self, deaf: usize) {
        for _ in 0..3 {
            self.lose_all();
            self.pass();
            HOSTS.into_iter().for_each(|host| self.tick(host));
            self.deliver_all(1 - deaf);
        }
        self.deliver_all(deaf);
        self.decide(deaf, Term(2));
        self.answer(deaf, Term(2), ClaimOutcome::Won, false);
        self.lose_all();
    }

    fn deliver_all(&mut self, to: usize) {
        while !self.wires[to].is_empty() {
            let envelope = self.wires[to].remove(0);
            self.deliver(to, &envelope);
        }
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

    /// Whether the first primary and its secondary are in step, as far as they know.
    pub(crate) fn is_protected(&self) -> bool {
        self.standing(FIRST) == Some(Standing::Paired { host: host_id(SECOND), protected: true })
            && self.progress(SECOND) == Some(Progress::Following { eligible: true })
    }

    /// Which host has the only copy, live.
    pub(crate) fn solo(&self) -> Option<usize> {
        let is_solo =
            |host: &usize| self.standing(*host) == Some(Standing::Solo) && self.term(1 - host).is_none();
        HOSTS.into_iter().find(is_solo)
    }

    /// Whether no copy is left.
    pub(crate) fn is_extinct(&self) -> bool {
        HOSTS.into_iter().all(|host| self.term(host).is_none())
    }

    /// Whether a host has not noticed yet that time has passed.
    pub(crate) fn is_due(&self, host: usize) -> bool {
        !self.hosts[host].ticked && self.term(host).is_some()
    }

    /// Whether `host` has asked for a term and not heard.
    pub(crate) fn has_claimed(&self, host: usize) -> bool {
        self.requests.iter().any(|(by, _)| *by == host) || self.answers.iter().any(|(to, ..)| *to == host)
    }

    pub(crate) fn pass(&mut self) {
        self.now = self.now + STEP;
        self.hosts.iter_mut().for_each(|host| host.ticked = false);
    }

    pub(crate) fn tick(&mut self, host: usize) {
        self.hosts[host].ticked = true;
        self.with(host, |now, replica| replica.handle_tick(now));
    }

    pub(crate) fn deliver(&mut self, to: usize, envelope: &Envelope) {
        self.with(to, |now, replica| replica.handle_message(now, host_id(1 - to), envelope.clone()));
        if self.start != Start::Lagging && self.progress(to) != Some(Progress::Promoting) {
            self.step(to);
        }
    }

    pub(crate) fn decide(&mut self, host: usize, term: Term) {
        self.requests.remove(&(host, term));
        let verdict = self.arbiter.claim(term, node_id(host));
        let outcome = if self.flaw == Flaw::ForgetfulArbiter { ClaimOutcome::Won } else { verdict };
        if self.term(host).is_some() {
            self.answers.insert((host, term, outcome));
        }
    }

    pub(crate) fn answer(&mut self, to: usize, term: Term, outcome: ClaimOutcome, lost: bool) {
        self.answers.remove(&(to, term, outcome));
        let outcome = if lost { ClaimOutcome::Unreachable } else { outcome };
        self.with(to, |now, replica| replica.handle_claim(now, term, outcome));
    }

    pub(crate) fn crash(&mut self, host: usize) {
        self.hosts[host].replica = None;
        self.forget(host);
    }

    pub(crate) fn learn_gone(&mut self, host: usize) {
        self.hosts[host].knows_gone = true;
        self.with(host, |now, replica| replica.handle_peer_gone(now, node_id(1 - host)));
    }

    /// The live machine on `host` emits an effect, if it may run.
    pub(crate) fn emit(&mut self, host: usize) {
        let Host { replica: Some(replica), emitted, .. } = &mut self.hosts[host] else { return };
        let Some((primary, out)) = Arc::make_mut(replica).primary() else { return };
        if primary.is_blocked() {
            return;
        }
        *emitted = emitted.next();
        let mark = Event::Emit { count: 1, digest: 0 };
        primary.record(self.now, Point::default(), mark, out).expect("a mark is not too long");
        primary.hold(self.now, vec![effect(*emitted)], out);
        self.carry_out(host);
    }

    /// The machine on `host` takes in what is there for it, and goes live if that is due.
    pub(crate) fn step(&mut self, host: usize) {
        let now = self.now;
        let Host { replica: Some(replica), emitted, .. } = &mut self.hosts[host] else { return };
        let replica = Arc::make_mut(replica);
        if let Some((primary, out)) = replica.primary().filter(|(primary, _)| primary.wants_chunk().is_some())
        {
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
            secondary.flush(now, out);
            if secondary.is_drained() {
                replica.go_live(now, Vec::new());
                self.carry_out(host);
                return self.check_takeover(host);
            }
        }
        self.carry_out(host);
    }

    /// Loses all that is on its way.
    pub(crate) fn lose_all(&mut self) {
        self.wires.iter_mut().for_each(Vec::clear);
        self.requests.clear();
        self.answers.clear();
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
                Output::Sealed(_) => {}
                Output::Notice(notice) => self.hear(notice),
            }
        }
        if self.halted(host).is_some() {
            self.forget(host);
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
        wire.sort_by_cached_key(|envelope| (age(envelope), envelope.to_bytes()));
        if wire.len() > self.left.wire {
            wire.remove(0);
        }
    }

    /// What is on its way to a copy that has crashed or is over does not matter.
    fn forget(&mut self, host: usize) {
        self.wires[host].clear();
        self.answers.retain(|(to, ..)| *to != host);
    }

    /// Notes the first rule that is broken.
    pub(crate) fn breach(&mut self, breach: Breach) {
        self.history.breach.get_or_insert(breach);
    }
}

/// Names the process on a host for the arbiter.
pub(crate) fn node_id(host: usize) -> NodeId {
    NodeId { host: host_id(host), incarnation: 1 }
}

fn host_id(host: usize) -> HostId {
    HostId(host as u64)
}

fn identity(host: usize) -> Identity {
    let profile = Profile { protocol: PROTOCOL_VERSION, ..Profile::default() };
    Identity { node: node_id(host), profile, config: config() }
}

fn effect(seq: EffectSeq) -> Numbered {
    let effect = Effect { kind: EffectKind::Console, device: 0, op: None, payload: Bytes::new() };
    Numbered { seq, effect }
}

/// When a message was news. What one side says gets newer and newer, so this is the order in which it was first said.
fn age(envelope: &Envelope) -> Instant {
    match &envelope.message {
        Message::Log { time, .. } | Message::Heartbeat { time, .. } => *time,
        Message::Ack(ack) => ack.echo.max(ack.probe),
        _ => Instant(u64::MAX),
    }
}
