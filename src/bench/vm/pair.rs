//! Protected against unprotected: the compute loop and the key-value store.

use super::{Bench, Measured, PATIENCE, median};
use ft::demo::{Hosts, HostsConfig, HostsError};
use ft::load::{Load, LoadConfig};
use ft::vm::report::Report;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What the compute loop does, protected and not.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compute {
    /// Protected / unprotected, of instructions a second.
    pub(crate) ratio: f64,
    /// The same, where the unprotected one has another unprotected VM beside it: what the cores share is no cost of protection.
    pub(crate) ratio_beside: f64,
    pub(crate) unprotected_mips: f64,
    pub(crate) beside_mips: f64,
    pub(crate) protected_mips: f64,
    pub(crate) log_mbit_s: f64,
    pub(crate) log_bytes_per_1000_instructions: f64,
}

/// What the key-value store does.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Store {
    /// Protected / unprotected, of operations a second.
    pub(crate) ratio: f64,
    pub(crate) unprotected_ops_s: f64,
    pub(crate) protected_ops_s: f64,
    pub(crate) idle_log_mbit_s: f64,
    pub(crate) busy_log_mbit_s: f64,
    pub(crate) start_to_protected_ms: f64,
    /// Resident memory of the primary's process beyond the guest's RAM.
    pub(crate) beyond_ram_mib: f64,
}

/// What is seen of the live copy between two moments.
struct Window {
    ticks: u64,
    log_bytes: u64,
    seconds: f64,
}

impl Window {
    fn mips(&self) -> f64 {
        self.ticks as f64 / self.seconds / 1e6
    }

    fn log_mbit_s(&self) -> f64 {
        self.log_bytes as f64 * 8.0 / self.seconds / 1e6
    }
}

