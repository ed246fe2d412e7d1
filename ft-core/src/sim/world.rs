//! One world: draws its faults from the seed, carries out what nodes want, and lets the checkers see it.

mod agents;

use agents::{Agent, Ask};

use super::check::{Checker, Failure, Rule};
use super::faults::{self, Fault};
use super::guest::{Guest, Speech};
use super::host::{Host, config};
use super::net::{Net, Weather};
use super::rng::Rng;
use crate::arbiter::{Arbiter as _, ClaimOutcome, MemoryArbiter};
use crate::effect::{EffectKind, Numbered};
use crate::error::HaltReason;
use crate::message::Envelope;
use crate::node::{Activity, Node};
use crate::primary::Standing;
use crate::record::Event;
use crate::replica::{Notice, Output, Role};
use crate::secondary::Progress;
use crate::units::{HostId, Instant, NodeId, Session, Span, Term};
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Requests that the client has open at a time.
const OPEN_REQUESTS: usize = 4;

/// Answers to new requests that count as progress.
const PROGRESS: u64 = 12;

/// Time in which a healed world must make progress.
const HEALING: Span = Span::from_ms(1500);

/// Events after which a world counts as stuck in a loop.
const MAX_EVENTS: u64 = 3_000_000;

/// What happens at a moment.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Tick(HostId),
    Step(HostId),
    Deliver {
        from: HostId,
        to: HostId,
        envelope: Envelope,
    },
    /// A claim reaches the arbiter.
    Claim {
        host: HostId,
        node: NodeId,
        term: Term,
        answered: bool,
    },
    Claimed {
        host: HostId,
        life: u64,
        term: Term,
        outcome: ClaimOutcome,
    },
    /// The client sends what is unanswered.
    Client,
    Input {
        host: HostId,
        life: u64,
        event: Event,
    },
    Gone {
        host: HostId,
        about: NodeId,
    },
    /// One agent asks another.
    Ask {
        from: HostId,
        to: HostId,
        ask: Ask,
    },
    Begin,
    End(Fault),
    Heal,
}

/// What a world went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that happened.
    pub events: u64,
    /// Effects that left.
    pub effects: u64,
    /// Effects that left again.
    pub repeats: u64,
    /// Requests answered.
    pub answered: u64,
    /// Times that a pair became protected.
    pub protected: u64,
    /// Times that a secondary went live.
    pub takeovers: u64,
    /// Times that a primary went on alone.
    pub solos: u64,
    /// Times that a live copy handed the machine over.
    pub yielded: u64,
    /// Copies that agents asked for.
    pub respawns: u64,
    /// Secondaries that another one relieved.
    pub relieved: u64,
    /// Terms that were won and not used.
    pub renounced: u64,
    /// Copies that halted because another was live.
    pub losers: u64,
}

/// How a world ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Every rule held, and the healed world moved.
    Passed(Stats),
    /// Every rule held, and faults took every copy of the machine.
    Extinct(Stats),
    /// A rule was broken, at this time.
    Failed(Stats, Instant, Failure),
}

/// Runs the world of `seed`.
pub fn run(seed: u64) -> Verdict {
    World::new(seed).run()
}

/// Runs the world of `seed` and gives every event to `sink`, a line each.
pub fn trace(seed: u64, sink: impl FnMut(String) + 'static) -> Verdict {
    let mut world = World::new(seed);
    world.sink = Some(Box::new(sink));
    world.run()
}

/// A world under way.
pub struct World {
    rng: Rng,
    now: Instant,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    hosts: Vec<Host>,
    /// None, or one for each host.
    agents: Vec<Agent>,
    net: Net,
    arbiter: MemoryArbiter,
    arbiter_slow: bool,
    disk_full: bool,
    strict: bool,
    healed: bool,
    /// Lives that a fault ended.
    taken: BTreeSet<u64>,
    client: Client,
    checker: Checker,
    stats: Stats,
    sink: Option<Box<dyn FnMut(String)>>,
}

struct Entry {
    at: Instant,
    order: u64,
    happening: Happening,
}

/// The client outside: keeps a few requests open, repeats them until they are answered.
struct Client {
    next: u64,
    open: Vec<u64>,
    /// Where the machine's address was announced last.
    home: HostId,
    answered: u64,
    /// Requests from here on were made after everything healed.
    fresh_from: u64,
    fresh_answered: u64,
}

