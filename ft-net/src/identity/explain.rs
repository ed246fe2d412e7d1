//! From what TLS, TCP and QUIC report to a sentence about certificates.
//!
//! The side that refuses knows the reason exactly. The side that is refused gets the same sentence over QUIC,
//! as the reason of the close; over TCP it gets one number, the TLS alert (RFC 8446 section 6.2), and the
//! best it can do is look at its own certificate again.

use super::{HostName, Identity, RefusedCertificate, ValidityAt};
use rustls::{AlertDescription, Error};
use std::fmt;
use std::io;
use std::time::SystemTime;

/// A connection that failed because of who the two ends are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefused {
    /// We refused the peer's certificate.
    #[error("refused {peer}: {why}")]
    TheirCertificate {
        /// The peer, as the caller calls it.
        peer: String,
        /// Why, and what to do next.
        why: String,
    },
    /// The peer presented no certificate to us.
    #[error("refused {peer}: it presented no certificate; give it one with `ft ca issue`")]
    TheyPresentedNone {
        /// The peer, as the caller calls it.
        peer: String,
    },
    /// The peer refused our certificate.
    #[error("{peer} refused our certificate ({ours}): {why}")]
    OurCertificate {
        /// The peer, as the caller calls it.
        peer: String,
        /// The host that we are.
        ours: HostName,
        /// Why, as far as it can be known here, and what to do next.
        why: String,
    },
    /// The two ends have no version or parameters of TLS in common.
    #[error("{peer} does not speak TLS 1.3 as we do ({why}); run the same version of ft on both hosts")]
    NoCommonTls {
        /// The peer, as the caller calls it.
        peer: String,
        /// What TLS reported.
        why: String,
    },
}

/// QUIC reports a TLS alert as this plus the alert's number (RFC 9001 section 4.8).
const QUIC_CRYPTO_ERROR: u64 = 0x100;

impl Identity {
    /// Explains an error of rustls on a connection with `peer`, if it is about who the two ends are.
    pub fn explain(&self, peer: impl fmt::Display, error: &Error, now: SystemTime) -> Option<PeerRefused> {
        let peer = peer.to_string();
        match error {
            Error::InvalidCertificate(fault) => {
                let refused = RefusedCertificate::of(error).map(ToString::to_string);
                Some(PeerRefused::TheirCertificate {
                    peer,
                    why: refused.unwrap_or_else(|| fault.to_string()),
                })
            }
            Error::NoCertificatesPresented => Some(PeerRefused::TheyPresentedNone { peer }),
            Error::PeerIncompatible(what) => {
                Some(PeerRefused::NoCommonTls { peer, why: format!("{what:?}") })
            }
            Error::AlertReceived(alert) => self.explain_alert(peer, *alert, now),
            _ => None,
        }
    }

    /// Explains an error of a TLS connection over TCP (tokio-rustls) with `peer`, if it is about who the two
    /// ends are.
    pub fn explain_io(
        &self,
        peer: impl fmt::Display,
        error: &io::Error,
        now: SystemTime,
    ) -> Option<PeerRefused> {
        self.explain(peer, error.get_ref()?.downcast_ref()?, now)
    }

    /// Explains the end of a QUIC connection with `peer`, if it is about who the two ends are.
    ///
    /// A client finishes its handshake before the server judges its certificate: the refusal can come as the
    /// reason why an established connection ended.
    pub fn explain_quic(
        &self,
        peer: impl fmt::Display,
        error: &quinn::ConnectionError,
        now: SystemTime,
    ) -> Option<PeerRefused> {
        let peer = peer.to_string();
        match error {
            quinn::ConnectionError::TransportError(ours) => {
                let alert = quic_alert(ours.code)?;
                match sentence(&ours.reason) {
                    Some(why) => Some(PeerRefused::TheirCertificate { peer, why: why.to_owned() }),
                    None if alert == AlertDescription::CertificateRequired => {
                        Some(PeerRefused::TheyPresentedNone { peer })
                    }
                    None => None,
                }
            }
            quinn::ConnectionError::ConnectionClosed(theirs) => {
                let alert = quic_alert(theirs.error_code)?;
                let text = String::from_utf8_lossy(&theirs.reason);
                match sentence(&text) {
                    Some(why) => Some(self.ours_refused(peer, foreign(why))),
                    None => self.explain_alert(peer, alert, now),
                }
            }
            _ => None,
        }
    }

