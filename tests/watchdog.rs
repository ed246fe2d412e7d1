//! A guest that hangs or crashes is the same in both copies, so lockstep does not heal it: the machine does, by beginning again. Real host
//! processes, a real guest that is made to hang and to crash by a client, and a pair that stays protected all the while.
#![allow(clippy::unwrap_used, missing_docs)]

use ft::demo::{Hosts, HostsConfig};
use ft::vm::report::{GuestReport, Report};
use ft_vmm::power::Cause;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a client looks whether the service is back.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A reply that takes longer will not come.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
const KEYS: u64 = 200;

struct Cluster {
    hosts: Hosts,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// A protected pair on hosts 1 (primary) and 2, whose guest serves.
    fn protected(command_line: &str) -> Self {
        let mut cluster = Self::solo(command_line);
        cluster.hosts.start_secondary(2, 1).unwrap();
        cluster.hosts.wait_until("a protected pair", PATIENCE, Hosts::is_protected).unwrap();
        cluster
    }

    /// One copy on host 1, whose guest serves.
    fn solo(command_line: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = HostsConfig::new(env!("CARGO_BIN_EXE_ft"), dir.path());
        config.command_line = command_line.into();
        let mut hosts = Hosts::new(config).unwrap();
        hosts.start_primary(1).unwrap();
        hosts.wait_until("the guest's service", PATIENCE, |hosts| starts(hosts) == 1).unwrap();
        Self { hosts, _dir: dir }
    }

    /// A connection to the service, which may be on its way back.
    fn connect(&mut self) -> redis::Connection {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_connect() {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "the service does not come back: {error}"),
            }
            // What the hosts say meanwhile is taken in.
            self.hosts.listen(LOOK_EVERY).unwrap();
        }
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        let client = redis::Client::open(format!("redis://{}", self.hosts.service()))?;
        let mut connection = client.get_connection_with_timeout(REPLY_TIMEOUT)?;
        // The LAN accepts connections for a guest that is not there yet.
        connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
        ask::<String>(&mut connection, &["PING"])?;
        Ok(connection)
    }

    /// Brings the guest down with a command, and waits until the live host says that it has begun again.
    fn bring_down(&mut self, how: &str) -> GuestReport {
        let live = self.hosts.live().unwrap();
        let mut connection = self.connect();
        // It answers nobody any more: what the client gets depends on when it gives up.
        connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        ask::<String>(&mut connection, &["DEBUG", how]).unwrap_err();
        let is_it = |report: &Report| matches!(report, Report::Guest(_));
        let heard = self.hosts.wait_for("the guest's end", PATIENCE, |heard| is_it(&heard.report)).unwrap();
        assert_eq!(heard.host, live, "only the live host speaks for the guest");
        let Report::Guest(guest) = heard.report else { unreachable!("that is what was waited for") };
        guest
    }

    /// How often a copy has found itself alone, given up or ended.
    fn partings(&self) -> usize {
        let words = self.hosts.running().values().flat_map(|host| &host.words);
        let is_one = |word: &&String| ["Solo", "Halted", "gave up"].iter().any(|one| word.contains(one));
        words.filter(is_one).count()
    }

    /// What was saved is there again.
    fn check_keys(&mut self) {
        let mut connection = self.connect();
        assert_eq!(ask::<u64>(&mut connection, &["DBSIZE"]).unwrap(), KEYS);
        for n in 0..KEYS {
            let value: u64 = ask(&mut connection, &["GET", &format!("key:{n}")]).unwrap();
            assert_eq!(value, n * 7);
        }
    }
}

fn ask<T: redis::FromRedisValue>(
    connection: &mut redis::Connection,
    words: &[&str],
) -> redis::RedisResult<T> {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query(connection)
}

/// How often the guest has said that it serves.
fn starts(hosts: &Hosts) -> usize {
    hosts.console().matches("ready: ").count()
}

#[test]
fn a_guest_that_hangs_or_crashes_begins_again_and_the_pair_stays_protected() {
    let mut cluster = Cluster::protected("mode=kv debug watchdog=2");
    let mut connection = cluster.connect();
    for n in 0..KEYS {
        ask::<()>(&mut connection, &["SET", &format!("key:{n}"), &(n * 7).to_string()]).unwrap();
    }
    ask::<()>(&mut connection, &["SAVE"]).unwrap();
    let partings = cluster.partings();
    for (how, cause) in [("HANG", Cause::Watchdog), ("CRASH", Cause::Crash)] {
        let before = starts(&cluster.hosts);
        let guest = cluster.bring_down(how);
        assert_eq!((guest.event, guest.restarted, guest.restarts), (cause, true, before as u64));
        let is_back = |hosts: &Hosts| starts(hosts) == before + 1;
        cluster.hosts.wait_until("the guest's service", PATIENCE, is_back).unwrap();
        cluster.check_keys();
        // Every byte that went out was compared: copies that had not begun again alike would not be a pair any more.
        assert_eq!(cluster.hosts.live(), Some(1));
        assert!(cluster.hosts.is_protected());
        assert_eq!(cluster.partings(), partings);
    }
    // The other copy counts on, and has the same data.
    cluster.hosts.signal(1, Signal::SIGKILL).unwrap();
    let is_live = |report: &Report| matches!(report, Report::Live { .. });
    cluster
        .hosts
        .wait_for("going live", PATIENCE, |heard| heard.host == 2 && is_live(&heard.report))
        .unwrap();
    cluster.check_keys();
    let guest = cluster.bring_down("CRASH");
    assert_eq!((guest.event, guest.restarted, guest.restarts), (Cause::Crash, true, 3));
    cluster.check_keys();
}

/// No client may bring down a guest that was not started for it.
#[test]
fn a_guest_is_brought_down_only_where_its_command_line_allows_it() {
    let mut cluster = Cluster::protected("mode=kv");
    let mut connection = cluster.connect();
    for how in ["HANG", "CRASH"] {
        let refused = ask::<String>(&mut connection, &["DEBUG", how]).unwrap_err();
        assert!(refused.to_string().contains("command line"), "{refused}");
    }
    assert_eq!(ask::<String>(&mut connection, &["PING"]).unwrap(), "PONG");
}

/// Its clock leaps by longer than the watchdog waits, and it could not have written to it.
#[test]
fn a_host_that_was_stopped_does_not_make_its_guest_look_hung() {
    let mut cluster = Cluster::solo("mode=kv debug watchdog=2");
    cluster.hosts.signal(1, Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_secs(3)); // the length of the stop is what is tested
    cluster.hosts.signal(1, Signal::SIGCONT).unwrap();
    let guest = cluster.bring_down("CRASH");
    assert_eq!((guest.event, guest.restarts), (Cause::Crash, 1), "the first time that it goes down");
}
