//! R12 over the transports that hosts really use: the reason for a refusal must come through them.

use super::{ALPN, ca, certified, client_with, expired, host, identity};
use ft_net::identity::{HostName, PeerRefused, peer_host};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::AsyncReadExt;

/// Over TCP: the errors of tokio-rustls still carry the reason.
#[tokio::test]
async fn r12_the_reason_survives_tokio_rustls() {
    let ca = ca("prod");
    let (a, old) = (identity(&ca, "host-a"), expired(&ca, "host-b"));
    let (near, far) = tokio::io::duplex(1 << 16);
    let acceptor = tokio_rustls::TlsAcceptor::from(a.server_config(ALPN));
    let connector = tokio_rustls::TlsConnector::from(old.client_config(ALPN));
    let name = ServerName::try_from("host-a").unwrap();
    let (server, client) = tokio::join!(async { acceptor.accept(near).await.map(drop) }, async {
        connector.connect(name, far).await.unwrap().read_u8().await
    });
    let (server, client) = (server.unwrap_err(), client.unwrap_err());
    assert!(server.to_string().contains("the certificate of host-b expired"), "{server}");
    let ours = a.explain_io("host-b", &server, SystemTime::now()).unwrap();
    assert!(matches!(ours, PeerRefused::TheirCertificate { .. }), "{ours}");
    let theirs = old.explain_io("host-a", &client, SystemTime::now()).unwrap().to_string();
    assert!(theirs.starts_with("host-a refused our certificate (host-b): expired"), "{theirs}");
}

/// Connects over QUIC and returns how it ended on either side: the host that was met, or the error. A
/// server's refusal reaches the client after its handshake, so a client that got through waits for the end.
async fn quic(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    called: &str,
) -> [Result<HostName, quinn::ConnectionError>; 2] {
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).unwrap()));
    let server = quinn::Endpoint::server(server, local).unwrap();
    let client_config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).unwrap()));
    let client = quinn::Endpoint::client(local).unwrap();
    let connecting = client.connect_with(client_config, server.local_addr().unwrap(), called).unwrap();
    let accepted = async { server.accept().await.unwrap().await };
    let (met_by_client, met_by_server) = tokio::join!(connecting, accepted);
    let client_end = match (met_by_client, &met_by_server) {
        (Ok(connection), Err(_)) => Err(connection.closed().await),
        (result, _) => result.map(|connection| quic_peer(&connection)),
    };
    [client_end, met_by_server.map(|connection| quic_peer(&connection))]
}

fn quic_peer(connection: &quinn::Connection) -> HostName {
    let identity = connection.peer_identity().unwrap();
    peer_host(identity.downcast_ref::<Vec<CertificateDer<'static>>>().unwrap()).unwrap()
}

#[tokio::test]
async fn r12_two_hosts_know_each_other_over_quic() {
    let ca = ca("prod");
    let (a, b) = (identity(&ca, "host-a"), identity(&ca, "host-b"));
    let [client, server] = quic(a.client_config(ALPN), b.server_config(ALPN), "host-b").await;
    assert_eq!((client.unwrap(), server.unwrap()), (host("host-b"), host("host-a")));
}

/// Over QUIC the precise sentence reaches both ends, whoever refuses.
#[tokio::test]
async fn r12_over_quic_both_ends_learn_why() {
    let (ca, other) = (ca("prod"), ca("test"));
    let (a, old, stranger) = (identity(&ca, "host-a"), expired(&ca, "host-b"), identity(&other, "host-c"));
    let pinned = a.server_config_for(ALPN, Some([host("host-a")].into()));
    let of_host_d = client_with(&ca, Some(certified(&ca, "host-d", "host-d")));
    // Who calls with what, whom, how, and the sentence.
    let cases = [
        (&old, old.client_config(ALPN), &a, a.server_config(ALPN), "host-a", "of host-b expired 2"),
        (&a, a.client_config(ALPN), &old, old.server_config(ALPN), "host-b", "of host-b expired 2"),
        (
            &a,
            a.client_config(ALPN),
            &stranger,
            stranger.server_config(ALPN),
            "host-c",
            "host-a trusts the CA `prod`",
        ),
        (
            &a,
            a.client_config(ALPN),
            &a,
            a.server_config(ALPN),
            "host-e",
            "of host-a was presented where host-e",
        ),
        (&a, of_host_d, &a, pinned, "host-a", "of host-d is good, but host-a accepts only host-a;"),
    ];
    for (caller, client, callee, server, called, sentence) in cases {
        let [client, server] = quic(client, server, called).await;
        let now = SystemTime::now();
        let (client, server) = (client.unwrap_err(), server.unwrap_err());
        assert!(
            client.to_string().contains(sentence) && server.to_string().contains(sentence),
            "{client} / {server}"
        );
        let client = caller.explain_quic("callee", &client, now).unwrap();
        let server = callee.explain_quic("caller", &server, now).unwrap();
        assert!(
            client.to_string().contains(sentence) && server.to_string().contains(sentence),
            "{client} / {server}"
        );
        let refused_by_one = matches!(
            (client, server),
            (PeerRefused::TheirCertificate { .. }, PeerRefused::OurCertificate { .. })
                | (PeerRefused::OurCertificate { .. }, PeerRefused::TheirCertificate { .. })
        );
        assert!(refused_by_one);
    }
}

#[tokio::test]
async fn r12_a_caller_without_certificate_is_refused_over_quic() {
    let ca = ca("prod");
    let a = identity(&ca, "host-a");
    let [client, server] = quic(client_with(&ca, None), a.server_config(ALPN), "host-a").await;
    let (client, server) = (client.unwrap_err(), server.unwrap_err());
    let now = SystemTime::now();
    let theirs = a.explain_quic("10.0.0.9", &server, now);
    assert_eq!(theirs, Some(PeerRefused::TheyPresentedNone { peer: "10.0.0.9".to_owned() }));
    let ours = a.explain_quic("host-a", &client, now).unwrap().to_string();
    assert!(ours.contains("none was presented"), "{ours}");
}
