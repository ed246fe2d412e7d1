//! Keeps a VM that is live here redundant: tells its [`Respawner`] what happens, and carries out what that wants.
//!
//! Invariant: at most one secondary of a VM is being made at a time, and none while the pair is in step.

use super::vm::Vm;
use super::{Agent, PeerView, Seeding};
use crate::driver;
use crate::host::events::Kind;
use crate::host::message::{Description, Request, VmStatus};
use crate::host::telemetry;
use crate::vm::config::{Host, VmFile};
use crate::vm::control::{Command, Role};
use ft_core::placement::{Action, Candidate, Decision, HostState, HostTraits, RespawnConfig, Respawner};
use ft_core::units::HostId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a host is the last choice after the live copy was lost there.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// How long a copy that an earlier agent began may take to come into step before another is begun.
const ADOPTED_FOR: Duration = Duration::from_secs(30);

/// What is being done to make a VM redundant.
pub(super) struct Respawn {
    respawner: Respawner,
    /// The respawner knows that it is live here.
    is_live: bool,
    attempt: Option<Attempt>,
    /// The hosts where a copy was lost or could not be made, and when that was.
    lost: BTreeMap<u64, Instant>,
    /// The last that was said of hosts none of which fit.
    obstacle: Option<String>,
    adoption: Adoption,
}

/// A secondary that is being made.
struct Attempt {
    number: u64,
    host: u64,
    /// When its agent had started it.
    started: Option<Instant>,
}

/// Whether a copy may be under way that an earlier agent began.
enum Adoption {
    /// None is.
    Over,
    /// It is not known: this agent has only found the VM.
    Open,
    /// There is one on that host, and it has until then.
    Waits(u64, Instant),
}

impl Default for Respawn {
    fn default() -> Self {
        Self {
            respawner: Respawner::new(RespawnConfig::default()),
            is_live: false,
            attempt: None,
            lost: BTreeMap::new(),
            obstacle: None,
            adoption: Adoption::Over,
        }
    }
}

impl Respawn {
    /// For a VM that an earlier agent started.
    pub(super) fn found() -> Self {
        Self { adoption: Adoption::Open, ..Self::default() }
    }

    /// In words, for operators.
    pub(super) fn describe(&self) -> String {
        match self.adoption {
            Adoption::Waits(host, _) => format!("the copy on host {host} joins"),
            _ => self.respawner.explain(driver::now()),
        }
    }

    /// The copy on a host is gone.
    pub(super) fn note_lost(&mut self, host: u64, now: Instant) {
        self.suspect(host, now);
    }

    /// A host is the last choice for a while.
    pub(super) fn suspect(&mut self, host: u64, now: Instant) {
        self.lost.insert(host, now);
    }

    /// The copy on a host, which was begun otherwise, is given time to come into step before another is begun.
    pub(super) fn adopt(&mut self, host: u64, now: Instant) {
        if let Adoption::Over = self.adoption {
            self.adoption = Adoption::Waits(host, now + ADOPTED_FOR);
        }
    }

    /// The last choice of a host.
    pub(super) fn decision(&self) -> Option<&Decision> {
        self.respawner.decision()
    }

    pub(super) fn handle_decision(&mut self, now: ft_core::units::Instant, decision: Decision) {
        self.respawner.handle_decision(now, decision);
    }

    /// Takes note of why no host can take a copy, or that one can: whether that is news.
    pub(super) fn note_obstacle(&mut self, obstacle: Option<String>) -> bool {
        let is_news = self.obstacle != obstacle;
        self.obstacle = obstacle;
        is_news
    }

    /// The host on which a copy is being made.
    pub(super) fn under_way(&self) -> Option<u64> {
        self.attempt.as_ref().map(|attempt| attempt.host)
    }

    /// Whether a copy is wanted and no host can take it.
    pub(super) fn has_obstacle(&self) -> bool {
        self.obstacle.is_some()
    }

    pub(super) fn suspects(&self, now: Instant) -> BTreeSet<HostId> {
        let recent = self.lost.iter().filter(|(_, at)| now.duration_since(**at) < SUSPECT_FOR);
        recent.map(|(host, _)| HostId(*host)).collect()
    }

    /// What of the attempt is under way, if it has this number.
    fn attempt(&mut self, number: u64) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|attempt| attempt.number == number)
    }
}

/// What is known of the copy of an attempt.
pub(super) enum Progress {
    /// Nothing new.
    None,
    /// It follows.
    Follows,
    /// It will not come into step, and why.
    Hitch(String),
}

