//! Where the next copy of a VM is made: a function of what is needed and what there is.
//!
//! It only chooses. That the other host has changed its mind since, or is gone, is found out by asking it.

use super::config::Capacity;
use std::fmt::Write as _;

/// What is needed.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// The VM's memory.
    pub memory_mib: u64,
    /// The domain of the host where it is live.
    pub domain: &'a str,
    /// The build and the CPU model of its live copy (R10).
    pub version: &'a str,
    /// See `version`.
    pub cpu: &'a str,
}

/// A host that could take it.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: &'a str,
    /// Why it cannot be reached, if it cannot.
    pub down: Option<&'a str>,
    /// What fails together with it.
    pub domain: &'a str,
    /// Its build.
    pub version: &'a str,
    /// Its CPU model.
    pub cpu: &'a str,
    /// Whether it takes no further copies.
    pub draining: bool,
    /// Its free room.
    pub free: Capacity,
    /// Whether a copy runs there, dead to the pair or not.
    pub has_copy: bool,
    /// Tries of late that came to nothing there, and copies lost there.
    pub failures: u32,
}

/// Chooses a host.
///
/// Of those that can take the copy, those that fail independently of the live one come first, then those where less has gone wrong
/// of late, then those with more memory free.
///
/// # Errors
/// Why not, host by host.
pub fn choose(demand: &Demand<'_>, candidates: &[Candidate<'_>]) -> Result<u64, String> {
    let able = candidates.iter().filter(|candidate| obstacle(demand, candidate).is_none());
    let best = able.min_by_key(|candidate| {
        let shares_fate = candidate.domain == demand.domain;
        (shares_fate, candidate.failures, std::cmp::Reverse(candidate.free.memory_mib), candidate.id)
    });
    best.map(|candidate| candidate.id).ok_or_else(|| why_none(demand, candidates))
}

fn why_none(demand: &Demand<'_>, candidates: &[Candidate<'_>]) -> String {
    if candidates.is_empty() {
        return "there is no other host: list the others as peers in the host's file".into();
    }
    let mut text = String::new();
    for candidate in candidates {
        let obstacle = obstacle(demand, candidate).unwrap_or_default();
        let _ = write!(text, "{}{}: {obstacle}", if text.is_empty() { "" } else { "; " }, candidate.name);
    }
    text
}

fn obstacle(demand: &Demand<'_>, candidate: &Candidate<'_>) -> Option<String> {
    let Candidate { down, version, cpu, free, .. } = candidate;
    if let Some(down) = down {
        return Some((*down).to_owned());
    }
    if candidate.draining {
        return Some("takes no further copies (draining)".into());
    }
    if candidate.has_copy {
        return Some("a copy still runs there".into());
    }
    if *version != demand.version {
        return Some(format!("runs build {version}, the VM {}", demand.version));
    }
    if *cpu != demand.cpu {
        return Some(format!("has CPU model {cpu}, the VM {}", demand.cpu));
    }
    if free.vms == 0 {
        return Some("has no room for another VM".into());
    }
    if free.memory_mib < demand.memory_mib {
        return Some(format!("has {} MiB free, the VM needs {}", free.memory_mib, demand.memory_mib));
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DEMAND: Demand<'_> = Demand { memory_mib: 64, domain: "rack-1", version: "1", cpu: "soft" };

    fn candidate(id: u64) -> Candidate<'static> {
        let free = Capacity { memory_mib: 100, vms: 1 };
        let (name, domain, version, cpu) = ("host", "rack-2", "1", "soft");
        let (down, draining, has_copy, failures) = (None, false, false, 0);
        Candidate { id, name, down, domain, version, cpu, draining, free, has_copy, failures }
    }

    #[test]
    fn hosts_that_cannot_take_it_are_named_with_why() {
        let full = Capacity { memory_mib: 63, vms: 1 };
        let cases = [
            (Candidate { down: Some("no answer"), ..candidate(2) }, "no answer"),
            (Candidate { draining: true, ..candidate(2) }, "draining"),
            (Candidate { has_copy: true, ..candidate(2) }, "still runs"),
            (Candidate { version: "2", ..candidate(2) }, "build 2"),
            (Candidate { cpu: "kvm", ..candidate(2) }, "CPU model kvm"),
            (Candidate { free: full, ..candidate(2) }, "63 MiB free"),
            (Candidate { free: Capacity { vms: 0, ..full }, ..candidate(2) }, "no room"),
        ];
        for (candidate, word) in cases {
            let why = choose(&DEMAND, &[candidate]).unwrap_err();
            assert!(why.starts_with("host: ") && why.contains(word), "{why}");
        }
        assert!(choose(&DEMAND, &[]).unwrap_err().contains("no other host"));
    }

    #[test]
    fn another_domain_comes_before_a_clean_record_and_that_before_room() {
        let near = Candidate { domain: "rack-1", ..candidate(2) };
        let failed = Candidate { failures: 1, ..candidate(3) };
        let roomy = Candidate { free: Capacity { memory_mib: 200, vms: 1 }, ..candidate(5) };
        let all = [near, failed, candidate(4), roomy];
        for (count, best) in [(1, 2), (2, 3), (3, 4), (4, 5)] {
            assert_eq!(choose(&DEMAND, &all[..count]), Ok(best));
        }
    }
}
