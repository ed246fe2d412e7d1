//! Runs a protected machine: a [`Node`] on one thread, with its network, its arbiter and its backends.
//!
//! This is all that stands between a [`Machine`] and a pair. Embedders whose run loop must do more can take it as the
//! pattern for their own: it is one `select!`, one step, one drain.

use crossbeam::channel::{self, Receiver, Sender};
use ft_core::arbiter::{Arbiter, ClaimOutcome};
use ft_core::effect::Numbered;
use ft_core::error::{HaltReason, Misuse};
use ft_core::frame::Frame;
use ft_core::machine::Machine;
use ft_core::node::{Activity, Node};
use ft_core::pace::FULL_PACE;
use ft_core::primary::{HandoverRefused, ReliefRefused, Standing};
use ft_core::record::Event;
use ft_core::replica::{Notice, Output, Role};
use ft_core::secondary::Progress;
use ft_core::units::{HostId, Instant, NodeId, Span, Term, Tick};
use ft_net::{NetEvent, Network};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// What happens around a machine. Both methods are called on the driver's thread, so they must not block.
pub trait Backend {
    /// An effect may leave: send the packet, write the block. Called only while this copy is live.
    fn release(&mut self, effect: Numbered);

    /// Something happened to the pair. On [`Notice::Live`] attach to disks and networks, and announce the machine's
    /// address there.
    fn notice(&mut self, notice: &Notice);

    /// Nobody else can be live before `end`, on the clock of [`now`] (R4). A backend that carries out effects some time after they were
    /// released must look at the clock immediately before it does, and wait while this has passed: the process may have been stopped
    /// in between, and another copy be live. Called before effects that depend on it are released, and whenever it changes.
    fn lease(&mut self, _end: Instant) {}

    /// How things stand, every [`STATUS_EVERY`].
    fn status(&mut self, _status: &Status) {}

    /// A frame has been added to the log of this copy, which is live: for recordings. Called in order, without gaps, before any effect
    /// that depends on it leaves.
    fn sealed(&mut self, _frame: &Frame) {}
}

/// What a driver can be told to do.
pub enum Command {
    /// Begin to hand the machine over to the secondary (see [`Node::hand_over`]); takes the answer at once, and must not block. What
    /// becomes of it is a notice: [`Notice::Yielded`] or [`Notice::HandoverFailed`].
    HandOver(Box<dyn FnOnce(Result<(), HandoverRefused>) + Send>),
    /// Take in a second secondary from this host when it says hello, to relieve the first (see [`Node::relieve`]); takes the answer at
    /// once, and must not block. When it has come about, the pair is protected with that host: [`Notice::Protected`].
    Relieve(HostId, Box<dyn FnOnce(Result<(), ReliefRefused>) + Send>),
}

/// How often the node looks at its clocks. None of its spans needs to be kept more closely.
const TICK_EVERY: Span = Span::from_ms(5);

/// A former primary that has not talked for so long has heard the farewell: until then it talks at every tick.
const LINGER: Duration = Duration::from_millis(100);

/// The longest that a copy that is over waits for that.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// How often a backend is told how things stand.
pub const STATUS_EVERY: Span = Span::from_ms(100);

/// How things stand with a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its term.
    pub term: Term,
    /// Whether it is the live one.
    pub live: bool,
    /// Whether it is one of a pair that is in step.
    pub protected: bool,
    /// Where its machine stands.
    pub tick: Tick,
    /// How far the secondary's machine is behind, as far as the primary knows.
    pub lag: Span,
    /// How fast the machine may run, of [`FULL_PACE`].
    pub pace: u16,
    /// What the links to all peers have carried of the log, in bytes.
    pub log_bytes: u64,
    /// Records that they have carried.
    pub log_records: u64,
}

