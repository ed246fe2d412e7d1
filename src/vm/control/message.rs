//! What a VM's process and its controllers say to each other.

use crate::vm::report::Report;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What a controller hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "kebab-case")]
pub enum Line {
    /// How things stand.
    Snapshot(Snapshot),
    /// Something happened.
    Report(Report),
    /// A command was carried out.
    Done {
        /// Which.
        cmd: String,
    },
    /// A command was not carried out.
    Refused {
        /// Which, if it was one.
        cmd: Option<String>,
        /// Why.
        reason: String,
    },
}

/// What a controller says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Command {
    /// Let one more host link, or one that is known from another address.
    AddPeer {
        /// Its number.
        id: u64,
        /// The name in its certificate.
        name: String,
        /// Where it listens.
        address: SocketAddr,
    },
    /// Hand the machine over to the secondary. Done as soon as it has begun: what becomes of it is reported.
    HandOver,
    /// Take in a second secondary from a host, which relieves the first once it is in step. Done as soon as it is expected: start it then.
    /// The first one's process ends by itself.
    Relieve {
        /// The host's number.
        id: u64,
    },
    /// End this copy.
    Stop,
    /// Say how things stand.
    Status,
}

impl Command {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::AddPeer { .. } => "add_peer",
            Self::HandOver => "hand_over",
            Self::Relieve { .. } => "relieve",
            Self::Stop => "stop",
            Self::Status => "status",
        }
    }
}

/// What a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// About to be one of the others.
    #[default]
    Starting,
    /// The live copy.
    Live,
    /// A copy that follows, or is being made.
    Following,
    /// About to go live.
    Promoting,
    /// Has handed the machine over, and has not heard from its heir.
    Yielded,
    /// Over.
    Over,
}

impl Role {
    /// Whether the copy is a secondary, or about to be one.
    pub fn is_secondary(self) -> bool {
        matches!(self, Self::Starting | Self::Following)
    }
}

/// How things stand with a VM's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The VM.
    pub vm: String,
    /// The build that runs it.
    pub version: String,
    /// Which machine that build makes (R10).
    #[serde(default)]
    pub machine: String,
    /// This host's number.
    pub host: u64,
    /// The process.
    pub pid: u32,
    /// Where it listens for the other hosts.
    pub address: Option<SocketAddr>,
    /// What this copy is.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// Whether it is one of a pair that is in step.
    pub protected: bool,
    /// Whether this copy is live and depends on no other: one may be added.
    pub solo: bool,
    /// The host of the other copy, as it was last in step.
    pub peer: Option<u64>,
    /// How often the guest has been restarted.
    pub restarts: u64,
    /// Where the machine stands.
    pub tick: u64,
    /// How far the secondary is behind, in microseconds.
    pub lag_us: u64,
    /// How fast the machine may run, in thousandths.
    #[serde(default)]
    pub pace: u16,
    /// Bytes of log that the links have carried.
    pub log_bytes: u64,
    /// Bytes of state made for a joining secondary, in the transfer under way or the last one.
    #[serde(default)]
    pub state_bytes: u64,
    /// The longest time for which the machine stood still in it, in microseconds.
    #[serde(default)]
    pub state_stop_us: u64,
    /// Why it is over.
    pub why: Option<String>,
}

impl Snapshot {
    /// Takes in a report.
    pub fn take_in(&mut self, report: &Report) {
        match report {
            Report::Listening { address } => self.address = address.parse().ok(),
            Report::Live { term } => (self.role, self.term) = (Role::Live, *term),
            Report::Solo { term } => {
                self.term = *term;
                (self.solo, self.protected, self.peer) = (true, false, None);
            }
            Report::Protected { with } => {
                (self.solo, self.protected, self.peer) = (false, true, Some(*with));
            }
            Report::Following { primary } => {
                (self.role, self.peer) = (Role::Following, Some(*primary));
            }
            Report::Promoting { term } => {
                (self.role, self.term, self.protected) = (Role::Promoting, *term, false);
            }
            Report::Halted { reason } | Report::Failed { reason } => {
                (self.role, self.solo, self.protected) = (Role::Over, false, false);
                self.why = Some(reason.clone());
            }
            Report::Yielded { to } => {
                (self.role, self.peer) = (Role::Yielded, Some(*to));
                (self.solo, self.protected) = (false, false);
            }
            Report::Guest(guest) => {
                self.restarts = guest.restarts;
                if !guest.restarted {
                    self.why = Some(guest.to_string());
                }
            }
            Report::Status {
                term,
                live,
                protected,
                tick,
                lag_us,
                pace,
                log_bytes,
                state_bytes,
                state_stop_us,
                ..
            } => {
                self.term = *term;
                // A report that was dropped is made up for; a copy that is over stays so.
                if *live && self.role != Role::Over {
                    self.role = Role::Live;
                }
                self.protected = *protected;
                (self.tick, self.lag_us, self.pace, self.log_bytes) = (*tick, *lag_us, *pace, *log_bytes);
                (self.state_bytes, self.state_stop_us) = (*state_bytes, *state_stop_us);
            }
            Report::Notice { .. }
            | Report::Seeding { .. }
            | Report::HandoverFailed { .. }
            | Report::Console { .. }
            | Report::RecordingFailed { .. } => {}
        }
    }
}
