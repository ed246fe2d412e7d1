//! What operators plan: hosts are emptied, secondaries made anew elsewhere, failovers tried.

use super::vm::Vm;
use super::{Agent, Reply};
use crate::host::events::Kind;
use crate::host::message::{Answer, Choice, HostChoice, Why};
use crate::vm::control::Role;
use ft_core::placement::{Decision, Rejection, place};
use std::time::Instant;

impl Agent {
    /// From now on this host takes no further copies, or takes them again.
    pub(super) fn drain(&mut self, draining: bool) -> Result<(), String> {
        if !draining && self.file.draining {
            return Err(format!("{} has draining = true in its file: change it there", self.file.name));
        }
        if draining == self.drained {
            return Ok(());
        }
        let kept = self.state.set_draining(draining);
        kept.map_err(|error| format!("cannot write that {} is draining: {error}", self.file.name))?;
        self.drained = draining;
        let text = if draining { "takes no further copies" } else { "takes copies again" };
        self.events.add(None, Kind::Draining, text);
        Ok(())
    }

    /// Has the secondary of a VM that is live here made anew on another host than `from`.
    pub(super) fn relocate(&mut self, name: &str, from: u64, reply: Reply) {
        match self.begin_relocation(name, from) {
            Ok(true) => self.rim.release(name, from, reply),
            // Whoever asked may not wait any more.
            Ok(false) => drop(reply.send(Answer::done())),
            Err(why) => drop(reply.send(Answer::refused(why))),
        }
    }

    /// Whether there is anything to do.
    fn begin_relocation(&mut self, name: &str, from: u64) -> Result<bool, String> {
        let choice = self.choose(self.live(name)?);
        let vm = self.vms.get_mut(name).filter(|vm| vm.copy.protected);
        let vm = vm.ok_or_else(|| format!("VM {name:?} is not protected: its only copy stays"))?;
        if vm.copy.peer != Some(from) {
            return Ok(false);
        }
        let Some(chosen) = choice.chosen else {
            return Err(format!("no host can take the secondary of VM {name:?}:\n{choice}"));
        };
        vm.respawn.expect_end(from, Instant::now());
        let text = format!("its secondary leaves host {from}; host {chosen} could take it");
        self.events.add(Some(name), Kind::Relocating, text);
        Ok(true)
    }

    /// Ends the secondary here, when the host `from` asks, where the VM is live.
    pub(super) fn release(&mut self, from: Option<&str>, name: &str, reply: Reply) {
        let asks = |vm: &Vm| {
            let peer = vm.copy.peer.and_then(|id| self.peers.get(&id));
            peer.is_some_and(|peer| from == Some(&*peer.name))
        };
        let follows = |vm: &Vm| vm.copy.role == Role::Following && vm.copy.protected;
        let refused = match self.vms.get(name).filter(|vm| vm.is_running()) {
            None => return drop(reply.send(Answer::done())),
            Some(vm) if !follows(vm) => "is not a secondary in step",
            Some(vm) if !asks(vm) => "is ended only when the host asks where the VM is live",
            Some(_) => {
                self.events.add(Some(name), Kind::Relocating, "this secondary ends: another host takes over");
                if let Some(vm) = self.vms.get_mut(name) {
                    vm.stop();
                    vm.await_end(reply);
                }
                return;
            }
        };
        let text = format!("the copy of VM {name:?} on {} {refused}", self.file.name);
        drop(reply.send(Answer::refused(text)));
    }

    /// Kills the live copy of a VM, which is here, if another can take over.
    pub(super) fn kill(&mut self, name: &str, pid: u32) -> Result<(), String> {
        let is_over = |vm: &Vm| vm.copy.pid == pid && !vm.is_running();
        if self.vms.get(name).is_some_and(is_over) {
            return Ok(());
        }
        let vm = self.live(name)?;
        if !vm.copy.protected {
            return Err(format!("VM {name:?} is not protected: nobody could take over"));
        }
        if vm.copy.pid != pid {
            return Err(format!("VM {name:?} has another process by now: try again"));
        }
        vm.kill();
        self.events.add(
            Some(name),
            Kind::Killed,
            format!("process {pid}, to test that another copy takes over"),
        );
        Ok(())
    }

    /// What decides where the next copy of a VM is made.
    pub(super) fn why(&self, name: &str) -> Result<Why, String> {
        let vm = self.live(name)?;
        Ok(Why {
            vm: name.to_owned(),
            doing: vm.respawn.describe().lines().next().unwrap_or_default().to_owned(),
            no_host: vm.respawn.has_obstacle(),
            last: vm.respawn.decision().map(|decision| self.name_hosts(decision)),
            now: self.choose(vm),
        })
    }

    fn live(&self, name: &str) -> Result<&Vm, String> {
        let vm = self.vms.get(name).filter(|vm| vm.is_live());
        vm.ok_or_else(|| format!("VM {name:?} is not live on {}: see `ft status {name}`", self.file.name))
    }

    /// What would be chosen for a further copy now.
    fn choose(&self, vm: &Vm) -> Choice {
        self.name_hosts(&place(&self.demand(vm, Instant::now()), &self.candidates()))
    }

    fn name_hosts(&self, decision: &Decision) -> Choice {
        let own = HostChoice { host: self.file.name.clone(), verdict: Rejection::Live.to_string() };
        let others = decision.opinions.iter().map(|opinion| HostChoice {
            host: self.host_name(opinion.host.0),
            verdict: opinion.verdict.to_string(),
        });
        Choice { chosen: decision.chosen.map(|host| host.0), hosts: others.chain([own]).collect() }
    }
}
