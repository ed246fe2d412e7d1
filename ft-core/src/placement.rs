//! Which host gets the next copy of a VM, and why no other.
//!
//! | part | what |
//! |---|---|
//! | [`place`] | chooses a host for one copy, and says of every other why not |
//! | [`plan`] | chooses for several VMs, the most important first, from what is left each time |
//! | [`Respawner`] | when to ask, when to give an attempt up, when to try again |
//!
//! Invariants: a choice depends on nothing but the arguments. No copy is put beside the live one, nor where it has no room. Every
//! candidate gets exactly one verdict.

mod decision;
mod plan;
mod respawn;

pub use decision::{Behind, Decision, Opinion, Rejection, Verdict};
pub use plan::{order, plan};
pub use respawn::{Action, RespawnConfig, Respawner};

use crate::message::{Profile, Refusal};
use crate::units::HostId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What a copy of a VM needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// The VM's name.
    pub vm: String,
    /// Memory that a copy takes, in bytes.
    pub ram_bytes: u64,
    /// What the live copy's host is like; for the first copy, what is asked for.
    pub traits: HostTraits,
    /// Where the live copy is; `None`: there is none yet.
    pub live: Option<HostId>,
    /// The live copy's failure domain, where it is known.
    pub live_domain: Option<String>,
    /// What is made of failure domains.
    pub spread: Spread,
    /// Hosts that it should rather be on, the best first.
    pub preferred: Vec<HostId>,
    /// The only hosts that it may be on; `None`: all.
    pub possible: Option<BTreeSet<HostId>>,
    /// VMs that it must not share a host with.
    pub apart_from: BTreeSet<String>,
    /// Hosts where a copy failed lately: taken only when there is no other.
    pub suspects: BTreeSet<HostId>,
    /// The higher, the earlier it gets what is short.
    pub priority: i32,
}

/// What is made of failure domains: racks, rooms, power supplies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spread {
    /// The copies had better be in different ones.
    #[default]
    Prefer,
    /// The copies must be in different ones, and known to be.
    Require,
    /// They do not matter.
    Ignore,
}

/// What two hosts must have in common to share a VM: of its [`Profile`], what comes from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTraits {
    /// Version of the protocol.
    pub protocol: u32,
    /// Which machine its build of the VMM makes.
    pub machine: String,
    /// CPU model that guests see.
    pub cpu: String,
    /// What a tick counts.
    pub tick: String,
}

impl From<&Profile> for HostTraits {
    fn from(profile: &Profile) -> Self {
        let Profile { protocol, machine, cpu, tick, .. } = profile.clone();
        Self { protocol, machine, cpu, tick }
    }
}

impl HostTraits {
    /// As the handshake would find them (R10).
    fn mismatch(&self, candidate: &Self) -> Option<Refusal> {
        self.profile().mismatch(&candidate.profile())
    }

    fn profile(&self) -> Profile {
        let Self { protocol, machine, cpu, tick } = self.clone();
        Profile { protocol, machine, cpu, tick, ..Profile::default() }
    }
}

/// A host, as its agent describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it takes copies.
    pub state: HostState,
    /// Memory that it has left for VMs, in bytes.
    pub free_bytes: u64,
    /// How many more VMs it takes.
    pub free_slots: u32,
    /// What it is like.
    pub traits: HostTraits,
    /// Its failure domain, where it is known.
    pub domain: Option<String>,
    /// VMs of which it runs a copy.
    pub vms: BTreeSet<String>,
}

/// Whether a host takes copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostState {
    /// It does.
    #[default]
    Up,
    /// Nobody hears from it.
    Unreachable,
    /// Its operator wants it empty.
    Draining,
}

/// The hosts by their numbers.
pub type Hosts = BTreeMap<HostId, Candidate>;

