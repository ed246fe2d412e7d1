//! A machine and its replica on one thread: the whole of a protected machine but for the wires.
//!
//! Give it messages, events and the time; call [`Node::step`] as often as it is [`Activity::Busy`]; carry out what
//! [`Node::poll`] says. Both roles run the same loop and differ in where records come from.

use crate::arbiter::ClaimOutcome;
use crate::config::Config;
use crate::error::{Fault, HaltReason, Misuse};
use crate::executor::{Executor, Reached};
use crate::frame::LogEnd;
use crate::machine::{Machine, Stop};
use crate::message::Envelope;
use crate::pace::FULL_PACE;
use crate::primary::{HandoverRefused, Primary, ReliefRefused};
use crate::record::Event;
use crate::replica::{Identity, Outbox, Output, Replica, Role};
use crate::secondary::Secondary;
use crate::transfer::StateHead;
use crate::units::{EffectSeq, HostId, Instant, NodeId, Seq, Session, Span, Term, VirtualTime};
use std::collections::VecDeque;

/// Records that a secondary applies in one step, at most.
const RECORDS_PER_STEP: usize = 256;

/// Events that enter a live machine in one step, at most.
const EVENTS_PER_STEP: usize = 64;

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Call [`Node::step`] again soon.
    Busy,
    /// The machine is slowed for the secondary's sake (R9): nothing to do before this time, unless something happens.
    Paused(Instant),
    /// Nothing to do until something happens, or the next tick.
    Idle,
}

/// A machine with its replica.
#[derive(Clone, Debug)]
pub struct Node<M> {
    executor: Executor<M>,
    replica: Replica,
    inbox: VecDeque<Event>,
    inbox_bytes: usize,
    cadence: Cadence,
}

/// When the live side makes records of its own accord.
#[derive(Clone, Debug, Default)]
struct Cadence {
    /// Where host time and the machine's clock were together.
    origin: Option<(Instant, VirtualTime)>,
    next_time: Instant,
    next_digest: Instant,
    /// The digest that closes the log of a machine that is being handed over.
    closed: Option<Seq>,
}

impl<M: Machine> Node<M> {
    /// The first copy of a machine, which claims the term after `after` and then runs. See [`Replica::create`].
    ///
    /// # Errors
    /// [`Misuse::Config`].
    pub fn create(now: Instant, identity: Identity, after: Term, machine: M) -> Result<Self, Misuse> {
        Ok(Self::new(Replica::create(now, identity, after)?, machine))
    }

    /// A new copy that joins the primary on `host`. `machine` is blank: the primary's state comes into it.
    ///
    /// # Errors
    /// [`Misuse::Config`].
    pub fn join(
        now: Instant,
        identity: Identity,
        host: HostId,
        greeting: Session,
        machine: M,
    ) -> Result<Self, Misuse> {
        Ok(Self::new(Replica::join(now, identity, host, greeting)?, machine))
    }

    fn new(replica: Replica, machine: M) -> Self {
        let executor = Executor::new(machine, EffectSeq(0));
        Self { executor, replica, inbox: VecDeque::new(), inbox_bytes: 0, cadence: Cadence::default() }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        self.executor.machine()
    }

    /// What it does in the pair.
    pub fn role(&self) -> &Role {
        self.replica.role()
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.replica.term()
    }

    /// Bytes of events that wait to enter the machine and that it has not asked for.
    pub fn inbox_bytes(&self) -> usize {
        self.inbox_bytes
    }

