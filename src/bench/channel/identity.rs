//! Throw-away certificates: one CA for each run, one host on each side.
//!
//! The suite is fixed to AES-128-GCM on both TLS contenders, so that they pay the same for each byte.

use super::error::{Doing, Error};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The name in the serving side's certificate.
pub(super) const SERVER_NAME: &str = "receiver.bench";
const CLIENT_NAME: &str = "sender.bench";
/// QUIC insists on an application protocol.
const ALPN: &[u8] = b"ft-bench";

/// What one side needs to prove who it is and to check the other, in PEM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Credentials {
    ca: String,
    certificate: String,
    key: String,
}

/// Credentials of the serving and of the driving side under a fresh CA.
pub(super) fn pair() -> Result<(Credentials, Credentials), Error> {
    let making = "make throw-away certificates";
    let mut params = CertificateParams::new(Vec::new()).doing(making)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().doing(making)?).doing(making)?;
    let issue = |name: &str| -> Result<Credentials, Error> {
        let key = KeyPair::generate().doing(making)?;
        let params = CertificateParams::new([name.to_owned()]).doing(making)?;
        let certificate = params.signed_by(&key, &ca).doing(making)?;
        Ok(Credentials { ca: ca.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    };
    Ok((issue(SERVER_NAME)?, issue(CLIENT_NAME)?))
}

impl Credentials {
    /// TLS 1.3 only; a client without a certificate of the run's CA is refused.
    pub(super) fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let provider = provider();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(self.roots()?.into(), Arc::clone(&provider))
                .build()
                .doing("set up the check of client certificates")?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .doing("choose TLS 1.3")?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain()?, self.private_key()?)
            .doing("load the server's certificate")?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS 1.3 only; trusts the run's CA and nobody else.
    pub(super) fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .doing("choose TLS 1.3")?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.chain()?, self.private_key()?)
            .doing("load the client's certificate")?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).doing("read the CA's certificate")?;
        roots.add(ca).doing("trust the run's CA")?;
        Ok(roots)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        Ok(vec![certificate.doing("read a certificate")?])
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).doing("read a private key")
    }
}

/// aws-lc-rs with the one suite that is measured.
fn provider() -> Arc<CryptoProvider> {
    let suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_build_their_configurations() {
        let (serve, drive) = pair().unwrap();
        serve.server_config().unwrap();
        drive.client_config().unwrap();
    }
}
