//! What operators plan: hosts take no further copies, failovers are tried, choices of hosts explained.

use super::Agent;
use super::vm::Vm;
use crate::host::events::Kind;
use crate::host::message::{Choice, HostChoice, Why};
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

    pub(super) fn live(&self, name: &str) -> Result<&Vm, String> {
        let vm = self.vms.get(name).filter(|vm| vm.is_live());
        vm.ok_or_else(|| format!("VM {name:?} is not live on {}: see `ft status {name}`", self.file.name))
    }

    /// What would be chosen for a further copy now.
    fn choose(&self, vm: &Vm) -> Choice {
        self.name_hosts(&place(&self.demand(vm, Instant::now()), &self.candidates()))
    }

    pub(super) fn name_hosts(&self, decision: &Decision) -> Choice {
        let own = HostChoice { host: self.file.name.clone(), verdict: Rejection::Live.to_string() };
        let others = decision.opinions.iter().map(|opinion| HostChoice {
            host: self.host_name(opinion.host.0),
            verdict: opinion.verdict.to_string(),
        });
        Choice { chosen: decision.chosen.map(|host| host.0), hosts: others.chain([own]).collect() }
    }
}