    /// Takes in an event for the machine. `false` where it cannot: not live, or the inbox is full (R9). What is not taken
    /// in has not happened, as a packet that a full network card drops. What the machine has asked for, disk operations and
    /// entropy, is always taken in: its own requests bound it.
    ///
    /// # Errors
    /// [`Misuse::EventTooLong`]; [`Misuse::NotAnInput`] for the clock, marks and digests, which the core makes.
    pub fn handle_event(&mut self, event: Event) -> Result<bool, Misuse> {
        event.validate()?;
        if matches!(event, Event::Time(_) | Event::Emit { .. } | Event::Digest(_)) {
            return Err(Misuse::NotAnInput { event: event.name() });
        }
        let Role::Primary(primary) = self.replica.role() else { return Ok(false) };
        let len = unasked_bytes(&event);
        if self.inbox_bytes + len > primary.identity().config.inbox_bytes && len > 0 {
            return Ok(false);
        }
        self.inbox_bytes += len;
        self.inbox.push_back(event);
        Ok(true)
    }

    /// See [`Replica::handle_message`].
    pub fn handle_message(&mut self, now: Instant, from: HostId, envelope: Envelope) {
        self.replica.handle_message(now, from, envelope);
    }

    /// See [`Replica::handle_tick`].
    pub fn handle_tick(&mut self, now: Instant) {
        self.replica.handle_tick(now);
    }

    /// See [`Replica::handle_claim`].
    pub fn handle_claim(&mut self, now: Instant, term: Term, outcome: ClaimOutcome) {
        self.replica.handle_claim(now, term, outcome);
    }

    /// See [`Replica::handle_link_up`].
    pub fn handle_link_up(&mut self, now: Instant, host: HostId) {
        self.replica.handle_link_up(now, host);
    }

    /// See [`Replica::handle_peer_gone`].
    pub fn handle_peer_gone(&mut self, now: Instant, node: NodeId) {
        self.replica.handle_peer_gone(now, node);
    }

    /// Stops for good. A secondary tells its primary.
    pub fn halt(&mut self, reason: HaltReason) {
        self.replica.halt(reason);
    }

    /// Begins to hand the machine over to the secondary (see [`Replica::hand_over`]); [`Node::step`] does the rest.
    ///
    /// # Errors
    /// [`HandoverRefused`]; nothing has changed.
    pub fn hand_over(&mut self, now: Instant) -> Result<(), HandoverRefused> {
        self.replica.hand_over(now)
    }

    /// See [`Replica::relieve`].
    ///
    /// # Errors
    /// [`ReliefRefused`]; nothing has changed.
    pub fn relieve(&mut self, host: HostId) -> Result<(), ReliefRefused> {
        self.replica.relieve(host)
    }

    /// See [`Replica::poll`].
    pub fn poll(&mut self) -> Option<Output> {
        self.replica.poll()
    }

    /// Lets the machine go on for a while.
    pub fn step(&mut self, now: Instant) -> Activity {
        self.yield_when_settled(now);
        let Self { executor, replica, inbox, inbox_bytes, cadence } = self;
        let result = if let Some((primary, out)) = replica.primary() {
            let mut live = Live { now, executor, primary, out, cadence };
            live.step(inbox, inbox_bytes).map_err(HaltReason::Machine)
        } else if let Some((secondary, out)) = replica.secondary() {
            follow(now, executor, secondary, out)
        } else {
            Ok(Activity::Idle)
        };
        let activity = result.unwrap_or_else(|reason| {
            self.replica.halt(reason);
            Activity::Idle
        });
        self.take_over(now);
        activity
    }

    fn take_over(&mut self, now: Instant) {
        if self.replica.secondary().is_some_and(|(secondary, _)| secondary.is_drained()) {
            self.replica.go_live(now, self.executor.in_flight());
            self.cadence = Cadence::default();
        }
    }

    fn yield_when_settled(&mut self, now: Instant) {
        let Role::Primary(primary) = self.replica.role() else { return };
        // A digest that was due anyway does not close the log.
        let is_closed = self.cadence.closed == Some(primary.log().last());
        let end = primary.log().sealed();
        if is_closed && self.inbox.is_empty() && self.replica.is_settled() {
            let head = head(&mut self.executor, end);
            self.replica.yield_machine(now, head);
            self.cadence = Cadence::default();
        }
    }
}

