//! Moves the secondary of a VM that is live here: a second one is made on another host, and relieves the first when it is in step.
//!
//! Invariant: the VM is protected throughout. The first secondary stays until the second may go live; what fails before has changed nothing.
//! Invariant: at most one secondary of a VM moves at a time, and none while the VM has lost its secondary.

use super::respawn::{Progress, progress};
use super::vm::Vm;
use super::{Agent, PeerView, Seeding};
use crate::host::events::Kind;
use crate::host::message::Moving;
use crate::vm::control::Command;
use ft_core::placement::{Decision, Rejection, Verdict, place};
use ft_core::units::HostId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long it may take until the second secondary is in step: as long as any other may.
const RELIEVES_WITHIN: Duration = Duration::from_secs(360);

/// A secondary that is to relieve the first.
pub(super) struct Relief {
    host: u64,
    /// Tells it from earlier ones.
    number: u64,
    stage: Stage,
    until: Instant,
}

enum Stage {
    /// The VM's process is told to expect it: who greets before that is refused.
    Announced,
    /// Its host's agent is asked to start it.
    Asked,
    /// It was started then.
    Started(Instant),
    /// It has come to nothing, and why.
    Failed(String),
}

impl Relief {
    /// Where it is being made.
    pub(super) fn under_way(&self) -> Option<u64> {
        (!matches!(self.stage, Stage::Failed(_))).then_some(self.host)
    }

    /// For whoever waits for it.
    pub(super) fn status(&self) -> Moving {
        let failed = match &self.stage {
            Stage::Failed(why) => Some(why.clone()),
            _ => None,
        };
        Moving { to: self.host, failed }
    }

    /// What became of it, as far as that can be seen.
    fn outcome(&self, vm: &Vm, peers: &BTreeMap<u64, PeerView>, now: Instant) -> Outcome {
        if !vm.is_live() {
            return Outcome::Failed("the VM is not live here any more".into());
        }
        if vm.copy.protected && vm.copy.peer == Some(self.host) {
            return Outcome::Done;
        }
        if let Stage::Started(at) = self.stage
            && let Progress::Hitch(why) = progress(peers.get(&self.host), &vm.file.name, at)
        {
            return Outcome::Failed(why);
        }
        match now > self.until {
            true => Outcome::Failed(format!("not in step within {} s", RELIEVES_WITHIN.as_secs())),
            false => Outcome::Open,
        }
    }
}

enum Outcome {
    Open,
    Done,
    Failed(String),
}

impl Agent {
    /// Begins to move the secondary of a VM that is live here: to `host`, or to the one that fits best.
    pub(super) fn relieve(&mut self, name: &str, host: Option<u64>) -> Result<(), String> {
        let vm = self.live(name)?;
        if vm.meta.retired {
            return Err(format!("VM {name:?} is being stopped"));
        }
        let Some(from) = vm.copy.peer.filter(|_| vm.copy.protected) else {
            return Err(format!(
                "VM {name:?} is not protected: wait until it is, see `ft status --why {name}`"
            ));
        };
        if let Some(under_way) = vm.relief.as_ref().and_then(Relief::under_way) {
            return match host {
                Some(host) if host != under_way => {
                    let other = self.host_name(under_way);
                    Err(format!("the secondary of VM {name:?} moves to {other} already: wait for that"))
                }
                _ => Ok(()),
            };
        }
        let decision = place(&self.demand(vm, Instant::now()), &self.candidates());
        let to = match host {
            Some(to) => self.check_target(vm, &decision, to)?,
            None => decision.chosen.map(|host| host.0).ok_or_else(|| {
                format!("no host can take the secondary of VM {name:?}:\n{}", self.name_hosts(&decision))
            })?,
        };
        self.seed_request(vm)?;
        vm.tell(Command::Relieve { id: to })?;
        let text = format!("its secondary moves from {} to {}", self.host_name(from), self.host_name(to));
        self.events.add(Some(name), Kind::Moving, text);
        self.reliefs += 1;
        let (number, until) = (self.reliefs, Instant::now() + RELIEVES_WITHIN);
        if let Some(vm) = self.vms.get_mut(name) {
            vm.relief = Some(Relief { host: to, number, stage: Stage::Announced, until });
        }
        Ok(())
    }

