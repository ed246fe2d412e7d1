//! What can go wrong, and what does: faults are drawn one after another.
//!
//! Invariant: what is drawn depends on the seed alone. What a machine or a cluster cannot have is drawn too, and passed over.

use ft_core::sim::Rng;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Which host, by what it has of the VM when the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The host of the live copy.
    Primary,
    /// The host of the other.
    Secondary,
    /// A host without a copy.
    Spare,
}

impl Place {
    /// The host at this place, of hosts 1 to `hosts`, where the live copy and the other one are on `pair`; of several spare ones the one
    /// after the secondary.
    pub(super) fn host(self, (live, other): (u64, u64), hosts: u64) -> Option<u64> {
        match self {
            Self::Primary => Some(live),
            Self::Secondary => Some(other),
            Self::Spare => {
                (0..hosts).map(|n| (other + n) % hosts + 1).find(|host| ![live, other].contains(host))
            }
        }
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "fault", content = "place", rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL for the VM's process.
    KillCopy(Place),
    /// SIGKILL for the agent, which is started again later.
    KillAgent(Place),
    /// Both.
    KillHost(Place),
    /// SIGSTOP for the VM's process, and SIGCONT later.
    FreezeCopy(Place),
    /// SIGSTOP for the VM's process again and again, for a moment each.
    SlowCopy(Place),
    /// The secondary is ended as an operator would.
    StopSecondary,
    /// The primary is asked to hand the machine over. No fault, but planned operations meet faults too.
    HandOver,
    /// The arbiter's directory is away.
    ArbiterAway,
    /// There is no room where the arbiter's directory is.
    ArbiterFull,
    /// There is no room where the agent and the VM's process keep their files.
    StateFull(Place),
    /// The host's cable is pulled.
    CutLink(Place),
}

/// A fault that is to strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// Which.
    pub fault: Fault,
    /// How long it lasts; of no meaning for one that is over at once.
    pub lasts: Duration,
    /// How long after it the next one may strike.
    pub pause: Duration,
}

use Fault::{
    ArbiterAway, ArbiterFull, CutLink, FreezeCopy, HandOver, KillAgent, KillCopy, KillHost, SlowCopy,
    StateFull, StopSecondary,
};
use Place::{Primary, Secondary, Spare};

/// What is drawn from. What stands here twice comes twice as often.
const ALL: [Fault; 25] = [
    KillCopy(Primary),
    KillCopy(Primary),
    KillCopy(Secondary),
    KillHost(Primary),
    KillHost(Primary),
    KillHost(Secondary),
    FreezeCopy(Primary),
    FreezeCopy(Primary),
    FreezeCopy(Secondary),
    SlowCopy(Primary),
    SlowCopy(Secondary),
    StopSecondary,
    HandOver,
    HandOver,
    HandOver,
    KillAgent(Primary),
    KillAgent(Secondary),
    KillAgent(Spare),
    ArbiterAway,
    ArbiterAway,
    ArbiterFull,
    StateFull(Primary),
    StateFull(Spare),
    CutLink(Primary),
    CutLink(Secondary),
];

/// The faults of a seed, without end.
#[derive(Debug)]
pub struct Faults(Rng);

impl Faults {
    /// The same seed draws the same faults.
    pub fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }
}

impl Iterator for Faults {
    type Item = Drawn;

    fn next(&mut self) -> Option<Drawn> {
        let fault = self.0.pick(&ALL);
        let lasts = Duration::from_millis(match fault {
            // Half of them are shorter than the silence after which the other copy takes over.
            FreezeCopy(_) if self.0.chance(500) => self.0.range(50..300),
            FreezeCopy(_) => self.0.range(300..3000),
            _ => self.0.range(500..4000),
        });
        let pause = Duration::from_millis(self.0.range(0..2000));
        Some(Drawn { fault, lasts, pause })
    }
}

impl Fault {
    /// Where it strikes; `None` for the arbiter.
    pub fn place(self) -> Option<Place> {
        match self {
            KillCopy(place) | KillAgent(place) | KillHost(place) | FreezeCopy(place) | SlowCopy(place)
            | StateFull(place) | CutLink(place) => Some(place),
            StopSecondary => Some(Secondary),
            HandOver => Some(Primary),
            ArbiterAway | ArbiterFull => None,
        }
    }

    /// Whether it can cost a copy: then there must be two, and nothing else that can.
    pub fn endangers_a_copy(self) -> bool {
        match self {
            KillCopy(_) | KillHost(_) | FreezeCopy(_) | SlowCopy(_) | StopSecondary => true,
            CutLink(place) => place != Spare,
            HandOver | KillAgent(_) | ArbiterAway | ArbiterFull | StateFull(_) => false,
        }
    }

    /// Whether it is over as soon as it has struck.
    pub fn is_instant(self) -> bool {
        matches!(self, KillCopy(_) | StopSecondary | HandOver)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Primary => "the primary",
            Secondary => "the secondary",
            Spare => "a spare host",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillCopy(place) => write!(f, "{place}'s process is killed"),
            KillAgent(place) => write!(f, "{place}'s agent is killed"),
            KillHost(place) => write!(f, "{place} and its agent are killed"),
            FreezeCopy(place) => write!(f, "{place}'s process is stopped"),
            SlowCopy(place) => write!(f, "{place}'s process is stopped again and again"),
            StopSecondary => f.write_str("the secondary is ended"),
            HandOver => f.write_str("the primary is to hand over"),
            ArbiterAway => f.write_str("the arbiter is away"),
            ArbiterFull => f.write_str("the arbiter's disk is full"),
            StateFull(place) => write!(f, "{place}'s state disk is full"),
            CutLink(place) => write!(f, "{place}'s link is cut"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn places_are_found_by_what_hosts_have() {
        assert_eq!(
            [Primary, Secondary, Spare].map(|place| place.host((3, 1), 3)),
            [Some(3), Some(1), Some(2)]
        );
        assert_eq!(Spare.host((2, 1), 2), None);
    }

    #[test]
    fn a_seed_draws_the_same_faults_again_and_another_draws_others() {
        let draw = |seed| Faults::new(seed).take(50).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn every_fault_comes_up_and_ends() {
        let drawn: Vec<Drawn> = Faults::new(1).take(1000).collect();
        let kinds: BTreeSet<Fault> = drawn.iter().map(|drawn| drawn.fault).collect();
        assert_eq!(kinds, ALL.into_iter().collect());
        assert!(drawn.iter().all(|drawn| drawn.lasts < Duration::from_secs(4)));
    }
}
