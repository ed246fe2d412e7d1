//! The TLS configurations of a host. The same ones serve QUIC (quinn) and TCP (tokio-rustls).
//!
//! Invariant (R12): TLS 1.3 only; both sides present a certificate; no 0-RTT and no resumption, so that every
//! connection proves both identities anew and an expired certificate ends at the next connection.

use super::trust::Trust;
use super::{HostName, Identity, Refusal, RefusedCertificate};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The cryptography of every connection. AES-128 comes first: it is the fastest where the CPU has AES
/// instructions, and the log has to keep up with the network.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

impl Identity {
    /// For a host that accepts connections from every host of the cluster. `alpn` names the protocol spoken
    /// inside; a peer that wants another one is refused.
    pub fn server_config(&self, alpn: &[u8]) -> Arc<ServerConfig> {
        self.server_config_for(alpn, None)
    }

    /// For a host that accepts connections from some hosts only: from those in `allowed`, or with `None` from
    /// every host of the cluster. An empty set refuses everybody.
    pub fn server_config_for(&self, alpn: &[u8], allowed: Option<BTreeSet<HostName>>) -> Arc<ServerConfig> {
        let verifier = Arc::new(CallersOf { trust: self.trust.clone(), allowed });
        let mut config = ServerConfig::builder_with_provider(self.trust.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("every suite of provider() is of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Arc::new(config)
    }

    /// For a host that connects to another one. The name given to the connection is the [`HostName`] that the
    /// peer's certificate must be for, whatever the peer's address is.
    pub fn client_config(&self, alpn: &[u8]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(self.trust.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("every suite of provider() is of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(CalledBy { trust: self.trust.clone() }))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Arc::new(config)
    }
}

/// TLS 1.2 is not configured anywhere, so nothing should ask to verify its signatures.
fn no_tls12() -> Error {
    PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}

/// Judges the hosts that call.
#[derive(Debug)]
struct CallersOf {
    trust: Arc<Trust>,
    allowed: Option<BTreeSet<HostName>>,
}

impl CallersOf {
    fn check_allowed(&self, host: HostName) -> Result<(), RefusedCertificate> {
        match &self.allowed {
            Some(allowed) if !allowed.contains(&host) => {
                let reason = Refusal::NotAllowed { by: self.trust.own.clone(), allowed: allowed.clone() };
                Err(RefusedCertificate { subject: host.to_string(), reason })
            }
            _ => Ok(()),
        }
    }
}

impl ClientCertVerifier for CallersOf {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a host has one certificate and presents it in any case, so that we can say what is wrong
        // with it.
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let host = self.trust.check_client(certificate, others, now)?;
        self.check_allowed(host)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}

/// Judges the hosts that are called.
#[derive(Debug)]
struct CalledBy {
    trust: Arc<Trust>,
}

impl ServerCertVerifier for CalledBy {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        expected: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.trust.check_server(certificate, others, expected, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.trust.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}