    /// Whether a VM's secondary may move to host `to`.
    fn check_target(&self, vm: &Vm, decision: &Decision, to: u64) -> Result<u64, String> {
        let (name, host) = (&vm.file.name, self.host_name(to));
        if to == self.file.id {
            return Err(format!(
                "VM {name:?} is live on {}: its copies are never on one host",
                self.file.name
            ));
        }
        if vm.copy.peer == Some(to) {
            return Err(format!("the secondary of VM {name:?} is on {host} already"));
        }
        let opinion = decision.opinions.iter().find(|opinion| opinion.host == HostId(to));
        match opinion.map(|opinion| &opinion.verdict) {
            Some(Verdict::Chosen | Verdict::Fits { .. }) => Ok(to),
            Some(Verdict::Rejected(Rejection::Draining)) => {
                Err(format!("{host} is draining and takes no copy of VM {name:?}: see `ft undrain`"))
            }
            Some(Verdict::Rejected(rejection)) => {
                Err(format!("{host} cannot take a copy of VM {name:?}: {rejection}"))
            }
            None => Err(format!("{host} is no host of this cluster: see `ft list`")),
        }
    }

    /// A VM's process has said whether it expects a second secondary.
    pub(super) fn handle_announced(&mut self, name: &str, answer: Result<(), &str>) {
        let Some(vm) = self.vms.get(name) else { return };
        let Some(Relief { host, number, stage: Stage::Announced, .. }) = vm.relief else { return };
        let request = answer.map_err(str::to_owned).and_then(|()| self.seed_request(vm));
        match request {
            Ok(request) => {
                self.set_stage(name, Stage::Asked);
                self.rim.seed((name, Seeding::Relief(number)), host, request);
            }
            Err(why) => self.fail_relief(name, why),
        }
    }

    /// Takes in what became of asking a host's agent for a secondary that relieves another.
    pub(super) fn handle_relief_seeded(
        &mut self,
        name: &str,
        number: u64,
        outcome: Result<SocketAddr, String>,
    ) {
        let relief = self.vms.get(name).and_then(|vm| vm.relief.as_ref());
        let Some(host) = relief.filter(|relief| relief.number == number).and_then(Relief::under_way) else {
            return;
        };
        match outcome.and_then(|address| self.introduce(name, host, address)) {
            Ok(()) => self.set_stage(name, Stage::Started(Instant::now())),
            Err(why) => self.fail_relief(name, why),
        }
    }

    /// Looks how a second secondary is getting on.
    pub(super) fn follow_relief(&mut self, name: &str, now: Instant) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(relief) = vm.relief.as_ref().filter(|relief| relief.under_way().is_some()) else { return };
        let (host, is_started) = (relief.host, matches!(relief.stage, Stage::Started(_)));
        match relief.outcome(vm, &self.peers, now) {
            // The first one was lost, and the second is made the next: no other is.
            Outcome::Open if vm.copy.solo && is_started => vm.respawn.adopt(host, now),
            Outcome::Open if vm.copy.solo => self.fail_relief(name, "its secondary was lost".into()),
            Outcome::Open => {}
            Outcome::Done => {
                vm.relief = None;
                let text = format!("its secondary is on {}", self.host_name(host));
                self.events.add(Some(name), Kind::Moved, text);
            }
            Outcome::Failed(why) => self.fail_relief(name, why),
        }
    }

    fn set_stage(&mut self, name: &str, stage: Stage) {
        if let Some(relief) = self.vms.get_mut(name).and_then(|vm| vm.relief.as_mut()) {
            relief.stage = stage;
        }
    }

    /// Gives a second secondary up; the first one is still there.
    fn fail_relief(&mut self, name: &str, why: String) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let Some(relief) = &mut vm.relief else { return };
        let host = relief.host;
        relief.stage = Stage::Failed(why.clone());
        if vm.is_live() {
            vm.respawn.suspect(host, Instant::now());
        }
        self.rim.discard(name, host);
        let text = format!("its secondary does not move to {}: {why}", self.host_name(host));
        self.events.add(Some(name), Kind::MoveFailed, text);
    }
}
