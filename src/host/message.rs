//! What agents, and people through them, ask an agent, and what it answers: JSON, one object each.
//!
//! Every request may arrive twice (see [`ft_net::control`]): the second time it changes nothing.

use super::config::Capacity;
use super::events::Event;
use crate::vm::config::Host;
use crate::vm::control::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

/// A request, as a person sends it to the local agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The host whose agent is to answer; `None`: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// What is asked.
    pub request: Request,
}

/// What an agent is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What this host has, and what runs on it.
    Describe,
    /// Start a VM here, and keep it redundant from then on.
    Protect {
        /// The VM's file as text, its paths absolute, without hosts.
        file: String,
        /// Start although it has been live before: from what is on its disks.
        #[serde(default)]
        again: bool,
        /// Hosts that will not come back, by name: nobody need see that no copy runs there.
        #[serde(default)]
        lost: Vec<String>,
    },
    /// Start a secondary here; the answer says where it listens.
    Seed {
        /// The VM's file as text.
        file: String,
        /// Where the VM is live.
        primary: Host,
    },
    /// Tell a VM that runs here of another host.
    AddPeer {
        /// The VM.
        vm: String,
        /// The host, and where its copy listens.
        peer: Host,
    },
    /// All copies of a VM in the cluster.
    Status {
        /// The VM.
        vm: String,
    },
    /// All hosts and what runs on them.
    List,
    /// Have the VM's live copy, which is here, change roles with its secondary.
    Switchover {
        /// The VM.
        vm: String,
    },
    /// Have this host take no further copies, or take them again.
    Drain {
        /// Whether it takes none.
        draining: bool,
    },
    /// Have the secondary of a VM that is live here move: a second one is made, and relieves the first. Done as soon as it has begun: what
    /// becomes of it is in [`VmStatus::moving`].
    Relieve {
        /// The VM.
        vm: String,
        /// The number of the host that it is to move to; `None`: the one that fits best.
        to: Option<u64>,
    },
    /// Kill the live copy of a VM, which is here and protected: a test.
    Kill {
        /// The VM.
        vm: String,
        /// Its process, so that no other one is killed.
        pid: u32,
    },
    /// Where a further copy of a VM that is live here would be made, and why.
    Why {
        /// The VM.
        vm: String,
    },
    /// Stop a VM on all hosts.
    Stop {
        /// The VM.
        vm: String,
    },
    /// A step of stopping a VM on all hosts: what is to happen to the copy here.
    Retire {
        /// The VM.
        vm: String,
        /// Which copies are to end.
        end: Retire,
    },
    /// End a secondary that was begun here and has not come into step.
    Discard {
        /// The VM.
        vm: String,
    },
    /// What has happened on this host.
    Events {
        /// After the event of this number; 0: from the oldest there is.
        since: u64,
        /// How long to wait for something to happen, in milliseconds.
        #[serde(default)]
        wait_ms: u64,
    },
}

/// Which copies end in a step of [`Request::Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retire {
    /// None yet: the VM is only not made redundant any more.
    None,
    /// Those that are not live: or they would go live when the live one ends.
    Followers,
    /// All.
    All,
}

/// What an agent answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Describe`].
    Description(Box<Description>),
    /// To [`Request::Seed`]: a secondary listens there.
    Seeded {
        /// Where.
        address: SocketAddr,
    },
    /// To [`Request::List`] and [`Request::Status`].
    Hosts {
        /// The hosts; for a status only those that have a copy.
        hosts: Vec<HostStatus>,
    },
    /// To [`Request::Events`].
    Events {
        /// Oldest first.
        events: Vec<Event>,
    },
    /// To [`Request::Switchover`]: the VM is live there now.
    Live {
        /// The host's number.
        host: u64,
    },
    /// To [`Request::Why`].
    Why(Why),
    /// It is done, or under way.
    Done {
        /// What is worth knowing all the same.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    },
    /// It cannot be done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

impl Answer {
    /// A refusal.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into() }
    }

    /// It is done, and there is nothing to say about it.
    pub fn done() -> Self {
        Self::Done { remarks: Vec::new() }
    }
}

