//! What can happen to an etcd cluster, and on the way to it.

use crate::relay::{Fate, Relay};
use crate::server::{Etcd, Tls};
use crate::suite::{DEADLINE, VM, claim, node};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ft::arbiter::{ArbiterConfig, EtcdArbiter, EtcdConfig, TermStore as _};
use ft::core::arbiter::{Arbiter as _, ClaimOutcome};
use ft::core::units::{NodeId, Term};
use ft::net::ClusterCa;
use ft::net::identity::{CA_CERTIFICATE, DAY, HOST_CERTIFICATE, HOST_KEY};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant, SystemTime};

pub(crate) fn bed() -> (ArbiterConfig, Etcd) {
    let etcd = Etcd::start();
    (etcd.arbiter(), etcd)
}

fn nodes() -> (NodeId, NodeId) {
    (node(1, 7), node(2, 8))
}

/// A request as etcd's documentation has it.
fn post(etcd: &Etcd, path: &str, request: &Value) {
    let response = ureq::post(etcd.url(0) + path).send(request.to_string());
    response.unwrap_or_else(|error| panic!("{path} {request}: {error}"));
}

fn base64(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

fn hand_written(etcd: &Etcd, term: u64, entry: &str) {
    let key = base64(&format!("ft/vms/{VM}/terms/{term:020}"));
    post(etcd, "/v3/kv/put", &json!({ "key": key, "value": base64(entry) }));
}

#[test]
fn r6_a_lost_request_changes_nothing_and_a_lost_answer_may_have_won() {
    let etcd = Etcd::start();
    let relay = Relay::to(etcd.port(0));
    let (a, b) = nodes();
    let mut direct = EtcdArbiter::open(&etcd.config(), VM).unwrap();
    let mut relayed = EtcdArbiter::open(&EtcdConfig::new([relay.url()]), VM).unwrap();
    assert_eq!(relayed.claim(Term(1), a), ClaimOutcome::Won);

    relay.set(Fate::LoseRequest);
    assert_eq!(relayed.claim(Term(2), a), ClaimOutcome::Unreachable);
    assert_eq!(direct.last().unwrap().unwrap().term, Term(1));
    assert_eq!(direct.claim(Term(2), b), ClaimOutcome::Won);

    relay.set(Fate::LoseAnswer);
    assert_eq!(relayed.claim(Term(3), a), ClaimOutcome::Unreachable);
    assert_eq!(direct.last().unwrap().map(|last| (last.term, last.owner)), Some((Term(3), a)));
    assert_eq!(direct.claim(Term(3), b), ClaimOutcome::Lost { owner: a });

    relay.set(Fate::Pass);
    assert_eq!(claim(&mut relayed, Term(3), a), ClaimOutcome::Won, "repeating says so");
    assert_eq!(claim(&mut relayed, Term(2), a), ClaimOutcome::Lost { owner: b });
}

#[test]
fn r6_a_stopped_etcd_is_no_answer_in_time_and_the_outcome_is_consistent_later() {
    let etcd = Etcd::start();
    let (a, b) = nodes();
    let config = EtcdConfig { timeout_ms: 500, ..etcd.config() };
    let mut arbiters = [a, b].map(|node| (EtcdArbiter::open(&config, VM).unwrap(), node));
    etcd.signal(0, "STOP");
    let started = Instant::now();
    for (arbiter, node) in &mut arbiters {
        assert_eq!(arbiter.claim(Term(1), *node), ClaimOutcome::Unreachable);
    }
    assert!(started.elapsed() >= Duration::from_millis(1000));
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
    etcd.signal(0, "CONT");
    // Both claims were sent, and either may have won.
    let outcomes = arbiters.each_mut().map(|(arbiter, node)| claim(arbiter, Term(1), *node));
    let owner = arbiters[0].0.last().unwrap().unwrap().owner;
    let expected =
        [a, b].map(|node| if node == owner { ClaimOutcome::Won } else { ClaimOutcome::Lost { owner } });
    assert_eq!(outcomes, expected);
}

#[test]
fn r4_a_restarted_etcd_remembers_all_owners() {
    let mut etcd = Etcd::start();
    let (a, b) = nodes();
    let mut arbiter = EtcdArbiter::open(&etcd.config(), VM).unwrap();
    for term in 1..=20 {
        let claimer = if term % 3 == 0 { a } else { b };
        assert_eq!(claim(&mut arbiter, Term(term), claimer), ClaimOutcome::Won);
    }
    let before = arbiter.history().unwrap();
    for _ in 0..3 {
        etcd.kill(0);
        assert_eq!(arbiter.claim(Term(20), b), ClaimOutcome::Unreachable);
        assert!(arbiter.last().unwrap_err().to_string().contains(&etcd.url(0)));
        etcd.restart(0);
        assert_eq!(claim(&mut arbiter, Term(20), a), ClaimOutcome::Lost { owner: b });
        assert_eq!(claim(&mut arbiter, Term(20), b), ClaimOutcome::Won);
        assert_eq!(arbiter.history().unwrap(), before);
    }
}

/// One member refuses, one takes the call and is silent, one works.
#[test]
fn endpoints_are_tried_in_turn_and_the_one_that_answers_is_asked_first_the_next_time() {
    let etcd = Etcd::start();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let refusing = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let urls = [&refusing, &silent].map(|member| format!("http://{}", member.local_addr().unwrap()));
    drop(refusing);
    let config = EtcdConfig::new([urls[0].clone(), urls[1].clone() + "/", etcd.url(0) + "/"]);
    let mut arbiter = EtcdArbiter::open(&config, VM).unwrap();
    assert_eq!(claim(&mut arbiter, Term(1), node(1, 7)), ClaimOutcome::Won);
    // If the silent one were asked each time, this would take longer than the deadline.
    let (claims, started) = (200, Instant::now());
    for term in (2..claims).map(Term) {
        assert_eq!(claim(&mut arbiter, term, node(1, 7)), ClaimOutcome::Won);
    }
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());

    drop(etcd);
    let error = arbiter.last().unwrap_err().to_string();
    assert!(urls.iter().all(|url| error.contains(url)), "{error}");
    assert!(error.contains("refused") && error.contains("timeout"), "{error}");
}

