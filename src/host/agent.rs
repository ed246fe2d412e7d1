//! The agent itself: what it knows, and what follows from each [`Input`].
//!
//! Invariant: [`Agent::handle`] does not wait for the network or for a VM. What takes time is begun through the [`Rim`], which comes
//! back with an input. It does write small files: what an agent promises must outlive it.

mod guest;
mod planned;
mod relief;
mod requests;
mod respawn;
mod vm;
mod wishes;

use super::config::{Capacity, HostFile};
use super::events::{Events, Kind};
use super::message::{Answer, Description, HostStatus, Request};
use super::process::ProcessId;
use super::rim::Rim;
use super::state::StateDir;
use super::telemetry;
use crate::arbiter::OwnedTerm;
use crate::stamp;
use crate::vm::config::VmFile;
use crate::vm::control::Line;
use crate::vm::process::host_traits;
use ft_core::placement::{Candidate, Demand, HostState, HostTraits};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use vm::Vm;

/// How often the agent looks after what nobody tells it of.
pub(super) const TICK: Duration = Duration::from_millis(200);

/// How often files of copies that are over are looked through.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// Who waits for an answer.
pub(super) type Reply = oneshot::Sender<Answer>;

/// What happens to an agent.
pub(super) enum Input {
    /// Somebody asks. The name is that of the host, if it is not somebody here.
    Asked(Option<String>, Request, Reply),
    /// Somebody wants a VM protected, and this is what the arbiter says of it.
    Protect(Box<Protect>, Reply),
    /// A VM's process said something. The number is that of its life.
    Heard(String, u64, Line),
    /// Another host's agent has described its host, or does not answer.
    Described(u64, Result<Box<Description>, String>),
    /// The secondary of a VM that was begun for this listens there; or why there is none.
    Seeded((String, Seeding), Result<SocketAddr, String>),
    /// Time has passed.
    Tick,
    /// The agent is to end. VMs go on.
    Stop,
}

/// What a secondary is made for, by number.
#[derive(Clone, Copy)]
pub(super) enum Seeding {
    /// An attempt to have a second copy again.
    Respawn(u64),
    /// To relieve the secondary that there is.
    Relief(u64),
}

/// A VM that is to be protected.
pub(super) struct Protect {
    /// Its file.
    pub(super) file: VmFile,
    /// Start although it has been live before.
    pub(super) again: bool,
    /// Hosts that will not come back, by name.
    pub(super) lost: Vec<String>,
    /// The last term that anybody owns, and its owner.
    pub(super) last: Option<OwnedTerm>,
}

/// Another host as this agent knows it.
struct PeerView {
    name: String,
    /// Why it cannot be reached.
    down: Option<String>,
    description: Option<Box<Description>>,
    /// When it was last asked, and had answered or not.
    described: Option<Instant>,
}

/// The agent.
pub(super) struct Agent {
    file: Arc<HostFile>,
    program: PathBuf,
    state: StateDir,
    /// Somebody has said that this host takes no further copies; kept in the state directory.
    drained: bool,
    events: Events,
    rim: Rim,
    peers: BTreeMap<u64, PeerView>,
    vms: BTreeMap<String, Vm>,
    /// What is wanted for VMs that have asked for a host since the last tick.
    asked: BTreeMap<String, Demand>,
    /// Lives of VM processes, counted to tell late words of an earlier one.
    lives: u64,
    /// How many secondaries were begun to relieve others.
    reliefs: u64,
    clean_at: Instant,
    health: telemetry::Health,
}

impl Agent {
    /// An agent that knows what its state directory holds. `program` is what VMs are run with.
    ///
    /// # Errors
    /// When the state directory cannot be read.
    pub(super) fn new(
        file: Arc<HostFile>,
        program: PathBuf,
        (state, events): (StateDir, Events),
        rim: Rim,
        health: telemetry::Health,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let unknown = |peer: &crate::vm::config::Host| {
            let (name, down) = (peer.name.clone(), Some("has not been heard of yet".to_owned()));
            (peer.id, PeerView { name, down, description: None, described: None })
        };
        let peers = file.peers.iter().map(unknown).collect();
        let (vms, lives, drained) = (BTreeMap::new(), 0, state.is_draining());
        let mut agent = Self {
            file,
            program,
            state,
            drained,
            events,
            rim,
            peers,
            vms,
            asked: BTreeMap::new(),
            lives,
            reliefs: 0,
            clean_at: now,
            health,
        };
        agent.events.add(None, Kind::AgentStarted, format!("build {}", stamp::build()));
        agent.find_vms()?;
        Ok(agent)
    }

