//! A cluster as the tests see it: every wait has a generous end, and what is wrong is said with the hosts' last words.

use super::relay::Relay;
use ft::demo::{Hosts, HostsConfig};
use ft::load::{Load, LoadConfig};
use ft::vm::report::Report;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Cluster {
    pub(crate) hosts: Hosts,
    relay: Option<Relay>,
    /// Removed when the hosts are gone.
    _dir: TempDir,
}

impl Cluster {
    /// A protected pair on hosts 1 (primary) and 2, whose guest serves.
    pub(crate) fn protected() -> Self {
        Self::start(tempfile::tempdir().unwrap(), false, Vec::new())
    }

    /// The same, with the first primary's log recorded to a file.
    pub(crate) fn recorded() -> (Self, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let recording = dir.path().join("recording");
        let record = vec!["--record".into(), recording.display().to_string()];
        (Self::start(dir, false, record), recording)
    }

    /// The same, with a relay between the two that can be cut.
    pub(crate) fn relayed() -> Self {
        Self::start(tempfile::tempdir().unwrap(), true, Vec::new())
    }

    fn start(dir: TempDir, relayed: bool, primary_args: Vec<String>) -> Self {
        let config = HostsConfig::new(env!("CARGO_BIN_EXE_ft"), dir.path());
        let mut hosts =
            Hosts::new(HostsConfig { ram_mib: 32, disk_mib: 16, primary_args, ..config }).unwrap();
        // The host with the lower number dials.
        let relay = relayed.then(|| Relay::to(hosts.address(2).unwrap()));
        if let Some(relay) = &relay {
            hosts.route(1, 2, relay.address()).unwrap();
        }
        hosts.start_primary(1).unwrap();
        hosts.start_secondary(2, 1).unwrap();
        let mut cluster = Self { hosts, relay, _dir: dir };
        cluster.wait_until("a protected pair", Hosts::is_protected);
        cluster.wait_until("the guest's service", |hosts| hosts.console().contains("ready"));
        cluster
    }

    pub(crate) fn load(&self) -> Load {
        let address = self.hosts.service();
        Load::start(LoadConfig { connections: 4, ..LoadConfig::new(address) }).unwrap()
    }

    /// Lets the load do `ops` more operations.
    pub(crate) fn run_for_ops(&mut self, load: &Load, ops: u64) {
        let goal = load.progress().ops + ops;
        self.wait_until("operations of clients", |_| load.progress().ops >= goal);
    }

    /// Waits until the store has so many keys.
    pub(crate) fn wait_for_keys(&mut self, keys: u64) {
        let client = redis::Client::open(format!("redis://{}", self.hosts.service())).unwrap();
        let mut connection = client.get_connection().unwrap();
        let size = move || redis::cmd("DBSIZE").query::<u64>(&mut connection).unwrap();
        let size = std::cell::RefCell::new(size);
        self.wait_until("keys", |_| (size.borrow_mut())() >= keys);
    }

    /// Kills the primary, and waits until the other copy is live. Returns whom it killed.
    pub(crate) fn kill_live(&mut self) -> u64 {
        self.hosts.fail_over(PATIENCE).unwrap_or_else(|error| panic!("{error}")).victim
    }

    /// Brings a host back as a secondary.
    pub(crate) fn rejoin(&mut self, host: u64) {
        self.hosts.start_secondary(host, 3 - host).unwrap();
        self.wait_until("a protected pair", Hosts::is_protected);
    }

    pub(crate) fn live(&self) -> u64 {
        self.hosts.live().unwrap()
    }

    pub(crate) fn cut(&self) {
        self.relay.as_ref().unwrap().cut();
    }

    pub(crate) fn mend(&self) {
        self.relay.as_ref().unwrap().mend();
    }

    /// Which of two hosts that are cut off from each other goes on alone.
    pub(crate) fn wait_for_winner(&mut self) -> u64 {
        let is_alone = |report: &Report| matches!(report, Report::Solo { .. });
        self.hosts.wait_for("a winner", PATIENCE, |heard| is_alone(&heard.report)).unwrap().host
    }

    pub(crate) fn wait_for(&mut self, host: u64, what: &str, is_it: impl Fn(&Report) -> bool) {
        self.hosts.wait_for(what, PATIENCE, |heard| heard.host == host && is_it(&heard.report)).unwrap();
    }

    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Hosts) -> bool) {
        self.hosts.wait_until(what, PATIENCE, is_so).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Ends the load: everything is read back, and nothing may be missing.
    pub(crate) fn finish(&self, load: Load) {
        let report = load.finish();
        assert!(report.ops > 0 && report.is_clean(), "{report:?}");
    }
}