#[test]
fn r6_a_minority_gives_no_answer_and_a_majority_does() {
    let mut etcd = Etcd::start_cluster(3, None);
    let (a, b) = nodes();
    let config = EtcdConfig { timeout_ms: 1500, ..etcd.config() };
    let mut arbiter = EtcdArbiter::open(&config, VM).unwrap();
    assert_eq!(claim(&mut arbiter, Term(1), a), ClaimOutcome::Won);
    etcd.kill(0);
    assert_eq!(claim(&mut arbiter, Term(2), a), ClaimOutcome::Won, "two of three are a majority");
    etcd.kill(1);
    assert_eq!(arbiter.claim(Term(3), a), ClaimOutcome::Unreachable);
    assert_eq!(arbiter.claim(Term(1), a), ClaimOutcome::Unreachable, "not even what was settled long ago");
    etcd.restart(0);
    let mut other = EtcdArbiter::open(&etcd.config(), VM).unwrap();
    let theirs = claim(&mut other, Term(3), b);
    let ours = claim(&mut arbiter, Term(3), a);
    let expected = [
        (ClaimOutcome::Won, ClaimOutcome::Lost { owner: b }),
        (ClaimOutcome::Lost { owner: a }, ClaimOutcome::Won),
    ];
    assert!(expected.contains(&(theirs, ours)), "{theirs:?} {ours:?}");
    assert_eq!(claim(&mut other, Term(2), b), ClaimOutcome::Lost { owner: a });
}