    /// Takes in what happens until it is to end.
    pub(super) fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        while let Some(input) = inputs.blocking_recv() {
            if let Input::Stop = input {
                self.events.add(None, Kind::AgentStopped, "VMs go on without it");
                return;
            }
            self.handle(input);
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Asked(from, request, reply) => self.handle_request(from.as_deref(), request, reply),
            Input::Protect(protect, reply) => {
                let answer = self.protect(*protect).map_or_else(Answer::refused, |()| Answer::done());
                // Whoever asked may not wait any more.
                let _ = reply.send(answer);
            }
            Input::Heard(vm, life, line) => self.handle_line(&vm, life, line),
            Input::Described(peer, outcome) => self.handle_description(peer, outcome),
            Input::Seeded((vm, Seeding::Respawn(attempt)), outcome) => {
                self.handle_seeded((&vm, attempt), outcome);
            }
            Input::Seeded((vm, Seeding::Relief(number)), outcome) => {
                self.handle_relief_seeded(&vm, number, outcome);
            }
            Input::Tick => self.handle_tick(),
            Input::Stop => {}
        }
    }

    fn handle_tick(&mut self) {
        let now = Instant::now();
        let names: Vec<String> = self.vms.keys().cloned().collect();
        for name in &names {
            self.look_after(name, now);
            self.respawn(name, now);
        }
        self.place_all();
        if now >= self.clean_at {
            self.clean_at = now + CLEAN_EVERY;
            self.remove_old();
        }
        self.health.beat();
        telemetry::publish(
            &self.description(),
            self.peers.values().map(|peer| (&*peer.name, peer.down.is_none())),
        );
    }

    fn handle_description(&mut self, id: u64, outcome: Result<Box<Description>, String>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let was_up = peer.down.is_none();
        let before = peer.candidate();
        peer.described = Some(Instant::now());
        let event = match outcome {
            Ok(description) if description.id != id => {
                let reason = format!("it says that it is host {}: its file or ours is wrong", description.id);
                peer.down = Some(reason.clone());
                was_up.then_some((Kind::PeerDown, reason))
            }
            Ok(description) => {
                (peer.down, peer.description) = (None, Some(description));
                (!was_up).then(|| (Kind::PeerUp, "answers".into()))
            }
            Err(reason) => {
                peer.down = Some(reason.clone());
                was_up.then_some((Kind::PeerDown, reason))
            }
        };
        let after = peer.candidate();
        if let Some((kind, text)) = event {
            let text = format!("{}: {text}", peer.name);
            self.events.add(None, kind, text);
        }
        let is_up = |candidate: &Candidate| candidate.state == HostState::Up;
        if is_up(&after) && (!is_up(&before) || after.free_bytes > before.free_bytes) {
            self.handle_hosts_changed();
        }
    }

    /// What this host has, and what runs on it.
    fn description(&self) -> Description {
        let file = &self.file;
        let HostTraits { protocol, machine, cpu, tick } = host_traits();
        Description {
            id: file.id,
            name: file.name.clone(),
            domain: file.domain().to_owned(),
            version: stamp::build().into(),
            machine,
            protocol,
            cpu,
            tick,
            draining: self.is_draining(),
            capacity: file.capacity,
            free: self.free(),
            vms: self.vms.values().map(Vm::status).collect(),
        }
    }

    /// Whether this host takes no further copies.
    fn is_draining(&self) -> bool {
        self.file.draining || self.drained
    }

    fn free(&self) -> Capacity {
        let running = || self.vms.values().filter(|vm| vm.is_running());
        let memory_mib: u64 = running().map(|vm| vm.file.ram_mib).sum();
        Capacity {
            memory_mib: self.file.capacity.memory_mib.saturating_sub(memory_mib),
            vms: self.file.capacity.vms.saturating_sub(running().count() as u64),
        }
    }

    /// All hosts, this one first.
    fn hosts(&self) -> Vec<HostStatus> {
        let own = self.description();
        let own = HostStatus { id: own.id, name: own.name.clone(), down: None, description: Some(own) };
        let others = self.peers.iter().map(|(id, peer)| HostStatus {
            id: *id,
            name: peer.name.clone(),
            down: peer.down.clone(),
            description: peer.description.as_deref().cloned(),
        });
        std::iter::once(own).chain(others).collect()
    }

    /// Finds again what an earlier agent started.
    fn find_vms(&mut self) -> io::Result<()> {
        for (name, dir) in self.state.vms()? {
            let file = VmFile::read_growing(&dir.file()).map_err(|error| error.to_string());
            let (file, meta) = match (file, dir.load()) {
                (Ok(file), Ok(meta)) => (file, meta),
                (file, meta) => {
                    let why =
                        file.err().or_else(|| meta.err().map(|error| error.to_string())).unwrap_or_default();
                    tracing::warn!(
                        vm = name,
                        why,
                        "the files of a copy cannot be read; they are left as they are"
                    );
                    continue;
                }
            };
            self.lives += 1;
            let mut vm = Vm::new(file, dir, meta);
            if vm.find() {
                vm.watch(&self.rim, self.lives);
                vm.save();
                self.events.add(Some(&name), Kind::Found, "its process runs");
            } else if let Some(ended) = vm.note_end() {
                self.events.add(Some(&name), Kind::Ended, ended);
            }
            self.vms.insert(name, vm);
        }
        Ok(())
    }

    fn remove_old(&mut self) {
        let keep = self.file.keep_ended_hours.saturating_mul(3600);
        let now = super::process::now();
        let is_old = |vm: &Vm| {
            vm.meta
                .ended
                .as_ref()
                .is_some_and(|ended| !vm.is_running() && now.saturating_sub(ended.at) > keep)
        };
        let old: Vec<String> =
            self.vms.iter().filter(|(_, vm)| is_old(vm)).map(|(name, _)| name.clone()).collect();
        for name in old {
            if let Some(vm) = self.vms.remove(&name)
                && let Err(error) = vm.dir.remove()
            {
                tracing::warn!(vm = name, %error, "cannot remove the files of a copy that is over");
            }
        }
    }
}

/// The process that listens at the socket of a copy, which an agent started and did not live to write down.
fn process_at(socket: &std::path::Path) -> Option<ProcessId> {
    use std::io::BufRead as _;
    let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut line = String::new();
    io::BufReader::new(stream).read_line(&mut line).ok()?;
    match serde_json::from_str(&line).ok()? {
        Line::Snapshot(snapshot) => ProcessId::of(snapshot.pid).ok(),
        _ => None,
    }
}