/// What an event takes of the inbox: nothing, where the machine has asked for it.
fn unasked_bytes(event: &Event) -> usize {
    match event {
        Event::BlockDone { .. } | Event::Entropy(_) => 0,
        _ => event.payload().len() + std::mem::size_of::<Event>(),
    }
}

/// Where a machine stands, at the end of its log.
fn head<M: Machine>(executor: &mut Executor<M>, end: LogEnd) -> StateHead {
    StateHead {
        end,
        tick: executor.point().tick,
        clock: executor.clock(),
        emitted: executor.emitted(),
        digest: executor.machine_mut().digest(),
    }
}

/// One step of the live side: records come from the inbox and from the host's clock.
struct Live<'a, M> {
    now: Instant,
    executor: &'a mut Executor<M>,
    primary: &'a mut Primary,
    out: &'a mut Outbox,
    cadence: &'a mut Cadence,
}

impl<M: Machine> Live<'_, M> {
    fn step(&mut self, inbox: &mut VecDeque<Event>, inbox_bytes: &mut usize) -> Result<Activity, Fault> {
        if self.primary.is_blocked() {
            return Ok(Activity::Idle);
        }
        if self.primary.is_yielding() {
            return self.stand(inbox, inbox_bytes);
        }
        self.cadence.closed = None;
        self.set_clock()?;
        self.enter_from(inbox, inbox_bytes)?;
        self.take_digest_when_due()?;
        self.save_state();
        if let Some(end) = self.pause() {
            return Ok(Activity::Paused(end));
        }
        let stop = self.executor.run(self.primary.identity().config.quantum_ticks)?;
        self.primary.set_idle(stop == Stop::Idle);
        self.mark()?;
        let more = stop != Stop::Idle || !inbox.is_empty();
        Ok(if more { Activity::Busy } else { Activity::Idle })
    }

    /// Stands still, to be handed over: what comes in enters, and when the machine waits for nothing more a digest closes the log.
    fn stand(&mut self, inbox: &mut VecDeque<Event>, inbox_bytes: &mut usize) -> Result<Activity, Fault> {
        self.mark()?;
        self.enter_from(inbox, inbox_bytes)?;
        if !inbox.is_empty() {
            return Ok(Activity::Busy);
        }
        if self.executor.in_flight().is_empty() && self.cadence.closed != Some(self.primary.log().last()) {
            self.take_digest()?;
            self.cadence.closed = Some(self.primary.log().last());
        }
        self.primary.flush(self.now, self.out);
        Ok(if self.primary.is_settled() { Activity::Busy } else { Activity::Idle })
    }

    fn enter_from(&mut self, inbox: &mut VecDeque<Event>, inbox_bytes: &mut usize) -> Result<(), Fault> {
        for _ in 0..EVENTS_PER_STEP {
            let Some(event) = inbox.pop_front() else { break };
            *inbox_bytes -= unasked_bytes(&event);
            self.enter(event)?;
        }
        Ok(())
    }

    /// When the pause ends in which the machine stands now, if it does: of each millisecond it runs the share that the
    /// pace allows.
    fn pause(&self) -> Option<Instant> {
        let share = Span::from_ms(1).scale(u64::from(self.primary.pace()), u64::from(FULL_PACE));
        let into = Span(self.now.0 % Span::from_ms(1).0);
        (into >= share).then(|| Instant(self.now.0 - into.0) + Span::from_ms(1))
    }

    /// Makes a record of an event at the point where the machine stands, logs it and applies it.
    fn enter(&mut self, event: Event) -> Result<(), Fault> {
        self.mark()?;
        self.log_and_apply(event)?;
        self.mark()
    }

    fn log_and_apply(&mut self, event: Event) -> Result<(), Fault> {
        let record = self.primary.record(self.now, self.executor.point(), event, self.out);
        let record = record.expect("events are validated when they come in");
        let effects = self.executor.apply(&record)?;
        if !effects.is_empty() {
            self.primary.hold(self.now, effects, self.out);
        }
        Ok(())
    }

    /// Logs what the machine has emitted, and hands it to the gate.
    fn mark(&mut self) -> Result<(), Fault> {
        self.primary.ask(self.executor.take_queries(), self.out);
        while let Some(mark) = self.executor.mark() {
            self.log_and_apply(mark)?;
            if self.primary.wants_digest() {
                self.take_digest()?;
                self.primary.flush(self.now, self.out);
            }
        }
        Ok(())
    }

    fn set_clock(&mut self) -> Result<(), Fault> {
        if self.now < self.cadence.next_time {
            return Ok(());
        }
        let Config { time_every, digest_every, .. } = self.primary.identity().config;
        let clock = self.executor.clock();
        let (since, then) = *self.cadence.origin.get_or_insert_with(|| {
            self.cadence.next_digest = self.now + digest_every;
            (self.now, clock)
        });
        self.cadence.next_time = self.now + time_every;
        // Whole microseconds take less space in the log.
        let ns = (then.0 + self.now.since(since).0) / 1000 * 1000;
        self.enter(Event::Time(VirtualTime(ns).max(clock)))
    }

    fn take_digest_when_due(&mut self) -> Result<(), Fault> {
        if self.now < self.cadence.next_digest {
            return Ok(());
        }
        self.cadence.next_digest = self.now + self.primary.identity().config.digest_every;
        self.mark()?;
        self.take_digest()
    }

    fn take_digest(&mut self) -> Result<(), Fault> {
        let digest = self.executor.machine_mut().digest();
        self.log_and_apply(Event::Digest(digest))
    }

    /// Makes pieces of the state for a joining secondary. The machine stands where the log ends.
    fn save_state(&mut self) {
        let Some(first) = self.primary.wants_chunk() else { return };
        self.primary.flush(self.now, self.out);
        let saved = self.executor.machine_mut().save(first);
        let head = saved.last.then(|| head(self.executor, self.primary.log().sealed()));
        let count = saved.pieces.len();
        for (n, piece) in saved.pieces.into_iter().enumerate() {
            self.primary.add_chunk(self.now, piece, head.filter(|_| n + 1 == count), self.out);
        }
    }
}