#[test]
fn r12_tls_with_certificates_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let ca = ClusterCa::generate("etcd", DAY * 2, SystemTime::now()).unwrap();
    ca.issue(&"localhost".parse().unwrap(), DAY).unwrap().write(&dir.path().join("server")).unwrap();
    ca.issue(&"host-a".parse().unwrap(), DAY).unwrap().write(&dir.path().join("host-a")).unwrap();
    let tls = |name: &str| {
        let at = |file| dir.path().join(name).join(file);
        Tls { ca: at(CA_CERTIFICATE), cert: at(HOST_CERTIFICATE), key: at(HOST_KEY) }
    };
    let etcd = Etcd::start_cluster(1, Some(tls("server")));
    let Tls { ca, cert, key } = tls("host-a");
    let with = EtcdConfig { ca: Some(ca), cert: Some(cert), key: Some(key), ..etcd.config() };
    let mut arbiter = EtcdArbiter::open(&with, VM).unwrap();
    assert_eq!(claim(&mut arbiter, Term(1), node(1, 7)), ClaimOutcome::Won);

    let without = EtcdConfig { cert: None, key: None, ..with.clone() };
    let mut arbiter = EtcdArbiter::open(&without, VM).unwrap();
    assert_eq!(arbiter.claim(Term(2), node(1, 7)), ClaimOutcome::Unreachable);
    let other = ClusterCa::generate("other", DAY * 2, SystemTime::now()).unwrap();
    let other_ca = dir.path().join("other.crt");
    fs::write(&other_ca, other.certificate_pem()).unwrap();
    let strange = EtcdConfig { ca: Some(other_ca.clone()), ..with.clone() };
    let error = EtcdArbiter::open(&strange, VM).unwrap().last().unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");

    fs::write(&other_ca, "no certificate").unwrap();
    let error = EtcdArbiter::open(&strange, VM).unwrap_err().to_string();
    assert!(error.contains("other.crt") && error.contains("no certificate"), "{error}");
    let gone = EtcdConfig { key: Some("/nowhere.key".into()), ..with };
    assert!(EtcdArbiter::open(&gone, VM).unwrap_err().to_string().contains("/nowhere.key"));
}

