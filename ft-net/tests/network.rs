//! Networks that lose hosts: politely, by death, by silence.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test takes what it needs")]
mod cable;
#[allow(dead_code, reason = "each test takes what it needs")]
mod cluster;
#[allow(dead_code, reason = "each test takes what it needs")]
mod process;
#[allow(dead_code, reason = "each test takes what it needs")]
mod traffic;

use cable::Cable;
use cluster::linked::{DIALER, Host, another_life, peer};
use cluster::{ANY_PORT, Cluster, DEADLINE, in_full};
use ft_core::message::{Envelope, Message};
use ft_core::units::{HostId, Seq};
use ft_net::{LinkConfig, NetError, NetEvent, Network, NetworkConfig};
use process::Process;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use traffic::{ack, envelope, frames, log, text};

/// Longer than any wait here: with it, no silence ever ends a link.
fn never_silent() -> LinkConfig {
    LinkConfig { idle_timeout: Duration::from_secs(600), ..LinkConfig::default() }
}

/// What ends a link where the peer is only silent.
const SILENCE: Duration = Duration::from_secs(2);

fn soon_silent() -> LinkConfig {
    LinkConfig { idle_timeout: SILENCE, ..LinkConfig::default() }
}

fn say(next: u32) -> Envelope {
    envelope(Message::StateAck { next })
}