/// The host's clock as the protocol needs it: monotonic, and running while the host is suspended.
pub fn now() -> Instant {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has this clock");
    Instant(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// A protected machine on this host.
pub struct Driver<M, B> {
    node: Node<M>,
    backend: B,
    network: Network,
    net_events: Receiver<NetEvent>,
    inputs: Receiver<Event>,
    commands: Receiver<Command>,
    claims: Sender<Term>,
    answers: Receiver<(Term, ClaimOutcome)>,
    next_tick: Instant,
    next_status: Instant,
    /// As the backend was last told.
    lease: Instant,
}

impl<M: Machine, B: Backend> Driver<M, B> {
    /// Puts a node together with what is around it. `inputs` are the backends' events for the machine; `arbiter` is asked on
    /// a thread of its own, because it may take its time.
    ///
    /// # Errors
    /// When the arbiter's thread cannot be started.
    pub fn new(
        node: Node<M>,
        id: NodeId,
        backend: B,
        (network, net_events): (Network, Receiver<NetEvent>),
        inputs: Receiver<Event>,
        arbiter: impl Arbiter + Send + 'static,
    ) -> std::io::Result<Self> {
        let (claims, answers) = spawn_arbiter(id, arbiter)?;
        Ok(Self {
            node,
            backend,
            network,
            net_events,
            inputs,
            commands: channel::never(),
            claims,
            answers,
            next_tick: now(),
            next_status: now(),
            lease: Instant(0),
        })
    }

    /// Takes commands from there as well.
    #[must_use]
    pub fn with_commands(self, commands: Receiver<Command>) -> Self {
        Self { commands, ..self }
    }

    /// The network, to add peers.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The node.
    pub fn node(&self) -> &Node<M> {
        &self.node
    }

    /// How things stand.
    pub fn status(&self) -> Status {
        let carried = self.network.all_stats();
        let (live, protected, lag, pace) = match self.node.role() {
            Role::Primary(primary) => {
                let protected = matches!(primary.standing(), Standing::Paired { protected: true, .. });
                (primary.is_live(), protected, primary.lag(), primary.pace())
            }
            Role::Secondary(secondary) => {
                let protected = secondary.progress() == Progress::Following { eligible: true };
                (false, protected, Span::ZERO, FULL_PACE)
            }
            Role::Halted(_) => (false, false, Span::ZERO, FULL_PACE),
        };
        Status {
            term: self.node.term(),
            live,
            protected,
            tick: self.node.machine().point().tick,
            lag,
            pace,
            log_bytes: carried.iter().map(|stats| stats.log_bytes_sent).sum(),
            log_records: carried.iter().map(|stats| stats.records_sent).sum(),
        }
    }

    /// Runs until this copy is over, and says why; `None` when `stop` was closed first.
    ///
    /// # Errors
    /// [`Misuse::EventTooLong`], when a backend hands in an event above the limit.
    pub fn run(&mut self, stop: &Receiver<()>) -> Result<Option<HaltReason>, Misuse> {
        let mut wait = Duration::ZERO;
        loop {
            channel::select! {
                recv(stop) -> _ => return Ok(None),
                recv(self.net_events) -> event => if let Ok(event) = event { self.handle_net(event) },
                recv(self.answers) -> answer => if let Ok((term, outcome)) = answer {
                    self.node.handle_claim(now(), term, outcome);
                },
                recv(self.inputs) -> event => match event {
                    // What does not fit has not happened, as a packet that a full network card drops.
                    Ok(event) => drop(self.node.handle_event(event)?),
                    // Backends without inputs: nothing more will come from there.
                    Err(_) => self.inputs = channel::never(),
                },
                recv(self.commands) -> command => match command {
                    Ok(command) => self.carry_out(command),
                    Err(_) => self.commands = channel::never(),
                },
                default(wait) => {}
            }
            self.drain_events()?;
            if let Some(reason) = self.turn(&mut wait) {
                self.linger(&reason);
                return Ok(Some(reason));
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::HandOver(answer) => answer(self.node.hand_over(now())),
            Command::Relieve(host, answer) => answer(self.node.relieve(host)),
        }
    }

    /// Takes what else is there, so that a busy machine does not see one event a turn.
    fn drain_events(&mut self) -> Result<(), Misuse> {
        while let Ok(event) = self.net_events.try_recv() {
            self.handle_net(event);
        }
        while let Ok(event) = self.inputs.try_recv() {
            self.node.handle_event(event)?;
        }
        Ok(())
    }

    /// One step of the machine, and everything that follows from it.
    fn turn(&mut self, wait: &mut Duration) -> Option<HaltReason> {
        let time = now();
        if time >= self.next_tick {
            self.next_tick = time + TICK_EVERY;
            self.node.handle_tick(time);
        }
        if time >= self.next_status {
            self.next_status = time + STATUS_EVERY;
            let status = self.status();
            self.backend.status(&status);
        }
        let until = match self.node.step(time) {
            Activity::Busy => time,
            Activity::Paused(end) => end.min(self.next_tick),
            Activity::Idle => self.next_tick,
        };
        *wait = Duration::from_nanos(until.since(now()).0);
        self.renew_lease();
        let mut over = None;
        while let Some(output) = self.node.poll() {
            match output {
                // A message that is dropped counts as lost on the way; the core sends again what matters.
                Output::Send { to, envelope } => drop(self.network.send(to, envelope)),
                Output::Release(effect) => self.backend.release(effect),
                Output::Sealed(frame) => self.backend.sealed(&frame),
                // The arbiter's thread ends only with this driver.
                Output::Claim(term) => drop(self.claims.try_send(term)),
                Output::Notice(notice) => {
                    self.backend.notice(&notice);
                    if let Notice::Halted(reason) = notice {
                        over = Some(reason);
                    }
                }
            }
        }
        over
    }

    /// Goes on telling the former primary that this copy has given up, for as long as that talks to it: a farewell that is cut off with the
    /// network would leave it waiting for our silence.
    fn linger(&mut self, reason: &HaltReason) {
        if matches!(reason, HaltReason::Lost { .. } | HaltReason::Superseded { .. } | HaltReason::Orphaned) {
            return;
        }
        let end = std::time::Instant::now() + LINGER_MAX;
        while let Ok(event) = self.net_events.recv_timeout(LINGER) {
            self.handle_net(event);
            while let Some(output) = self.node.poll() {
                if let Output::Send { to, envelope } = output {
                    self.network.send(to, envelope);
                }
            }
            if std::time::Instant::now() > end {
                return;
            }
        }
    }

    fn renew_lease(&mut self) {
        let end = match self.node.role() {
            Role::Primary(primary) => primary.lease_end(),
            Role::Secondary(_) | Role::Halted(_) => Instant(0),
        };
        if end != self.lease {
            self.lease = end;
            self.backend.lease(end);
        }
    }

    fn handle_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::Message(from, envelope) => self.node.handle_message(now(), from, envelope),
            NetEvent::Up(host) => self.node.handle_link_up(now(), host),
            NetEvent::Gone(node) => self.node.handle_peer_gone(now(), node),
            // Silence is what counts, and the core measures it.
            NetEvent::Down(..) => {}
        }
    }

    /// Ends at once and without a farewell, as if the process had been killed: for tests and demonstrations.
    pub fn kill(self) {
        self.network.kill();
    }
}

type ClaimChannels = (Sender<Term>, Receiver<(Term, ClaimOutcome)>);

/// Claims that wait for the arbiter. The core repeats a claim, so a full queue loses nothing.
const CLAIMS_MAX: usize = 4;

fn spawn_arbiter(id: NodeId, mut arbiter: impl Arbiter + Send + 'static) -> std::io::Result<ClaimChannels> {
    let (claims, asked) = channel::bounded::<Term>(CLAIMS_MAX);
    let (answer, answers) = channel::bounded(CLAIMS_MAX);
    std::thread::Builder::new().name("ft-arbiter".into()).spawn(move || {
        for term in asked {
            if answer.send((term, arbiter.claim(term, id))).is_err() {
                return;
            }
        }
    })?;
    Ok((claims, answers))
}