/// Chooses a host for a copy.
///
/// Of the hosts that can take it: one where no copy failed lately, in another failure domain than the live copy, preferred, with the most
/// free memory, with the fewest VMs, with the lowest number. In this order.
pub fn place(demand: &Demand, hosts: &Hosts) -> Decision {
    let mut fits = Vec::new();
    let mut rejected = Vec::new();
    for (&host, candidate) in hosts {
        match rejection(demand, host, candidate) {
            Some(rejection) => rejected.push((host, Verdict::Rejected(rejection))),
            None => fits.push(rank(demand, host, candidate)),
        }
    }
    fits.sort();
    let verdicts = fits.iter().enumerate().map(|(place, own)| match fits.first() {
        Some(best) if place > 0 => {
            let behind = behind(demand, own, best, hosts);
            (own.host, Verdict::Fits { rank: place + 1, behind })
        }
        _ => (own.host, Verdict::Chosen),
    });
    let opinion = |(host, verdict)| Opinion {
        host,
        domain: hosts.get(&host).and_then(|c: &Candidate| c.domain.clone()),
        verdict,
    };
    let opinions = verdicts.chain(rejected).map(opinion).collect();
    Decision { vm: demand.vm.clone(), chosen: fits.first().map(|best| best.host), opinions }
}

/// Why a host cannot take the copy, if it cannot. The first reason in an order in which an operator would look.
fn rejection(demand: &Demand, host: HostId, candidate: &Candidate) -> Option<Rejection> {
    if demand.live == Some(host) {
        return Some(Rejection::Live);
    }
    match candidate.state {
        HostState::Up => {}
        HostState::Unreachable => return Some(Rejection::Unreachable),
        HostState::Draining => return Some(Rejection::Draining),
    }
    if demand.possible.as_ref().is_some_and(|possible| !possible.contains(&host)) {
        return Some(Rejection::NotPossible);
    }
    if candidate.vms.contains(&demand.vm) {
        return Some(Rejection::HasCopy);
    }
    if let Some(refusal) = demand.traits.mismatch(&candidate.traits) {
        return Some(Rejection::Incompatible(refusal));
    }
    if let Some(vm) = candidate.vms.intersection(&demand.apart_from).next() {
        return Some(Rejection::Apart { vm: vm.clone() });
    }
    if demand.spread == Spread::Require && demand.live.is_some() && !is_elsewhere(demand, candidate) {
        return Some(Rejection::Domain { domain: candidate.domain.clone() });
    }
    if candidate.free_bytes < demand.ram_bytes {
        return Some(Rejection::Room { asked: demand.ram_bytes, free: candidate.free_bytes });
    }
    (candidate.free_slots == 0).then_some(Rejection::Slots { vms: candidate.vms.len() })
}

/// Whether a host is known to be in another failure domain than the live copy.
fn is_elsewhere(demand: &Demand, candidate: &Candidate) -> bool {
    candidate.domain.is_some() && demand.live_domain.is_some() && candidate.domain != demand.live_domain
}

/// How good a host is: the less, the better. The fields are in the order in which they count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    suspect: bool,
    beside: bool,
    preference: usize,
    free_bytes: Reverse<u64>,
    vms: usize,
    host: HostId,
}

fn rank(demand: &Demand, host: HostId, candidate: &Candidate) -> Rank {
    let preference = demand.preferred.iter().position(|preferred| *preferred == host);
    Rank {
        suspect: demand.suspects.contains(&host),
        beside: demand.spread != Spread::Ignore && !is_elsewhere(demand, candidate),
        preference: preference.unwrap_or(usize::MAX),
        free_bytes: Reverse(candidate.free_bytes),
        vms: candidate.vms.len(),
        host,
    }
}

/// In what a host is worse than the best.
fn behind(demand: &Demand, own: &Rank, best: &Rank, hosts: &Hosts) -> Behind {
    if own.suspect != best.suspect {
        Behind::Suspect
    } else if own.beside != best.beside {
        let domain = hosts.get(&own.host).and_then(|candidate| candidate.domain.clone());
        Behind::Domain { domain, best: best.host }
    } else if own.preference != best.preference {
        Behind::Preference { listed: demand.preferred.contains(&own.host), best: best.host }
    } else if own.free_bytes != best.free_bytes {
        Behind::Memory { free: own.free_bytes.0, best: best.host, best_free: best.free_bytes.0 }
    } else if own.vms != best.vms {
        Behind::Vms { vms: own.vms, best: best.host, best_vms: best.vms }
    } else {
        Behind::Number { best: best.host }
    }
}

#[cfg(test)]
mod tests;
