//! A link over a network that loses, doubles, delays and reorders packets.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test takes what it needs")]
mod cluster;
#[path = "lossy/socket.rs"]
mod socket;
#[allow(dead_code, reason = "each test takes what it needs")]
mod traffic;

use cluster::{Cluster, Pair, patient, soon};
use ft_core::frame::Frame;
use ft_core::message::Message;
use ft_net::{Endpoint, LinkReceiver, LinkSender};
use socket::{Fates, LossySocket};
use std::sync::Arc;
use std::time::Duration;
use traffic::{Noise, ack, frames, log, text};

const BAD: Fates = Fates { lost: 10, doubled: 5, late: 10 };

/// Mostly small, now and then of many packets; every other one compressible.
fn a_log(count: u64) -> Vec<Frame> {
    let mut noise = Noise(1);
    let mut content = |n| {
        let len = if n % 250 == 0 { 20_000 } else { noise.below(200) as usize };
        if n % 2 == 0 { text(len) } else { noise.bytes(len) }
    };
    frames((0..count).map(&mut content))
}

/// Takes the log, which must come in order and to the last bit, and acknowledges it.
async fn follow(to: &LinkSender, from: &mut LinkReceiver, log_of_peer: &[Frame]) {
    for frame in log_of_peer {
        let received = soon("a frame", from.recv()).await.unwrap();
        assert!(
            received == log(frame),
            "the frame at {} came back as {:?}",
            frame.first(),
            received.message.name()
        );
        to.send(ack(frame.last(), frame.last()));
    }
}

async fn a_log_survives(seeds: [u64; 2]) {
    let cluster = Cluster::new();
    let sockets = seeds.map(|seed| LossySocket::bind(seed, BAD));
    let endpoint = |n: usize| {
        let socket = Arc::clone(&sockets[n]) as Arc<dyn quinn::AsyncUdpSocket>;
        let identity = cluster.identity(["host-a", "host-b"][n]);
        Endpoint::on_socket(socket, identity, None, patient()).unwrap()
    };
    let Pair { a, b, endpoints: _open } = Pair::of(endpoint(0), endpoint(1)).await;
    let ((to_b, mut from_b), (to_a, mut from_a)) = (a.split(), b.split());
    let frames = a_log(5000);
    for frame in &frames {
        assert!(to_b.send(log(frame)), "the queue has room for all of them");
    }
    follow(&to_a, &mut from_a, &frames).await;
    // The link is as good as before: acknowledgements that were lost do not matter, the last one comes again.
    let last = ack(frames.last().unwrap().last(), frames.last().unwrap().last());
    let arrived = async {
        loop {
            tokio::select! {
                received = from_b.recv() => match received.unwrap() {
                    received if received == last => return,
                    received => assert!(matches!(received.message, Message::Ack(_))),
                },
                () = tokio::time::sleep(Duration::from_millis(5)) => assert!(to_a.send(last.clone())),
            }
        }
    };
    soon("the last acknowledgement", arrived).await;
    let stats = to_b.stats();
    let met = sockets.map(|socket| socket.met());
    eprintln!("seeds {seeds:?}: {met:?}, {} of {} bytes sent again", stats.packets_lost, stats.bytes_sent);
    assert!(met.iter().all(|met| met.lost > 0 && met.doubled > 0 && met.late > 0), "{met:?}");
    assert!(stats.packets_lost > 0 && stats.records_sent == 5000, "{stats:?}");
}

#[tokio::test]
async fn a_log_survives_a_bad_network() {
    for seeds in [[1, 2], [3, 4], [5, 6]] {
        a_log_survives(seeds).await;
    }
}
