//! Identities as files: made whole, never overwritten, and refused with precise words when something is
//! wrong.

use super::{ca, host};
use ft_net::identity::{CertificateSummary, ClusterCa, DAY, Identity, IdentityError, Refusal};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A directory with a CA in `ca` and the credentials of host-a in `host-a`.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        let room = Self(tempfile::tempdir().unwrap());
        let ca = ClusterCa::init(&room.path("ca"), "prod", 100 * DAY).unwrap();
        ca.issue(&host("host-a"), 10 * DAY).unwrap().write(&room.path("host-a")).unwrap();
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn load(&self) -> Result<Identity, IdentityError> {
        Identity::load(&self.path("host-a"))
    }

    /// Why the identity cannot be loaded: the whole chain, with the paths relative to the room.
    fn why(&self) -> String {
        text(&self.load().unwrap_err()).replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn text(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", text(source)),
        None => error.to_string(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_written_can_be_loaded_and_keys_are_private() {
    let room = Room::new();
    assert_eq!(room.load().unwrap().host(), &host("host-a"));
    assert_eq!(ClusterCa::open(&room.path("ca")).unwrap().summary().subject, "prod");
    for key in ["ca/ca.key", "host-a/host.key"] {
        assert_eq!(mode(&room.path(key)), 0o600, "{key}");
    }
    for dir in ["ca", "host-a"] {
        assert_eq!(mode(&room.path(dir)), 0o700, "{dir}");
    }
}

#[test]
fn a_reopened_ca_is_the_same_ca() {
    let room = Room::new();
    let again = ClusterCa::open(&room.path("ca")).unwrap();
    again.issue(&host("host-b"), DAY).unwrap().write(&room.path("host-b")).unwrap();
    fs::copy(room.path("host-a/ca.crt"), room.path("host-b/ca.crt")).unwrap();
    assert_eq!(Identity::load(&room.path("host-b")).unwrap().ca(), room.load().unwrap().ca());
}

#[test]
fn a_certificate_says_what_it_should() {
    let room = Room::new();
    let all = CertificateSummary::read(&room.path("host-a/host.crt")).unwrap();
    let [summary] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((summary.subject.as_str(), summary.issuer.as_str()), ("host-a", "prod"));
    assert_eq!((summary.hosts.as_slice(), summary.is_ca), (["host-a".to_owned()].as_slice(), false));
    assert_eq!(summary.not_after.since(summary.not_before), 10 * DAY + std::time::Duration::from_secs(300));
    let other =
        ClusterCa::open(&room.path("ca")).unwrap().issue(&host("host-a"), DAY).unwrap().identity().unwrap();
    assert_ne!(summary.serial, other.summary().serial, "serial numbers are random");
}

#[test]
fn a_ca_is_never_overwritten() {
    let room = Room::new();
    let files = || ["ca/ca.crt", "ca/ca.key"].map(|name| fs::read(room.path(name)).unwrap());
    let before = files();
    let error = ClusterCa::init(&room.path("ca"), "test", DAY).unwrap_err().to_string();
    assert!(
        error.contains("already holds the CA `prod`") && error.contains("name another directory"),
        "{error}"
    );
    assert_eq!(files(), before);
}

#[test]
fn credentials_are_never_overwritten() {
    let room = Room::new();
    let before = fs::read(room.path("host-a/host.key")).unwrap();
    let credentials = ClusterCa::open(&room.path("ca")).unwrap().issue(&host("host-a"), DAY).unwrap();
    let error = credentials.write(&room.path("host-a")).unwrap_err().to_string();
    assert!(
        error.contains("already holds a host's certificate") && error.contains("move it away"),
        "{error}"
    );
    assert_eq!(fs::read(room.path("host-a/host.key")).unwrap(), before);
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let room = Room::new();
    for mode in [0o644, 0o640, 0o604, 0o620] {
        for key in ["host-a/host.key", "ca/ca.key"] {
            fs::set_permissions(room.path(key), Permissions::from_mode(mode)).unwrap();
        }
        let path = room.path("ca/ca.key");
        let error = ClusterCa::open(&room.path("ca")).unwrap_err().to_string();
        let expected = format!("{} has mode {mode:04o}", path.display());
        assert!(
            error.starts_with(&expected) && error.contains(&format!("`chmod 600 {}`", path.display())),
            "{error}"
        );
        let error = room.why();
        assert!(error.starts_with(&format!("host-a/host.key has mode {mode:04o}")), "{error}");
    }
    fs::set_permissions(room.path("host-a/host.key"), Permissions::from_mode(0o400)).unwrap();
    room.load().unwrap();
}

#[test]
fn a_missing_file_is_named() {
    for name in ["ca.crt", "host.crt", "host.key"] {
        let room = Room::new();
        fs::remove_file(room.path("host-a").join(name)).unwrap();
        let error = room.why();
        assert_eq!(
            error,
            format!(
                "host-a/{name} does not exist; copy the directory again that `ft ca issue` made for this host"
            )
        );
    }
    let error = ClusterCa::open(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/ca.crt does not exist") && error.contains("`ft ca init"), "{error}");
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused_and_named() {
    let room = Room::new();
    for name in ["ca.crt", "host.crt", "host.key"] {
        let path = room.path("host-a").join(name);
        let whole = fs::read(&path).unwrap();
        let end_of_text = whole.len() - 1; // only the last line feed may go
        for length in 0..end_of_text {
            fs::write(&path, &whole[..length]).unwrap();
            let error = room.why();
            assert!(error.starts_with(&format!("host-a/{name} is damaged: ")), "{length}: {error}");
        }
        fs::write(&path, &whole).unwrap();
    }
    room.load().unwrap();
}

#[test]
fn a_changed_byte_anywhere_in_certificate_or_key_is_refused() {
    let room = Room::new();
    for name in ["host.crt", "host.key"] {
        let path = room.path("host-a").join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() - 1 {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            // Base64 has a few spare bits before its padding: the same bytes are the same certificate.
            if der(&changed).is_none_or(|der_changed| Some(der_changed) != der(&whole)) {
                fs::write(&path, &changed).unwrap();
                assert!(room.why().starts_with("host-a/host."), "byte {at} of {name}");
            }
        }
        fs::write(&path, &whole).unwrap();
    }
}

fn der(pem: &[u8]) -> Option<(SectionKind, Vec<u8>)> {
    PemObject::from_pem_slice(pem).ok()
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let room = Room::new();
    let ca = ClusterCa::open(&room.path("ca")).unwrap();
    ca.issue(&host("host-b"), DAY).unwrap().write(&room.path("host-b")).unwrap();
    fs::copy(room.path("host-b/host.key"), room.path("host-a/host.key")).unwrap();
    assert!(room.why().starts_with("host-a/host.key is not the key of host-a/host.crt; put back the pair"));

    ClusterCa::init(&room.path("other"), "prod", DAY).unwrap();
    fs::copy(room.path("other/ca.key"), room.path("ca/ca.key")).unwrap();
    let error = ClusterCa::open(&room.path("ca")).unwrap_err().to_string();
    assert!(error.contains("ca.key is not the key of") && error.contains("`ft ca init`"), "{error}");
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let room = Room::new();
    ClusterCa::init(&room.path("other"), "test", DAY).unwrap();
    fs::copy(room.path("other/ca.crt"), room.path("host-a/ca.crt")).unwrap();
    let error = room.why();
    assert!(
        error.starts_with(
            "host-a/host.crt is of no use: the certificate of host-a was issued by the CA `prod`"
        )
    );
    assert!(error.contains("but host-a trusts the CA `test`"), "{error}");
}

#[test]
fn a_certificate_in_the_place_of_the_cas_is_refused() {
    let room = Room::new();
    fs::copy(room.path("host-a/host.crt"), room.path("host-a/ca.crt")).unwrap();
    assert!(room.why().starts_with("host-a/ca.crt is the certificate of host-a, which is not a CA"));
    fs::copy(room.path("host-a/host.crt"), room.path("ca/ca.crt")).unwrap();
    fs::copy(room.path("host-a/host.key"), room.path("ca/ca.key")).unwrap();
    let error = ClusterCa::open(&room.path("ca")).unwrap_err();
    assert!(matches!(error, IdentityError::NotCa { .. }), "{error}");
}

#[test]
fn two_certificates_in_one_file_are_refused() {
    let room = Room::new();
    let pem = fs::read_to_string(room.path("host-a/ca.crt")).unwrap();
    fs::write(room.path("host-a/ca.crt"), format!("{pem}{pem}")).unwrap();
    assert!(room.why().starts_with("host-a/ca.crt is damaged: it holds 2 certificates instead of one"));
}

#[test]
fn a_certificate_out_of_its_time_is_refused() {
    let room = Room::new();
    let load_at = |now| text(&Identity::load_at(&room.path("host-a"), now).unwrap_err());
    let not_after = room.load().unwrap().summary().not_after;
    let error = load_at(SystemTime::now() + 11 * DAY);
    assert!(
        error.contains(&format!("host.crt is of no use: the certificate of host-a expired {not_after}")),
        "{error}"
    );
    assert!(error.contains("issue a new one with `ft ca issue host-a`"), "{error}");
    let error = load_at(SystemTime::now() + 101 * DAY);
    assert!(error.contains("ca.crt: the CA `prod` expired 2") && error.contains("`ft ca init`"), "{error}");
    let error = load_at(SystemTime::now() - DAY);
    assert!(
        error.contains("ca.crt: the CA `prod` is not valid before 2") && error.contains("clock"),
        "{error}"
    );
}

/// A certificate signed with the CA's real key, but not made by `ClusterCa::issue`.
fn sign_oddly(room: &Room, names: &[&str], uses: &[ExtendedKeyUsagePurpose]) -> Refusal {
    let ca = CertificateDer::from_pem_file(room.path("ca/ca.crt")).unwrap();
    let ca_key = KeyPair::from_pem(&fs::read_to_string(room.path("ca/ca.key")).unwrap()).unwrap();
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages = uses.to_vec();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &Issuer::from_ca_cert_der(&ca, ca_key).unwrap()).unwrap();
    fs::write(room.path("host-a/host.crt"), certificate.pem()).unwrap();
    fs::write(room.path("host-a/host.key"), key.serialize_pem()).unwrap();
    match room.load().unwrap_err() {
        IdentityError::Unusable { source, .. } => source.reason,
        other => panic!("{other}"),
    }
}

#[test]
fn a_certificate_for_the_wrong_use_or_for_no_single_host_is_refused() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let room = Room::new();
    let lacks = |missing: &str| Refusal::WrongUse { missing: missing.to_owned() };
    assert_eq!(sign_oddly(&room, &["host-a"], &[ClientAuth]), lacks("server authentication"));
    assert_eq!(sign_oddly(&room, &["host-a"], &[ServerAuth]), lacks("client authentication"));
    for names in [&["host-a", "host-b"][..], &[], &["*.example.org"], &["10.0.0.1"]] {
        assert_eq!(sign_oddly(&room, names, &[ClientAuth, ServerAuth]), Refusal::NotOneHost, "{names:?}");
    }
}

#[test]
fn nothing_is_issued_beyond_the_cas_end_or_for_a_senseless_time() {
    let now = SystemTime::now();
    let ca = ClusterCa::generate("prod", 100 * DAY, now).unwrap();
    let issue =
        |days: u32, now| ca.issue_at(&host("host-a"), days * DAY, now).map_err(|error| error.to_string());
    issue(100, now).unwrap();
    let error = issue(80, now + 30 * DAY).unwrap_err();
    assert!(error.contains("would outlive the CA `prod`") && error.contains("at most 70 days"), "{error}");
    let error = issue(1, now + 100 * DAY).unwrap_err();
    assert!(error.contains("make a new CA with `ft ca init` and new certificates"), "{error}");
    assert!(issue(0, now).unwrap_err().contains("at least 1"));
    assert!(ClusterCa::generate("prod", 36_501 * DAY, now).is_err());
    assert!(ClusterCa::generate("prod", std::time::Duration::MAX, now).is_err());
}

#[test]
fn a_cluster_name_is_plain_text() {
    let generate = |name: &str| ClusterCa::generate(name, DAY, SystemTime::now());
    for name in ["prod", "2nd cluster_of.the-lab", &"x".repeat(64)] {
        assert_eq!(generate(name).unwrap().summary().subject, name);
    }
    for name in ["", " prod", "a\nb", "a,b", "ä", &"x".repeat(65)] {
        let error = generate(name).unwrap_err().to_string();
        assert!(error.contains("is refused: use 1 to 64"), "{error}");
    }
}

#[test]
fn no_private_key_is_printed() {
    let ca = ca("prod");
    let credentials = ca.issue(&host("host-a"), DAY).unwrap();
    let identity = credentials.identity().unwrap();
    let printed = format!("{ca:?} {credentials:?} {identity:?}");
    assert!(printed.contains("host-a") && !printed.contains("PRIVATE") && printed.len() < 2000, "{printed}");
}
