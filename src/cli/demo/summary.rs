//! What a demonstration ends with.

use crate::bench::stats::Spread;
use ft::load::LoadReport;
use serde::Serialize;
use std::io::{self, Write as _};
use std::time::Duration;

/// One host that was killed.
pub(super) struct Failover {
    /// The longest gap between two replies that any client saw.
    pub(super) client: Duration,
    /// From the kill to the other copy being live.
    pub(super) protocol: Duration,
    /// From the kill to the VM being protected again; with two hosts, from the killed one's return.
    pub(super) protected_again: Duration,
}

/// The whole.
#[derive(Serialize)]
pub(super) struct Summary {
    vcpu: &'static str,
    hosts: u64,
    failovers: usize,
    ops: u64,
    errors: u64,
    lost: u64,
    duplicated: u64,
    /// Replies that were nothing that anybody wrote, or in another order, and keys that could not be read back.
    wrong: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stories: Vec<String>,
    failover_client_ms: Vec<f64>,
    failover_protocol_ms: Vec<f64>,
    protected_again_ms: Vec<f64>,
    start_to_protected_ms: f64,
    ops_per_s: f64,
    log_bytes: u64,
    log_mbit_s: f64,
}

impl Summary {
    pub(super) fn new(
        vcpu: &'static str,
        hosts: u64,
        start_to_protected: Duration,
        failovers: Vec<Failover>,
        load: LoadReport,
        (log_bytes, seconds): (u64, f64),
    ) -> Self {
        let ms = |span: Duration| (span.as_secs_f64() * 10_000.0).round() / 10.0;
        let all =
            |pick: fn(&Failover) -> Duration| failovers.iter().map(|one| ms(pick(one))).collect::<Vec<_>>();
        Self {
            vcpu,
            hosts,
            failovers: failovers.len(),
            ops: load.ops,
            errors: load.errors,
            lost: load.faults.lost,
            duplicated: load.faults.duplicated,
            wrong: load.faults.misordered + load.faults.corrupted + load.keys_not_read_back,
            stories: load.stories,
            failover_client_ms: all(|one| one.client),
            failover_protocol_ms: all(|one| one.protocol),
            protected_again_ms: all(|one| one.protected_again),
            start_to_protected_ms: ms(start_to_protected),
            ops_per_s: (load.ops as f64 / seconds).round(),
            log_bytes,
            log_mbit_s: (log_bytes as f64 * 8.0 / seconds / 1e3).round() / 1e3,
        }
    }

    /// Whether no acknowledged write was lost or doubled, and no client saw an error.
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.wrong == 0 && self.errors == 0
    }

    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            return writeln!(out, "{}", serde_json::to_string(self)?);
        }
        let list =
            |values: &[f64]| values.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join("  ");
        writeln!(out)?;
        writeln!(out, "vcpu                  {}", self.vcpu)?;
        writeln!(out, "hosts                 {}", self.hosts)?;
        writeln!(out, "failovers             {}", self.failovers)?;
        writeln!(out, "  seen by clients     {} ms", list(&self.failover_client_ms))?;
        writeln!(out, "  kill to live        {} ms", list(&self.failover_protocol_ms))?;
        writeln!(out, "  protected again     {} ms", list(&self.protected_again_ms))?;
        if let Some(Spread { median, max, .. }) = Spread::of(&self.protected_again_ms) {
            writeln!(out, "                      p50 {median:.1} ms, max {max:.1} ms")?;
        }
        writeln!(out, "operations            {} ({:.0} a second)", self.ops, self.ops_per_s)?;
        writeln!(out, "log                   {} bytes, {:.3} Mbit/s", self.log_bytes, self.log_mbit_s)?;
        for story in &self.stories {
            writeln!(out, "{story}")?;
        }
        writeln!(out, "errors: {}", self.errors)?;
        writeln!(out, "wrong: {}", self.wrong)?;
        writeln!(out, "duplicated: {}", self.duplicated)?;
        writeln!(out, "lost: {}", self.lost)
    }
}
