//! A disk that each host has for itself: what a guest wrote survives any one host, and the copies are the same to the last byte. Real host
//! processes, a real guest with its log on the disk, and a guest that is made to begin again from what the heir's disk holds.
#![allow(clippy::unwrap_used, missing_docs)]

use ft::demo::{Hosts, HostsConfig};
use ft::vm::report::Report;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// A machine that runs all tests at once may leave a process waiting for longer than an operator would bear.
const HEARTBEAT_MS: u64 = 400;
/// How often something is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A reply that takes longer will not come.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a value: some megabytes come together soon.
const VALUE_BYTES: usize = 2048;
/// Keys that are written in turn.
const KEYS: u64 = 400;

struct Cluster {
    hosts: Hosts,
    config: HostsConfig,
    /// How many there were.
    writes: u64,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// One copy on host 1, whose guest serves.
    fn solo() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = HostsConfig::new(env!("CARGO_BIN_EXE_ft"), dir.path());
        (config.mirror, config.command_line) = (true, "mode=kv debug".into());
        config.heartbeat_ms = Some(HEARTBEAT_MS);
        let mut hosts = Hosts::new(config.clone()).unwrap();
        hosts.start_primary(1).unwrap();
        hosts.wait_until("the guest's service", PATIENCE, |hosts| starts(hosts) == 1).unwrap();
        Self { hosts, config, writes: 0, _dir: dir }
    }

    /// A connection to the service, which may be on its way back.
    fn connect(&mut self) -> redis::Connection {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_connect() {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "the service does not come back: {error}"),
            }
            self.hosts.listen(LOOK_EVERY).unwrap();
        }
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("redis://{}", self.hosts.service()))?;
        let mut connection = client.get_connection_with_timeout(REPLY_TIMEOUT)?;
        // The LAN accepts connections for a guest that is not there yet.
        connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
        redis::cmd("PING").query::<String>(&mut connection)?;
        Ok(connection)
    }

    fn write(&mut self, count: u64) {
        let mut connection = self.connect();
        (0..count).for_each(|_| self.write_one(&mut connection));
    }

    fn write_one(&mut self, connection: &mut redis::Connection) {
        let (n, version) = (self.writes % KEYS, self.writes / KEYS);
        redis::cmd("SET").arg(key(n)).arg(value(n, version)).query::<()>(connection).unwrap();
        self.writes += 1;
    }

    fn save(&mut self) {
        redis::cmd("SAVE").query::<()>(&mut self.connect()).unwrap();
    }

    /// A further copy on `host`, made while a client writes all the time.
    fn seed_under_load(&mut self, host: u64) {
        let primary = self.hosts.live().unwrap();
        let before = self.writes;
        self.hosts.start_secondary(host, primary).unwrap();
        let mut connection = self.connect();
        let deadline = Instant::now() + PATIENCE;
        while !self.hosts.is_protected() {
            self.write_one(&mut connection);
            while self.hosts.listen(Duration::ZERO).unwrap().is_some() {}
            assert!(Instant::now() < deadline, "{}", self.hosts.late("a protected pair".into(), PATIENCE));
        }
        assert!(self.writes > before, "nothing was written meanwhile");
    }

    /// The guest begins again, with what the live host's disk holds; all keys must be there.
    fn restart_guest_and_check(&mut self) {
        let before = starts(&self.hosts);
        let mut connection = self.connect();
        // It answers nobody any more.
        connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        redis::cmd("DEBUG").arg("CRASH").query::<String>(&mut connection).unwrap_err();
        let is_back = |hosts: &Hosts| starts(hosts) == before + 1;
        self.hosts.wait_until("the guest's service", PATIENCE, is_back).unwrap();
        let mut connection = self.connect();
        assert_eq!(redis::cmd("DBSIZE").query::<u64>(&mut connection).unwrap(), self.writes.min(KEYS));
        for n in 0..self.writes.min(KEYS) {
            let found: String = redis::cmd("GET").arg(key(n)).query(&mut connection).unwrap();
            let version = (self.writes - 1 - n) / KEYS;
            assert_eq!(found, value(n, version), "key {n}");
        }
    }

    fn kill_live(&mut self) -> u64 {
        let failover = self.hosts.fail_over(PATIENCE).unwrap();
        assert_eq!(self.hosts.live(), Some(failover.heir));
        failover.victim
    }

    /// The copies of both hosts become the same, byte for byte, once nobody writes.
    fn check_equal(&mut self) {
        self.save();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let [one, two] = [1, 2].map(|host| std::fs::read(self.config.disk(host)).unwrap());
            if one == two {
                assert!(one.iter().any(|byte| *byte != 0));
                return;
            }
            let differ = one.chunks(4096).zip(two.chunks(4096)).filter(|(one, two)| one != two).count();
            assert!(Instant::now() < deadline, "{differ} of {} blocks differ", one.len() / 4096);
            self.hosts.listen(LOOK_EVERY).unwrap();
        }
    }

    fn beside_disk(&self, host: u64, suffix: &str) -> PathBuf {
        let mut path = self.config.disk(host).into_os_string();
        path.push(suffix);
        path.into()
    }

    /// Starts `host` as the primary, which refuses, and says why.
    fn refusal(&mut self, host: u64) -> String {
        self.hosts.start_primary(host).unwrap();
        self.hosts.wait_for_end(host, PATIENCE).unwrap();
        std::fs::read_to_string(self.config.dir.join(format!("host-{host}.log"))).unwrap()
    }
}

