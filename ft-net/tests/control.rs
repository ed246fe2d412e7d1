//! Agents that ask each other; some of them hostile, silent or restarted (R12, R9).
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "each test takes what it needs")]
mod cluster;

use bytes::Bytes;
use cluster::{ANY_PORT, Cluster, DEADLINE, host, in_full, soon};
use ft_net::control::{
    ANSWER_BYTES_MAX, CONTROL_ALPN, Call, ControlEndpoint, QUESTION_BYTES_MAX, QUESTIONS_MAX,
};
use ft_net::{Endpoint, NetError, Peer};
use quinn::crypto::rustls::QuicClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// An agent that repeats what it is asked, with the asker's name in front; what begins with "-" it leaves unanswered.
struct Agent {
    endpoint: Arc<ControlEndpoint>,
    peer: Peer,
    serving: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start(cluster: &Cluster, name: &str) -> Self {
        Self::start_at(ANY_PORT, cluster, name, None)
    }

    fn start_at(address: SocketAddr, cluster: &Cluster, name: &str, allowed: Option<&[&str]>) -> Self {
        let allowed = allowed.map(|names| names.iter().map(|name| host(name)).collect());
        let endpoint = ControlEndpoint::bind(address, cluster.identity(name), allowed).unwrap();
        let endpoint = Arc::new(endpoint);
        let peer = Peer { name: host(name), address: endpoint.local_addr().unwrap() };
        let (calls, mut asked) = mpsc::channel::<Call>(8);
        tokio::spawn(Arc::clone(&endpoint).serve(calls));
        let serving = tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(call) = asked.recv().await {
                match call.question.first() {
                    Some(b'-') => unanswered.push(call),
                    Some(b'+') => drop(call.answer.send(vec![0; ANSWER_BYTES_MAX + 1].into())),
                    Some(b'.') => drop(call.answer),
                    _ => {
                        let answer = [call.from.as_str().as_bytes(), b": ", &call.question].concat();
                        drop(call.answer.send(answer.into()));
                    }
                }
            }
        });
        Self { endpoint, peer, serving }
    }

    async fn ask(&self, other: &Self, question: &[u8]) -> Result<Bytes, NetError> {
        self.endpoint.ask(&other.peer, Bytes::copy_from_slice(question), DEADLINE).await
    }

    async fn expect(&self, other: &Self, question: &str) {
        let answer = soon("an answer", self.ask(other, question.as_bytes())).await.unwrap();
        assert_eq!(answer, format!("{}: {question}", self.peer.name).as_bytes());
    }

    async fn expect_error(&self, other: &Self, question: &[u8], words: &str) {
        let error = in_full(&soon("an error", self.ask(other, question)).await.unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn agents_ask_each_other_and_are_told_who_asks() {
    let cluster = Cluster::new();
    let [a, b] = ["host-a", "host-b"].map(|name| Agent::start(&cluster, name));
    a.expect(&b, "who am I?").await;
    b.expect(&a, "and I?").await;
    let long = "x".repeat(QUESTION_BYTES_MAX);
    a.expect(&b, &long).await;
    let many = (0..100).map(|n| {
        let (a, b) = (&a, &b);
        async move { a.expect(b, &format!("question {n}")).await }
    });
    for each in many {
        each.await;
    }
}

#[tokio::test]
async fn r12_other_clusters_and_hosts_that_may_not_ask_are_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let b = Agent::start_at(ANY_PORT, &cluster, "host-b", Some(&["host-a"]));
    let stranger = Agent::start(&other, "host-a");
    stranger.expect_error(&b, b"let me in", "was issued by the CA `test`").await;
    let c = Agent::start(&cluster, "host-c");
    c.expect_error(&b, b"let me in", "host-b accepts only host-a").await;
    let a = Agent::start(&cluster, "host-a");
    let misnamed = Peer { name: host("host-c"), ..b.peer.clone() };
    let error = a.endpoint.ask(&misnamed, Bytes::from_static(b"c?"), DEADLINE).await.unwrap_err();
    assert!(matches!(error, NetError::Refused(_)), "{error:?}");
    // The port of links is not the port of agents.
    let links = Endpoint::bind(ANY_PORT, cluster.identity("host-d"), None, cluster::patient()).unwrap();
    let d = Peer { name: host("host-d"), address: links.local_addr().unwrap() };
    let accept = async { drop(links.accept().await.unwrap().identify(&links).await) };
    let ask = a.endpoint.ask(&d, Bytes::from_static(b"agent?"), DEADLINE);
    let (error, ()) = soon("a refusal", async { tokio::join!(ask, accept) }).await;
    assert!(in_full(&error.unwrap_err()).contains("does not know ft-control/1"));
    a.expect(&b, "still there?").await;
}

#[tokio::test]
async fn r9_what_is_too_long_is_refused_on_either_side() {
    let cluster = Cluster::new();
    let [a, b] = ["host-a", "host-b"].map(|name| Agent::start(&cluster, name));
    let long = vec![b'x'; QUESTION_BYTES_MAX + 1];
    a.expect_error(&b, &long, "above its limit").await;
    a.expect_error(&b, b"+", "an answer above the limit").await;
    a.expect_error(&b, b".", "it gave no answer").await;
    // A caller that does not keep to the limit.
    let mut quic = quinn::Endpoint::client(ANY_PORT).unwrap();
    let tls = QuicClientConfig::try_from(cluster.identity("host-c").client_config(CONTROL_ALPN)).unwrap();
    quic.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    let connection = soon("a connection", quic.connect(b.peer.address, "host-b").unwrap()).await.unwrap();
    let (mut there, mut back) = connection.open_bi().await.unwrap();
    let _ = there.write_all(&long).await;
    let _ = there.finish();
    let refused = soon("a refusal", back.read_to_end(100)).await.unwrap_err();
    let reset = quinn::ReadToEndError::Read(quinn::ReadError::Reset(quinn::VarInt::from_u32(1)));
    assert_eq!(refused, reset);
    a.expect(&b, "still there?").await;
}

/// As many questions as may be open, none of them ever answered or even finished: others are served all the same.
#[tokio::test]
async fn r9_a_peer_that_stalls_holds_up_no_other() {
    let cluster = Cluster::new();
    let [a, b, c] = ["host-a", "host-b", "host-c"].map(|name| Agent::start(&cluster, name));
    let (endpoint, peer) = (Arc::clone(&a.endpoint), b.peer.clone());
    for _ in 0..QUESTIONS_MAX {
        let (endpoint, peer) = (Arc::clone(&endpoint), peer.clone());
        tokio::spawn(async move {
            let _ = endpoint.ask(&peer, Bytes::from_static(b"- for ever"), DEADLINE).await;
        });
    }
    c.expect(&b, "am I held up?").await;
    let late = endpoint.ask(&peer, Bytes::from_static(b"one too many"), Duration::from_millis(300)).await;
    let late = in_full(&late.unwrap_err());
    assert!(late.contains("host-b") && late.contains("no answer within 300ms"), "{late}");
    // Nor does a peer that answers nothing hold up what is asked of others.
    a.expect(&c, "are you there?").await;
}

#[tokio::test]
async fn an_agent_that_is_started_again_is_asked_again() {
    let cluster = Cluster::new();
    let a = Agent::start(&cluster, "host-a");
    let mut b = Agent::start(&cluster, "host-b");
    for _ in 0..2 {
        a.expect(&b, "there?").await;
        let address = b.peer.address;
        b.endpoint.close().await;
        b.serving.abort();
        drop(b);
        b = soon("the port", rebound(&cluster, address)).await;
        a.expect(&b, "there again?").await;
    }
    let gone = b.peer.clone();
    b.endpoint.close().await;
    drop(b);
    let error =
        a.endpoint.ask(&gone, Bytes::from_static(b"?"), Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. } | NetError::Lost { .. }), "{error:?}");
}

/// The agent at the address that it had, once the old one's socket is closed.
async fn rebound(cluster: &Cluster, address: SocketAddr) -> Agent {
    while std::net::UdpSocket::bind(address).is_err() {
        tokio::task::yield_now().await;
    }
    Agent::start_at(address, cluster, "host-b", None)
}
