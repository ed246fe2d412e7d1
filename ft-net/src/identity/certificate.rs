//! What a certificate says, for people and for the sentences of refusals. It decides nothing: whether a
//! certificate is good is for `trust.rs`.

use super::files;
use super::{HostName, IdentityError, RefusedCertificate, UtcTime};
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::time::SystemTime;
use x509_parser::prelude::*;

/// What a certificate says. Nothing of it is proven: anybody can write a certificate.
///
/// Text out of a certificate has its control characters escaped and is cut at 64 characters, so it can be
/// printed and logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Whose it is: the common name; the whole distinguished name if there is none.
    pub subject: String,
    /// Who issued it: likewise.
    pub issuer: String,
    /// The DNS names it is for; one for the certificate of a host, none for that of a CA.
    pub hosts: Vec<String>,
    /// Whether it may issue others.
    pub is_ca: bool,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// The start of its validity.
    pub not_before: UtcTime,
    /// The end of its validity.
    pub not_after: UtcTime,
    /// The identifier of its own key, in hexadecimal. CAs have one.
    pub key_id: Option<String>,
    /// The identifier of its issuer's key, in hexadecimal. It tells apart CAs of the same name.
    pub issuer_key_id: Option<String>,
}

/// A certificate's validity at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValidityAt {
    /// Before its start.
    NotYet,
    /// Between its start and its end.
    Valid,
    /// After its end.
    Expired,
}

impl CertificateSummary {
    /// Reads every certificate in a PEM file, without judging them.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or holds no certificate.
    pub fn read(path: &Path) -> Result<Vec<Self>, IdentityError> {
        let todo = "name a PEM file with a certificate, or a directory made by `ft ca`";
        let pem = files::read_public(path, todo)?;
        files::certificates(path, &pem, todo)?.iter().map(|der| Self::of_file(path, der, todo)).collect()
    }

    /// Reads a certificate out of a file; `todo` is what to do when it is damaged.
    pub(super) fn of_file(path: &Path, der: &CertificateDer<'_>, todo: &str) -> Result<Self, IdentityError> {
        Self::of(der).map_err(|why| files::damaged(path, why, todo))
    }

    /// Reads a certificate, or says what is wrong with it.
    pub(super) fn of(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, x509) =
            parse_x509_certificate(der).map_err(|error| format!("not an X.509 certificate: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the certificate", rest.len()));
        }
        Ok(Self {
            subject: name(x509.subject()),
            issuer: name(x509.issuer()),
            hosts: dns_names(&x509)?,
            is_ca: x509.is_ca(),
            serial: hex(x509.raw_serial()),
            not_before: UtcTime::from_unix_secs(x509.validity().not_before.timestamp()),
            not_after: UtcTime::from_unix_secs(x509.validity().not_after.timestamp()),
            key_id: key_id(&x509),
            issuer_key_id: issuer_key_id(&x509),
        })
    }

    /// The host that the certificate is for: its one DNS name.
    pub(super) fn host(&self) -> Option<HostName> {
        match self.hosts.as_slice() {
            [host] => host.parse().ok(),
            _ => None,
        }
    }

    /// Whether the certificate says that `ca` issued it: the same name and, if both tell one, the same key.
    pub(super) fn names_as_issuer(&self, ca: &Self) -> bool {
        let same_key = match (&self.issuer_key_id, &ca.key_id) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => true,
        };
        self.issuer == ca.subject && same_key
    }

    /// Its state at `now`. Both ends of the validity belong to it (RFC 5280 section 4.1.2.5).
    pub fn validity_at(&self, now: SystemTime) -> ValidityAt {
        let now = UtcTime::from(now);
        if now < self.not_before {
            ValidityAt::NotYet
        } else if now > self.not_after {
            ValidityAt::Expired
        } else {
            ValidityAt::Valid
        }
    }

    /// Whose it is, for a sentence: its hosts, or else its subject.
    pub(super) fn bearer(&self) -> String {
        match self.hosts.as_slice() {
            [] => format!("`{}`", self.subject),
            [some @ .., last] if some.len() < 3 => {
                some.iter().map(|host| format!("{host} and ")).collect::<String>() + last
            }
            [first, ..] => format!("{first} and {} other hosts", self.hosts.len() - 1),
        }
    }

    /// The CA that this certificate is of, for a sentence.
    pub(super) fn as_ca(&self) -> String {
        ca_phrase(&self.subject, self.key_id.as_deref())
    }

    /// The CA that issued it, for a sentence.
    pub(super) fn issuer_as_ca(&self) -> String {
        ca_phrase(&self.issuer, self.issuer_key_id.as_deref())
    }
}