fn key(n: u64) -> String {
    format!("key:{n}")
}

fn value(n: u64, version: u64) -> String {
    format!("{n}.{version}:").repeat(VALUE_BYTES / 4)[..VALUE_BYTES].to_owned()
}

/// How often the guest has said that it serves.
fn starts(hosts: &Hosts) -> usize {
    hosts.console().matches("ready: ").count()
}

#[test]
fn r7_what_was_written_survives_kill_after_kill_and_the_copies_are_equal() {
    let mut cluster = Cluster::solo();
    cluster.write(1000);
    cluster.seed_under_load(2);
    cluster.write(200);
    cluster.check_equal();
    cluster.write(200);
    cluster.save();
    assert_eq!(cluster.kill_live(), 1);
    cluster.restart_guest_and_check();
    cluster.seed_under_load(1);
    cluster.write(200);
    cluster.save();
    assert_eq!(cluster.kill_live(), 2);
    cluster.restart_guest_and_check();
    cluster.seed_under_load(2);
    cluster.check_equal();
    assert!(![1, 2].iter().any(|host| cluster.beside_disk(*host, ".partial").exists()));
}

/// Nothing is left but disks: the one that has everything is found, and others are refused.
#[test]
fn after_the_loss_of_all_copies_only_the_newest_disk_is_begun_with() {
    let mut cluster = Cluster::solo();
    cluster.write(50);
    cluster.seed_under_load(2);
    cluster.hosts.signal(2, Signal::SIGKILL).unwrap();
    let is_solo = |report: &Report| matches!(report, Report::Solo { .. });
    cluster.hosts.wait_for("solo", PATIENCE, |heard| heard.host == 1 && is_solo(&heard.report)).unwrap();
    cluster.write(50);
    cluster.save();
    cluster.hosts.signal(1, Signal::SIGKILL).unwrap();

    let refusal = cluster.refusal(2);
    assert!(refusal.contains("out of date") && refusal.contains("host 1"), "{refusal}");
    std::fs::rename(cluster.config.disk(2), cluster.beside_disk(2, ".partial")).unwrap();
    let refusal = cluster.refusal(2);
    assert!(refusal.contains("half a copy"), "{refusal}");
    std::fs::remove_file(cluster.beside_disk(2, ".partial")).unwrap();
    let refusal = cluster.refusal(2);
    assert!(refusal.contains("no copy of the disk"), "{refusal}");

    let before = starts(&cluster.hosts);
    cluster.hosts.start_primary(1).unwrap();
    cluster.hosts.wait_until("the guest's service", PATIENCE, |hosts| starts(hosts) == before + 1).unwrap();
    cluster.restart_guest_and_check();
}

/// Storage that fails on the secondary's side costs the secondary, and nobody else notices.
#[test]
fn a_secondary_that_cannot_write_its_copy_gives_up_and_the_primary_goes_on() {
    let mut cluster = Cluster::solo();
    cluster.write(50);
    // No file can be made there.
    let obstacle = cluster.beside_disk(2, ".partial");
    std::fs::create_dir(&obstacle).unwrap();
    cluster.hosts.start_secondary(2, 1).unwrap();
    let is_failure = |report: &Report| matches!(report, Report::Failed { .. });
    let heard = cluster.hosts.wait_for("giving up", PATIENCE, |heard| is_failure(&heard.report)).unwrap();
    let Report::Failed { reason } = heard.report else { unreachable!("that is what was waited for") };
    assert!(heard.host == 2 && reason.contains("cannot make this host's copy"), "{reason}");
    cluster.hosts.wait_for_end(2, PATIENCE).unwrap();
    cluster.write(50);
    std::fs::remove_dir(&obstacle).unwrap();
    cluster.seed_under_load(2);
    cluster.check_equal();
}