/// How the copy of VM `vm` that was started on a host at `started` is getting on.
pub(super) fn progress(peer: Option<&PeerView>, vm: &str, started: Instant) -> Progress {
    let Some(peer) = peer else { return Progress::None };
    if let Some(down) = &peer.down {
        return Progress::Hitch(down.clone());
    }
    // What it said before does not count.
    let Some(description) = peer.description.as_ref().filter(|_| peer.described > Some(started)) else {
        return Progress::None;
    };
    match description.vms.iter().find(|status| status.name == vm) {
        Some(status) if status.running && status.copy.role == Role::Following => Progress::Follows,
        Some(status) if status.running => Progress::None,
        Some(VmStatus { ended: Some(ended), .. }) => {
            Progress::Hitch(format!("the copy {}: {}", ended.how, ended.words.join(" / ")))
        }
        _ => Progress::Hitch("there is no copy any more".into()),
    }
}

impl PeerView {
    /// The host as placement sees it.
    pub(super) fn candidate(&self) -> Candidate {
        let Some(description) = &self.description else {
            return Candidate { state: HostState::Unreachable, ..Candidate::default() };
        };
        let Description { protocol, machine, cpu, tick, domain, free, .. } = &**description;
        let traits = HostTraits {
            protocol: *protocol,
            machine: machine.clone(),
            cpu: cpu.clone(),
            tick: tick.clone(),
        };
        let state = match (&self.down, description.draining) {
            (Some(_), _) => HostState::Unreachable,
            (None, true) => HostState::Draining,
            (None, false) => HostState::Up,
        };
        let running = description.vms.iter().filter(|vm| vm.running);
        Candidate {
            state,
            free_bytes: free.memory_mib << 20,
            free_slots: u32::try_from(free.vms).unwrap_or(u32::MAX),
            traits,
            domain: Some(domain.clone()),
            vms: running.map(|vm| vm.name.clone()).collect(),
        }
    }
}

impl Agent {
    /// Tells a VM's respawner how things stand, and does what it wants.
    pub(super) fn respawn(&mut self, name: &str, now: Instant) {
        self.follow_relief(name, now);
        let Some(vm) = self.vms.get(name) else { return };
        let is_live = vm.is_live() && !vm.meta.retired;
        // An agent that has just been started knows no hosts yet.
        let knows_hosts = self.peers.values().all(|peer| peer.described.is_some());
        if vm.wants_another() && (!knows_hosts || self.adopts(name, now)) {
            return;
        }
        let demand = self.vms.get(name).filter(|vm| vm.wants_another()).map(|vm| self.demand(vm, now));
        let Some(vm) = self.vms.get_mut(name) else { return };
        let time = driver::now();
        if let Some(demand) = demand {
            vm.respawn.respawner.handle_solo(time, demand);
        } else if let (true, true, Some(peer)) = (is_live, vm.copy.protected, vm.copy.peer) {
            vm.respawn.adoption = Adoption::Over;
            vm.respawn.obstacle = None;
            if vm.respawn.attempt.take().is_some() {
                telemetry::count_respawn(true);
            }
            vm.respawn.respawner.handle_protected(time, HostId(peer));
        } else if !is_live && vm.respawn.is_live {
            vm.respawn.respawner.handle_over();
        }
        vm.respawn.is_live = is_live;
        Self::follow_attempt(vm, &self.peers);
        vm.respawn.respawner.handle_tick(time);
        self.act(name);
    }

    /// Hosts have appeared, or have got room.
    pub(super) fn handle_hosts_changed(&mut self) {
        let time = driver::now();
        let names: Vec<String> = self.vms.keys().cloned().collect();
        for name in names {
            if let Some(vm) = self.vms.get_mut(&name) {
                vm.respawn.respawner.handle_hosts_changed(time);
            }
            self.act(&name);
        }
    }

    fn follow_attempt(vm: &mut Vm, peers: &BTreeMap<u64, PeerView>) {
        let Some(Attempt { number, host, started: Some(started) }) = vm.respawn.attempt else { return };
        match progress(peers.get(&host), &vm.file.name, started) {
            Progress::None => {}
            Progress::Follows => vm.respawn.respawner.handle_following(driver::now(), number),
            Progress::Hitch(why) => vm.respawn.respawner.handle_failed(driver::now(), number, why),
        }
    }

