//! A link between two honest hosts, over QUIC on loopback.
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test takes what it needs")]
mod cluster;
#[allow(dead_code, reason = "each test takes what it needs")]
mod traffic;

use bytes::Bytes;
use cluster::{ANY_PORT, Cluster, Pair, host, in_full, next, patient, soon, until};
use ft_core::frame::{Frame, LogEnd};
use ft_core::log::LogWriter;
use ft_core::message::{Ack, Envelope, Hello, Message, Profile, Refusal, Welcome};
use ft_core::transfer::{Chunk, StateHead};
use ft_core::units::{self, EffectSeq, Seq, Term};
use ft_net::{ALPN, LinkConfig, LinkReceiver, LinkSender, NetError};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use traffic::{Noise, ack, append, envelope, frames, log, state, text};

async fn recv(receiver: &mut LinkReceiver) -> Envelope {
    soon("a message", receiver.recv()).await.unwrap()
}

/// Sends one after the other, each when there is room for it.
async fn send_all(sender: &LinkSender, frames: &[Frame]) {
    for frame in frames {
        while !sender.send(log(frame)) {
            tokio::task::yield_now().await;
        }
    }
}

/// The next frames, which must be `frames` to the last bit.
async fn expect_all(receiver: &mut LinkReceiver, frames: &[Frame]) {
    for frame in frames {
        let received = recv(receiver).await;
        assert!(
            received == log(frame),
            "the frame at {} came back as {}",
            frame.first(),
            received.message.name()
        );
    }
}

#[tokio::test]
async fn messages_of_every_kind_arrive_and_those_of_a_lane_in_order() {
    let profile = Profile { protocol: 1, build: "b".into(), vm: "web".into(), ..Profile::default() };
    let head = StateHead { end: LogEnd { seq: Seq(9), ..LogEnd::default() }, ..StateHead::default() };
    let chunk = |index, head| Message::State(Chunk { index, head, bytes: Bytes::from(text(5000)) });
    let [frame] = frames([text(100)]).try_into().unwrap();
    let lanes = [
        vec![
            Message::Hello(Hello { profile: profile.clone(), ..Hello::default() }),
            Message::Welcome(Welcome { profile, ..Welcome::default() }),
            Message::Refuse(Refusal::Busy),
            Message::StateAck { next: 3 },
            Message::Resign { renounced: Term(4), reason: "enough".into() },
            Message::Superseded,
        ],
        vec![Message::Log { time: units::Instant(1), released: EffectSeq(2), frame }],
        vec![chunk(0, None), chunk(1, Some(head))],
        vec![Message::Heartbeat {
            time: units::Instant(4),
            released: EffectSeq(5),
            protect: Some(Seq(0)),
            probe: true,
        }],
        vec![Message::Ack(Ack { held: Seq(7), applied: Seq(6), gap: true, ..Ack::default() })],
    ];
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(patient()).await;
    assert_eq!((a.peer(), b.peer()), (&host("host-b"), &host("host-a")));
    let ((to_b, mut from_b), (to_a, mut from_a)) = (a.split(), b.split());
    for (sender, receiver) in [(to_b, &mut from_a), (to_a, &mut from_b)] {
        let all = lanes.concat();
        assert!(all.iter().all(|message| sender.send(envelope(message.clone()))));
        let mut received = Vec::new();
        for _ in &all {
            received.push(recv(receiver).await);
        }
        for lane in &lanes {
            let of_lane = |envelope: &&Envelope| lane.contains(&envelope.message);
            let expected: Vec<Envelope> = lane.iter().cloned().map(envelope).collect();
            assert_eq!(received.iter().filter(of_lane).cloned().collect::<Vec<_>>(), expected);
        }
    }
}

