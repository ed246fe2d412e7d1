//! Real processes, real signals: two hosts in processes of their own, linked over QUIC, and a client that checks every reply.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../examples/embed/adder.rs"]
mod adder;
#[path = "pair/cluster.rs"]
mod cluster;
#[path = "pair/host.rs"]
mod host;

use cluster::Cluster;

/// The process of a host: started by the other tests, which talk to it over standard input and output.
#[test]
#[ignore = "this is the child process of the other tests"]
fn host_process() {
    host::run();
}

#[test]
fn a_killed_primary_loses_nothing() {
    let mut cluster = Cluster::new();
    cluster.create("a");
    cluster.join("b", "a");
    cluster.requests(500);
    cluster.signal("a", "KILL");
    cluster.requests(1000);
    assert_eq!(cluster.live(), "b");
}

#[test]
fn a_killed_secondary_is_replaced_and_its_successor_takes_over() {
    let mut cluster = Cluster::new();
    cluster.create("a");
    cluster.join("b", "a");
    cluster.requests(200);
    cluster.signal("b", "KILL");
    cluster.requests(200);
    cluster.wait_for("a", "Solo(Term(2))");
    cluster.join("c", "a");
    cluster.requests(200);
    cluster.signal("a", "KILL");
    cluster.requests(500);
    assert_eq!(cluster.live(), "c");
}

#[test]
fn r5_a_stopped_primary_that_is_continued_emits_nothing_and_halts() {
    let mut cluster = Cluster::new();
    cluster.create("a");
    cluster.join("b", "a");
    cluster.requests(200);
    cluster.signal("a", "STOP");
    cluster.requests(300);
    assert_eq!(cluster.live(), "b");
    let before = cluster.replies_of("a");
    cluster.signal("a", "CONT");
    cluster.wait_for("a", "Halted(Superseded { term: Term(2) })");
    cluster.requests(100);
    assert_eq!(cluster.replies_of("a"), before, "stale effects");
}
