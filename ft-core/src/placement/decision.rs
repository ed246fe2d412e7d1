//! What was decided on a copy's host, in types for programs and in lines for people.

use crate::message::Refusal;
use crate::units::HostId;
use std::fmt;

/// Which host was chosen, and what is to be said of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The VM whose copy it is about.
    pub vm: String,
    /// The host; `None`: none can take it.
    pub chosen: Option<HostId>,
    /// Every candidate once: the chosen one, the others that fit from better to worse, then the rejected by number.
    pub opinions: Vec<Opinion>,
}

/// What is to be said of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Which host.
    pub host: HostId,
    /// Its failure domain.
    pub domain: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets the copy.
    Chosen,
    /// It could have got it.
    Fits {
        /// Its place among those that fit; the chosen one's is 1.
        rank: usize,
        /// In what the chosen one is better: the first difference that counts.
        behind: Behind,
    },
    /// It cannot take it.
    Rejected(Rejection),
}

/// In what a host is behind the chosen one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A copy failed there lately.
    Suspect,
    /// It is in the live copy's failure domain, or may be.
    Domain {
        /// Its own.
        domain: Option<String>,
        /// The chosen one, which is in another.
        best: HostId,
    },
    /// Another is preferred.
    Preference {
        /// Whether it is among the preferred at all.
        listed: bool,
        /// The chosen one.
        best: HostId,
    },
    /// It has less memory left.
    Memory {
        /// What it has, in bytes.
        free: u64,
        /// The chosen one.
        best: HostId,
        /// What that has, in bytes.
        best_free: u64,
    },
    /// It has more VMs.
    Vms {
        /// How many.
        vms: usize,
        /// The chosen one.
        best: HostId,
        /// How many that has.
        best_vms: usize,
    },
    /// Nothing but its number.
    Number {
        /// The chosen one.
        best: HostId,
    },
}

/// Why a host cannot take a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The live copy is there.
    Live,
    /// Nobody hears from it.
    Unreachable,
    /// Its operator wants it empty.
    Draining,
    /// The VM's file does not allow it.
    NotPossible,
    /// It has a copy already, or what is left of one.
    HasCopy,
    /// The handshake would be refused (R10).
    Incompatible(Refusal),
    /// It runs a VM that must be apart from this one.
    Apart {
        /// Which.
        vm: String,
    },
    /// It is not known to be in another failure domain than the live copy.
    Domain {
        /// Its own.
        domain: Option<String>,
    },
    /// It has too little memory left.
    Room {
        /// What the copy takes, in bytes.
        asked: u64,
        /// What the host has, in bytes.
        free: u64,
    },
    /// It takes no more VMs.
    Slots {
        /// How many it has.
        vms: usize,
    },
}

/// One line for each candidate.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.opinions.is_empty() {
            return f.write_str("no other hosts are known");
        }
        for (index, opinion) in self.opinions.iter().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}{opinion}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, domain, verdict } = self;
        match domain {
            Some(domain) => write!(f, "{host} ({domain}): {verdict}"),
            None => write!(f, "{host}: {verdict}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chosen => f.write_str("chosen"),
            Self::Fits { rank, behind } => write!(f, "would do, in place {rank}: {behind}"),
            Self::Rejected(rejection) => rejection.fmt(f),
        }
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspect => f.write_str("a copy failed there lately"),
            Self::Domain { domain: Some(domain), best } => {
                write!(f, "in {domain} as the live copy, and {best} is not")
            }
            Self::Domain { domain: None, best } => {
                write!(f, "its failure domain is not known, and {best} is in another than the live copy")
            }
            Self::Preference { listed: true, best } => write!(f, "{best} comes first among the preferred"),
            Self::Preference { listed: false, best } => write!(f, "{best} is preferred"),
            Self::Memory { free, best, best_free } => {
                write!(f, "{} free, and {best} has {}", whole_mib(*free), whole_mib(*best_free))
            }
            Self::Vms { vms, best, best_vms } => write!(f, "{vms} VMs, and {best} has {best_vms}"),
            Self::Number { best } => write!(f, "as good as {best}, which has the lower number"),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("the live copy is there"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Draining => f.write_str("draining"),
            Self::NotPossible => f.write_str("not among the VM's possible hosts"),
            Self::HasCopy => f.write_str("has a copy of it already"),
            Self::Incompatible(Refusal::Mismatch { field, primary, secondary }) => {
                write!(f, "incompatible: {field} is {secondary:?}, and the VM needs {primary:?}")
            }
            Self::Incompatible(refusal) => write!(f, "incompatible: {refusal}"),
            Self::Apart { vm } => write!(f, "runs {vm}, from which it must be apart"),
            Self::Domain { domain: Some(domain) } => {
                write!(f, "in {domain} as the live copy, or that one's failure domain is not known")
            }
            Self::Domain { domain: None } => f.write_str("its failure domain is not known"),
            Self::Room { asked, free } => {
                let asked = asked.div_ceil(MIB);
                write!(f, "no room: {asked} MiB asked, {} free", whole_mib(*free))
            }
            Self::Slots { vms } => write!(f, "no room: takes no more than its {vms} VMs"),
        }
    }
}

const MIB: u64 = 1 << 20;

/// Rounded down: what is asked is rounded up, so that too little never reads as enough.
fn whole_mib(bytes: u64) -> String {
    format!("{} MiB", bytes / MIB)
}
