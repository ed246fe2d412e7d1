//! The cluster's identities: its certificate authority, the certificates of its hosts, and the TLS
//! configurations made of them (R12).
//!
//! A [`ClusterCa`] issues [`HostCredentials`]; a host loads them as its [`Identity`]; the identity makes the
//! TLS configurations of every connection, in both directions. What a peer presents is judged against the one
//! CA, and a refusal says whose certificate, why and what to do next ([`RefusedCertificate`],
//! [`PeerRefused`]).
//!
//! ```
//! use ft_net::identity::{ClusterCa, DAY};
//! # fn main() -> Result<(), ft_net::identity::IdentityError> {
//! let ca = ClusterCa::generate("prod", 3650 * DAY, std::time::SystemTime::now())?;
//! let host_a = ca.issue(&"host-a".parse()?, 365 * DAY)?.identity()?;
//! let server = host_a.server_config(b"ft/1"); // for quinn or tokio-rustls
//! # Ok(())
//! # }
//! ```
//!
//! Invariant: no connection is made without a certificate of the cluster's CA on both sides, over TLS 1.3,
//! with a full handshake.
//! Invariant: a private key's file is never readable by others than its owner, and is refused when it is.
//! Invariant: nothing here overwrites a key or a certificate.
//!
//! What it does not do: revoke certificates (keep them short-lived, and pin the hosts that may connect:
//! [`Identity::server_config_for`]), trust two CAs at a time, or renew anything by itself.

mod ca;
mod certificate;
mod credentials;
mod error;
mod explain;
mod files;
mod host_name;
mod refused;
mod tls;
mod trust;
mod utc_time;

pub use ca::{ClusterCa, DAY};
pub use certificate::{CertificateSummary, ValidityAt, peer_host};
pub use credentials::HostCredentials;
pub use error::IdentityError;
pub use explain::PeerRefused;
pub use host_name::HostName;
pub use refused::{Refusal, RefusedCertificate};
pub use utc_time::UtcTime;

use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tls::provider;
use trust::Trust;

/// The file of the CA's certificate, in the CA's and in every host's directory.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// The file of the CA's private key, in the CA's directory.
pub const CA_KEY: &str = "ca.key";
/// The file of the host's certificate, in the host's directory.
pub const HOST_CERTIFICATE: &str = "host.crt";
/// The file of the host's private key, in the host's directory.
pub const HOST_KEY: &str = "host.key";

/// What a host is to its peers: a certificate of the cluster's CA, and the key to prove it.
///
/// It was good when it was made. It may expire while the host runs; peers then refuse new connections.
#[derive(Clone)]
pub struct Identity {
    summary: CertificateSummary,
    own: Arc<CertifiedKey>,
    trust: Arc<Trust>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl Identity {
    /// Loads what [`HostCredentials::write`] wrote.
    ///
    /// # Errors
    /// If a file is missing or damaged; others than its owner can get at `host.key`; the key is not the
    /// certificate's; or the certificate is one that peers would refuse: not issued by the CA, expired, not
    /// yet valid, not for one host, not for both calling and being called.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        Self::load_at(dir, SystemTime::now())
    }

    /// Loads what [`HostCredentials::write`] wrote, judging it as of `now`.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_at(dir: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        let [ca, certificate, key] = paths(dir);
        let pems = [
            files::read_public(&ca, COPY_AGAIN)?,
            files::read_public(&certificate, COPY_AGAIN)?,
            files::read_private(&key, COPY_AGAIN)?,
        ];
        Self::from_pem(dir, pems.each_ref().map(Vec::as_slice), now)
    }

    /// Puts the three PEM texts together; errors name them as files in `dir`.
    fn from_pem(
        dir: &Path,
        [ca, certificate, key]: [&[u8]; 3],
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let [ca_path, certificate_path, key_path] = paths(dir);
        let ca = files::certificate(&ca_path, ca, COPY_AGAIN)?;
        let certificate = files::certificate(&certificate_path, certificate, COPY_AGAIN)?;
        let key = files::private_key(&key_path, key, COPY_AGAIN)?;

        let ca_summary = CertificateSummary::of_file(&ca_path, &ca, COPY_AGAIN)?;
        check_ca(&ca_path, &ca_summary, now)?;
        let summary = CertificateSummary::of_file(&certificate_path, &certificate, COPY_AGAIN)?;
        let unusable = |source| IdentityError::Unusable { path: certificate_path.clone(), source };
        let no_host = || unusable(RefusedCertificate::new(&summary, Refusal::NotOneHost));
        let host = summary.host().ok_or_else(no_host)?;

        let provider = Arc::new(provider());
        let own = CertifiedKey::from_der(vec![certificate], key, &provider)
            .map_err(|error| key_error(&key_path, &certificate_path, error))?;
        let trust = Trust::new(host, ca_summary, ca, provider)
            .map_err(|why| files::damaged(&ca_path, why, COPY_AGAIN))?;
        check_as_peers_do(&trust, &own, now).map_err(unusable)?;
        Ok(Self { summary, own: Arc::new(own), trust: Arc::new(trust) })
    }

    /// The host that we are.
    pub fn host(&self) -> &HostName {
        &self.trust.own
    }

    /// What our certificate says.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// What the certificate of the cluster's CA says.
    pub fn ca(&self) -> &CertificateSummary {
        &self.trust.ca
    }
}

const COPY_AGAIN: &str = "copy the directory again that `ft ca issue` made for this host";

/// The CA's certificate, the host's certificate, the host's key.
fn paths(dir: &Path) -> [PathBuf; 3] {
    [CA_CERTIFICATE, HOST_CERTIFICATE, HOST_KEY].map(|name| dir.join(name))
}

/// webpki takes a trust anchor at its word; so whether it is a CA, and still is one, is checked here.
fn check_ca(path: &Path, ca: &CertificateSummary, now: SystemTime) -> Result<(), IdentityError> {
    let (path, subject) = (path.to_owned(), ca.subject.clone());
    if !ca.is_ca {
        return Err(IdentityError::NotCa { path, subject: ca.bearer() });
    }
    let (why, todo) = match ca.validity_at(now) {
        ValidityAt::Valid => return Ok(()),
        ValidityAt::NotYet => (format!("is not valid before {}", ca.not_before), "set this host's clock"),
        ValidityAt::Expired => (
            format!("expired {}", ca.not_after),
            "make a new one with `ft ca init` and new certificates for all hosts",
        ),
    };
    Err(IdentityError::CaOutOfTime { path, subject, why, todo })
}

/// A host calls its peers and is called by them; its certificate must be good for both.
fn check_as_peers_do(trust: &Trust, own: &CertifiedKey, now: SystemTime) -> Result<(), RefusedCertificate> {
    let (certificate, others) = own.cert.split_first().expect("from_pem put one certificate in");
    let name = ServerName::try_from(trust.own.as_str()).expect("every HostName is a DNS name");
    let now = UtcTime::from(now).to_unix_time();
    trust.check_server(certificate, others, &name, now)?;
    trust.check_client(certificate, others, now)?;
    Ok(())
}

fn key_error(key: &Path, certificate: &Path, error: rustls::Error) -> IdentityError {
    match error {
        rustls::Error::InconsistentKeys(_) => IdentityError::KeyMismatch {
            key: key.to_owned(),
            certificate: certificate.to_owned(),
            todo: COPY_AGAIN.to_owned(),
        },
        other => files::damaged(key, format!("not a usable key: {other}"), COPY_AGAIN),
    }
}
