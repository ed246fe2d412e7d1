//! R12: real handshakes between identities; here in memory, in `transports.rs` through tokio-rustls and
//! quinn. And what identities are as files, in `files.rs`.
#![allow(clippy::unwrap_used)]

#[path = "identity/files.rs"]
mod files;
#[path = "identity/transports.rs"]
mod transports;

use ft_net::identity::{ClusterCa, DAY, HostName, Identity, Refusal, RefusedCertificate, peer_host};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ClientConnection, ConnectionCommon, Error, HandshakeKind,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
};
use std::sync::Arc;
use std::time::SystemTime;

const ALPN: &[u8] = b"test/1";

fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

fn ca(name: &str) -> ClusterCa {
    ClusterCa::generate(name, 1000 * DAY, SystemTime::now() - 500 * DAY).unwrap()
}

fn identity(ca: &ClusterCa, name: &str) -> Identity {
    ca.issue(&host(name), 10 * DAY).unwrap().identity().unwrap()
}

/// Made 100 days ago, good then, over 90 days ago.
fn expired(ca: &ClusterCa, name: &str) -> Identity {
    let then = SystemTime::now() - 100 * DAY;
    ca.issue_at(&host(name), 10 * DAY, then).unwrap().identity_at(then + DAY).unwrap()
}

/// Good in 100 days.
fn early(ca: &ClusterCa, name: &str) -> Identity {
    let then = SystemTime::now() + 100 * DAY;
    ca.issue_at(&host(name), 10 * DAY, then).unwrap().identity_at(then + DAY).unwrap()
}

/// Two ends in one memory, and the error that each of them met.
struct Ends {
    client: ClientConnection,
    client_error: Option<Error>,
    server: ServerConnection,
    server_error: Option<Error>,
}

/// Shakes hands, and lets the alerts through as well, until both ends are silent.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, called: &str) -> Ends {
    let name = ServerName::try_from(called.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    loop {
        let there = carry(&mut client, &mut server, &mut server_error);
        let back = carry(&mut server, &mut client, &mut client_error);
        if !there && !back {
            return Ends { client, client_error, server, server_error };
        }
    }
}

/// Carries what one end has to say to the other; false when it has nothing to say.
fn carry<A, B>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
    error: &mut Option<Error>,
) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    feed(to, &bytes, error);
    !bytes.is_empty()
}

fn feed<T>(to: &mut ConnectionCommon<T>, mut bytes: &[u8], error: &mut Option<Error>) {
    while !bytes.is_empty() && error.is_none() {
        to.read_tls(&mut bytes).unwrap();
        *error = to.process_new_packets().err();
    }
}

/// Shakes hands between two identities; the client calls the server by its own name.
fn meet(client: &Identity, server: &Identity) -> Ends {
    handshake(client.client_config(ALPN), server.server_config(ALPN), server.host().as_str())
}

fn refusal(error: &Option<Error>) -> &Refusal {
    &RefusedCertificate::of(error.as_ref().unwrap()).unwrap().reason
}

fn explained(who: &Identity, peer: &str, error: &Option<Error>) -> String {
    who.explain(peer, error.as_ref().unwrap(), SystemTime::now()).unwrap().to_string()
}

