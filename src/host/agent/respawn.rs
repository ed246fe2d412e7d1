//! Keeps a VM that is live here redundant: has a secondary made on another host whenever there is none.
//!
//! Invariant: at most one secondary of a VM is being made at a time, and none while the pair is in step.

use super::vm::Vm;
use super::{Agent, PeerView};
use crate::host::events::Kind;
use crate::host::message::{Request, VmStatus};
use crate::host::placement::{Candidate, Demand, choose};
use crate::host::telemetry;
use crate::vm::config::Host;
use crate::vm::control::{Command, Role};
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::Vcpu as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Pauses between two tries: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a host is the last choice after a copy was lost there, or could not be made.
const BLAMED_FOR: Duration = Duration::from_secs(60);

/// How long a copy may take to come into step, and how much longer for its memory.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
const JOIN_MIB_PER_SECOND: u64 = 10;

/// What is being done to make a VM redundant.
#[derive(Default)]
pub(super) struct Respawn {
    stage: Stage,
    /// Tries since it was redundant.
    tries: u32,
    /// When something last went wrong on a host.
    blamed: BTreeMap<u64, Instant>,
    /// Why no host can take it, as was last reported.
    obstacle: Option<String>,
}

#[derive(Default)]
enum Stage {
    /// Nothing is to be done.
    #[default]
    Idle,
    /// A host is to be chosen.
    Due(Instant),
    /// A host's agent has been asked.
    Asking(u64),
    /// A copy on that host joins.
    Joining { host: u64, since: Instant, until: Instant },
}

impl Respawn {
    /// In words, for operators.
    pub(super) fn describe(&self) -> Option<String> {
        match (&self.stage, &self.obstacle) {
            (Stage::Idle, _) => None,
            (Stage::Due(_), Some(obstacle)) => Some(format!("no host: {obstacle}")),
            (Stage::Due(_), None) => Some("a host is being chosen".into()),
            (Stage::Asking(host), _) => Some(format!("host {host} is being asked")),
            (Stage::Joining { host, .. }, _) => Some(format!("the copy on host {host} joins")),
        }
    }

    /// Something went wrong on a host.
    pub(super) fn blame(&mut self, host: u64, now: Instant) {
        self.blamed.insert(host, now);
    }

    fn failures(&self, host: u64, now: Instant) -> u32 {
        let is_recent = |at: &Instant| now.duration_since(*at) < BLAMED_FOR;
        self.blamed.get(&host).is_some_and(is_recent).into()
    }

    fn try_later(&mut self, now: Instant) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.tries.min(10)).min(PAUSE_MAX);
        self.tries = self.tries.saturating_add(1);
        self.stage = Stage::Due(now + pause);
    }
}

/// What is to be done next.
enum Step {
    Rest,
    Finish,
    Begin,
    Choose,
    GiveUp(u64, String),
}

impl Vm {
    fn next_step(&self, peers: &BTreeMap<u64, PeerView>, now: Instant) -> Step {
        match &self.respawn.stage {
            Stage::Idle if self.wants_another() => Step::Begin,
            Stage::Idle => Step::Rest,
            // Its agent answers in any case; the VM may have come into step by itself in the meantime.
            Stage::Asking(_) => Step::Rest,
            _ if !self.wants_another() => Step::Finish,
            Stage::Due(at) if now >= *at => Step::Choose,
            Stage::Due(_) => Step::Rest,
            Stage::Joining { host, since, until } => match hitch(peers.get(host), &self.file.name, *since) {
                Some(why) => Step::GiveUp(*host, why),
                None if now > *until => Step::GiveUp(*host, "it did not come into step in time".into()),
                None => Step::Rest,
            },
        }
    }
}

/// Why the copy of VM `vm` that was begun on a host `since` then will not come into step.
fn hitch(peer: Option<&PeerView>, vm: &str, since: Instant) -> Option<String> {
    let peer = peer?;
    if let Some(down) = &peer.down {
        return Some(down.clone());
    }
    // What it said before does not count.
    let description = peer.description.as_ref().filter(|_| peer.described > Some(since))?;
    match description.vms.iter().find(|status| status.name == vm) {
        Some(status) if status.running => None,
        Some(VmStatus { ended: Some(ended), .. }) => {
            Some(format!("the copy there {}: {}", ended.how, ended.words.join(" / ")))
        }
        _ => Some("there is no copy there any more".into()),
    }
}

