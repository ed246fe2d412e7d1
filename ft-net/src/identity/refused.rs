//! Why a certificate is refused, in one sentence that reads the same on both hosts.
//!
//! The sentence travels: rustls keeps it as the source of its error, and over QUIC it also reaches the peer,
//! as the reason of the close. So it names hosts instead of saying "we" and "they".

use super::certificate::CertificateSummary;
use super::{HostName, UtcTime};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A certificate that was refused: whose, why, and what to do next.
#[derive(Clone, PartialEq, Eq)]
pub struct RefusedCertificate {
    /// The host that the certificate names. It is the peer's claim; `reason` may well be that it is not
    /// proven.
    pub subject: String,
    /// Why it was refused.
    pub reason: Refusal,
}

/// Why a certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Its time is over.
    #[error("expired {since}")]
    Expired {
        /// The end of its validity.
        since: UtcTime,
    },
    /// Its time has not come, or a clock is wrong.
    #[error("is not valid before {from}, and the clock of {by} says {now}")]
    NotYetValid {
        /// The start of its validity.
        from: UtcTime,
        /// The host that refuses it.
        by: HostName,
        /// The time there.
        now: UtcTime,
    },
    /// It comes from another CA than the cluster's.
    #[error("was issued by {issuer}, but {by} trusts {trusted}")]
    OtherCa {
        /// The CA that the certificate names.
        issuer: String,
        /// The host that refuses it.
        by: HostName,
        /// The CA which that host trusts.
        trusted: String,
    },
    /// It is good, but belongs to another host than the one that was called.
    #[error("was presented where {expected} was called")]
    WrongHost {
        /// The host that was called.
        expected: String,
    },
    /// It is good, but its host is not one of those that may connect.
    #[error("is good, but {by} accepts only {}", list(allowed))]
    NotAllowed {
        /// The host that refuses it.
        by: HostName,
        /// The hosts that may connect there.
        allowed: BTreeSet<HostName>,
    },
    /// It names no host, several, or something that is not a host.
    #[error("does not name exactly one host")]
    NotOneHost,
    /// It may not be used for what it was presented for.
    #[error("does not allow {missing}")]
    WrongUse {
        /// The use that it lacks.
        missing: String,
    },
    /// It names the cluster's CA, which never signed it like this.
    #[error("does not carry the CA's signature: it was damaged or forged")]
    BadSignature,
    /// Whoever presented it could not sign with its key.
    #[error("was presented by somebody who does not hold its key")]
    KeyNotProven,
    /// It is not a certificate.
    #[error("cannot be read ({why})")]
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
    /// Another fault that the certificate library found.
    #[error("is not acceptable ({why})")]
    Other {
        /// What the library said.
        why: String,
    },
}

impl RefusedCertificate {
    pub(super) fn new(certificate: &CertificateSummary, reason: Refusal) -> Self {
        Self { subject: certificate.bearer(), reason }
    }

    pub(super) fn unreadable(why: String) -> Self {
        Self { subject: "an unknown host".to_owned(), reason: Refusal::Unreadable { why } }
    }

    /// The refusal behind an error of rustls, if a certificate of the peer was refused by an
    /// [`Identity`](super::Identity).
    pub fn of(error: &rustls::Error) -> Option<&Self> {
        let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = error else {
            return None;
        };
        other.0.downcast_ref()
    }

    /// What to do next.
    fn remedy(&self) -> String {
        let issue = match self.subject.parse::<HostName>() {
            Ok(host) => format!("`ft ca issue {host}`"),
            Err(_) => "`ft ca issue HOST`".to_owned(),
        };
        match &self.reason {
            Refusal::NotYetValid { .. } => {
                format!("set the clocks of both hosts, or issue a new one with {issue}")
            }
            Refusal::OtherCa { by, .. } => format!("issue one with the CA that {by} has: {issue}"),
            Refusal::WrongHost { expected } => {
                format!("correct the address of {expected}, or give that host its own certificate")
            }
            Refusal::NotAllowed { by, .. } => {
                format!("add the host to those that {by} accepts, if it belongs there")
            }
            Refusal::KeyNotProven => {
                format!("put back the host.key that was made with it, or issue a new one with {issue}")
            }
            _ => format!("issue a new one with {issue} and copy it to the host"),
        }
    }
}

impl fmt::Display for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate of {} {}; {}", self.subject, self.reason, self.remedy())
    }
}

/// The sentence as well: rustls prints this form of what is in its own errors, and quinn prints and sends
/// that.
impl fmt::Debug for RefusedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for RefusedCertificate {}

/// Through `Other`, because that variant alone carries our sentence. Its price is that the TLS alert always
/// is `certificate_unknown`; a peer over TCP finds out more from
/// [`Identity::explain`](super::Identity::explain).
impl From<RefusedCertificate> for rustls::Error {
    fn from(refused: RefusedCertificate) -> Self {
        rustls::CertificateError::Other(rustls::OtherError(Arc::new(refused))).into()
    }
}

fn list(hosts: &BTreeSet<HostName>) -> String {
    if hosts.is_empty() {
        return "no host at all".to_owned();
    }
    hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(reason: Refusal) -> RefusedCertificate {
        RefusedCertificate { subject: "host-b".to_owned(), reason }
    }

    #[test]
    fn the_sentence_names_whose_why_and_what_next() {
        let text = refused(Refusal::Expired { since: UtcTime::from_unix_secs(0) }).to_string();
        assert_eq!(
            text,
            "the certificate of host-b expired 1970-01-01T00:00:00Z; \
             issue a new one with `ft ca issue host-b` and copy it to the host"
        );
        let allowed = ["host-d".parse().unwrap(), "host-c".parse().unwrap()].into();
        let text = refused(Refusal::NotAllowed { by: "host-a".parse().unwrap(), allowed }).to_string();
        assert!(text.contains("host-a accepts only host-c, host-d;"), "{text}");
    }

    #[test]
    fn a_name_that_no_host_can_have_is_not_put_into_a_command() {
        let text =
            RefusedCertificate { subject: "$(reboot)".to_owned(), reason: Refusal::NotOneHost }.to_string();
        assert!(text.contains("`ft ca issue HOST`"), "{text}");
    }

    #[test]
    fn the_refusal_survives_rustls() {
        let refused = refused(Refusal::BadSignature);
        let error = rustls::Error::from(refused.clone());
        assert_eq!(RefusedCertificate::of(&error), Some(&refused));
        assert!(error.to_string().contains(&refused.to_string()), "{error}");
        assert_eq!(RefusedCertificate::of(&rustls::Error::DecryptError), None);
    }
}