/// A host as its agent describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What fails together with it.
    pub domain: String,
    /// The build of its agent.
    pub version: String,
    /// Which machine that build makes: of this and what follows, copies of a VM need the same (R10).
    #[serde(default)]
    pub machine: String,
    /// The version of the pair protocol.
    pub protocol: u32,
    /// The CPU model that its VMs see.
    pub cpu: String,
    /// What a tick of theirs counts.
    pub tick: String,
    /// Whether it takes no further copies.
    pub draining: bool,
    /// What VMs may use there.
    pub capacity: Capacity,
    /// What of that is free.
    pub free: Capacity,
    /// The copies of VMs there, those that are over too.
    pub vms: Vec<VmStatus>,
}

/// What decides where a VM's next copy is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    /// The VM.
    pub vm: String,
    /// What is being done to make it redundant: what is waited for, and when that ends.
    pub doing: String,
    /// Whether a copy is wanted, and no host can take it.
    pub no_host: bool,
    /// The last choice that was made while it was live here; none before the first.
    pub last: Option<Choice>,
    /// What would be chosen now.
    pub now: Choice,
}

/// A choice among the hosts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Choice {
    /// The number of the chosen one; `None`: none can take a copy.
    pub chosen: Option<u64>,
    /// Every host: the chosen one first, then those that would do.
    pub hosts: Vec<HostChoice>,
}

/// What a choice says of a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostChoice {
    /// Its name.
    pub host: String,
    /// In words.
    pub verdict: String,
}

/// One line for each host.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, HostChoice { host, verdict }) in self.hosts.iter().enumerate() {
            let end = if index > 0 { "\n" } else { "" };
            write!(f, "{end}{host}: {verdict}")?;
        }
        Ok(())
    }
}

/// A host as another one's agent knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Why it cannot be reached; `None` while it can.
    pub down: Option<String>,
    /// What it last said of itself.
    pub description: Option<Description>,
}

/// A copy of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmStatus {
    /// The VM.
    pub name: String,
    /// Its memory.
    pub memory_mib: u64,
    /// When this copy was started, in seconds since 1970.
    pub began: u64,
    /// Whether its process runs.
    pub running: bool,
    /// What it last said of itself.
    pub copy: Snapshot,
    /// How it ended.
    pub ended: Option<Ended>,
    /// VMs that it must not share a host with.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub apart_from: BTreeSet<String>,
    /// Whether it is not to be made redundant: it is being stopped.
    pub retired: bool,
    /// What is being done to make it redundant.
    pub respawn: Option<String>,
    /// Where its secondary moves, or what became of the last try; `None`: it has never moved, or has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Moving>,
}

/// A secondary that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// The number of the host that it moves to.
    pub to: u64,
    /// Why that came to nothing, if it did.
    pub failed: Option<String>,
}

impl VmStatus {
    /// Whether this is the copy that talks to the world.
    pub fn is_live(&self) -> bool {
        self.running && self.copy.role == crate::vm::control::Role::Live
    }
}

/// How a VM's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in seconds since 1970.
    pub at: u64,
    /// In words.
    pub how: String,
    /// The last lines that it wrote.
    pub words: Vec<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_and_answers_come_back() {
        let line = r#"{"request":{"request":"events","since":3}}"#;
        let ask: Ask = serde_json::from_str(line).unwrap();
        assert!(matches!(ask, Ask { on: None, request: Request::Events { since: 3, wait_ms: 0 } }));
        assert!(serde_json::from_str::<Request>(r#"{"request":"retire","vm":"x","end":"some"}"#).is_err());
        let answer = Answer::Seeded { address: "10.0.0.1:7".parse().unwrap() };
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(text, r#"{"answer":"seeded","address":"10.0.0.1:7"}"#);
        let text = serde_json::to_string(&Answer::done()).unwrap();
        assert!(
            matches!(serde_json::from_str(&text).unwrap(), Answer::Done { remarks } if remarks.is_empty())
        );
    }
}
