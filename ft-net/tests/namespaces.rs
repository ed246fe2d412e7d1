//! Hosts in processes and network namespaces of their own, and a log that one writes and the other follows.
//!
//! Needs root, and `ip` and `tc` of iproute2; what is missing is said, and the test skipped.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test takes what it needs")]
mod cluster;
#[path = "namespaces/follower.rs"]
mod follower;
#[allow(dead_code, reason = "each test takes what it needs")]
mod process;
#[allow(dead_code, reason = "each test takes what it needs")]
mod traffic;
#[path = "namespaces/wires.rs"]
mod wires;
#[path = "namespaces/writer.rs"]
mod writer;

use cluster::Cluster;
use ft_net::LinkConfig;
use process::Process;
use std::time::Duration;
use wires::{ADDRESSES, Namespaces, Wire};

/// Frames of a log.
const FRAMES: u64 = 20_000;

/// What frame `n` brings, shorter than `len_max`.
fn content(n: u64, len_max: u64) -> Vec<u8> {
    let mut noise = traffic::Noise(n);
    let len = noise.below(len_max) as usize;
    if n.is_multiple_of(2) { traffic::text(len) } else { noise.bytes(len) }
}

/// Little is under way at a time.
fn link(idle_ms: &str) -> LinkConfig {
    let idle_timeout = Duration::from_millis(idle_ms.parse().unwrap());
    LinkConfig { window: 64 << 10, idle_timeout, ..LinkConfig::default() }
}

/// Makes the wire, or says why not.
fn made(wire: Wire) -> Option<Namespaces> {
    Namespaces::make(wire)
        .map_err(|why| eprintln!("skipped, a wire of the kind {wire:?} cannot be made here: {why}"))
        .ok()
}

/// The writer at the one end, the follower at the other. The writer dials. The follower waits behind frame `pause`.
fn hosts(cluster: &Cluster, wires: &Namespaces, idle_ms: u32, len_max: u64, pause: u64) -> [Process; 2] {
    let part = format!("{} {idle_ms} {len_max} {pause}", ADDRESSES[1]);
    let follower = Process::start(cluster, &wires.at(1), "follower::follower_process", 2, &part);
    let address = follower.expect("listening ");
    let part = format!("{} {address} {idle_ms} {len_max}", ADDRESSES[0]);
    let writer = Process::start(cluster, &wires.at(0), "writer::writer_process", 1, &part);
    [writer, follower]
}

/// Both have all of it, and the same; how many frames came twice.
fn expect_done([mut writer, mut follower]: [Process; 2]) -> u64 {
    let followed = follower.expect("followed ");
    let (chain, twice) = followed.split_once(" twice ").unwrap();
    assert_eq!(writer.expect("written "), chain);
    writer.tell("leave");
    writer.ends();
    follower.tell("leave");
    follower.ends();
    twice.parse().unwrap()
}

fn a_log_passes(wire: Wire, len_max: u64) {
    let Some(wires) = made(wire) else { return };
    let hosts = hosts(&Cluster::new(), &wires, 600_000, len_max, 0);
    hosts[0].expect("up");
    assert_eq!(expect_done(hosts), 0, "no frame comes twice over a link that stays up");
}

#[test]
fn a_log_passes_a_wire_of_10_gbit() {
    a_log_passes(Wire::Shaped, 8000);
}

#[test]
fn a_log_passes_a_wire_that_loses_and_delays() {
    a_log_passes(Wire::Bad, 500);
}

/// What was under way when the plug was pulled is sent again from the last acknowledged frame on.
#[test]
fn a_log_goes_on_after_the_plug_was_pulled() {
    let Some(wires) = made(Wire::Plain) else { return };
    let [writer, mut follower] = hosts(&Cluster::new(), &wires, 2000, 500, FRAMES / 4);
    writer.expect("up");
    // It takes no more until it is told, so the writer is in the middle of it.
    follower.expect("paused");
    wires.set("down");
    writer.expect("down");
    follower.tell("go on");
    wires.set("up");
    // Attempts to dial may have failed in the meantime.
    writer.expect_after("down", "up");
    let twice = expect_done([writer, follower]);
    eprintln!("{twice} frames came twice");
    assert!(twice > 0, "what came after the last acknowledgement came again");
}