/// From 50 bytes to 600 KiB, every other one compressible.
fn mixed_contents() -> impl Iterator<Item = Vec<u8>> {
    let mut noise = Noise(1);
    (0..4000).map(move |n| {
        let len = match n % 100 {
            0 => 5,
            99 => 600 << 10,
            _ => noise.below(4000) as usize,
        };
        if n % 2 == 0 { text(len) } else { noise.bytes(len) }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_frames_arrive_in_order_and_to_the_last_bit() {
    let frames: Arc<Vec<Frame>> = Arc::new(frames(mixed_contents()));
    assert_eq!(frames[0].size(), 50);
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(patient()).await;
    let ((to_b, _from_b), (to_a, mut from_a)) = (a.split(), b.split());
    let (sender, sent) = (to_b.clone(), Arc::clone(&frames));
    let sending = tokio::spawn(async move { send_all(&sender, &sent).await });
    expect_all(&mut from_a, &frames).await;
    sending.await.unwrap();
    let (sent, received) = (to_b.stats(), to_a.stats());
    assert_eq!((sent.records_sent, received.records_received), (4000, 4000));
    assert_eq!(sent.messages_sent, received.messages_received);
    assert!(sent.bytes_sent > 12 << 20, "half of 24 MiB does not compress: {sent:?}");
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let mut writer = LogWriter::new(LogEnd::default(), usize::MAX);
    let mut noise = Noise(2);
    for (n, len) in [(1, 512 << 10), (2, (512 << 10) - 300), (3, 1 << 20)] {
        append(&mut writer, n, noise.bytes(len));
    }
    let frame = writer.seal().unwrap().clone();
    assert!(frame.count() == 3 && frame.size() > (2 << 20) - 400, "{}", frame.size());
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(patient()).await;
    let ((to_b, _from_b), (_to_a, mut from_a)) = (a.split(), b.split());
    assert!(to_b.send(log(&frame)));
    expect_all(&mut from_a, &[frame]).await;
}

/// What remains of a byte of log, when nothing queues.
async fn compression(contents: impl IntoIterator<Item = Vec<u8>>, compress: bool) -> f64 {
    let config = LinkConfig { compress, ..patient() };
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(config).await;
    let ((to_b, _from_b), (_to_a, mut from_a)) = (a.split(), b.split());
    for frame in frames(contents) {
        assert!(to_b.send(log(&frame)));
        expect_all(&mut from_a, &[frame]).await;
    }
    to_b.stats().compression()
}

#[tokio::test]
async fn what_compresses_is_compressed_and_noise_is_left_alone() {
    let texts = || (0..40).map(|_| text(20_000));
    let noises = || (0..40).map(|n| Noise(n).bytes(20_000));
    assert!(compression(texts(), true).await < 0.05);
    assert_eq!(compression(noises(), true).await, 1.0);
    assert_eq!(compression(texts(), false).await, 1.0);
}

/// What a peer does with a log: it acknowledges every frame. Pieces of state it counts.
async fn acknowledge(to: LinkSender, mut from: LinkReceiver, state_bytes: Arc<AtomicU64>) {
    while let Ok(envelope) = from.recv().await {
        match envelope.message {
            Message::Log { frame, .. } => assert!(to.send(ack(frame.last(), frame.last()))),
            Message::State(chunk) => drop(state_bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed)),
            _ => {}
        }
    }
}

/// Pieces of state as fast as the queue takes them, until `stop`.
async fn pump_state(to: LinkSender, stop: Arc<AtomicBool>) {
    let piece = Bytes::from(Noise(3).bytes(1 << 20));
    let mut index = 0;
    while !stop.load(Ordering::Relaxed) {
        match to.send(state(index, piece.clone())) {
            true => index += 1,
            false => tokio::task::yield_now().await,
        }
    }
}

async fn acknowledged(from: &mut LinkReceiver, seq: Seq) {
    while recv(from).await.message != ack(seq, seq).message {}
}

/// Counts: how much state passes while the log makes a round trip. In one queue with the state it would be the whole
/// queue; behind the state, the log would not move at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_does_not_hold_up_the_log() {
    const ROUNDS: u64 = 50;
    let config = LinkConfig { window: 4 << 20, inbox_messages: 4, ..patient() };
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(config).await;
    let ((to_b, mut from_b), (to_a, from_a)) = (a.split(), b.split());
    let (state_bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    tokio::spawn(acknowledge(to_a, from_a, Arc::clone(&state_bytes)));
    let pump = tokio::spawn(pump_state(to_b.clone(), Arc::clone(&stop)));
    until("64 MiB of state", || state_bytes.load(Ordering::Relaxed) >= 64 << 20).await;
    let before = state_bytes.load(Ordering::Relaxed);
    for frame in frames((0..ROUNDS).map(|n| Noise(n).bytes(500))) {
        assert!(to_b.send(log(&frame)));
        acknowledged(&mut from_b, frame.last()).await;
    }
    let a_round = (state_bytes.load(Ordering::Relaxed) - before) / ROUNDS;
    eprintln!("{} KiB of state pass while the log makes a round trip", a_round >> 10);
    assert!(a_round > 0, "state flowed meanwhile");
    assert!(a_round < 32 << 20, "half of the queue: {a_round} bytes");
    stop.store(true, Ordering::Relaxed);
    pump.await.unwrap();
}

#[tokio::test]
async fn statistics_of_both_ends_add_up() {
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(patient()).await;
    let ((to_b, mut from_b), (to_a, mut from_a)) = (a.split(), b.split());
    let mut writer = LogWriter::new(LogEnd::default(), 1 << 20);
    let mut raw = 0;
    for n in 0..100 {
        (0..5).for_each(|m| append(&mut writer, 5 * n + m, Noise(n).bytes(30)));
        let frame = writer.seal().unwrap().clone();
        raw += 4 + log(&frame).to_bytes().len();
        assert!(to_b.send(log(&frame)));
        expect_all(&mut from_a, &[frame]).await;
    }
    assert!(to_a.send(ack(Seq(480), Seq(470))));
    recv(&mut from_b).await;
    let (at_a, at_b) = (to_b.stats(), to_a.stats());
    assert_eq!((at_a.messages_sent, at_b.messages_received), (100, 100));
    assert_eq!((at_b.messages_sent, at_a.messages_received), (1, 1));
    assert_eq!((at_a.records_sent, at_b.records_received), (500, 500));
    assert_eq!((at_a.log_bytes_raw, at_a.log_bytes_sent), (raw as u64, raw as u64), "too small to compress");
    assert_eq!((at_a.lag_records, at_a.messages_dropped, at_b.messages_dropped), (30, 0, 0));
    assert!(at_a.bytes_sent > raw as u64 && at_b.bytes_received > raw as u64, "{at_a:?} {at_b:?}");
}

/// When nothing has been taken for this long, all there is room for has been. A slow machine may stop short of that.
const QUIET: Duration = Duration::from_millis(300);

/// R9: who is not read is not sent more than queue, windows and inbox hold. Nothing that was taken is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_a_reader_that_sleeps_costs_a_bounded_amount_and_then_gets_everything() {
    const FRAME: usize = 64 << 10;
    let config =
        LinkConfig { queue_bytes: 1 << 20, window: 1 << 20, inbox_messages: 8, compress: false, ..patient() };
    // What is being written has left the queue's books only when it is written; a frame may wait for a place in the inbox.
    let limit = config.queue_bytes + config.window as usize + (config.inbox_messages + 1) * (FRAME + 1024);
    let Pair { a, b, endpoints: _open } = Cluster::new().pair(config.clone()).await;
    let ((to_b, _from_b), (_to_a, mut from_a)) = (a.split(), b.split());
    let frames = frames((0..200).map(|n| Noise(n).bytes(FRAME)));
    let (mut taken, mut refused, mut last_taken) = (0, 0, Instant::now());
    while last_taken.elapsed() < QUIET {
        if to_b.send(log(&frames[taken])) {
            (taken, last_taken) = (taken + 1, Instant::now());
        } else {
            refused += 1;
            tokio::task::yield_now().await;
        }
        assert!(to_b.log_queued() <= config.queue_bytes + 256);
        let bytes: usize = frames[..taken].iter().map(|frame| frame.size()).sum();
        assert!(bytes <= limit, "{bytes} bytes taken, {limit} are room for");
    }
    assert!(taken >= 15, "the queue alone holds that many: {taken}");
    assert_eq!(to_b.stats().messages_dropped, refused);
    expect_all(&mut from_a, &frames[..taken]).await;

    let (sender, again) = (to_b.clone(), frames.clone());
    let sending = tokio::spawn(async move { send_all(&sender, &again).await });
    expect_all(&mut from_a, &frames).await;
    sending.await.unwrap();
    assert_eq!(to_b.stats().messages_sent, (taken + frames.len()) as u64);
}

fn reason(end: Result<Envelope, NetError>) -> String {
    match end {
        Err(NetError::Lost { peer, reason }) => format!("{peer}: {reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_farewell_reaches_the_other_side() {
    let cluster = Cluster::new();
    let Pair { a, b, endpoints: _open } = cluster.pair(patient()).await;
    let ((to_b, mut from_b), (to_a, mut from_a)) = (a.split(), b.split());
    to_b.close();
    let end = reason(soon("the farewell", from_a.recv()).await);
    assert!(end.starts_with("host-a: closed by peer: closed"), "{end}");
    assert_eq!(reason(soon("the end here", from_b.recv()).await), "host-b: closed on this side");
    for message in [ack(Seq(1), Seq(1)), log(&frames([text(9)])[0]), envelope(Message::Superseded)] {
        until("noticing that the link is down", || !to_a.send(message.clone())).await;
    }
    assert_eq!((to_a.stats().messages_sent, to_a.stats().messages_dropped), (0, 3));

    let Pair { a, b, endpoints: _open } = cluster.pair(patient()).await;
    drop(a);
    let end = reason(soon("the farewell", b.split().1.recv()).await);
    assert!(end.starts_with("host-a: closed by peer"), "{end}");

    let Pair { a: _a, b, endpoints: [a_end, _b_end] } = cluster.pair(patient()).await;
    soon("closing", a_end.close()).await;
    let end = reason(soon("the farewell", b.split().1.recv()).await);
    assert!(end.starts_with("host-a: closed by peer"), "{end}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_unreachable() {
    let cluster = Cluster::new();
    let config = LinkConfig { connect_timeout: Duration::from_millis(200), ..patient() };
    let a = cluster.endpoint("host-a", config);
    let silent = std::net::UdpSocket::bind(ANY_PORT).unwrap();
    let error = a.connect(silent.local_addr().unwrap(), &host("host-b")).await.err().unwrap();
    assert!(matches!(error, NetError::Unreachable { .. }), "{error:?}");
    let text = in_full(&error);
    assert!(text.starts_with("cannot reach host-b at 127.0.0.1:"), "{text}");
    assert!(text.contains("is ft running there, and UDP let through?"), "{text}");
}

const TO_DO: &str = "run the same version of ft on both hosts";

#[tokio::test]
async fn a_caller_of_another_version_is_told_what_to_do() {
    let cluster = Cluster::new();
    let b = cluster.endpoint("host-b", patient());
    let tls = cluster.identity("host-a").client_config(b"ft/0");
    let client = quinn::Endpoint::client(ANY_PORT).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let calling = client.connect_with(config, b.local_addr().unwrap(), "host-b").unwrap();
    let (caller, accepted) = soon("the refusal", async {
        tokio::join!(calling, async { next(&b).await.identify(&b).await.err().unwrap() })
    })
    .await;
    assert!(caller.is_err());
    assert!(matches!(accepted, NetError::Protocol { .. }), "{accepted:?}");
    let text = in_full(&accepted);
    assert!(text.contains(TO_DO) && text.contains("127.0.0.1"), "{text}");
}

#[tokio::test]
async fn a_host_that_answers_in_another_version_is_named() {
    assert_eq!(ALPN, b"ft/1");
    let cluster = Cluster::new();
    let a = cluster.endpoint("host-a", patient());
    let tls = cluster.identity("host-b").server_config(b"ft/0");
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let server = quinn::Endpoint::server(config, ANY_PORT).unwrap();
    let (called, name) = (server.local_addr().unwrap(), host("host-b"));
    let (error, answered) = soon("the refusal", async {
        tokio::join!(a.connect(called, &name), async { server.accept().await.unwrap().await })
    })
    .await;
    assert!(answered.is_err());
    let error = error.err().unwrap();
    assert!(matches!(error, NetError::Protocol { .. }), "{error:?}");
    let text = in_full(&error);
    assert!(text.contains(TO_DO) && text.starts_with("host-b "), "{text}");
}