fn reason(error: &NetError) -> &str {
    match error {
        NetError::Lost { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_hosts_are_linked_and_talk_both_ways() {
    let [a, b] = Host::pair(&Cluster::new(), never_silent());
    a.expect_up(2);
    b.expect_up(1);
    assert!(a.network.send(HostId(2), say(1)) && b.network.send(HostId(1), say(2)));
    b.expect_message(1, &say(1));
    a.expect_message(2, &say(2));
    for frame in frames((0..100).map(text)) {
        assert!(a.network.send(HostId(2), log(&frame)));
        b.expect_message(1, &log(&frame));
    }
    let (at_a, at_b) = (a.network.stats(HostId(2)).unwrap(), b.network.stats(HostId(1)).unwrap());
    assert_eq!((at_a.records_sent, at_b.records_received), (100, 100));
    assert_eq!((at_a.messages_sent, at_a.messages_received), (101, 1));
    assert!(
        !a.network.send(HostId(3), say(3)) && a.network.stats(HostId(3)).is_none(),
        "nobody of that number"
    );
}

/// Host 2 again, at the address that it had.
fn back_at(address: SocketAddr, cluster: &Cluster) -> Host {
    Host::start_at(address, cluster.identity("host-2"), 2, &[DIALER], never_silent())
}

#[test]
fn a_host_that_leaves_in_peace_is_down_and_one_that_dies_is_gone() {
    let cluster = Cluster::new();
    let [a, mut b] = Host::pair(&cluster, never_silent());
    let address = b.address();
    for _ in 0..3 {
        a.expect_up(2);
        a.expect_watched(2);
        drop(b);
        assert!(reason(&a.expect_down(2)).starts_with("closed by peer: closed"));
        // Were it gone as well, that would come before it is up again.
        b = back_at(address, &cluster);
    }
    a.expect_up(2);
    a.expect_watched(2);
    let (died, life) = (Instant::now(), b.incarnation);
    b.network.kill();
    a.expect_gone(2, life);
    eprintln!("noticed after {:?}", died.elapsed());
    assert!(a.network.stats(HostId(2)).is_none() && !a.network.is_watched(HostId(2)));
    let _b = back_at(address, &cluster);
    a.expect_up(2);
}

/// The old host is as silent as one that is off: only being told that the peer is elsewhere ends the wait for it.
#[test]
fn a_peer_that_is_elsewhere_now_is_dialled_there_at_once() {
    let cluster = Cluster::new();
    let [a, old] = Host::pair(&cluster, never_silent());
    a.expect_up(2);
    a.expect_watched(2);
    let new = Host::start(&cluster, 2, &[DIALER], never_silent());
    a.add_peer(2, new.address());
    a.expect_up(2);
    new.expect_up(1);
    new.expect_watched(1);
    assert!(a.network.send(HostId(2), say(1)));
    new.expect_message(1, &say(1));
    old.expect_up(1);
    assert!(reason(&old.expect_down(1)).contains("closed"));
    // Told the same again, nothing ends.
    a.add_peer(2, new.address());
    assert!(new.network.send(HostId(1), say(2)));
    a.expect_message(2, &say(2));
}

/// Where a peer that dials us listens is of no interest: a link that it made stays.
#[test]
fn a_dialer_that_is_elsewhere_keeps_its_link() {
    let [a, b] = Host::pair(&Cluster::new(), never_silent());
    a.expect_up(2);
    b.expect_up(1);
    b.add_peer(1, a.address());
    assert!(a.network.send(HostId(2), say(1)));
    b.expect_message(1, &say(1));
}

#[test]
fn a_dialer_that_dies_is_gone_as_well() {
    let [a, b] = Host::pair(&Cluster::new(), never_silent());
    b.expect_up(1);
    // The wire counts where both ends have attached it.
    a.expect_watched(2);
    b.expect_watched(1);
    let life = a.incarnation;
    a.network.kill();
    b.expect_gone(1, life);
}

/// A host that sends back what it is told. It ends with its test.
#[test]
#[ignore = "a process that other tests start"]
fn echo_process() {
    let Some((identity, words)) = process::part() else { return };
    let _told = process::told();
    let [listen, idle_ms] = words.try_into().unwrap();
    let idle_timeout = Duration::from_millis(idle_ms.parse().unwrap());
    let link = LinkConfig { idle_timeout, ..LinkConfig::default() };
    let own = Host::start_at(listen.parse().unwrap(), identity, 2, &[DIALER], link);
    process::say(&format!("{} {}", own.address(), own.incarnation));
    for event in &own.events {
        if let NetEvent::Message(from, envelope) = event {
            own.network.send(from, envelope);
        }
    }
}

/// The process as host 2, listening at `listen`; where that is, and which life it is.
fn echo(cluster: &Cluster, listen: SocketAddr, idle: Duration) -> (Process, SocketAddr, u64) {
    let part = format!("{listen} {}", idle.as_millis());
    let process = Process::start(cluster, &[], "echo_process", 2, &part);
    let said = process.expect("");
    let (address, life) = said.split_once(' ').unwrap();
    let (address, life) = (address.parse().unwrap(), life.parse().unwrap());
    (process, address, life)
}

fn expect_echo(a: &Host, next: u32) {
    assert!(a.network.send(HostId(2), say(next)));
    a.expect_message(2, &say(next));
}

#[test]
fn a_process_that_is_killed_is_gone_and_linked_again_when_it_is_back() {
    let cluster = Cluster::new();
    let (mut b, address, mut life) = echo(&cluster, ANY_PORT, Duration::from_secs(600));
    let a = Host::start(&cluster, 1, &[(2, address)], never_silent());
    for round in 0..2 {
        a.expect_up(2);
        a.expect_watched(2);
        expect_echo(&a, round);
        let died = Instant::now();
        b.kill();
        a.expect_gone(2, life);
        eprintln!(
            "noticed after {:?}, of which most may be for the kernel to end the process",
            died.elapsed()
        );
        (b, _, life) = echo(&cluster, address, Duration::from_secs(600));
    }
    a.expect_up(2);
    expect_echo(&a, 9);
}

#[test]
fn a_process_that_is_stopped_is_silent_and_not_gone() {
    let cluster = Cluster::new();
    let (b, address, _) = echo(&cluster, ANY_PORT, SILENCE);
    let a = Host::start(&cluster, 1, &[(2, address)], soon_silent());
    a.expect_up(2);
    a.expect_watched(2);
    b.signal("STOP");
    assert_eq!(reason(&a.expect_down(2)), "timed out");
    b.signal("CONT");
    // No other event than "down" until then.
    a.expect_up(2);
    expect_echo(&a, 1);
}

#[test]
fn a_cut_cable_is_silence_and_the_link_comes_back() {
    let cluster = Cluster::new();
    let b = Host::start(&cluster, 2, &[DIALER], soon_silent());
    let cable = Cable::to(b.address());
    let a = Host::start(&cluster, 1, &[(2, cable.address())], soon_silent());
    for round in 0..2 {
        a.expect_up(2);
        b.expect_up(1);
        a.expect_watched(2);
        assert!(a.network.send(HostId(2), say(round)));
        b.expect_message(1, &say(round));
        cable.cut();
        assert_eq!(reason(&a.expect_down(2)), "timed out");
        assert_eq!(reason(&b.expect_down(1)), "timed out");
        cable.heal();
    }
    a.expect_up(2);
    a.expect_watched(2);
}

/// The host's last words never came, and its successor has the same address. The tripwire must lead to the successor.
#[test]
fn after_a_power_cut_the_new_process_is_watched() {
    let cluster = Cluster::new();
    let b = Host::start(&cluster, 2, &[DIALER], soon_silent());
    let cable = Cable::to(b.address());
    let a = Host::start(&cluster, 1, &[(2, cable.address())], soon_silent());
    a.expect_up(2);
    a.expect_watched(2);
    cable.cut();
    b.network.kill();
    assert_eq!(reason(&a.expect_down(2)), "timed out");

    let b = Host::start(&cluster, 2, &[DIALER], soon_silent());
    cable.plug_into(b.address());
    cable.heal();
    a.expect_up(2);
    b.expect_watched(1);
    a.expect_watched(2);
    let life = b.incarnation;
    b.network.kill();
    a.expect_gone(2, life);
}

#[test]
fn a_host_of_the_cluster_that_is_no_peer_is_refused_until_it_is_one() {
    let cluster = Cluster::new();
    let b = Host::start(&cluster, 2, &[], never_silent());
    let a = Host::start(&cluster, 1, &[(2, b.address())], never_silent());
    for _ in 0..5 {
        let error = a.await_event("a refusal", |event| match event {
            NetEvent::Down(_, error) => Some(in_full(&error)),
            // Accepted by the certificate, refused by the peer list: it may be up for a moment.
            NetEvent::Up(_) => None,
            // Its tripwire is refused as well, which is not the end of a process.
            other => panic!("{other:?}"),
        });
        assert!(error.contains("host-1 is no peer of host-2; add it there"), "{error}");
    }
    assert!(b.events.is_empty(), "{:?}", b.events.try_recv());
    b.add_peer(1, a.address());
    b.expect_up(1);
    assert!(b.network.send(HostId(1), say(4)));
    let received = a.await_event("a message", |event| match event {
        NetEvent::Message(_, message) => Some(message),
        NetEvent::Up(_) | NetEvent::Down(..) => None,
        other => panic!("{other:?}"),
    });
    assert_eq!(received, say(4));
}

#[test]
fn a_host_that_answers_under_another_name_is_not_linked() {
    let cluster = Cluster::new();
    let c = Host::start(&cluster, 3, &[], never_silent());
    let a = Host::start(&cluster, 1, &[(2, c.address())], never_silent());
    let error = in_full(&a.expect_down(2));
    assert!(error.contains("certificate of host-3 was presented where host-2 was called"), "{error}");
    assert!(c.events.is_empty());
}

#[test]
fn a_port_that_is_taken_is_an_error_that_says_what_to_do() {
    let cluster = Cluster::new();
    let a = Host::start(&cluster, 1, &[], never_silent());
    let peers = [(HostId(1), peer(1, a.address()))].into();
    let config = NetworkConfig {
        host: HostId(2),
        incarnation: another_life(),
        listen: a.address(),
        peers,
        link: never_silent(),
    };
    let error = Network::start(cluster.identity("host-2"), config).err().unwrap();
    let text = in_full(&error);
    assert!(matches!(error, NetError::Bind { address, .. } if address == a.address()), "{error:?}");
    assert!(text.contains("choose a free port") && text.contains("in use"), "{text}");
}

/// When nothing has been taken for this long, all there is room for has been. A slow machine may stop short of that.
const QUIET: Duration = Duration::from_millis(300);

/// R9: events that nobody takes hold up the peer; the peer's messages are dropped there, and counted, not here.
#[test]
fn r9_events_that_nobody_takes_are_bounded() {
    let link = LinkConfig { queue_bytes: 64 << 10, window: 64 << 10, inbox_messages: 16, ..never_silent() };
    // 1024 events, the inbox, a message in hand, and what 64 KiB of queue and of window hold.
    let limit = 1024 + 16 + 1 + 2 * (64 << 10) / 300;
    let frames = frames((0..2 * limit).map(|_| text(300)));
    let [a, b] = Host::pair(&Cluster::new(), link);
    a.expect_up(2);
    let (mut taken, mut refused, mut last_taken) = (0, 0, Instant::now());
    while last_taken.elapsed() < QUIET {
        if a.network.send(HostId(2), log(&frames[taken])) {
            (taken, last_taken) = (taken + 1, Instant::now());
        } else {
            refused += 1;
            std::thread::yield_now();
        }
        assert!(taken <= limit, "{taken} messages taken, {limit} are room for");
    }
    assert!(taken >= 100, "the queue alone holds that many: {taken}");
    assert_eq!(a.network.stats(HostId(2)).unwrap().messages_dropped, refused);
    b.expect_up(1);
    for frame in &frames[..taken] {
        b.expect_message(1, &log(frame));
    }
    let until = Instant::now() + DEADLINE;
    while !a.network.send(HostId(2), ack(Seq(1), Seq(1))) {
        assert!(Instant::now() < until, "the link is usable again");
    }
    b.expect_message(1, &ack(Seq(1), Seq(1)));
}