/// One step of the following side: records come from the log.
fn follow<M: Machine>(
    now: Instant,
    executor: &mut Executor<M>,
    secondary: &mut Secondary,
    out: &mut Outbox,
) -> Result<Activity, HaltReason> {
    // One piece a step: restoring takes time, and the primary must hear from us meanwhile.
    let restored = restore(now, executor, secondary, out)?;
    let more = follow_records(executor, secondary)?;
    secondary.flush(now, out);
    Ok(if more || restored { Activity::Busy } else { Activity::Idle })
}

fn restore<M: Machine>(
    now: Instant,
    executor: &mut Executor<M>,
    secondary: &mut Secondary,
    out: &mut Outbox,
) -> Result<bool, HaltReason> {
    let Some(chunk) = secondary.next_chunk() else { return Ok(false) };
    executor.machine_mut().restore(&chunk.bytes, chunk.head.is_some())?;
    if let Some(head) = chunk.head {
        executor.restored(&head);
        secondary.restored(now, executor.machine_mut().digest(), out)?;
    }
    Ok(true)
}

/// Runs through the log for as many ticks as a live machine runs in a step. Returns whether there is more.
fn follow_records<M: Machine>(
    executor: &mut Executor<M>,
    secondary: &mut Secondary,
) -> Result<bool, HaltReason> {
    let end = executor.point().tick.0.saturating_add(secondary.identity().config.quantum_ticks);
    for _ in 0..RECORDS_PER_STEP {
        let Some((seq, record)) = secondary.next_record() else { return Ok(false) };
        let share = end.saturating_sub(executor.point().tick.0);
        match executor.follow(seq, record, share)? {
            Reached::Applied(effects) => {
                secondary.applied_next(effects);
                // The primary has asked, and the answers are in the log.
                executor.take_queries();
            }
            Reached::Underway => break,
        }
    }
    Ok(true)
}