impl Bench<'_> {
    pub(super) fn compute(&self) -> Measured<Compute> {
        let mut rows = Vec::new();
        for round in 1..=self.plan.rounds {
            (self.say)(&format!("compute loop, round {round} of {}", self.plan.rounds));
            let alone = self.compute_window(false, false)?;
            let beside = self.compute_window(false, true)?;
            let pair = self.compute_window(true, false)?;
            rows.push([alone, beside, pair]);
        }
        let all = |pick: fn(&[Window; 3]) -> f64| median(&rows.iter().map(pick).collect::<Vec<_>>());
        Ok(Compute {
            ratio: all(|[alone, _, pair]| pair.mips() / alone.mips()),
            ratio_beside: all(|[_, beside, pair]| pair.mips() / beside.mips()),
            unprotected_mips: all(|[alone, ..]| alone.mips()),
            beside_mips: all(|[_, beside, _]| beside.mips()),
            protected_mips: all(|[.., pair]| pair.mips()),
            log_mbit_s: all(|[.., pair]| pair.log_mbit_s()),
            log_bytes_per_1000_instructions: all(|[.., pair]| {
                pair.log_bytes as f64 * 1000.0 / pair.ticks as f64
            }),
        })
    }

    /// Watches the compute loop: in a protected VM or not, with another VM at work beside it or not.
    fn compute_window(&self, protected: bool, beside: bool) -> Measured<Window> {
        let start = || {
            let dir = tempfile::tempdir().map_err(scratch)?;
            let hosts = self.start(dir.path(), "mode=compute rounds=1000000000", protected)?;
            Ok::<_, HostsError>((hosts, dir))
        };
        let _other = beside.then(start).transpose()?;
        let (mut hosts, _dir) = start()?;
        self.window(&mut hosts)
    }

    pub(super) fn store(&self) -> Measured<Store> {
        let (mut rows, mut busy) = (Vec::new(), Vec::new());
        let (mut idle, mut starts, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.plan.rounds {
            (self.say)(&format!("key-value store, round {round} of {}", self.plan.rounds));
            let mut rates = Vec::new();
            for protected in [false, true] {
                let dir = tempfile::tempdir().map_err(scratch)?;
                let started = Instant::now();
                let mut hosts = self.start(dir.path(), "mode=kv", protected)?;
                if protected {
                    starts.push(started.elapsed().as_secs_f64() * 1000.0);
                    idle.push(self.window(&mut hosts)?.log_mbit_s());
                }
                let load = self.load(&hosts)?;
                listen_for(&mut hosts, self.plan.window / 4)?;
                let ops = load.progress().ops;
                let window = self.window(&mut hosts)?;
                rates.push((load.progress().ops - ops) as f64 / window.seconds);
                if protected {
                    busy.push(window.log_mbit_s());
                    let pid = hosts.pid(1);
                    beyond.extend(pid.and_then(|pid| beyond_ram_mib(pid, RAM_MIB)));
                }
                finish(load)?;
            }
            rows.push((rates[0], rates[1]));
        }
        let all = |pick: fn(&(f64, f64)) -> f64| median(&rows.iter().map(pick).collect::<Vec<_>>());
        Ok(Store {
            ratio: all(|(alone, pair)| pair / alone),
            unprotected_ops_s: all(|(alone, _)| *alone),
            protected_ops_s: all(|(_, pair)| *pair),
            idle_log_mbit_s: median(&idle),
            busy_log_mbit_s: median(&busy),
            start_to_protected_ms: median(&starts),
            beyond_ram_mib: median(&beyond),
        })
    }

    /// Starts the guest, alone or as a protected pair, and waits until it is at work.
    pub(super) fn start(
        &self,
        dir: &std::path::Path,
        command_line: &str,
        protected: bool,
    ) -> Measured<Hosts> {
        let command_line = command_line.to_owned();
        let is_store = command_line.contains("kv");
        let stop = self.stop.clone();
        let config = HostsConfig::new(&self.program, dir);
        let mut hosts = Hosts::new(HostsConfig { command_line, ram_mib: RAM_MIB, stop, ..config })?;
        hosts.start_primary(1)?;
        if protected {
            hosts.start_secondary(2, 1)?;
            hosts.wait_until("a protected pair", PATIENCE, Hosts::is_protected)?;
        }
        if is_store {
            hosts.wait_until("the guest's service", PATIENCE, |hosts| hosts.console().contains("ready"))?;
        }
        hosts.wait_until("a status", PATIENCE, |hosts| sample(hosts).is_some())?;
        Ok(hosts)
    }

    pub(super) fn load(&self, hosts: &Hosts) -> Measured<Load> {
        let config = LoadConfig { connections: self.plan.connections, ..LoadConfig::new(hosts.service()) };
        Load::start(config).map_err(|error| scratch(std::io::Error::other(error.to_string())))
    }

    /// Watches the live copy for a while.
    fn window(&self, hosts: &mut Hosts) -> Measured<Window> {
        let late = |hosts: &Hosts| hosts.late("a status of the live copy".into(), self.plan.window);
        let (tick, log) = sample(hosts).ok_or_else(|| late(hosts))?;
        let started = Instant::now();
        listen_for(hosts, self.plan.window)?;
        // The next status ends the window: its figures are fresh.
        hosts.wait_for("a status of the live copy", PATIENCE, |heard| {
            heard.host == 1 && matches!(heard.report, Report::Status { .. })
        })?;
        let (tick_after, log_after) = sample(hosts).ok_or_else(|| late(hosts))?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Window { ticks: tick_after - tick, log_bytes: log_after - log, seconds })
    }
}

/// The guest's RAM in MiB.
const RAM_MIB: u64 = 64;

/// Tick and bytes of log of the live copy.
fn sample(hosts: &Hosts) -> Option<(u64, u64)> {
    match hosts.running().get(&1)?.status {
        Some(Report::Status { tick, log_bytes, live: true, .. }) => Some((tick, log_bytes)),
        _ => None,
    }
}

/// Takes in what hosts say for a while.
pub(super) fn listen_for(hosts: &mut Hosts, span: Duration) -> Measured<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        hosts.listen(end.saturating_duration_since(Instant::now()))?;
    }
    Ok(())
}

/// Ends a load, which must have found nothing wrong: a figure of a broken store is none.
pub(super) fn finish(load: Load) -> Measured<()> {
    let report = load.finish();
    if !report.is_clean() {
        return Err(scratch(std::io::Error::other(format!("the load found errors: {report:?}"))));
    }
    Ok(())
}

pub(super) fn scratch(source: std::io::Error) -> HostsError {
    HostsError::Io { doing: "measure".into(), source }
}

/// Resident memory of a process without the mapping that is as large as the guest's RAM.
fn beyond_ram_mib(pid: u32, ram_mib: u64) -> Option<f64> {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let field =
        |line: &str, name: &str| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok();
    let (mut kib, mut is_ram) = (0, false);
    for line in smaps.lines() {
        if let Some(size) = field(line, "Size:") {
            is_ram = size == ram_mib << 10;
        } else if let Some(rss) = field(line, "Rss:").filter(|_| !is_ram) {
            kib += rss;
        }
    }
    Some(kib as f64 / 1024.0)
}
