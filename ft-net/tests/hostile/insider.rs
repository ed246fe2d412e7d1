//! A peer with a good certificate that does not keep to the protocol.

use super::{ANY_PORT, Honest, patient, soon};
use crate::traffic::{Noise, ack, envelope, frames, log, text};
use bytes::Bytes;
use ft_core::log::{Accepted, LogReader};
use ft_core::message::{Envelope, Lane, MAX_MESSAGE_BYTES, Message};
use ft_core::units::{Seq, Term, Tick};
use ft_net::{ALPN, LinkConfig, NetError};
use proptest::prelude::*;
use quinn::crypto::rustls::QuicClientConfig;
use std::cell::RefCell;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

const CONTROL: u8 = 1;
const LOG: u8 = 2;
const STATE: u8 = 4;

/// What it is called in its certificate.
const NAME: &str = "mallory";

/// Its end of a connection.
struct Insider {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

impl Insider {
    /// Connects, and says nothing yet.
    async fn call(honest: &Honest) -> Self {
        let tls = honest.cluster.identity(NAME).client_config(ALPN);
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::client(ANY_PORT).unwrap();
        let connecting = endpoint.connect_with(config, honest.address, "host").unwrap();
        Self { connection: soon("a connection", connecting).await.unwrap(), _endpoint: endpoint }
    }

    /// Connects and behaves until there is a link. The stream is the control lane.
    async fn link(honest: &Honest) -> (Self, quinn::SendStream) {
        let insider = Self::call(honest).await;
        let control = insider.lane(CONTROL).await;
        (insider, control)
    }

    /// A stream that begins with these bytes.
    async fn stream(&self, bytes: &[u8]) -> quinn::SendStream {
        let mut stream = soon("a stream", self.connection.open_uni()).await.unwrap();
        say(&mut stream, bytes).await;
        stream
    }

    async fn lane(&self, code: u8) -> quinn::SendStream {
        self.stream(&[b'F', b'T', 1, code]).await
    }

    /// Why the honest host ended the connection, in its own words.
    async fn farewell(&self) -> String {
        soon("the end", self.connection.closed()).await.to_string()
    }
}

async fn say(stream: &mut quinn::SendStream, bytes: &[u8]) {
    // The other end may have had enough already.
    let _ = soon("writing", stream.write_all(bytes)).await;
}

/// A message as it stands in a stream.
fn encoded(envelope: &Envelope) -> Vec<u8> {
    framed(&envelope.to_bytes())
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes()[..], body].concat()
}

/// A message that is compressed, or says so.
fn packed(raw_len: u32, zstd: &[u8]) -> Vec<u8> {
    let len = (zstd.len() as u32 + 4) | 1 << 31;
    [&len.to_le_bytes()[..], &raw_len.to_le_bytes(), zstd].concat()
}

/// The first stream must be one of ours.
#[tokio::test]
async fn streams_that_are_none_of_ours_are_refused() {
    let cases = [
        (*b"GET ", "a stream that does not begin as one of ours"),
        ([b'F', b'T', 9, 1], "framing version 9; this build speaks 1"),
        ([b'F', b'T', 1, 7], "a stream that does not begin as one of ours"),
        ([b'F', b'T', 1, 3], "a stream that does not begin as one of ours"),
        ([0; 4], "a stream that does not begin as one of ours"),
    ];
    let noises = (0..10).map(|n| (Noise(n).bytes(4).try_into().unwrap(), cases[0].1));
    let mut honest = Honest::start();
    for (preface, error) in cases.into_iter().chain(noises) {
        let insider = Insider::call(&honest).await;
        let _first = insider.stream(&preface).await;
        honest.expect_end(NAME, error).await;
        assert!(insider.farewell().await.contains(error));

        let (insider, _control) = Insider::link(&honest).await;
        let _second = insider.stream(&preface).await;
        honest.expect_end(NAME, error).await;
        assert!(insider.farewell().await.contains(error));
    }
    honest.still_serves().await;
}

