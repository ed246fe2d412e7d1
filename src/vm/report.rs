//! What a VM's process says about itself: to a person, or as JSON lines to whoever started it.

use super::transfers::Transfers;
use crate::driver::Status;
use crate::error::in_one_line;
use ft_core::replica::Notice;
use ft_vmm::power::{Cause, PowerEvent};
use serde::{Deserialize, Serialize};
use std::fmt;
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
    /// Another copy is being made: it is given the machine's state while this one runs.
    Seeding {
        /// Its host's number.
        to: u64,
    },
    /// This copy has won a term and applies what it holds.
    Promoting {
        /// Which term.
        term: u64,
    },
    /// This copy has handed the machine over, and follows.
    Yielded {
        /// The number of the host that has it now.
        to: u64,
    },
    /// This copy could not hand the machine over, and goes on with it.
    HandoverFailed {
        /// Why.
        reason: String,
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
    /// The guest has brought the machine down, or was found to hang.
    Guest(GuestReport),
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
        /// Bytes of state made for a joining secondary, in the transfer under way or the last one.
        #[serde(default)]
        state_bytes: u64,
        /// The longest time for which the machine stood still in it, in microseconds.
        #[serde(default)]
        state_stop_us: u64,
    },
}

/// What became of the machine through its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// What the guest did.
    pub event: Cause,
    /// Whether the machine has begun again; else it is off.
    pub restarted: bool,
    /// How often it has begun again since it was made, on whichever hosts, this time included.
    pub restarts: u64,
    /// Where the processor stood, as `0x...`.
    pub rip: String,
}

impl From<PowerEvent> for GuestReport {
    fn from(PowerEvent { cause, goes_on, restarts, rip }: PowerEvent) -> Self {
        Self { event: cause, restarted: goes_on, restarts, rip: format!("{rip:#x}") }
    }
}

impl fmt::Display for GuestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, restarted, restarts, rip } = self;
        match event {
            Cause::Reset => f.write_str("the guest asked for a reset")?,
            Cause::PowerOff => f.write_str("the guest turned itself off")?,
            Cause::Watchdog => write!(f, "the guest hung at {rip}: its watchdog expired")?,
            Cause::Crash => write!(f, "the guest crashed: triple fault at {rip}")?,
        }
        match restarted {
            true => write!(f, "; the machine begins again (restart {restarts})"),
            false => f.write_str("; the machine is off"),
        }
    }
}

impl Report {
    /// How things stand.
    pub fn status(status: &Status, transfers: &Transfers) -> Self {
        let Status { term, live, protected, tick, lag, pace, log_bytes, log_records } = *status;
        Self::Status {
            term: term.0,
            live,
            protected,
            tick: tick.0,
            lag_us: lag.0 / 1000,
            pace,
            log_bytes,
            log_records,
            state_bytes: transfers.bytes(),
            state_stop_us: transfers.longest_stop().as_micros() as u64,
        }
    }

    /// What a person is told; `None` for what is no event: the guest's console, and how things stand.
    pub fn words(&self) -> Option<String> {
        Some(match self {
            Self::Console { .. } | Self::Status { .. } => return None,
            Self::Listening { address } => format!("listens at {address}"),
            Self::Live { term } => format!("live in term {term}"),
            Self::Protected { with } => format!("protected, with host {with}"),
            Self::Solo { term } => format!("solo in term {term}: there is no other copy"),
            Self::Following { primary } => format!("follows host {primary}"),
            Self::Seeding { to } => format!("host {to} is being given the state"),
            Self::Promoting { term } => format!("takes over in term {term}"),
            Self::HandoverFailed { reason } => {
                format!("the machine could not be handed over and goes on here: {reason}")
            }
            Self::Yielded { to } => format!("handed over to host {to}"),
            Self::Halted { reason } => format!("this copy is over: {reason}"),
            Self::Notice { text } => text.clone(),
            Self::Guest(guest) => guest.to_string(),
            Self::Failed { reason } => reason.clone(),
            Self::RecordingFailed { reason } => format!("the recording ends here: {reason}"),
        })
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
            Notice::Yielded(host) => Self::Yielded { to: host.0 },
            Notice::HandoverFailed(why) => Self::HandoverFailed { reason: why.clone() },
            Notice::Halted(reason) => Self::Halted { reason: in_one_line(reason) },
            Notice::Seeding(host) => Self::Seeding { to: host.0 },
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// docs/operations.md promises it.
    #[test]
    fn what_the_guest_did_is_said_in_json_and_in_words() {
        for (cause, goes_on, json, text) in [
            (
                Cause::Watchdog,
                true,
                r#"{"report":"guest","event":"watchdog","restarted":true,"restarts":3,"rip":"0x200000"}"#,
                "the guest hung at 0x200000: its watchdog expired; the machine begins again (restart 3)",
            ),
            (
                Cause::Crash,
                false,
                r#"{"report":"guest","event":"crash","restarted":false,"restarts":3,"rip":"0x200000"}"#,
                "the guest crashed: triple fault at 0x200000; the machine is off",
            ),
            (
                Cause::PowerOff,
                false,
                r#"{"report":"guest","event":"power-off","restarted":false,"restarts":3,"rip":"0x200000"}"#,
                "the guest turned itself off; the machine is off",
            ),
            (
                Cause::Reset,
                true,
                r#"{"report":"guest","event":"reset","restarted":true,"restarts":3,"rip":"0x200000"}"#,
                "the guest asked for a reset; the machine begins again (restart 3)",
            ),
        ] {
            let guest = GuestReport::from(PowerEvent { cause, goes_on, restarts: 3, rip: 0x20_0000 });
            assert_eq!(guest.to_string(), text);
            let report = Report::Guest(guest);
            assert_eq!(serde_json::to_string(&report).unwrap(), json);
            assert_eq!(serde_json::from_str::<Report>(json).unwrap(), report);
        }
    }
}
