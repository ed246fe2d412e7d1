//! The whole: host processes, a guest in each, a LAN, and real clients. Processes are killed, stopped and cut off; no acknowledged
//! write may be lost.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "failover/cluster.rs"]
mod cluster;
#[path = "failover/relay.rs"]
mod relay;

use cluster::Cluster;
use ft::vm::report::Report;
use nix::sys::signal::Signal;
use std::time::Duration;

/// A client library that knows nothing of us, one connection all the way: each acknowledged write is there afterwards.
#[test]
fn a_killed_primary_loses_no_acknowledged_write_of_a_redis_client() {
    let mut cluster = Cluster::protected();
    let client = redis::Client::open(format!("redis://{}", cluster.hosts.service())).unwrap();
    let mut connection = client.get_connection().unwrap();
    let write = |connection: &mut redis::Connection, from: u64, to: u64| {
        for n in from..to {
            let said: String =
                redis::cmd("SET").arg(format!("key:{n}")).arg(n * 7).query(connection).unwrap();
            assert_eq!(said, "OK");
            let count: u64 = redis::cmd("INCR").arg("count").query(connection).unwrap();
            assert_eq!(count, n + 1, "every increment counts once");
        }
    };
    write(&mut connection, 0, 300);
    cluster.kill_live();
    write(&mut connection, 300, 600);
    assert_eq!(cluster.live(), 2);
    for n in 0..600 {
        let value: u64 = redis::cmd("GET").arg(format!("key:{n}")).query(&mut connection).unwrap();
        assert_eq!(value, n * 7);
    }
    let size: u64 = redis::cmd("DBSIZE").query(&mut connection).unwrap();
    assert_eq!(size, 601);
}

#[test]
fn kill_after_kill_under_load_loses_and_doubles_nothing() {
    let mut cluster = Cluster::protected();
    let load = cluster.load();
    for _ in 0..3 {
        cluster.run_for_ops(&load, 500);
        let victim = cluster.kill_live();
        cluster.run_for_ops(&load, 500);
        cluster.rejoin(victim);
    }
    cluster.finish(load);
}

#[test]
fn a_killed_secondary_is_not_noticed_by_clients_and_can_be_replaced() {
    let mut cluster = Cluster::protected();
    let load = cluster.load();
    cluster.run_for_ops(&load, 300);
    cluster.hosts.signal(2, Signal::SIGKILL).unwrap();
    cluster.wait_for(1, "solo", |report| matches!(report, Report::Solo { .. }));
    cluster.run_for_ops(&load, 300);
    cluster.rejoin(2);
    cluster.kill_live();
    cluster.run_for_ops(&load, 300);
    cluster.finish(load);
}

/// Stopped long enough to be succeeded, it must not say anything when it wakes up, and be over.
#[test]
fn r5_a_stopped_primary_emits_nothing_stale_when_it_is_continued() {
    let mut cluster = Cluster::protected();
    let load = cluster.load();
    cluster.run_for_ops(&load, 300);
    cluster.hosts.signal(1, Signal::SIGSTOP).unwrap();
    cluster.wait_for(2, "going live", |report| matches!(report, Report::Live { .. }));
    cluster.run_for_ops(&load, 300);
    cluster.hosts.signal(1, Signal::SIGCONT).unwrap();
    cluster.hosts.wait_for_end(1, Duration::from_secs(60)).unwrap();
    cluster.run_for_ops(&load, 300);
    cluster.finish(load);
}

/// Neither side is dead: the arbiter lets one of them go on, and the other is over. Clients see one history.
#[test]
fn r4_of_two_hosts_that_lose_each_other_one_goes_on() {
    let mut cluster = Cluster::relayed();
    let load = cluster.load();
    cluster.run_for_ops(&load, 300);
    cluster.cut();
    let winner = cluster.wait_for_winner();
    cluster.run_for_ops(&load, 300);
    cluster.mend();
    let loser = 3 - winner;
    cluster.hosts.wait_for_end(loser, Duration::from_secs(60)).unwrap();
    cluster.run_for_ops(&load, 300);
    cluster.rejoin(loser);
    cluster.run_for_ops(&load, 300);
    cluster.finish(load);
}

/// Shorter than anybody's patience: nothing happens but a delay.
#[test]
fn r6_a_short_cut_is_bridged_without_a_failover() {
    let mut cluster = Cluster::relayed();
    let load = cluster.load();
    cluster.run_for_ops(&load, 300);
    for _ in 0..5 {
        cluster.cut();
        std::thread::sleep(Duration::from_millis(60)); // the length of the cut is what is tested
        cluster.mend();
        cluster.run_for_ops(&load, 100);
    }
    assert_eq!(cluster.live(), 1);
    assert!(cluster.hosts.running().values().all(|host| host.protected));
    cluster.finish(load);
}

/// Redis's own benchmark, through a failover. It stops at the first error of a connection.
#[test]
fn redis_benchmark_runs_through_a_failover() {
    let Ok(found) = std::process::Command::new("redis-benchmark").arg("--version").output() else {
        eprintln!("skipped: redis-benchmark is not installed (Debian: redis-tools)");
        return;
    };
    assert!(found.status.success());
    let mut cluster = Cluster::protected();
    let port = cluster.hosts.service().port().to_string();
    let mut benchmark = std::process::Command::new("redis-benchmark")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-c",
            "20",
            "-n",
            "40000",
            "-t",
            "set,get,incr",
            "-r",
            "1000",
            "--csv",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    cluster.wait_for_keys(100);
    cluster.kill_live();
    assert!(benchmark.try_wait().unwrap().is_none(), "it was killed in the middle");
    let output = benchmark.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for test in ["SET", "GET", "INCR"] {
        assert!(said.contains(&format!("\"{test}\"")), "{said}");
    }
    assert!(!said.to_lowercase().contains("error"), "{said}");
}

/// What the primary recorded until it was killed is replayed to the last whole frame, every digest and effect compared.
#[test]
fn the_log_of_a_killed_primary_is_replayed() {
    let (mut cluster, recording) = Cluster::recorded();
    let load = cluster.load();
    cluster.run_for_ops(&load, 2000);
    cluster.kill_live();
    cluster.run_for_ops(&load, 200);
    let ft = |command: &str| {
        let mut ft = std::process::Command::new(env!("CARGO_BIN_EXE_ft"));
        let output = ft.arg(command).arg(&recording).arg("--json").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let (replayed, inspected) = (ft("replay"), ft("inspect"));
    assert!(replayed["effects"].as_u64().unwrap() > 100, "{replayed}");
    assert_eq!(replayed["records"], inspected["last_seq"]);
    assert_eq!(replayed["instructions"], inspected["last_tick"]);
    // One bit is enough to be refused, with the place.
    let mut bytes = std::fs::read(&recording).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&recording, bytes).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_ft")).arg("replay").arg(&recording).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("byte"), "{output:?}");
    cluster.finish(load);
}
