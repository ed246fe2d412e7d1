//! What a VM's process says about itself: to a person, or as JSON lines to whoever started it.

use crate::driver::Status;
use ft_core::replica::Notice;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::sync::Arc;

/// One thing that happened, or how things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum Report {
    /// It listens for the other hosts.
    Listening {
        /// Where.
        address: String,
    },
    /// This copy is live from here on.
    Live {
        /// In which term.
        term: u64,
    },
    /// The pair is in step.
    Protected {
        /// The other host's number.
        with: u64,
    },
    /// There is only this copy.
    Solo {
        /// In which term.
        term: u64,
    },
    /// This copy follows.
    Following {
        /// The primary's host.
        primary: u64,
    },
    /// This copy has won a term and applies what it holds.
    Promoting {
        /// Which term.
        term: u64,
    },
    /// This copy is over, and why.
    Halted {
        /// In words.
        reason: String,
    },
    /// Something else that an operator wants to know.
    Notice {
        /// In words.
        text: String,
    },
    /// Output of the guest.
    Console {
        /// 0: the serial port, 1: the virtio console.
        device: u8,
        /// What it wrote.
        text: String,
    },
    /// The guest turned the machine off, reset it, or crashed it.
    Power {
        /// What happened.
        what: String,
    },
    /// This host cannot serve the machine.
    Failed {
        /// Why.
        reason: String,
    },
    /// The recording has ended early; the machine has not.
    RecordingFailed {
        /// Why.
        reason: String,
    },
    /// How things stand.
    Status {
        /// The term.
        term: u64,
        /// Whether this copy is the live one.
        live: bool,
        /// Whether it is one of a pair that is in step.
        protected: bool,
        /// Where the machine stands.
        tick: u64,
        /// How far the secondary is behind, in microseconds.
        lag_us: u64,
        /// How fast the machine may run, in thousandths.
        pace: u16,
        /// Bytes of log that the links have carried.
        log_bytes: u64,
        /// Records that they have carried.
        log_records: u64,
    },
}

impl Report {
    /// What a person is told; `None` for what is no event: the guest's console, and how things stand.
    pub fn words(&self) -> Option<String> {
        Some(match self {
            Self::Console { .. } | Self::Status { .. } => return None,
            Self::Listening { address } => format!("listens at {address}"),
            Self::Live { term } => format!("live in term {term}"),
            Self::Protected { with } => format!("protected, with host {with}"),
            Self::Solo { term } => format!("solo in term {term}: there is no other copy"),
            Self::Following { primary } => format!("follows host {primary}"),
            Self::Promoting { term } => format!("takes over in term {term}"),
            Self::Halted { reason } => format!("this copy is over: {reason}"),
            Self::Notice { text } => text.clone(),
            Self::Power { what } => format!("the guest: {what}"),
            Self::Failed { reason } => reason.clone(),
            Self::RecordingFailed { reason } => format!("the recording ends here: {reason}"),
        })
    }
}

impl From<&Status> for Report {
    fn from(status: &Status) -> Self {
        let Status { term, live, protected, tick, lag, pace, log_bytes, log_records } = *status;
        let lag_us = lag.0 / 1000;
        Self::Status { term: term.0, live, protected, tick: tick.0, lag_us, pace, log_bytes, log_records }
    }
}

impl From<&Notice> for Report {
    fn from(notice: &Notice) -> Self {
        match notice {
            Notice::Live(term) => Self::Live { term: term.0 },
            Notice::Protected(host) => Self::Protected { with: host.0 },
            Notice::Solo(term) => Self::Solo { term: term.0 },
            Notice::Following(host) => Self::Following { primary: host.0 },
            Notice::Promoting(term) => Self::Promoting { term: term.0 },
            Notice::Halted(reason) => Self::Halted { reason: chain(reason) },
            Notice::Seeding(host) => {
                Self::Notice { text: format!("host {} is being given the state", host.0) }
            }
            Notice::SeedingFailed(host, why) => {
                Self::Notice { text: format!("host {} could not be given the state: {why}", host.0) }
            }
            Notice::Contested(host) => Self::Notice {
                text: format!("contact with host {} is lost: effects wait for the arbiter", host.0),
            },
            Notice::Reunited(host) => Self::Notice { text: format!("host {} is back in contact", host.0) },
            Notice::Resigned(host, why) => Self::Notice { text: format!("host {} gave up: {why}", host.0) },
            Notice::Renounced(term) => {
                Self::Notice { text: format!("won {term} too late and does not use it: the primary is back") }
            }
        }
    }
}

/// An error and what it was caused by, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Where reports go. Cloned freely; called from several threads.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Report) + Send + Sync>);

impl Reporter {
    /// Reports go to `take`, which must not block for long.
    pub fn new(take: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    /// JSON lines on standard output.
    pub fn json() -> Self {
        Self::new(|report| {
            if let Ok(line) = serde_json::to_string(&report) {
                let mut out = std::io::stdout().lock();
                // Nobody listens any more: the machine goes on all the same.
                let _ = writeln!(out, "{line}").and_then(|()| out.flush());
            }
        })
    }

    /// For a person: the guest's console as it is, on standard output; the rest as lines on standard error, without the status.
    pub fn plain() -> Self {
        Self::new(|report| {
            // Nobody listens any more: the machine goes on all the same.
            let _ = match (&report, report.words()) {
                (Report::Console { text, .. }, _) => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(text.as_bytes()).and_then(|()| out.flush())
                }
                (_, Some(words)) => writeln!(std::io::stderr(), "ft: {words}"),
                (_, None) => Ok(()),
            };
        })
    }

    /// Says it.
    pub fn say(&self, report: Report) {
        (self.0)(report);
    }
}