#[test]
fn r12_two_hosts_of_a_cluster_know_each_other() {
    let ca = ca("prod");
    let ends = meet(&identity(&ca, "host-a"), &identity(&ca, "host-b"));
    assert_eq!((ends.client_error, ends.server_error), (None, None));
    assert_eq!(peer_host(ends.client.peer_certificates().unwrap()).unwrap(), host("host-b"));
    assert_eq!(peer_host(ends.server.peer_certificates().unwrap()).unwrap(), host("host-a"));
    assert_eq!(ends.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(ends.client.alpn_protocol(), Some(ALPN));
    let suite = ends.client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn r12_no_connection_resumes_an_earlier_one() {
    let ca = ca("prod");
    let client = identity(&ca, "host-a").client_config(ALPN);
    let server = identity(&ca, "host-b").server_config(ALPN);
    assert!(server.max_early_data_size == 0 && !client.enable_early_data, "no 0-RTT on either side");
    for _ in 0..3 {
        let ends = handshake(client.clone(), server.clone(), "host-b");
        assert_eq!((ends.client_error, ends.server_error), (None, None));
        assert_eq!(ends.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(ends.client.tls13_tickets_received(), 0);
        assert!(!ends.client.is_early_data_accepted());
    }
}

#[test]
fn r12_an_expired_certificate_is_refused_by_both_sides() {
    let ca = ca("prod");
    let (good, old) = (identity(&ca, "host-a"), expired(&ca, "host-b"));
    let since = old.summary().not_after;

    let ends = meet(&old, &good);
    assert_eq!(refusal(&ends.server_error), &Refusal::Expired { since });
    let text = explained(&old, "host-a", &ends.client_error);
    assert!(text.starts_with("host-a refused our certificate (host-b): expired "), "{text}");
    assert!(text.ends_with("issue a new one with `ft ca issue host-b`"), "{text}");

    let ends = meet(&good, &old);
    assert_eq!(refusal(&ends.client_error), &Refusal::Expired { since });
    let text = explained(&good, "10.0.0.2:7000", &ends.client_error);
    let start = format!("refused 10.0.0.2:7000: the certificate of host-b expired {since}; issue a new one");
    assert!(text.starts_with(&start), "{text}");
}

#[test]
fn r12_a_certificate_whose_time_has_not_come_is_refused() {
    let ca = ca("prod");
    let (good, new) = (identity(&ca, "host-a"), early(&ca, "host-b"));
    for error in [meet(&new, &good).server_error, meet(&good, &new).client_error] {
        let Refusal::NotYetValid { from, by, .. } = refusal(&error) else { panic!("{error:?}") };
        assert_eq!((*from, by), (new.summary().not_before, &host("host-a")));
    }
    let text = explained(&new, "host-a", &meet(&new, &good).client_error);
    assert!(text.contains("(host-b): not valid before 2"), "{text}");
}

#[test]
fn r12_another_ca_is_refused_and_named_even_if_it_has_the_same_name() {
    let (ours, theirs) = (ca("prod"), ca("prod"));
    let (good, stranger) = (identity(&ours, "host-a"), identity(&theirs, "host-b"));
    let key = |ca: &ClusterCa| ca.summary().key_id.as_ref().unwrap()[..16].to_owned();

    let ends = meet(&good, &stranger);
    let text = explained(&good, "host-b", &ends.client_error);
    let issuer = format!("was issued by the CA `prod` (key {})", key(&theirs));
    let trusted = format!("but host-a trusts the CA `prod` (key {})", key(&ours));
    assert!(text.contains(&issuer) && text.contains(&trusted), "{text}");
    let text = explained(&stranger, "host-a", &ends.server_error);
    assert!(text.contains("host-a refused our certificate (host-b): of another CA"), "{text}");

    // The other way round the client minds first; one that trusts us is refused by us.
    let presents = certified(&theirs, "host-b", "host-b");
    let ends = handshake(client_with(&ours, Some(presents)), good.server_config(ALPN), "host-a");
    assert!(matches!(refusal(&ends.server_error), Refusal::OtherCa { .. }), "{:?}", ends.server_error);
}

#[test]
fn r12_an_expired_certificate_of_another_ca_is_above_all_of_another_ca() {
    let ends = meet(&identity(&ca("prod"), "host-a"), &expired(&ca("test"), "host-b"));
    assert!(matches!(refusal(&ends.client_error), Refusal::OtherCa { .. }), "{:?}", ends.client_error);
}

#[test]
fn r12_a_host_that_answers_to_anothers_name_is_refused() {
    let ca = ca("prod");
    let (a, c) = (identity(&ca, "host-a"), identity(&ca, "host-c"));
    for called in ["host-b", "127.0.0.1"] {
        let ends = handshake(a.client_config(ALPN), c.server_config(ALPN), called);
        assert_eq!(refusal(&ends.client_error), &Refusal::WrongHost { expected: called.to_owned() });
        let text = explained(&a, called, &ends.client_error);
        assert!(
            text.contains(&format!("certificate of host-c was presented where {called} was called")),
            "{text}"
        );
    }
}

#[test]
fn r12_only_pinned_hosts_may_connect() {
    let ca = ca("prod");
    let (a, b, c) = (identity(&ca, "host-a"), identity(&ca, "host-b"), identity(&ca, "host-c"));
    let connect = |client: &Identity, allowed: &[&Identity]| {
        let allowed = allowed.iter().map(|identity| identity.host().clone()).collect();
        handshake(client.client_config(ALPN), a.server_config_for(ALPN, Some(allowed)), "host-a")
    };
    assert_eq!(connect(&b, &[&b]).server_error, None);
    let ends = connect(&c, &[&b, &a]);
    let text = explained(&a, "10.0.0.3", &ends.server_error);
    assert!(
        text.contains("certificate of host-c is good, but host-a accepts only host-a, host-b;"),
        "{text}"
    );
    assert!(matches!(refusal(&connect(&b, &[]).server_error), Refusal::NotAllowed { .. }));
}

/// A client that is not one of ours: it trusts `ca`, and presents what it is told to, or nothing.
fn client_with(ca: &ClusterCa, presents: Option<CertifiedKey>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match presents {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// The certificate of one host with the key of another one, or of the same.
fn certified(ca: &ClusterCa, certificate_of: &str, key_of: &str) -> CertifiedKey {
    let room = tempfile::tempdir().unwrap();
    for name in [certificate_of, key_of] {
        let dir = room.path().join(name);
        if !dir.exists() {
            ca.issue(&host(name), DAY).unwrap().write(&dir).unwrap();
        }
    }
    let certificate =
        CertificateDer::from_pem_file(room.path().join(certificate_of).join("host.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(room.path().join(key_of).join("host.key")).unwrap();
    CertifiedKey::new(vec![certificate], any_supported_type(&key).unwrap())
}

#[test]
fn r12_a_stolen_certificate_without_its_key_is_refused() {
    let ca = ca("prod");
    let a = identity(&ca, "host-a");
    let thief = client_with(&ca, Some(certified(&ca, "host-b", "host-c")));
    let ends = handshake(thief, a.server_config(ALPN), "host-a");
    assert_eq!(refusal(&ends.server_error), &Refusal::KeyNotProven);

    let mut config = ServerConfig::builder_with_provider(a.client_config(ALPN).crypto_provider().clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified(&ca, "host-b", "host-c"))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    let ends = handshake(a.client_config(ALPN), Arc::new(config), "host-b");
    assert_eq!(refusal(&ends.client_error), &Refusal::KeyNotProven);
}

#[test]
fn r12_a_caller_without_certificate_is_refused() {
    let ca = ca("prod");
    let a = identity(&ca, "host-a");
    let ends = handshake(client_with(&ca, None), a.server_config(ALPN), "host-a");
    assert_eq!(ends.server_error, Some(Error::NoCertificatesPresented));
    assert_eq!(ends.client_error, Some(Error::AlertReceived(AlertDescription::CertificateRequired)));
    let text = explained(&a, "10.0.0.9", &ends.server_error);
    assert_eq!(text, "refused 10.0.0.9: it presented no certificate; give it one with `ft ca issue`");
}

#[test]
fn r12_tls_1_2_is_refused() {
    let a = identity(&ca("prod"), "host-a");
    let mut server = ServerConnection::new(a.server_config(ALPN)).unwrap();
    let mut error = None;
    feed(&mut server, &client_hello_of_tls12(), &mut error);
    let text = explained(&a, "10.0.0.9", &error);
    assert!(text.starts_with("10.0.0.9 does not speak TLS 1.3 as we do"), "{text}");

    let mut answer = Vec::new();
    server.write_tls(&mut answer).unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70], "nothing but the fatal alert protocol_version");
}

/// What a client says that knows nothing newer than TLS 1.2 (RFC 5246 section 7.4.1.2); rustls is built
/// without it.
fn client_hello_of_tls12() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0][..],        // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3][..],  // signature_algorithms: ecdsa_secp256r1_sha256
        &[0, 23, 0, 0][..],              // extended_master_secret
    ]
    .concat();
    let body = [
        &[3, 3][..],             // TLS 1.2
        &[7; 32][..],            // random
        &[0][..],                // no session
        &[0, 2, 0xc0, 0x2b][..], // ECDHE-ECDSA-AES128-GCM-SHA256
        &[1, 0][..],             // no compression
        &[0, extensions.len() as u8][..],
        &extensions,
    ]
    .concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

#[test]
fn a_peer_that_speaks_another_protocol_is_refused() {
    let ca = ca("prod");
    let (a, b) = (identity(&ca, "host-a"), identity(&ca, "host-b"));
    let ends = handshake(a.client_config(b"other"), b.server_config(ALPN), "host-b");
    assert_eq!(ends.server_error, Some(Error::NoApplicationProtocol));
    assert_eq!(
        a.explain("host-b", &ends.client_error.unwrap(), SystemTime::now()),
        None,
        "not a matter of identity"
    );
}