impl World {
    /// The world of `seed`, at its beginning.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.range(2..5);
        let hosts = (0..count).map(|id| Host::new(HostId(id), &mut rng)).collect();
        let agents = if rng.chance(500) { (0..count).map(|_| Agent::new()).collect() } else { Vec::new() };
        let mut world = Self {
            strict: rng.chance(200),
            rng,
            now: Instant(0),
            order: 0,
            queue: BinaryHeap::new(),
            hosts,
            agents,
            net: Net::new(),
            arbiter: MemoryArbiter::default(),
            arbiter_slow: false,
            disk_full: false,
            healed: false,
            taken: BTreeSet::new(),
            client: Client {
                next: 1,
                open: Vec::new(),
                home: HostId(0),
                answered: 0,
                fresh_from: u64::MAX,
                fresh_answered: 0,
            },
            checker: Checker::default(),
            stats: Stats::default(),
            sink: None,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for id in 0..self.hosts.len() as u64 {
            let offset = Span::from_us(self.rng.range(0..1000));
            self.schedule(offset, Happening::Tick(HostId(id)));
        }
        self.schedule(Span::ZERO, Happening::Client);
        let calm = if self.rng.chance(300) { 0 } else { 40 };
        let storm = self.rng.range(50..250);
        for _ in 0..self.rng.range(1..8) {
            let at = Span::from_ms(calm + self.rng.range(0..storm));
            self.schedule(at, Happening::Begin);
        }
        self.schedule(Span::from_ms(calm + storm), Happening::Heal);
        self.start(HostId(0), None);
    }

    fn run(mut self) -> Verdict {
        match self.live_on() {
            Ok(()) => {}
            Err(failure) => {
                self.note(|| format!("FAILED {failure}"));
                return Verdict::Failed(self.stats(), self.now, failure);
            }
        }
        if self.client.fresh_answered >= PROGRESS {
            Verdict::Passed(self.stats())
        } else {
            Verdict::Extinct(self.stats())
        }
    }

    fn live_on(&mut self) -> Result<(), Failure> {
        let mut deadline = Instant(u64::MAX);
        while let Some(Reverse(entry)) = self.queue.pop() {
            self.now = entry.at;
            self.stats.events += 1;
            if matches!(entry.happening, Happening::Heal) {
                deadline = self.now + HEALING;
            }
            if self.now > deadline || self.stats.events > MAX_EVENTS {
                return self.explain_standstill();
            }
            self.happen(entry.happening)?;
            if self.healed && self.client.fresh_answered >= PROGRESS && self.is_whole() {
                return Ok(());
            }
        }
        unreachable!("ticks go on for ever")
    }

    fn stats(&self) -> Stats {
        Stats {
            effects: self.checker.effects(),
            repeats: self.checker.repeats,
            answered: self.client.answered,
            ..self.stats
        }
    }

    /// Whether the machine is protected again.
    fn is_whole(&self) -> bool {
        self.nodes().any(|(_, node)| match node.role() {
            Role::Primary(primary) => matches!(primary.standing(), Standing::Paired { protected: true, .. }),
            _ => false,
        })
    }

    /// A world that stands still is fine only if faults took every copy that was entitled to go on.
    fn explain_standstill(&self) -> Result<(), Failure> {
        let fail = |detail| Err(Failure { rule: Rule::Progress, detail });
        if self.stats.events > MAX_EVENTS {
            return fail("events without end".to_owned());
        }
        let last = self.arbiter.owners().last_key_value();
        let Some((term, owner)) = last else {
            return if self.taken.is_empty() {
                fail("nobody ever claimed term 1".to_owned())
            } else {
                Ok(())
            };
        };
        if self.client.fresh_answered >= PROGRESS {
            return fail(format!("requests are answered, but the machine is not protected again in {term}"));
        }
        let heir = self.nodes().find(|(_, node)| match node.role() {
            Role::Secondary(secondary) => {
                secondary.term() >= *term
                    && secondary.progress() != Progress::Greeting
                    && matches!(
                        secondary.progress(),
                        Progress::Following { eligible: true } | Progress::Promoting | Progress::Yielded
                    )
            }
            Role::Primary(_) => true,
            Role::Halted(_) => false,
        });
        if let Some((host, node)) = heir {
            return fail(format!("{host} could go on in {} but does not", node.term()));
        }
        if !self.taken.contains(&owner.incarnation) {
            return fail(format!("{owner} owns {term}, was never taken by a fault, and is not live"));
        }
        Ok(())
    }

