//! How fast a recording is replayed.

use super::pair::{finish, listen_for, scratch};
use super::{Bench, Measured, PATIENCE};
use ft::demo::{Hosts, HostsConfig};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::process::Command;

/// A recording under load, and its replay.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replay {
    pub(crate) recorded_s: f64,
    pub(crate) replayed_s: f64,
    /// Replay speed / record speed.
    pub(crate) speed: f64,
    pub(crate) log_bytes: u64,
    pub(crate) digests: u64,
}

impl Bench<'_> {
    pub(super) fn replay(&self) -> Measured<Replay> {
        (self.say)("record and replay");
        let dir = tempfile::tempdir().map_err(scratch)?;
        let file = dir.path().join("recording");
        let primary_args = vec!["--record".into(), file.display().to_string()];
        let (config, stop) = (HostsConfig::new(&self.program, dir.path()), self.stop.clone());
        let mut hosts = Hosts::new(HostsConfig { primary_args, stop, ..config })?;
        hosts.start_primary(1)?;
        hosts.wait_until("the guest's service", PATIENCE, |hosts| hosts.console().contains("ready"))?;
        let load = self.load(&hosts)?;
        listen_for(&mut hosts, self.plan.window)?;
        finish(load)?;
        hosts.signal(1, Signal::SIGTERM)?;
        hosts.wait_for_end(1, PATIENCE)?;
        let log_bytes = std::fs::metadata(&file).map_err(scratch)?.len();
        let output =
            Command::new(&self.program).arg("replay").arg(&file).arg("--json").output().map_err(scratch)?;
        let wrong = || {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            scratch(std::io::Error::other(format!("the replay failed: {said}")))
        };
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| wrong())?;
        let number = |name: &str| report[name].as_f64().ok_or_else(wrong);
        Ok(Replay {
            recorded_s: number("recorded_s")?,
            replayed_s: number("replayed_s")?,
            speed: number("speed")?,
            log_bytes,
            digests: number("digests")? as u64,
        })
    }
}
