//! Places for the copies of several VMs, when there may not be enough for all.

use super::{Candidate, Decision, Demand, Hosts, place};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Puts the VMs that come first in front: by priority, then the large ones, which are hard to place later, then by name.
pub fn order(demands: &mut [Demand]) {
    demands.sort_by(|a, b| {
        let key = |demand: &Demand| (Reverse(demand.priority), Reverse(demand.ram_bytes));
        key(a).cmp(&key(b)).then_with(|| a.vm.cmp(&b.vm))
    });
}

/// Chooses hosts for one copy of each VM, in their [`order`]: each choice takes from what is left for those after it. Two VMs are kept
/// apart when either asks for it.
pub fn plan(mut demands: Vec<Demand>, hosts: &Hosts) -> Vec<Decision> {
    keep_apart_both_ways(&mut demands);
    order(&mut demands);
    let mut left = hosts.clone();
    let decisions = demands.iter().map(|demand| {
        let decision = place(demand, &left);
        if let Some(host) = decision.chosen.and_then(|host| left.get_mut(&host)) {
            host.take(demand);
        }
        decision
    });
    decisions.collect()
}

impl Candidate {
    /// Counts a copy as being there, which may only just have been sent on its way.
    pub fn take(&mut self, demand: &Demand) {
        self.free_bytes = self.free_bytes.saturating_sub(demand.ram_bytes);
        self.free_slots = self.free_slots.saturating_sub(1);
        self.vms.insert(demand.vm.clone());
    }
}

fn keep_apart_both_ways(demands: &mut [Demand]) {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for demand in demands.iter() {
        for other in &demand.apart_from {
            wanted.entry(other.clone()).or_default().insert(demand.vm.clone());
        }
    }
    for demand in demands {
        demand.apart_from.extend(wanted.remove(&demand.vm).unwrap_or_default());
    }
}
