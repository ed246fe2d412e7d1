//! What a VM's file wishes of placement, with the hosts that this agent knows.

use super::Agent;
use super::relief::Relief;
use super::vm::Vm;
use crate::driver;
use crate::host::message::VmStatus;
use crate::vm::config::VmFile;
use crate::vm::process::host_traits;
use ft_core::placement::{Candidate, Demand, HostTraits, Hosts, plan};
use ft_core::units::HostId;
use std::collections::BTreeSet;
use std::time::Instant;

impl Agent {
    /// Whether the first copy of a VM may be here, and its wishes can be met at all.
    pub(super) fn check_wishes(&self, file: &VmFile) -> Result<(), String> {
        let (own, wishes) = (&self.file.name, &file.placement);
        let names = self.peers.values().map(|peer| &*peer.name).chain([&**own]).collect();
        wishes.check(&file.name, &names)?;
        if wishes.possible.as_ref().is_some_and(|possible| !possible.contains(own)) {
            return Err(format!("{own} is not among placement.possible of VM {}: say --on HOST", file.name));
        }
        let apart = self.apart_from(&file.name, &wishes.apart_from);
        let beside = self.vms.values().find(|vm| vm.is_running() && apart.contains(&vm.file.name));
        match beside {
            Some(vm) => Err(format!(
                "{own} runs VM {}, from which {} must be apart: say --on HOST",
                vm.file.name, file.name
            )),
            None => Ok(()),
        }
    }

    /// What a further copy of a VM needs.
    pub(super) fn demand(&self, vm: &Vm, now: Instant) -> Demand {
        let wishes = &vm.file.placement;
        let id = |name: &String| self.host_id(name).map(HostId);
        Demand {
            vm: vm.file.name.clone(),
            ram_bytes: vm.file.ram_mib << 20,
            // The process may be of another build than its agent.
            traits: HostTraits { machine: vm.copy.machine.clone(), ..host_traits() },
            live: Some(HostId(self.file.id)),
            live_domain: Some(self.file.domain().to_owned()),
            spread: wishes.spread.into(),
            preferred: wishes.preferred.iter().filter_map(id).collect(),
            possible: wishes.possible.as_ref().map(|possible| possible.iter().filter_map(id).collect()),
            apart_from: self.apart_from(&vm.file.name, &wishes.apart_from),
            suspects: vm.respawn.suspects(now),
            priority: wishes.priority,
        }
    }

    fn host_id(&self, name: &str) -> Option<u64> {
        let peer = self.peers.iter().find(|(_, peer)| peer.name == name).map(|(id, _)| *id);
        peer.or_else(|| (name == self.file.name).then_some(self.file.id))
    }

    /// VMs that a VM must not be beside: it may be they who want it so.
    fn apart_from(&self, name: &str, wished: &BTreeSet<String>) -> BTreeSet<String> {
        let elsewhere = self.peers.values().flat_map(|peer| &peer.description).flat_map(|it| &it.vms);
        let wants = |vm: &&VmStatus| vm.running && vm.apart_from.contains(name);
        let here =
            self.vms.values().filter(|vm| vm.is_running() && vm.file.placement.apart_from.contains(name));
        let others = elsewhere.filter(wants).map(|vm| vm.name.clone());
        wished.iter().cloned().chain(others).chain(here.map(|vm| vm.file.name.clone())).collect()
    }

    /// The hosts that may take copies of what is live here. Copies that were only just sent on their way count as being there.
    pub(super) fn candidates(&self) -> Hosts {
        let now = Instant::now();
        let mut hosts: Hosts = self.peers.iter().map(|(id, peer)| (HostId(*id), peer.candidate())).collect();
        for vm in self.vms.values() {
            let relief = vm.relief.as_ref().and_then(Relief::under_way);
            for host in [vm.respawn.under_way(), relief].into_iter().flatten() {
                let host = hosts.get_mut(&HostId(host));
                if let Some(host) = host.filter(|host: &&mut Candidate| !host.vms.contains(&vm.file.name)) {
                    host.take(&self.demand(vm, now));
                }
            }
        }
        hosts
    }

    /// Chooses hosts for all VMs that have asked since the last tick, the most important first.
    pub(super) fn place_all(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        let demands: Vec<Demand> = asked.into_values().collect();
        for decision in plan(demands, &self.candidates()) {
            let name = decision.vm.clone();
            let Some(vm) = self.vms.get_mut(&name) else { continue };
            let obstacle = decision.chosen.is_none().then(|| decision.to_string().replace('\n', "; "));
            vm.respawn.handle_decision(driver::now(), decision);
            if vm.respawn.note_obstacle(obstacle.clone())
                && let Some(obstacle) = obstacle
            {
                self.events.add(Some(&name), crate::host::events::Kind::NoHost, obstacle);
            }
            self.act(&name);
        }
    }
}
