//! The client load against a server that is right, and against servers that are wrong in one way each: each must be
//! reported as what it is, and as nothing else.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "load/server.rs"]
mod server;

use ft::load::{Faults, Load, LoadConfig, LoadReport};
use server::{Server, Trick};
use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

fn config(server: &Server) -> LoadConfig {
    LoadConfig { connections: 3, pipeline: 8, keys: 6, ..LoadConfig::new(server.address) }
}

fn run(trick: Trick) -> LoadReport {
    let server = Server::start(trick);
    let load = Load::start(config(&server)).unwrap();
    server.wait();
    let report = load.finish();
    assert_eq!(report.keys_not_read_back, 0, "{report:#?}");
    // All keys of the two connections that nothing happened to.
    assert!(report.keys_read_back >= 2 * 3 * 6, "{report:#?}");
    report
}

fn lost(lost: u64) -> Faults {
    Faults { lost, ..Faults::default() }
}

fn duplicated(duplicated: u64) -> Faults {
    Faults { duplicated, ..Faults::default() }
}

#[test]
fn a_server_that_is_right_gives_zeros() {
    let report = run(Trick::None);
    assert!(report.is_clean() && report.stories.is_empty(), "{report:#?}");
    assert_eq!((report.errors, report.reconnects, report.faults.total()), (0, 0, 0));
    assert!(report.ops >= 3000 && report.ops_per_second > 0.0, "{report:#?}");
    assert!(report.latency.p50_us > 0.0 && report.latency.max_us >= report.latency.p99_us, "{report:#?}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["lost"], &json["duplicated"], &json["errors"]), (&0.into(), &0.into(), &0.into()));
}

#[test]
fn an_acknowledged_write_that_is_not_there_is_lost() {
    for command in ["INCR", "APPEND"] {
        let report = run(Trick::Lose(command, 1));
        assert_eq!((report.faults, report.errors), (lost(1), 0), "{command}: {report:#?}");
        assert_eq!(report.stories.len(), 1, "{report:#?}");
    }
    // The next write of a register hides that one is lost.
    for command in ["SET", "DEL", "MSET"] {
        let report = run(Trick::Lose(command, 40));
        assert!((1..=160).contains(&report.faults.lost), "{command}: {report:#?}");
        assert_eq!((report.faults, report.errors), (lost(report.faults.lost), 0), "{command}: {report:#?}");
    }
}

#[test]
fn a_write_that_happened_twice_is_duplicated() {
    for command in ["INCR", "APPEND"] {
        for trick in [Trick::Twice(command), Trick::TwiceSilently(command)] {
            let report = run(trick);
            assert_eq!((report.faults, report.errors), (duplicated(1), 0), "{trick:?}: {report:#?}");
        }
    }
    assert!(run(Trick::Twice("SET")).is_clean(), "the same value again changes nothing");
}

#[test]
fn replies_that_change_places_are_misordered() {
    let report = run(Trick::Swap);
    assert_eq!(report.faults, Faults { misordered: 2, ..Faults::default() }, "{report:#?}");
}

#[test]
fn a_value_that_nobody_wrote_is_corrupted() {
    let report = run(Trick::Corrupt);
    assert_eq!(report.faults, Faults { corrupted: 1, ..Faults::default() }, "{report:#?}");
    let report = run(Trick::Garbage);
    assert_eq!(report.faults, Faults { corrupted: 1, ..Faults::default() }, "{report:#?}");
    assert_eq!((report.errors, report.reconnects), (1, 1), "{report:#?}");
}

#[test]
fn a_refused_request_is_an_error() {
    for command in ["INCR", "GET", "MSET"] {
        let report = run(Trick::Refuse(command));
        assert_eq!((report.errors, report.reconnects, report.faults), (1, 0, lost(0)), "{report:#?}");
    }
}

#[test]
fn a_connection_that_breaks_is_an_error_and_requests_in_doubt_are_none() {
    for command in ["INCR", "SET", "DEL", "APPEND", "GET", "MSET"] {
        for trick in [Trick::HangUpAfter(command), Trick::HangUpBefore(command)] {
            let report = run(trick);
            let counts = (report.errors, report.reconnects, report.faults);
            assert_eq!(counts, (1, 1, lost(0)), "{trick:?}: {report:#?}");
        }
    }
}

#[test]
fn what_a_failover_lost_is_found_by_reading_back() {
    let report = run(Trick::HangUpAndUndo("INCR"));
    assert_eq!((report.errors, report.reconnects), (1, 1), "{report:#?}");
    assert!((1..=2).contains(&report.faults.lost), "{report:#?}");
    assert_eq!(report.faults, lost(report.faults.lost), "{report:#?}");
}

#[test]
fn what_is_lost_after_the_last_reply_is_found_by_reading_back() {
    let server = Server::start(Trick::None);
    let load = Load::start(config(&server)).unwrap();
    server.wait();
    server.cut_when_connected();
    let report = load.finish();
    assert_eq!((report.faults, report.errors), (lost(1), 0), "{report:#?}");
}

#[test]
fn a_stall_is_a_gap_and_no_fault() {
    let stall = Duration::from_millis(150);
    let server = Server::start(Trick::Stall(stall));
    let load = Load::start(config(&server)).unwrap();
    let mark = load.mark();
    server.wait();
    let gap = load.gap_since(mark);
    assert!(gap >= stall, "{gap:?}");
    assert!(load.gap_since(load.mark()) < gap);
    assert!(load.latency().max_us >= 150e3);
    let report = load.finish();
    assert!(report.is_clean() && report.longest_gap_ms >= 150.0, "{report:#?}");
}

#[test]
fn a_server_that_stays_silent_is_an_error() {
    let server = Server::start(Trick::Stall(Duration::from_millis(400)));
    let patience = LoadConfig { reply_timeout: Duration::from_millis(100), ..config(&server) };
    let load = Load::start(patience).unwrap();
    server.wait();
    let report = load.finish();
    assert!(report.errors > 0 && report.reconnects > 0, "{report:#?}");
    assert_eq!(report.faults, lost(0), "{report:#?}");
}

#[test]
fn a_load_that_is_dropped_waits_for_no_reply() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = LoadConfig { connections: 1, ..LoadConfig::new(silent.local_addr().unwrap()) };
    let patience = config.reply_timeout;
    let load = Load::start(config).unwrap();
    let (mut client, _) = silent.accept().unwrap();
    client.read_exact(&mut [0]).unwrap();
    let dropped = Instant::now();
    drop(load);
    assert!(dropped.elapsed() < patience / 2, "{:?}", dropped.elapsed());
}

#[test]
fn a_paced_load_keeps_its_pace() {
    let server = Server::start(Trick::None);
    let rate = 20_000.0;
    let load = Load::start(LoadConfig { rate: Some(rate), ..config(&server) }).unwrap();
    let start = load.progress();
    server.wait();
    let now = load.progress();
    assert!(now.ops_per_second_since(&start) <= rate * 1.2, "{now:?}");
    assert!(load.finish().is_clean());
}

#[test]
fn nobody_there_is_said_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Load::start(LoadConfig::new(address)).err().unwrap().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(Load::start(LoadConfig { keys: 0, ..LoadConfig::new(address) }).is_err());
}
