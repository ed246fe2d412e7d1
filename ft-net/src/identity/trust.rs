//! Whom a host trusts: certificates of hosts, issued by the cluster's CA, valid now. webpki judges; this file
//! finds the words, and adds what webpki does not ask for.
//!
//! Invariant: a certificate is accepted only if webpki accepts it *and* it names exactly one host.
//!
//! What it does not do: revocation. A host that must not come back is taken off the lists of allowed hosts;
//! its certificate ends with its validity. The CA's own end is checked when an identity is loaded, not for
//! each peer: a host's certificate is never issued beyond it.

use super::certificate::CertificateSummary;
use super::{HostName, Refusal, RefusedCertificate, UtcTime};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// What the host `own` trusts.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) own: HostName,
    pub(super) ca: CertificateSummary,
    pub(super) provider: Arc<CryptoProvider>,
    as_client: Arc<WebPkiServerVerifier>,
    as_server: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    /// Trusts one CA. The error says what is wrong with its certificate.
    pub(super) fn new(
        own: HostName,
        ca: CertificateSummary,
        ca_der: CertificateDer<'static>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(ca_der).map_err(|error| error.to_string())?;
        let roots = Arc::new(roots);
        let as_client = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let as_server = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build();
        Ok(Self {
            own,
            ca,
            provider,
            as_client: as_client.map_err(|error| error.to_string())?,
            as_server: as_server.map_err(|error| error.to_string())?,
        })
    }

    /// Judges the certificate of a host that was called by the name `expected`.
    pub(super) fn check_server(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        expected: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<HostName, RefusedCertificate> {
        let summary = CertificateSummary::of(certificate).map_err(RefusedCertificate::unreadable)?;
        let verdict = self.as_client.verify_server_cert(certificate, others, expected, &[], now).map(|_| ());
        let host = self.accept(&summary, verdict, now)?;
        if host.as_str() != expected.to_str() {
            let expected = expected.to_str().into_owned();
            return Err(RefusedCertificate::new(&summary, Refusal::WrongHost { expected }));
        }
        Ok(host)
    }

    /// Judges the certificate of a host that calls.
    pub(super) fn check_client(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<HostName, RefusedCertificate> {
        let summary = CertificateSummary::of(certificate).map_err(RefusedCertificate::unreadable)?;
        let verdict = self.as_server.verify_client_cert(certificate, others, now).map(|_| ());
        self.accept(&summary, verdict, now)
    }

    /// The proof that the peer holds its certificate's key.
    pub(super) fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.as_client.verify_tls13_signature(message, certificate, signature).map_err(|error| {
            match CertificateSummary::of(certificate) {
                Ok(summary) => RefusedCertificate::new(&summary, Refusal::KeyNotProven).into(),
                Err(_) => error,
            }
        })
    }

    pub(super) fn schemes(&self) -> Vec<SignatureScheme> {
        self.as_client.supported_verify_schemes()
    }

    fn accept(
        &self,
        summary: &CertificateSummary,
        verdict: Result<(), Error>,
        now: UnixTime,
    ) -> Result<HostName, RefusedCertificate> {
        let refuse = |reason| RefusedCertificate::new(summary, reason);
        verdict.map_err(|error| refuse(self.reason(summary, error, now)))?;
        summary.host().ok_or_else(|| refuse(Refusal::NotOneHost))
    }

    /// Why webpki refused. The issuer comes first: what a certificate of another CA says of its validity,
    /// say, is nobody's concern.
    fn reason(&self, summary: &CertificateSummary, error: Error, now: UnixTime) -> Refusal {
        use CertificateError as E;
        if !summary.names_as_issuer(&self.ca) {
            return self.other_ca(summary);
        }
        let Error::InvalidCertificate(fault) = error else {
            return Refusal::Other { why: error.to_string() };
        };
        match fault {
            E::Expired | E::ExpiredContext { .. } => Refusal::Expired { since: summary.not_after },
            E::NotValidYet | E::NotValidYetContext { .. } => {
                let now = UtcTime::from_unix_secs(now.as_secs().try_into().unwrap_or(i64::MAX));
                Refusal::NotYetValid { from: summary.not_before, by: self.own.clone(), now }
            }
            E::NotValidForNameContext { expected, .. } => {
                Refusal::WrongHost { expected: expected.to_str().into_owned() }
            }
            E::InvalidPurposeContext { required, .. } => Refusal::WrongUse { missing: required.to_string() },
            E::BadSignature => Refusal::BadSignature,
            E::UnknownIssuer => self.other_ca(summary),
            other => Refusal::Other { why: other.to_string() },
        }
    }

    fn other_ca(&self, summary: &CertificateSummary) -> Refusal {
        Refusal::OtherCa { issuer: summary.issuer_as_ca(), by: self.own.clone(), trusted: self.ca.as_ca() }
    }
}