    fn nodes(&self) -> impl Iterator<Item = (HostId, &Node<Guest>)> {
        self.hosts.iter().filter_map(|host| Some((host.id, host.node.as_ref()?)))
    }

    fn schedule(&mut self, after: Span, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at: self.now + after, order: self.order, happening }));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(sink) = &mut self.sink {
            sink(format!("{:>12} {}", self.now.to_string(), line()));
        }
    }

    fn host(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0 as usize]
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Tick(id) => {
                self.schedule(self.hosts[id.0 as usize].tick, Happening::Tick(id));
                self.tick(id)
            }
            Happening::Step(id) => {
                self.host(id).step_due = false;
                self.with_node(id, |_, _| {})
            }
            Happening::Client => {
                self.drive_client();
                Ok(())
            }
            Happening::Claim { host, node, term, answered } => {
                self.decide(host, node, term, answered);
                Ok(())
            }
            Happening::Begin => {
                let (fault, length) = faults::draw(&mut self.rng, self.hosts.len() as u64);
                self.note(|| format!("fault begins: {fault:?} for {length}"));
                self.strike(fault)?;
                self.schedule(length, Happening::End(fault));
                Ok(())
            }
            Happening::End(fault) => self.mend(fault),
            Happening::Ask { from, to, ask } => {
                self.obey(from, to, ask);
                Ok(())
            }
            Happening::Heal => self.heal(),
            other => self.reach(other),
        }
    }

    /// Something reaches a process.
    fn reach(&mut self, happening: Happening) -> Result<(), Failure> {
        let id = match &happening {
            Happening::Deliver { to, .. } => *to,
            Happening::Claimed { host, .. }
            | Happening::Input { host, .. }
            | Happening::Gone { host, .. } => *host,
            other => unreachable!("{other:?} is not for a process"),
        };
        let host = self.host(id);
        let life = host.life;
        let Some(happening) = host.is_up.then(|| host.defer(happening)).flatten() else { return Ok(()) };
        if let Happening::Deliver { from, envelope, .. } = &happening {
            self.note(|| format!("{from} -> {id}: {envelope}"));
        }
        self.with_node(id, |now, node| match happening {
            Happening::Deliver { from, envelope, .. } => node.handle_message(now, from, envelope),
            Happening::Claimed { life: asked, term, outcome, .. } if asked == life => {
                node.handle_claim(now, term, outcome);
            }
            Happening::Input { life: meant, event, .. } if meant == life || meant == 0 => {
                node.handle_event(event).expect("the toy's events are small");
            }
            Happening::Gone { about, .. } => node.handle_peer_gone(now, about),
            _ => {}
        })
    }

    fn tick(&mut self, id: HostId) -> Result<(), Failure> {
        let now = self.now;
        if !self.host(id).is_up || self.host(id).is_paused {
            return Ok(());
        }
        if !self.agents.is_empty() {
            self.tend(id)?;
        } else if self.host(id).is_free(now) {
            let target =
                HostId((id.0 + self.rng.range(1..self.hosts.len() as u64)) % self.hosts.len() as u64);
            self.start(id, Some(target));
        }
        self.with_node(id, |now, node| node.handle_tick(now))
    }

    /// Starts a process: the first of all, or one that joins.
    fn start(&mut self, id: HostId, target: Option<HostId>) {
        let (life, session, strict, now) = (self.rng.u64(), Session(self.rng.u64()), self.strict, self.now);
        let host = self.host(id);
        host.life = life;
        host.greeted = now;
        let (clock, identity, guest) = (host.clock(now), host.identity(strict), Guest::new());
        let node = match target {
            None => Node::create(clock, identity, Term(0), guest),
            Some(target) => Node::join(clock, identity, target, session, guest),
        };
        host.node = Some(node.expect("the simulation's configuration is valid"));
    }

    /// Does something to a node, lets its machine run, carries out what it wants and checks it.
    fn with_node(&mut self, id: HostId, act: impl FnOnce(Instant, &mut Node<Guest>)) -> Result<(), Failure> {
        let now = self.now;
        let is_slow = self.host(id).is_slow;
        let lazy = is_slow && self.rng.chance(950);
        let host = self.host(id);
        let clock = host.clock(now);
        let Some(node) = host.node.as_mut().filter(|_| host.is_up && !host.is_paused) else { return Ok(()) };
        act(clock, node);
        let activity = if lazy { Activity::Busy } else { node.step(clock) };
        let again = match activity {
            Activity::Busy => Some(Span::from_us(100)),
            Activity::Paused(end) => Some(end.since(clock)),
            Activity::Idle => None,
        };
        if let Some(pause) = again.filter(|_| !host.step_due) {
            host.step_due = true;
            self.schedule(pause, Happening::Step(id));
        }
        self.carry_out(id)?;
        self.inspect(id)
    }

    fn carry_out(&mut self, id: HostId) -> Result<(), Failure> {
        while let Some(output) = self.host(id).node.as_mut().and_then(Node::poll) {
            match output {
                Output::Send { to, envelope } => {
                    for at in self.net.arrivals(self.now, (id, to), envelope.message.lane(), &mut self.rng) {
                        let envelope = envelope.clone();
                        self.schedule(at.since(self.now), Happening::Deliver { from: id, to, envelope });
                    }
                }
                Output::Claim(term) => self.send_claim(id, term),
                Output::Release(numbered) => self.release(id, numbered)?,
                Output::Sealed(_) => {}
                Output::Notice(notice) => self.hear(id, notice)?,
            }
        }
        Ok(())
    }

    fn send_claim(&mut self, id: HostId, term: Term) {
        let delay = if self.arbiter_slow { self.rng.range(5_000..60_000) } else { self.rng.range(100..800) };
        let delay = Span::from_us(delay);
        let host = self.host(id);
        let (node, life, away) = (host.node_id(), host.life, host.arbiter_away);
        let arrives = !away || self.rng.chance(500);
        if arrives {
            self.schedule(delay, Happening::Claim { host: id, node, term, answered: !away });
        }
        if away {
            let outcome = ClaimOutcome::Unreachable;
            self.schedule(Span::from_ms(2), Happening::Claimed { host: id, life, term, outcome });
        }
    }

    fn decide(&mut self, host: HostId, node: NodeId, term: Term, answered: bool) {
        let outcome = self.arbiter.claim(term, node);
        self.note(|| {
            format!("arbiter: {node} claims {term}: {outcome:?}{}", if answered { "" } else { ", unheard" })
        });
        if answered {
            let delay = Span::from_us(self.rng.range(100..800));
            let life = node.incarnation;
            self.schedule(delay, Happening::Claimed { host, life, term, outcome });
        }
    }

    fn release(&mut self, id: HostId, numbered: Numbered) -> Result<(), Failure> {
        self.note(|| {
            format!("{id} emits {} {:?} {:?}", numbered.seq, numbered.effect.kind, numbered.effect.op)
        });
        let host = &self.hosts[id.0 as usize];
        let (node_id, life) = (host.node_id(), host.life);
        let Some(Role::Primary(primary)) = host.node.as_ref().map(Node::role) else {
            let detail = format!("{id} emitted {} and is no primary", numbered.seq);
            return Err(Failure { rule: Rule::Loser, detail });
        };
        let depends = match primary.standing() {
            Standing::Paired { .. } | Standing::Contested(_) => primary.session(),
            Standing::Creating | Standing::Solo | Standing::Seeding(_) => None,
        };
        let depends: Vec<Session> = depends.into_iter().chain(self.claimants(primary.term())).collect();
        self.checker.release(node_id, primary.term(), &depends, &numbered)?;
        let effect = numbered.effect;
        match (effect.kind, effect.op) {
            (EffectKind::Net, _) => self.client.handle_reply(Speech::decode(&effect.payload).request),
            (_, Some(op)) => {
                // What a disk holds is not known to the machine: it travels in the log.
                let data = Bytes::copy_from_slice(&self.rng.u64().to_le_bytes());
                let status = if self.disk_full { 28 } else { 0 };
                let event = Event::BlockDone { device: 0, id: op.0, status, data };
                let delay = Span::from_us(self.rng.range(100..3000));
                self.schedule(delay, Happening::Input { host: id, life, event });
            }
            _ => {}
        }
        Ok(())
    }

    /// The sessions of the secondaries that may claim the term after `term`, whatever their primary believes.
    fn claimants(&self, term: Term) -> impl Iterator<Item = Session> {
        self.nodes().filter_map(move |(_, node)| match node.role() {
            Role::Secondary(secondary)
                if secondary.progress() == Progress::Following { eligible: true }
                    && secondary.term() >= term =>
            {
                Some(secondary.session())
            }
            _ => None,
        })
    }

    fn hear(&mut self, id: HostId, notice: Notice) -> Result<(), Failure> {
        self.note(|| format!("{id}: {notice:?}"));
        let node = self.hosts[id.0 as usize].node_id();
        match notice {
            Notice::Live(term) => {
                self.client.home = id;
                self.stats.takeovers += u64::from(term > Term(1));
                self.checker.live(node, term)
            }
            Notice::Solo(term) => {
                self.stats.solos += u64::from(term > Term(1));
                self.checker.live(node, term)
            }
            Notice::Protected(_) => {
                self.stats.protected += 1;
                Ok(())
            }
            Notice::Yielded(_) => {
                self.stats.yielded += 1;
                Ok(())
            }
            Notice::Renounced(_) => {
                self.stats.renounced += 1;
                Ok(())
            }
            Notice::Halted(HaltReason::Lost { .. } | HaltReason::Superseded { .. }) => {
                self.stats.losers += 1;
                Ok(())
            }
            Notice::Halted(HaltReason::Relieved) => {
                self.stats.relieved += 1;
                Ok(())
            }
            Notice::Halted(HaltReason::Refused(_) | HaltReason::Orphaned | HaltReason::Requested) => Ok(()),
            Notice::Halted(reason) => Err(Failure { rule: Rule::Halt, detail: format!("{id}: {reason}") }),
            _ => Ok(()),
        }
    }

    /// Looks into a node: determinism of its machine, bounds of its buffers, what its log covers.
    fn inspect(&mut self, id: HostId) -> Result<(), Failure> {
        let Some(node) = &self.hosts[id.0 as usize].node else { return Ok(()) };
        for (lineage, hash) in node.machine().take_marks() {
            self.checker.machine(lineage, hash)?;
        }
        let limits = config(self.strict);
        // A buffer is looked at before a step; what one step adds comes on top.
        let step = limits.inbox_bytes * 2 + limits.frame_bytes * 2;
        self.checker.bound("inbox", node.inbox_bytes(), limits.inbox_bytes)?;
        match node.role() {
            Role::Primary(primary) => {
                self.checker.pace(primary.standing(), primary.pace())?;
                self.checker.bound("log", primary.log().bytes(), limits.ring_bytes + step)?;
                self.checker.bound("gate", primary.gate().bytes(), limits.gate_bytes + step)
            }
            Role::Secondary(secondary) => {
                let backlog = limits.backlog_bytes + limits.frame_bytes * 2;
                self.checker.bound("backlog", secondary.backlog_bytes(), backlog)?;
                let withheld = limits.gate_bytes * 2 + step;
                self.checker.bound("withheld effects", secondary.withheld_bytes(), withheld)?;
                self.checker.covers(secondary.session(), secondary.covered());
                Ok(())
            }
            Role::Halted(_) => Ok(()),
        }
    }

    fn drive_client(&mut self) {
        self.schedule(Span::from_ms(5), Happening::Client);
        while self.client.open.len() < OPEN_REQUESTS {
            self.client.open.push(self.client.next);
            self.client.next += 1;
        }
        for request in self.client.open.clone() {
            // The LAN loses packets too.
            if !self.rng.chance(self.net.weather.drop) {
                let frame = Bytes::copy_from_slice(&request.to_le_bytes());
                let delay = Span::from_us(self.rng.range(50..400));
                let event = Event::Net { device: 0, frame };
                self.schedule(delay, Happening::Input { host: self.client.home, life: 0, event });
            }
        }
    }

    fn strike(&mut self, fault: Fault) -> Result<(), Failure> {
        match fault {
            Fault::Cut { from, to, both } => {
                self.net.cuts.insert((from, to));
                if both {
                    self.net.cuts.insert((to, from));
                }
            }
            Fault::Weather(weather) => self.net.weather = weather,
            Fault::Pause(id) => self.host(id).is_paused = true,
            Fault::Crash { host, process_only } => self.crash(host, process_only),
            Fault::ArbiterAway(id) => self.host(id).arbiter_away = true,
            Fault::ArbiterSlow => self.arbiter_slow = true,
            Fault::ClockJump(id, leap) => self.host(id).leap.0 += leap.0,
            Fault::DiskFull => self.disk_full = true,
            Fault::Slow(id) => self.host(id).is_slow = true,
            Fault::Mute(lane) => self.net.muted = Some(lane),
            Fault::Quit(id) => self.quit(id),
            Fault::HandOver => return self.hand_over(),
            Fault::Relieve(host) => return self.relieve(host),
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Failure> {
        for id in (0..self.hosts.len() as u64).map(HostId) {
            // Whoever is not live, or has nobody to hand it to, refuses.
            self.with_node(id, |now, node| {
                let _ = node.hand_over(now);
            })?;
        }
        Ok(())
    }

    fn relieve(&mut self, with: HostId) -> Result<(), Failure> {
        for id in (0..self.hosts.len() as u64).map(HostId) {
            let mut is_expected = false;
            self.with_node(id, |_, node| is_expected = node.relieve(with).is_ok())?;
            // Where there are agents, nobody comes without being asked.
            if is_expected && !self.agents.is_empty() && self.hosts[with.0 as usize].is_free(self.now) {
                self.start(with, Some(id));
            }
        }
        Ok(())
    }

    fn crash(&mut self, id: HostId, process_only: bool) {
        let host = self.host(id);
        let (life, about) = (host.life, host.node_id());
        host.is_up = false;
        host.is_paused = false;
        host.missed.clear();
        if host.node.take().is_some_and(|node| !matches!(node.role(), Role::Halted(_))) {
            self.taken.insert(life);
        }
        if let Some(agent) = self.agents.get_mut(id.0 as usize).filter(|_| !process_only) {
            *agent = Agent::new();
        }
        // The kernel of a living host tells the others that a process has ended.
        let others = (0..self.hosts.len() as u64).map(HostId).filter(|other| process_only && *other != id);
        for host in others.collect::<Vec<_>>() {
            if !self.net.cuts.contains(&(id, host)) && self.rng.chance(700) {
                // Sometimes the word comes when the next process is there already.
                let latest = self.rng.pick(&[900, 900, 100_000]);
                let delay = Span::from_us(self.rng.range(50..latest));
                self.schedule(delay, Happening::Gone { host, about });
            }
        }
    }

    /// An operator stops a secondary, whatever it is doing.
    fn quit(&mut self, id: HostId) {
        let host = self.host(id);
        let life = host.life;
        if let Some(node) = host.node.as_mut().filter(|node| matches!(node.role(), Role::Secondary(_))) {
            node.halt(HaltReason::Requested);
            self.taken.insert(life);
        }
    }

    fn mend(&mut self, fault: Fault) -> Result<(), Failure> {
        match fault {
            Fault::Cut { from, to, both } => {
                self.net.cuts.remove(&(from, to));
                if both {
                    self.net.cuts.remove(&(to, from));
                }
                if self.rng.chance(500) {
                    self.with_node(from, |now, node| node.handle_link_up(now, to))?;
                    self.with_node(to, |now, node| node.handle_link_up(now, from))?;
                }
            }
            Fault::Weather(_) => self.net.weather = Weather::FINE,
            Fault::Pause(id) => return self.resume(id),
            Fault::Crash { host, .. } => self.host(host).is_up = true,
            Fault::ArbiterAway(id) => self.host(id).arbiter_away = false,
            Fault::ArbiterSlow => self.arbiter_slow = false,
            Fault::ClockJump(..) => {}
            Fault::DiskFull => self.disk_full = false,
            Fault::Slow(id) => self.host(id).is_slow = false,
            Fault::Mute(_) => self.net.muted = None,
            Fault::Quit(_) | Fault::HandOver | Fault::Relieve(_) => {}
        }
        Ok(())
    }

    /// A stopped process goes on, and finds what waited in its sockets.
    fn resume(&mut self, id: HostId) -> Result<(), Failure> {
        self.host(id).is_paused = false;
        for happening in std::mem::take(&mut self.host(id).missed) {
            self.reach(happening)?;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), Failure> {
        self.note(|| "everything heals".to_owned());
        self.net.heal();
        self.arbiter_slow = false;
        self.disk_full = false;
        for id in (0..self.hosts.len() as u64).map(HostId) {
            let host = self.host(id);
            host.is_up = true;
            host.is_slow = false;
            host.arbiter_away = false;
            self.resume(id)?;
        }
        // Faults that have been drawn and not begun will not.
        self.queue.retain(|entry| !matches!(entry.0.happening, Happening::Begin | Happening::End(_)));
        self.healed = true;
        self.client.fresh_from = self.client.next;
        Ok(())
    }
}

impl Client {
    fn handle_reply(&mut self, request: u64) {
        if let Some(at) = self.open.iter().position(|open| *open == request) {
            self.open.remove(at);
            self.answered += 1;
            self.fresh_answered += u64::from(request >= self.fresh_from);
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