/// After a good preface, bytes that end the link.
#[tokio::test]
async fn messages_that_nobody_would_send_end_the_link() {
    let [frame] = frames([text(3000)]).try_into().unwrap();
    let mut corrupt = encoded(&log(&frame));
    *corrupt.last_mut().unwrap() ^= 1;
    let mut unknown = encoded(&envelope(Message::Superseded));
    unknown[4] = 99;
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
    let limit = MAX_MESSAGE_BYTES as u32;
    let too_long = |len: u32| format!("a message of {len} bytes, above the limit of {limit}");
    let no_length = "compressed bytes that do not decompress to the length they state".to_owned();
    let cases = [
        (CONTROL, 0x7fff_ffff_u32.to_le_bytes().to_vec(), too_long(0x7fff_ffff)),
        (CONTROL, u32::MAX.to_le_bytes().to_vec(), too_long(0x7fff_ffff)),
        (LOG, (limit + 1).to_le_bytes().to_vec(), too_long(limit + 1)),
        (LOG, packed(100 << 20, &bomb), too_long(100 << 20)),
        (STATE, packed(1000, &bomb), no_length.clone()),
        (STATE, packed(limit, &bomb), no_length.clone()),
        (LOG, packed(1000, &zstd::bulk::compress(&[1; 999], 1).unwrap()), no_length.clone()),
        (LOG, packed(20, b"no zstd"), no_length.clone()),
        (LOG, framed(b"")[..].to_vec(), "cut short at byte 0".to_owned()),
        (CONTROL, (3 | 1_u32 << 31).to_le_bytes().iter().chain(b"abc").copied().collect(), no_length),
        (LOG, corrupt, "frame at record #1 is corrupt".to_owned()),
        (CONTROL, unknown, "unknown message kind 99".to_owned()),
        (CONTROL, encoded(&log(&frame)), "a message on the wrong lane".to_owned()),
        (LOG, encoded(&envelope(Message::Superseded)), "a message on the wrong lane".to_owned()),
        (STATE, encoded(&ack(Seq(1), Seq(1))), "a message on the wrong lane".to_owned()),
        (LOG, framed(&Noise(3).bytes(1000)), "unknown message kind".to_owned()),
    ];
    let mut honest = Honest::start();
    for (lane, bytes, error) in cases {
        let (insider, mut control) = Insider::link(&honest).await;
        match lane {
            CONTROL => say(&mut control, &bytes).await,
            lane => say(&mut insider.lane(lane).await, &bytes).await,
        }
        honest.expect_end(NAME, &error).await;
        let farewell = insider.farewell().await;
        assert!(farewell.contains("closed by peer"), "{farewell}");
    }
    honest.still_serves().await;
}

#[tokio::test]
async fn garbage_in_datagrams_ends_the_link() {
    let [frame] = frames([text(300)]).try_into().unwrap();
    let whole = |envelope: &Envelope| encoded(envelope)[4..].to_vec();
    let long = [whole(&ack(Seq(1), Seq(1))), vec![0]].concat();
    let cases = [
        (Vec::new(), "cut short at byte 0"),
        (vec![0; 100], "unknown message kind 0"),
        ([&[99][..], &[0; 1000]].concat(), "unknown message kind 99"),
        (long, "at byte"),
        (whole(&log(&frame)), "a message on the wrong lane"),
        (whole(&envelope(Message::Superseded)), "a message on the wrong lane"),
    ];
    let mut honest = Honest::start();
    for (datagram, error) in cases {
        let (insider, _control) = Insider::link(&honest).await;
        insider.connection.send_datagram(Bytes::from(datagram)).unwrap();
        honest.expect_end(NAME, error).await;
    }
    honest.still_serves().await;
}

#[tokio::test]
async fn half_a_message_is_not_delivered_and_its_end_is_noticed() {
    let mut honest = Honest::start();
    let whole =
        encoded(&envelope(Message::Resign { renounced: Term(4), reason: "I have had enough".into() }));
    for cut in [1, 4, 5, whole.len() - 1] {
        let (insider, mut control) = Insider::link(&honest).await;
        say(&mut control, &whole[..cut]).await;
        // Silence follows. Other lanes go on.
        insider.connection.send_datagram(Bytes::from(encoded(&ack(Seq(9), Seq(9))).split_off(4))).unwrap();
        assert_eq!(honest.note().await.unwrap(), ack(Seq(9), Seq(9)));
        control.finish().unwrap();
        honest.expect_end(NAME, "a stream that ended in the middle").await;
    }
    let (_insider, mut control) = Insider::link(&honest).await;
    say(&mut control, &whole[..5]).await;
    control.reset(7u32.into()).unwrap();
    honest.expect_end(NAME, "a stream that ended in the middle").await;
    honest.still_serves().await;
}

