//! Faults that strike, and their ends.
//!
//! Invariants: a fault that can cost a copy strikes only while the pair is settled and no other such fault is under way; two faults are
//! never on the same host's process, agent, disk or link at a time; every fault under way has an end.

use super::config::ChaosError;
use super::faults::{Drawn, Fault, Place};
use super::rooms;
use crate::demo::watch::Picture;
use crate::demo::{Agents, HostsError};
use crate::vm::control::Command;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A slow copy stands still for so long, and then runs for so long.
const SLOW_STOPS: Duration = Duration::from_millis(40);
const SLOW_RUNS: Duration = Duration::from_millis(60);

/// Faults under way at a time.
const UNDER_WAY_MAX: usize = 3;

/// What a fault needs for itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Arbiter,
    Host(u64),
}

/// A fault under way.
struct UnderWay {
    fault: Fault,
    host: Option<u64>,
    /// The process that it is on.
    pid: Option<u32>,
    ends: Instant,
    /// When a process that is slow is to be stopped or let go next, and whether it is stopped.
    turn: Option<(Instant, bool)>,
}

/// A fault that is over.
pub(super) struct Over {
    pub(super) fault: Fault,
    pub(super) host: Option<u64>,
}

/// All that strikes.
pub(super) struct Strikes {
    under_way: Vec<UnderWay>,
    /// The arbiter's directory, and what it is below.
    arbiter: PathBuf,
    shared: PathBuf,
    /// When a fault was over last that could cost a copy, or keep the arbiter from deciding.
    quiet: Option<Instant>,
    /// When a process was let go on last.
    pub(super) thawed: Option<Instant>,
}

impl Strikes {
    pub(super) fn new(shared: PathBuf, arbiter: PathBuf) -> Self {
        Self { under_way: Vec::new(), arbiter, shared, quiet: None, thawed: None }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.under_way.is_empty()
    }

    /// When a fault was over last that could cost a copy, or keep the arbiter from deciding.
    pub(super) fn quiet(&self) -> Option<Instant> {
        self.quiet
    }

    /// Whether the pair survives the fault now; where it is to strike then.
    pub(super) fn permits(
        &self,
        fault: Fault,
        picture: &Picture,
        agents: &Agents,
        now: Instant,
    ) -> Option<Option<u64>> {
        let host = match fault.place() {
            Some(place) => Some(place.host(picture.pair()?, agents.config().hosts)?),
            None => None,
        };
        let busy: BTreeSet<Part> = self.under_way.iter().map(UnderWay::part).collect();
        let danger = self.under_way.iter().any(|strike| strike.fault.is_lasting_danger());
        let survivable = !fault.endangers_a_copy() || (!danger && picture.is_settled(self.quiet, now));
        let free = fault.is_instant() || !busy.contains(&part(host));
        let is_possible = match (fault, host) {
            // An agent that has just been started still makes its files.
            (Fault::StateFull(_), Some(host)) => agents.describe(host).is_some(),
            (_, Some(host)) => fault.is_instant() || agents.has_agent(host),
            (_, None) => true,
        };
        (is_possible && survivable && free && self.under_way.len() < UNDER_WAY_MAX).then_some(host)
    }

    /// Strikes, `host` being what [`Strikes::permits`] said.
    pub(super) fn strike(
        &mut self,
        drawn: Drawn,
        host: Option<u64>,
        agents: &mut Agents,
    ) -> Result<(), ChaosError> {
        let fault = drawn.fault;
        let at = host.unwrap_or_default();
        let mut pid = None;
        match fault {
            Fault::KillCopy(_) => drop(agents.signal_vm(at, Signal::SIGKILL)?),
            Fault::KillAgent(_) => agents.kill_agent(at)?,
            Fault::KillHost(_) => agents.kill_host(at)?,
            Fault::FreezeCopy(_) | Fault::SlowCopy(_) => pid = agents.signal_vm(at, Signal::SIGSTOP)?,
            Fault::StopSecondary => tell(&agents.control_socket(at), &Command::Stop)?,
            Fault::HandOver => tell(&agents.control_socket(at), &Command::HandOver)?,
            Fault::ArbiterAway => rename(&self.arbiter, &self.away())?,
            Fault::ArbiterFull => rooms::fill(&self.shared)?,
            Fault::StateFull(_) => rooms::fill(&agents.state(at))?,
            Fault::CutLink(_) => {
                agents.wires().map_or(Ok(()), |wires| wires.cut(at)).map_err(HostsError::from)?;
            }
        }
        let now = Instant::now();
        if fault.endangers_a_copy() {
            self.quiet = Some(now);
        }
        if !fault.is_instant() {
            let turn = matches!(fault, Fault::SlowCopy(_)).then_some((now + SLOW_STOPS, true));
            self.under_way.push(UnderWay { fault, host, pid, ends: now + drawn.lasts, turn });
        }
        Ok(())
    }