/// etcd with users: the token is made anew when the member that gave it has forgotten it.
#[test]
fn r12_users_and_passwords() {
    let mut etcd = Etcd::start();
    for name in ["root", "ft"] {
        post(&etcd, "/v3/auth/role/add", &json!({ "name": name }));
        post(&etcd, "/v3/auth/user/add", &json!({ "name": name, "password": "secret" }));
        post(&etcd, "/v3/auth/user/grant", &json!({ "user": name, "role": name }));
    }
    let perm = json!({ "permType": "READWRITE", "key": base64("ft/"), "range_end": base64("ft0") });
    post(&etcd, "/v3/auth/role/grant", &json!({ "name": "ft", "perm": perm }));
    post(&etcd, "/v3/auth/enable", &json!({}));

    let password_file = etcd.dir.path().join("password");
    fs::write(&password_file, "secret\n").unwrap();
    let ft =
        EtcdConfig { user: Some("ft".into()), password_file: Some(password_file.clone()), ..etcd.config() };
    let mut arbiter = EtcdArbiter::open(&ft, VM).unwrap();
    assert_eq!(claim(&mut arbiter, Term(1), node(1, 7)), ClaimOutcome::Won);
    etcd.kill(0);
    etcd.restart(0);
    assert_eq!(claim(&mut arbiter, Term(1), node(1, 7)), ClaimOutcome::Won);
    assert_eq!(claim(&mut arbiter, Term(2), node(1, 7)), ClaimOutcome::Won);

    let elsewhere = EtcdConfig { prefix: "others".into(), ..ft.clone() };
    let nobody = EtcdConfig { user: None, password_file: None, ..ft.clone() };
    for (config, word) in [(elsewhere, "permission denied"), (nobody, "user name is empty")] {
        let mut arbiter = EtcdArbiter::open(&config, VM).unwrap();
        assert_eq!(arbiter.claim(Term(3), node(1, 7)), ClaimOutcome::Unreachable);
        let error = arbiter.last().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    fs::write(&password_file, "wrong").unwrap();
    let error = EtcdArbiter::open(&ft, VM).unwrap().last().unwrap_err().to_string();
    assert!(error.contains("authentication failed"), "{error}");
}

#[test]
fn r4_no_clock_decides() {
    let etcd = Etcd::start();
    let (a, b) = nodes();
    let mut arbiter = EtcdArbiter::open(&etcd.config(), VM).unwrap();
    let dates = ["at 1970-01-01T00:00:00Z", "at 9999-12-31T23:59:59Z", "at -5", ""];
    for (term, date) in (1..).zip(dates) {
        hand_written(&etcd, term, &format!("host 1 incarnation 7 {date}\n"));
        assert_eq!(claim(&mut arbiter, Term(term), b), ClaimOutcome::Lost { owner: a });
        assert_eq!(claim(&mut arbiter, Term(term), a), ClaimOutcome::Won);
        assert_eq!(arbiter.last().unwrap().unwrap().remark, date);
    }
    assert_eq!(claim(&mut arbiter, Term(5), b), ClaimOutcome::Won);
}

#[test]
fn r6_a_damaged_key_has_no_answer_and_the_others_have() {
    let etcd = Etcd::start();
    let (a, b) = nodes();
    let mut arbiter = EtcdArbiter::open(&etcd.config(), VM).unwrap();
    assert_eq!(claim(&mut arbiter, Term(1), a), ClaimOutcome::Won);
    for damage in ["", "garbage\n", "host 2 incarnation 8"] {
        hand_written(&etcd, 2, damage);
        assert_eq!(arbiter.claim(Term(2), b), ClaimOutcome::Unreachable);
        let error = arbiter.last().unwrap_err().to_string();
        assert!(error.contains("00002") && error.contains("backup"), "{error}");
        assert_eq!(claim(&mut arbiter, Term(1), a), ClaimOutcome::Won);
    }
    post(&etcd, "/v3/kv/put", &json!({ "key": base64(&format!("ft/vms/{VM}/terms/x")), "value": "" }));
    assert!(arbiter.last().unwrap_err().to_string().contains("terms/x"));
}

/// A proxy, or another server, in etcd's place.
#[test]
fn r6_what_does_not_speak_as_etcd_does_is_no_answer() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy",
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 4\r\n\r\nwho?",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n{",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "",
    ] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for mut caller in listener.incoming().map_while(Result::ok) {
                let _ = caller.read(&mut [0; 4096]);
                let _ = caller.write_all(answer.as_bytes());
            }
        });
        let mut arbiter = EtcdArbiter::open(&EtcdConfig::new([url.clone()]), VM).unwrap();
        assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Unreachable, "{answer}");
        let failure = arbiter.history();
        // An empty object is how etcd says that there are none.
        assert!(failure.is_err() || answer.ends_with("{}"), "{answer}");
    }
}

#[test]
fn a_held_connection_delays_a_claim_by_its_timeout_only() {
    let etcd = Etcd::start();
    let relay = Relay::to(etcd.port(0));
    relay.set(Fate::Hold);
    let config = EtcdConfig { timeout_ms: 300, ..EtcdConfig::new([relay.url()]) };
    let mut arbiter = EtcdArbiter::open(&config, VM).unwrap();
    let started = Instant::now();
    assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Unreachable);
    assert!((Duration::from_millis(300)..DEADLINE).contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(arbiter.last().unwrap_err().to_string().contains("timeout"));
    relay.set(Fate::Pass);
    assert_eq!(claim(&mut arbiter, Term(1), node(1, 7)), ClaimOutcome::Won);
}