/// A stream that ends between two messages is only a lane that is not used any more.
#[tokio::test]
async fn streams_that_come_and_go_are_ignored() {
    let mut honest = Honest::start();
    let (insider, mut control) = Insider::link(&honest).await;
    for _ in 0..500 {
        insider.lane(STATE).await.finish().unwrap();
    }
    let said = envelope(Message::StateAck { next: 5 });
    say(&mut control, &encoded(&said)).await;
    assert_eq!(honest.note().await.unwrap(), said);
    insider.connection.close(9u32.into(), b"bye");
    honest.expect_end(NAME, "bye").await;
    honest.still_serves().await;
}

#[tokio::test]
async fn a_lane_that_is_not_read_ends_the_link() {
    let mut honest = Honest::start();
    let (insider, mut control) = Insider::link(&honest).await;
    soon("their control lane", insider.connection.accept_uni()).await.unwrap().stop(5u32.into()).unwrap();
    let said = envelope(Message::StateAck { next: 5 });
    say(&mut control, &encoded(&said)).await;
    assert_eq!(honest.note().await.unwrap(), said);
    // The answer cannot be written.
    honest.expect_end(NAME, "a lane that it does not read any more").await;
    honest.still_serves().await;
}

/// R9: three streams, none in both directions. More than that, QUIC does not let a peer open.
#[tokio::test]
async fn r9_no_more_streams_than_lanes_can_be_opened() {
    let mut honest = Honest::start();
    let (insider, mut control) = Insider::link(&honest).await;
    let _more = [insider.lane(LOG).await, insider.lane(STATE).await];
    let mut fourth = std::pin::pin!(insider.connection.open_uni());
    let mut two_way = std::pin::pin!(insider.connection.open_bi());
    let said = envelope(Message::StateAck { next: 5 });
    say(&mut control, &encoded(&said)).await;
    assert_eq!(honest.note().await.unwrap(), said);
    std::future::poll_fn(|cx| {
        assert!(fourth.as_mut().poll(cx).is_pending());
        assert!(two_way.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    honest.still_serves().await;
}

/// What a peer writes is shown to people: it must not reach their terminals as it is.
#[tokio::test]
async fn words_of_a_peer_are_printable() {
    let mut honest = Honest::start();
    let (insider, _control) = Insider::link(&honest).await;
    insider.connection.close(9u32.into(), b"bye\x1b[2J\r\n\xe2\x80\xaeall is well");
    honest.expect_end(NAME, "bye?[2J???all is well").await;
    let insider = Insider::call(&honest).await;
    insider.connection.close(9u32.into(), b"bye\x1b[2J");
    honest.expect_end("bye?[2J", "bye?[2J").await;
    honest.still_serves().await;
}

/// The channel does not judge what is old: the log does.
#[tokio::test]
async fn frames_sent_again_are_duplicates_to_the_log() {
    let mut honest = Honest::start();
    let (insider, _control) = Insider::link(&honest).await;
    let mut lane = insider.lane(LOG).await;
    let frames = frames((0..10).map(|n| text(n * 100)));
    let mut reader = LogReader::new(Default::default(), Tick(0));
    let mut news = Vec::new();
    for frame in frames.iter().chain(&frames).chain(&frames[..5]) {
        say(&mut lane, &encoded(&log(frame))).await;
        let Message::Log { frame, .. } = honest.note().await.unwrap().message else { panic!("not a frame") };
        news.push(reader.accept(&frame).unwrap() != Accepted::Duplicate);
    }
    assert_eq!(news, [vec![true; 10], vec![false; 15]].concat());
    honest.still_serves().await;
}

/// A peer that is let in and then does not even open its control stream.
#[tokio::test]
async fn a_peer_that_says_nothing_at_all_is_given_up() {
    let config = LinkConfig { connect_timeout: Duration::from_secs(2), ..patient() };
    let mut honest = Honest::start_with(config);
    let (silent, slow) = (Insider::call(&honest).await, Insider::call(&honest).await);
    let _half = slow.stream(b"FT").await;
    for _ in [&silent, &slow] {
        honest.expect_end("127.0.0.1", "handshake not finished in time").await;
    }
    honest.still_serves().await;
}

fn a_message() -> impl Strategy<Value = Envelope> {
    prop_oneof![
        any::<u32>().prop_map(|next| envelope(Message::StateAck { next })),
        "[a-z]{0,40}".prop_map(|reason| envelope(Message::Resign { renounced: Term(4), reason })),
        Just(envelope(Message::Superseded)),
    ]
}

/// Messages, and what is done to their bytes.
fn a_stream() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let some = proptest::collection::vec(a_message(), 0..6);
    let flips = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (some, bytes, flips, any::<bool>(), any::<bool>()).prop_map(|(some, bytes, flips, framing, packing)| {
        let mut stream: Vec<u8> = some.iter().flat_map(encoded).collect();
        match (framing, packing) {
            (true, false) => stream.extend(framed(&bytes)),
            (true, true) => {
                stream.extend(packed(bytes.len() as u32, &zstd::bulk::compress(&bytes, 1).unwrap()))
            }
            (false, _) => stream.extend(bytes),
        }
        for (index, xor) in flips {
            if !stream.is_empty() {
                let at = index.index(stream.len());
                stream[at] ^= xor;
            }
        }
        stream
    })
}

/// The messages at the front of a stream, and whether anything follows them.
fn front(stream: &[u8]) -> (Vec<Envelope>, bool) {
    let (mut messages, mut rest) = (Vec::new(), stream);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let word = u32::from_le_bytes(*length);
        let len = (word & !(1 << 31)) as usize;
        let Some(body) = after.get(..len) else { break };
        let raw = if word >> 31 == 0 { Some(body.to_vec()) } else { unpacked(body) };
        let envelope = raw.as_ref().and_then(|raw| Envelope::decode(raw.clone().into()).ok());
        let Some(envelope) = envelope.filter(|envelope| envelope.message.lane() == Lane::Control) else {
            break;
        };
        assert_eq!(
            raw.unwrap(),
            encoded(&envelope)[4..],
            "a message that decodes is what the encoder writes"
        );
        messages.push(envelope);
        rest = &after[len..];
    }
    (messages, !rest.is_empty())
}

fn unpacked(body: &[u8]) -> Option<Vec<u8>> {
    let (raw_len, zstd) = body.split_first_chunk::<4>()?;
    let raw_len = u32::from_le_bytes(*raw_len) as usize;
    let raw = (raw_len <= MAX_MESSAGE_BYTES).then(|| zstd::bulk::decompress(zstd, raw_len).ok())??;
    (raw.len() == raw_len).then_some(raw)
}

/// Whatever stands in a stream: what is delivered is the messages up to the first bytes that no encoder writes. These
/// end the link, and nothing else does.
#[test]
fn arbitrary_streams_never_deliver_what_was_not_encoded() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let honest = runtime.block_on(async { RefCell::new(Honest::start()) });
    proptest!(ProptestConfig::with_cases(200), |(stream in a_stream())| {
        let mut honest = honest.borrow_mut();
        runtime.block_on(async {
            let (insider, mut control) = Insider::link(&honest).await;
            say(&mut control, &stream).await;
            // Where the other end has had enough already there is nothing to finish.
            let _ = control.finish();
            let (messages, is_more) = front(&stream);
            for expected in messages {
                prop_assert_eq!(honest.note().await.unwrap(), expected);
            }
            if !is_more {
                let after = ack(Seq(1), Seq(1));
                insider.connection.send_datagram(Bytes::from(encoded(&after).split_off(4))).unwrap();
                prop_assert_eq!(honest.note().await.unwrap(), after);
                insider.connection.close(9u32.into(), b"bye");
            }
            let end = honest.note().await;
            let by_fault = matches!(end, Err(NetError::Protocol { .. } | NetError::Message { .. }));
            let in_peace = matches!(end, Err(NetError::Lost { .. }));
            prop_assert!(if is_more { by_fault } else { in_peace }, "{:?}", end);
            Ok(())
        })?;
    });
    runtime.block_on(honest.into_inner().still_serves());
}
