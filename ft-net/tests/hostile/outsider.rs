//! Callers without a certificate of the cluster (R12).

use super::{ANY_PORT, Honest, soon};
use crate::cluster::linked::{DIALER, Host};
use crate::cluster::{Cluster, host, in_full, next, patient};
use crate::traffic::{Noise, envelope};
use ft_core::message::Message;
use ft_core::units::HostId;
use ft_net::identity::DAY;
use ft_net::{ALPN, Endpoint, LinkConfig, NetError};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;

/// What a caller presents.
type Papers = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

/// The papers of a host of this cluster.
fn papers(cluster: &Cluster, name: &str) -> Papers {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().join(name);
    cluster.ca().issue(&host(name), DAY).unwrap().write(&dir).unwrap();
    let certificate = CertificateDer::from_pem_file(dir.join("host.crt")).unwrap();
    Some((certificate, PrivateKeyDer::from_pem_file(dir.join("host.key")).unwrap()))
}

/// A client that takes any cluster's word for who it is, and presents these papers.
fn client(trusts: &Cluster, papers: Papers) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.ca().certificate_pem().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match papers {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

#[tokio::test]
async fn r12_callers_without_the_clusters_certificate_are_refused() {
    let mut honest = Honest::start();
    let cases = [
        (None, "it presented no certificate"),
        (papers(&Cluster::new(), "friend"), "the certificate of friend was issued by the CA `test`"),
    ];
    for (papers, error) in cases {
        let endpoint = quinn::Endpoint::client(ANY_PORT).unwrap();
        let connecting =
            endpoint.connect_with(client(&honest.cluster, papers), honest.address, "host").unwrap();
        // For the caller the handshake is over before it is judged. What it says then is not listened to.
        let connection = soon("a handshake", connecting).await.unwrap();
        if let Ok(mut stream) = connection.open_uni().await {
            let _ = stream.write_all(b"FT\x01\x01 let me in").await;
        }
        honest.expect_end("127.0.0.1", error).await;
        soon("the refusal", connection.closed()).await;
    }
    honest.still_serves().await;
}

/// The caller learns why, in words: over QUIC it is told only after its own handshake is over.
#[tokio::test]
async fn r12_a_host_that_is_not_allowed_is_told_so() {
    let cluster = Cluster::new();
    let allowed = Some([host("host-a")].into());
    let b = Endpoint::bind(ANY_PORT, cluster.identity("host-b"), allowed, patient()).unwrap();
    let (called, name) = (b.local_addr().unwrap(), host("host-b"));
    for (caller, is_allowed) in [("host-c", false), ("host-a", true)] {
        let caller = cluster.endpoint(caller, patient());
        let both = async {
            tokio::join!(caller.connect(called, &name), async { next(&b).await.identify(&b).await })
        };
        let (there, here) = soon("a verdict", both).await;
        assert_eq!((there.is_ok(), here.is_ok()), (is_allowed, is_allowed));
        for error in [there.err(), here.err()].into_iter().flatten() {
            let text = in_full(&error);
            assert!(matches!(error, NetError::Refused(_)), "{error:?}");
            assert!(text.contains("of host-c is good, but host-b accepts only host-a"), "{text}");
        }
    }
}

/// Packets that begin like QUIC's and go on like nothing.
fn garbage(noise: &mut Noise, initial: &[u8]) -> Vec<u8> {
    let len = 1 + noise.below(1472) as usize;
    let mut bytes = noise.bytes(len);
    let long = |first: u8, version: u32| [&[first][..], &version.to_be_bytes(), &[8; 18]].concat();
    let head = match noise.below(6) {
        // An Initial, a Handshake, a Retry of version 1; a version that nobody knows; the short header.
        0 => long(0xc3, 1),
        1 => long(0xe1, 1),
        2 => long(0xf0, 1),
        3 => long(0xc0, 0x0a0a_0a0a),
        4 => vec![0x40],
        _ => {
            bytes = initial.to_vec();
            let at = noise.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 + noise.below(255) as u8;
            Vec::new()
        }
    };
    let overlap = head.len().min(bytes.len());
    bytes[..overlap].copy_from_slice(&head[..overlap]);
    bytes
}

/// The first packet of a real connection.
async fn an_initial(cluster: &Cluster) -> Vec<u8> {
    let listener = tokio::net::UdpSocket::bind(ANY_PORT).await.unwrap();
    let endpoint = cluster.endpoint("caller", patient());
    let (called, name) = (listener.local_addr().unwrap(), host("host"));
    let mut bytes = vec![0; 2000];
    tokio::select! {
        _ = endpoint.connect(called, &name) => panic!("nobody answers"),
        len = listener.recv(&mut bytes) => bytes.truncate(len.unwrap()),
    }
    bytes
}

#[tokio::test]
async fn r12_garbage_at_the_udp_port_reaches_nobody() {
    let mut honest = Honest::start();
    let initial = an_initial(&honest.cluster).await;
    assert!(initial.len() >= 1200 && initial[0] & 0xf0 == 0xc0, "RFC 9000 sections 14.1 and 17.2.2");
    let socket = UdpSocket::bind(ANY_PORT).unwrap();
    let mut noise = Noise(4);
    for n in 0..10_000 {
        socket.send_to(&garbage(&mut noise, &initial), honest.address).unwrap();
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    honest.serves().await;
    // A damaged beginning of a real connection counts as a caller, up to where the damage shows.
    while let Ok(noted) = honest.noted.try_recv() {
        assert!(matches!(noted, Err(NetError::Lost { .. })), "{noted:?}");
    }
}

/// Half-open connections are in `flood`.
#[test]
fn r12_garbage_at_the_tripwires_port_reaches_nobody() {
    let cluster = Cluster::new();
    let b = Host::start(&cluster, 2, &[DIALER], LinkConfig::default());
    let mut noise = Noise(5);
    let mut held = Vec::new();
    for n in 0..200 {
        let mut caller = TcpStream::connect(b.address()).unwrap();
        // A TLS record of a handshake that is none; what follows the header is noise either way.
        let head: &[u8] = if n % 2 == 0 { &[22, 3, 1, 0x10, 0] } else { b"GET / HTTP/1.1\r\n" };
        // It may have been shown the door in the meantime.
        let _ = caller.write_all(&[head, &noise.bytes(5000)].concat());
        held.push(caller);
    }
    let a = Host::start(&cluster, 1, &[(2, b.address())], LinkConfig::default());
    a.expect_up(2);
    b.expect_up(1);
    a.expect_watched(2);
    b.expect_watched(1);
    let said = envelope(Message::StateAck { next: 1 });
    assert!(a.network.send(HostId(2), said.clone()));
    b.expect_message(1, &said);
}