    /// Goes on with what is under way, and ends what is over.
    pub(super) fn go_on(&mut self, agents: &mut Agents, now: Instant) -> Result<Vec<Over>, ChaosError> {
        for strike in &mut self.under_way {
            if let Some((at, stopped)) = strike.turn.filter(|(at, _)| *at <= now) {
                let (signal, span) =
                    if stopped { (Signal::SIGCONT, SLOW_RUNS) } else { (Signal::SIGSTOP, SLOW_STOPS) };
                signal_process(agents, strike, signal)?;
                self.thawed = if stopped { Some(now) } else { self.thawed };
                strike.turn = Some((at.max(now) + span, !stopped));
            }
        }
        let is_over = |strike: &mut UnderWay| strike.ends <= now;
        let over: Vec<UnderWay> = self.under_way.extract_if(.., is_over).collect();
        over.into_iter().map(|strike| self.end(&strike, agents)).collect()
    }

    fn end(&mut self, strike: &UnderWay, agents: &mut Agents) -> Result<Over, ChaosError> {
        let host = strike.host.unwrap_or_default();
        match strike.fault {
            Fault::KillCopy(_) | Fault::StopSecondary | Fault::HandOver => {}
            Fault::KillAgent(_) | Fault::KillHost(_) => agents.spawn_agent(host)?,
            Fault::FreezeCopy(_) | Fault::SlowCopy(_) => {
                signal_process(agents, strike, Signal::SIGCONT)?;
                self.thawed = Some(Instant::now());
            }
            Fault::ArbiterAway => rename(&self.away(), &self.arbiter)?,
            Fault::ArbiterFull => rooms::empty(&self.shared)?,
            Fault::StateFull(_) => rooms::empty(&agents.state(host))?,
            Fault::CutLink(_) => {
                agents.wires().map_or(Ok(()), |wires| wires.mend(host)).map_err(HostsError::from)?;
            }
        }
        // When the arbiter is back, it answers claims of a takeover that did not come about.
        if strike.fault.is_lasting_danger() || strike.host.is_none() {
            self.quiet = Some(Instant::now());
        }
        Ok(Over { fault: strike.fault, host: strike.host })
    }

    fn away(&self) -> PathBuf {
        self.arbiter.with_extension("away")
    }
}

impl UnderWay {
    fn part(&self) -> Part {
        part(self.host)
    }
}

fn part(host: Option<u64>) -> Part {
    host.map_or(Part::Arbiter, Part::Host)
}

impl Fault {
    /// Whether it can cost a copy for as long as it lasts. One that kills has done so at once.
    fn is_lasting_danger(self) -> bool {
        matches!(
            self,
            Self::FreezeCopy(_) | Self::SlowCopy(_) | Self::CutLink(Place::Primary | Place::Secondary)
        )
    }
}

/// Signals the process that a fault is on, unless it has ended.
fn signal_process(agents: &Agents, strike: &UnderWay, signal: Signal) -> Result<(), ChaosError> {
    let (Some(host), Some(pid)) = (strike.host, strike.pid) else { return Ok(()) };
    if agents.vm_of(host) == Some(pid) {
        agents.signal_vm(host, signal)?;
    }
    Ok(())
}

/// Tells a VM's process something; one that is gone need not be told.
fn tell(socket: &Path, command: &Command) -> Result<(), ChaosError> {
    let tell = || {
        let mut line = serde_json::to_vec(command).map_err(io::Error::other)?;
        line.push(b'\n');
        UnixStream::connect(socket)?.write_all(&line)
    };
    let is_gone = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::BrokenPipe)
    };
    let told = tell().or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) });
    told.map_err(ChaosError::io(format!("talk to the VM's process at {}", socket.display())))
}

fn rename(from: &Path, to: &Path) -> Result<(), ChaosError> {
    std::fs::rename(from, to).map_err(ChaosError::io(format!("rename {}", from.display())))
}