impl Agent {
    /// Does what is next to make a VM redundant.
    pub(super) fn respawn(&mut self, name: &str, now: Instant) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        match vm.next_step(&self.peers, now) {
            Step::Rest => {}
            Step::Finish => {
                if vm.copy.protected {
                    telemetry::count_respawn(true);
                }
                let blamed = std::mem::take(&mut vm.respawn.blamed);
                vm.respawn = Respawn { blamed, ..Respawn::default() };
            }
            Step::Begin => self.begin(name, now),
            Step::Choose => self.choose(name, now),
            Step::GiveUp(host, why) => self.give_up(name, host, &why, now),
        }
    }

    /// Begins to make a VM redundant: with a copy that is under way already, begun by an earlier agent, if there is one.
    fn begin(&mut self, name: &str, now: Instant) {
        // An agent that has just been started knows nothing yet.
        if self.peers.values().any(|peer| peer.described.is_none()) {
            return;
        }
        let joins = |status: &VmStatus| {
            status.name == name
                && status.running
                && matches!(status.copy.role, Role::Starting | Role::Following)
        };
        let under_way = self.peers.iter().filter(|(_, peer)| peer.down.is_none()).find_map(|(id, peer)| {
            let status = peer.description.as_ref()?.vms.iter().find(|status| joins(status))?;
            Some((*id, status.copy.address?))
        });
        match under_way {
            Some((host, address)) => self.expect(name, host, address, now),
            None => self.choose(name, now),
        }
    }

    fn choose(&mut self, name: &str, now: Instant) {
        let Some(vm) = self.vms.get(name) else { return };
        let (version, cpu) = (&*vm.copy.version, SoftVcpu::model());
        let domain = self.file.domain();
        let demand = Demand { memory_mib: vm.file.ram_mib, domain, version, cpu: &cpu };
        let candidate = |(id, peer): (&u64, &'_ PeerView)| {
            let description = peer.description.as_deref();
            let unknown = description.is_none().then_some("has not been heard of yet");
            let failures = vm.respawn.failures(*id, now);
            (*id, unknown.map(str::to_owned).or_else(|| peer.down.clone()), failures)
        };
        let facts: Vec<(u64, Option<String>, u32)> = self.peers.iter().map(candidate).collect();
        let candidates: Vec<Candidate<'_>> = facts
            .iter()
            .filter_map(|(id, down, failures)| Some((*id, self.peers.get(id)?, down.as_deref(), *failures)))
            .map(|(id, peer, down, failures)| {
                let description = peer.description.as_deref();
                let text = |of: fn(&super::Description) -> &str| description.map_or("", of);
                Candidate {
                    id,
                    name: &peer.name,
                    down,
                    domain: text(|it| &it.domain),
                    version: text(|it| &it.version),
                    cpu: text(|it| &it.cpu),
                    draining: description.is_some_and(|it| it.draining),
                    free: description.map(|it| it.free).unwrap_or_default(),
                    has_copy: description
                        .is_some_and(|it| it.vms.iter().any(|status| status.name == name && status.running)),
                    failures,
                }
            })
            .collect();
        match choose(&demand, &candidates) {
            Ok(host) => self.ask(name, host),
            Err(obstacle) => self.report_obstacle(name, obstacle, now),
        }
    }

    fn ask(&mut self, name: &str, host: u64) {
        let (own, Some(vm)) = (self.file.id, self.vms.get_mut(name)) else { return };
        let Some(address) = vm.copy.address else { return };
        let file = match toml::to_string(&crate::vm::config::VmFile { cluster: None, ..vm.file.clone() }) {
            Ok(file) => file,
            Err(error) => return tracing::error!(vm = name, %error, "cannot write the VM's file"),
        };
        let primary = Host { id: own, name: self.file.name.clone(), address };
        vm.respawn.stage = Stage::Asking(host);
        vm.respawn.obstacle = None;
        self.events.add(Some(name), Kind::Respawn, format!("on host {host}"));
        self.rim.seed(name, host, Request::Seed { file, primary });
    }

    fn report_obstacle(&mut self, name: &str, obstacle: String, now: Instant) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.respawn.try_later(now);
        if vm.respawn.obstacle.as_ref() != Some(&obstacle) {
            self.events.add(Some(name), Kind::NoHost, &*obstacle);
            vm.respawn.obstacle = Some(obstacle);
        }
    }

    /// Takes in what became of asking a host's agent.
    pub(super) fn handle_seeded(&mut self, name: &str, host: u64, outcome: Result<SocketAddr, String>) {
        let now = Instant::now();
        let is_asked = |vm: &&mut Vm| matches!(vm.respawn.stage, Stage::Asking(asked) if asked == host);
        if self.vms.get_mut(name).filter(is_asked).is_none() {
            return;
        }
        match outcome {
            Ok(address) => self.expect(name, host, address, now),
            Err(why) => self.give_up(name, host, &why, now),
        }
    }

    /// Lets the copy on `host` join, and gives it time.
    fn expect(&mut self, name: &str, host: u64, address: SocketAddr, now: Instant) {
        let (Some(vm), Some(peer)) = (self.vms.get_mut(name), self.peers.get(&host)) else { return };
        let command = Command::AddPeer { id: host, name: peer.name.clone(), address };
        let within = JOIN_WITHIN + Duration::from_secs(vm.file.ram_mib / JOIN_MIB_PER_SECOND);
        match vm.tell(command) {
            Ok(()) => vm.respawn.stage = Stage::Joining { host, since: now, until: now + within },
            Err(why) => self.give_up(name, host, &why, now),
        }
    }

    fn give_up(&mut self, name: &str, host: u64, why: &str, now: Instant) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        vm.respawn.blame(host, now);
        vm.respawn.try_later(now);
        telemetry::count_respawn(false);
        // What may be left of it there would keep the host from taking another.
        self.rim.discard(name, host);
        self.events.add(Some(name), Kind::RespawnFailed, format!("on host {host}: {why}"));
    }
}