    fn explain_alert(&self, peer: String, alert: AlertDescription, now: SystemTime) -> Option<PeerRefused> {
        use AlertDescription as A;
        if matches!(alert, A::ProtocolVersion | A::HandshakeFailure | A::InsufficientSecurity) {
            return Some(PeerRefused::NoCommonTls { peer, why: format!("{alert:?}") });
        }
        let why = alert_reason(alert)?;
        let issue = format!("issue a new one with `ft ca issue {}`", self.host());
        let why = match self.summary().validity_at(now) {
            ValidityAt::Expired => format!("expired {}; {issue}", self.summary().not_after),
            ValidityAt::NotYet => {
                format!("not valid before {}; set this host's clock, or {issue}", self.summary().not_before)
            }
            ValidityAt::Valid => format!("{why}; the log of {peer} says more"),
        };
        Some(self.ours_refused(peer, why))
    }

    fn ours_refused(&self, peer: String, why: String) -> PeerRefused {
        PeerRefused::OurCertificate { peer, ours: self.host().clone(), why }
    }
}

/// What an alert says about the certificate of the side that receives it, if anything.
fn alert_reason(alert: AlertDescription) -> Option<&'static str> {
    use AlertDescription as A;
    Some(match alert {
        A::CertificateExpired => {
            "expired or not yet valid by the clock there; compare the clocks of both hosts"
        }
        A::UnknownCA => "issued by a CA that is not trusted there; compare both hosts with `ft ca show`",
        A::CertificateRequired => "none was presented",
        A::CertificateRevoked => "revoked",
        A::UnsupportedCertificate => "of a kind, or for a use, that is not accepted there",
        A::AccessDenied => "good, but not allowed to connect there",
        A::DecryptError => "its signature or the proof of its key is wrong",
        A::BadCertificate => "damaged, or for another host name",
        A::CertificateUnknown => {
            "of another CA, for another host name, expired by the clock there, or its host not allowed there"
        }
        _ => return None,
    })
}

fn quic_alert(code: quinn::TransportErrorCode) -> Option<AlertDescription> {
    let number = u64::from(code).checked_sub(QUIC_CRYPTO_ERROR)?;
    u8::try_from(number).ok().map(AlertDescription::from)
}

/// The sentence of a [`RefusedCertificate`], or what else rustls says, in its text for
/// [`Error::InvalidCertificate`]. Over QUIC this text is all there is.
fn sentence(text: &str) -> Option<&str> {
    let fault = text.strip_prefix("invalid peer certificate: ")?;
    let wrapped = fault.strip_prefix("Other(OtherError(").and_then(|rest| rest.strip_suffix("))"));
    Some(wrapped.unwrap_or(fault))
}

/// What a peer wrote, cut and cleaned: it may be anybody, and this goes to a terminal and to a log.
fn foreign(text: &str) -> String {
    let clean = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(600).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_cannot_drive_a_terminal_or_fill_a_log() {
        assert_eq!(foreign("expired\u{1b}[2J\n\u{202e}x"), "expired?[2J??x");
        assert_eq!(foreign(&"x".repeat(5000)).len(), 600);
    }

    #[test]
    fn the_sentence_is_found_in_the_text_of_rustls() {
        let refused = RefusedCertificate::unreadable("it is (too) short".to_owned());
        let error = Error::from(refused.clone());
        assert_eq!(sentence(&error.to_string()), Some(refused.to_string().as_str()));
        let plain = Error::from(rustls::CertificateError::BadEncoding);
        assert_eq!(sentence(&plain.to_string()), Some("BadEncoding"));
        assert_eq!(sentence("the peer is tired"), None);
    }

    #[test]
    fn quic_codes_outside_of_tls_are_not_alerts() {
        assert_eq!(
            quic_alert(quinn::TransportErrorCode::crypto(45)),
            Some(AlertDescription::CertificateExpired)
        );
        assert_eq!(quic_alert(quinn::TransportErrorCode::PROTOCOL_VIOLATION), None);
    }

    #[test]
    fn alerts_that_are_not_about_certificates_stay_unexplained() {
        assert_eq!(alert_reason(AlertDescription::CloseNotify), None);
        assert_eq!(alert_reason(AlertDescription::InternalError), None);
    }
}