/// The host that a peer's certificate is for. `certificates` is what TLS hands out after a handshake with an
/// [`Identity`](super::Identity): the peer's own certificate first.
///
/// # Errors
/// If there is no certificate, or the first does not name exactly one host.
pub fn peer_host(certificates: &[CertificateDer<'_>]) -> Result<HostName, IdentityError> {
    let own = certificates.first().ok_or(IdentityError::NoPeerCertificate)?;
    let summary = CertificateSummary::of(own).map_err(RefusedCertificate::unreadable)?;
    summary.host().ok_or_else(|| RefusedCertificate::new(&summary, super::Refusal::NotOneHost).into())
}

fn ca_phrase(name: &str, key_id: Option<&str>) -> String {
    match key_id {
        Some(id) => format!("the CA `{name}` (key {})", id.get(..16).unwrap_or(id)),
        None => format!("the CA `{name}`"),
    }
}

fn name(name: &X509Name<'_>) -> String {
    match name.iter_common_name().next().map(|common| common.as_str()) {
        Some(Ok(text)) => printable(text),
        _ => printable(&name.to_string()),
    }
}

/// Foreign text, safe to print.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

fn dns_names(x509: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let names =
        x509.subject_alternative_name().map_err(|error| format!("its host names cannot be read: {error}"))?;
    let Some(names) = names else { return Ok(Vec::new()) };
    let dns = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        _ => None,
    });
    Ok(dns.collect())
}

fn key_id(x509: &X509Certificate<'_>) -> Option<String> {
    x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
        _ => None,
    })
}

fn issuer_key_id(x509: &X509Certificate<'_>) -> Option<String> {
    x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| hex(id.0)),
        _ => None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn summary(hosts: &[&str]) -> CertificateSummary {
        CertificateSummary {
            subject: "s".to_owned(),
            issuer: "prod".to_owned(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            is_ca: false,
            serial: "01".to_owned(),
            not_before: UtcTime::from_unix_secs(100),
            not_after: UtcTime::from_unix_secs(200),
            key_id: None,
            issuer_key_id: Some("aa".to_owned()),
        }
    }

    #[test]
    fn both_ends_of_the_validity_belong_to_it() {
        let at =
            |secs| summary(&[]).validity_at(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(secs));
        assert_eq!(at(99), ValidityAt::NotYet);
        assert_eq!(at(100), ValidityAt::Valid);
        assert_eq!(at(200), ValidityAt::Valid);
        assert_eq!(at(201), ValidityAt::Expired);
    }

    #[test]
    fn exactly_one_proper_name_makes_a_host() {
        assert_eq!(summary(&["host-a"]).host().unwrap().as_str(), "host-a");
        assert_eq!(summary(&[]).host(), None);
        assert_eq!(summary(&["host-a", "host-b"]).host(), None);
        assert_eq!(summary(&["*.example.org"]).host(), None);
    }

    #[test]
    fn the_bearer_is_one_short_phrase() {
        assert_eq!(summary(&[]).bearer(), "`s`");
        assert_eq!(summary(&["a"]).bearer(), "a");
        assert_eq!(summary(&["a", "b", "c"]).bearer(), "a and b and c");
        assert_eq!(summary(&["a", "b", "c", "d"]).bearer(), "a and 3 other hosts");
    }

    #[test]
    fn two_cas_of_one_name_are_told_apart_by_their_keys() {
        let ca = |key: &str| CertificateSummary {
            subject: "prod".to_owned(),
            key_id: Some(key.to_owned()),
            ..summary(&[])
        };
        assert!(summary(&[]).names_as_issuer(&ca("aa")));
        assert!(!summary(&[]).names_as_issuer(&ca("bb")));
    }

    #[test]
    fn text_of_a_certificate_cannot_drive_a_terminal() {
        assert_eq!(printable("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(printable(&"x".repeat(1000)).len(), 64);
    }

    #[test]
    fn no_certificate_is_no_host() {
        assert!(matches!(peer_host(&[]), Err(IdentityError::NoPeerCertificate)));
        let junk = CertificateDer::from(vec![0x30, 0x03, 1, 2]);
        let error = peer_host(&[junk]).unwrap_err().to_string();
        assert!(error.contains("not an X.509 certificate"), "{error}");
    }
}