    /// Whether a copy that an earlier agent began is still given time. It is told again to the VM: the earlier agent may not have
    /// lived to do so.
    fn adopts(&mut self, name: &str, now: Instant) -> bool {
        let joins = |id: u64| {
            let peer = self.peers.get(&id).filter(|peer| peer.down.is_none())?;
            let mut vms = peer.description.as_ref()?.vms.iter();
            let is_it =
                |status: &&VmStatus| status.name == name && status.running && status.copy.role.is_secondary();
            vms.find(is_it)?.copy.address
        };
        let found = self.peers.keys().find_map(|id| Some((*id, joins(*id)?)));
        let Some(vm) = self.vms.get(name) else { return false };
        let adoption = match (&vm.respawn.adoption, found) {
            (Adoption::Open, Some((host, _))) => Adoption::Waits(host, now + ADOPTED_FOR),
            (Adoption::Waits(host, until), Some(_)) if now < *until && joins(*host).is_some() => return true,
            _ => Adoption::Over,
        };
        let waits = matches!(adoption, Adoption::Waits(..));
        if let (true, Some((host, address))) = (waits, found) {
            // Otherwise it does not come into step in time.
            let _ = self.introduce(name, host, address);
        }
        if let Some(vm) = self.vms.get_mut(name) {
            vm.respawn.adoption = adoption;
        }
        waits
    }

    /// Carries out what a VM's respawner wants.
    pub(super) fn act(&mut self, name: &str) {
        while let Some(action) = self.vms.get_mut(name).and_then(|vm| vm.respawn.respawner.poll()) {
            match action {
                // Several may ask at once: the tick chooses for all of them together.
                Action::Place(demand) => drop(self.asked.insert(name.to_owned(), *demand)),
                Action::Start { attempt, host } => self.start_attempt(name, attempt, host.0),
                Action::Abandon { host, .. } => {
                    self.rim.discard(name, host.0);
                    let Some(vm) = self.vms.get_mut(name) else { return };
                    vm.respawn.attempt = None;
                    if !vm.respawn.is_live {
                        // Nothing has failed: the VM is over, or others see to it.
                        continue;
                    }
                    telemetry::count_respawn(false);
                    let why = vm.respawn.respawner.explain(driver::now());
                    let why = why.lines().next().unwrap_or_default();
                    self.events.add(Some(name), Kind::RespawnFailed, why);
                }
            }
        }
    }

    fn start_attempt(&mut self, name: &str, number: u64, host: u64) {
        let Some(request) = self.vms.get(name).map(|vm| self.seed_request(vm)) else { return };
        let Some(vm) = self.vms.get_mut(name) else { return };
        let request = match request {
            Ok(request) => request,
            Err(why) => return vm.respawn.respawner.handle_failed(driver::now(), number, why),
        };
        vm.respawn.attempt = Some(Attempt { number, host, started: None });
        self.events.add(Some(name), Kind::Respawn, format!("on host {host}"));
        self.rim.seed((name, Seeding::Respawn(number)), host, request);
    }

    /// What another host's agent is asked for, to have a secondary of a VM that is live here.
    pub(super) fn seed_request(&self, vm: &Vm) -> Result<Request, String> {
        let file = toml::to_string(&VmFile { cluster: None, ..vm.file.clone() });
        let file = file.map_err(|error| error.to_string())?;
        let address = vm.copy.address.ok_or("the live copy does not listen yet")?;
        let primary = Host { id: self.file.id, name: self.file.name.clone(), address };
        Ok(Request::Seed { file, primary })
    }

    /// Takes in what became of asking a host's agent for a secondary.
    pub(super) fn handle_seeded(&mut self, (name, number): (&str, u64), outcome: Result<SocketAddr, String>) {
        let Some(attempt) = self.vms.get_mut(name).and_then(|vm| vm.respawn.attempt(number)) else { return };
        let host = attempt.host;
        attempt.started = Some(Instant::now());
        let introduced = outcome.and_then(|address| self.introduce(name, host, address));
        if let (Err(why), Some(vm)) = (introduced, self.vms.get_mut(name)) {
            vm.respawn.respawner.handle_failed(driver::now(), number, why);
        }
        self.act(name);
    }

    /// Tells a VM where its copy on `host` listens.
    pub(super) fn introduce(&self, name: &str, host: u64, address: SocketAddr) -> Result<(), String> {
        let (Some(vm), Some(peer)) = (self.vms.get(name), self.peers.get(&host)) else { return Ok(()) };
        vm.tell(Command::AddPeer { id: host, name: peer.name.clone(), address })
    }
}
