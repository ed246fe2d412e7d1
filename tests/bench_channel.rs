//! `ft bench channel` as a user runs it: real processes, real sockets. Counts are checked, seconds never.

use serde_json::Value;
use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const FT: &str = env!("CARGO_BIN_EXE_ft");
/// Long enough for the busiest machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn ft(arguments: &[&str]) -> Output {
    Command::new(FT).args(arguments).output().expect("ft starts")
}

#[test]
fn a_quick_run_measures_every_baseline_and_counts_every_byte() {
    let output = ft(&["bench", "channel", "--quick", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("bare quinn") && said.contains("machine"), "{said}");

    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object on standard output");
    assert!(report["machine"]["cores"].as_u64().is_some_and(|cores| cores >= 1));
    let links = report["links"].as_array().expect("links");
    assert_eq!(links.len(), 1);
    assert_eq!(links[0]["link"], "loopback");
    check_throughput(&links[0]["throughput"], report["plan"]["bytes"].as_u64());
    check_round_trips(&links[0]["round_trips"], report["plan"]["round_trips"].as_u64());
    assert!(report["targets"].as_array().is_some_and(|targets| targets.len() >= 3));
}

fn check_throughput(rows: &Value, bytes: Option<u64>) {
    let rows = rows.as_array().expect("rows");
    for contender in ["tcp", "tls", "quinn"] {
        let row = rows.iter().find(|row| row["contender"] == contender).expect(contender);
        let rounds = row["rounds"].as_array().expect("rounds");
        assert_eq!(rounds.len(), 1, "{contender}");
        assert_eq!(rounds[0]["bytes_sent"].as_u64(), bytes, "{contender}");
        assert_eq!(rounds[0]["bytes_received"].as_u64(), bytes, "{contender}");
        assert!(row["ratio_to_quinn"].is_number() && row["ratio_to_tls"].is_number(), "{contender}");
    }
}

fn check_round_trips(rows: &Value, count: Option<u64>) {
    let rows = rows.as_array().expect("rows");
    for method in ["udp", "tcp", "tls", "quinn_stream", "quinn_datagram"] {
        let row = rows.iter().find(|row| row["method"] == method).expect(method);
        assert_eq!(row["count"].as_u64(), count, "{method}");
        assert!(row["p50_us"].is_number() && row["p99_us"].is_number(), "{method}");
    }
}

#[test]
fn a_peer_that_dies_is_named_and_the_other_one_goes_too() {
    let mut run = Run::start_endless();
    let peers = run.peers();
    signal("KILL", peers[0]);
    let said = run.end();
    assert!(said.contains("receiver of TCP") || said.contains("sender of TCP"), "{said}");
    assert_gone(&peers);
}

#[test]
fn an_interrupted_run_takes_its_peers_along() {
    let mut run = Run::start_endless();
    let peers = run.peers();
    signal("TERM", run.child.id());
    let said = run.end();
    assert!(said.contains("interrupted"), "{said}");
    assert_gone(&peers);
    assert_eq!(
        std::fs::read_dir(run.scratch.path()).expect("a directory").count(),
        0,
        "keys are left behind"
    );
}

#[test]
fn peers_do_not_outlive_a_coordinator_that_is_killed() {
    let mut run = Run::start_endless();
    let peers = run.peers();
    signal("KILL", run.child.id());
    run.end();
    assert_gone(&peers);
}

/// `ft bench channel` with more to send than any test waits for.
struct Run {
    child: Child,
    /// Where it keeps its throw-away keys.
    scratch: TempDir,
}

impl Run {
    fn start_endless() -> Self {
        let arguments = ["bench", "channel", "--link", "loopback", "--contenders", "tcp", "--mib", "1000000"];
        let scratch = TempDir::new().expect("a scratch directory");
        let mut command = Command::new(FT);
        command.args(arguments).env("TMPDIR", scratch.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("ft starts"), scratch }
    }

    /// The ids of both peers of the TCP measurement, once they stand.
    fn peers(&mut self) -> Vec<u32> {
        wait_for("two peers at work", || {
            assert_eq!(self.child.try_wait().expect("it is our child"), None, "it ended early");
            let peers = children(self.child.id());
            // The check of the link comes first and is over in a moment; this volume takes an hour.
            (peers.len() == 2 && peers.iter().all(|&peer| is_moving_volume(peer))).then_some(peers)
        })
    }

    /// Waits for the coordinator, which must fail, and returns what it said.
    fn end(&mut self) -> String {
        let status = wait_for("the coordinator to end", || self.child.try_wait().expect("it is our child"));
        assert!(!status.success());
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        said
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer's command line says what it is for.
fn is_moving_volume(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("of TCP"))
}

/// The ids of all living children of a process.
fn children(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted").filter_map(Result::ok);
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|&pid| parent_and_state(pid).is_some_and(|(of, state)| of == parent && state != "Z")).collect()
}

/// Fields 4 and 3 of /proc/PID/stat; the name before them may hold anything, but ends with the last bracket.
fn parent_and_state(pid: u32) -> Option<(u32, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.to_owned();
    Some((fields.next()?.parse().ok()?, state))
}

fn assert_gone(pids: &[u32]) {
    wait_for("both peers to be gone", || {
        let gone = |&pid: &u32| parent_and_state(pid).is_none_or(|(_, state)| state == "Z");
        pids.iter().all(gone).then_some(())
    });
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill starts");
    assert!(status.success());
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_channel_this_build_does_not_have_is_refused_by_name() {
    let output = ft(&["bench", "channel", "--quick", "--contenders", "nonsense"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nonsense"));
}

#[test]
fn a_peer_started_by_hand_says_who_starts_it() {
    let output = Command::new(FT)
        .args(["bench", "channel-peer", "test"])
        .stdin(Stdio::null())
        .output()
        .expect("ft starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("starts this process itself"));
}
