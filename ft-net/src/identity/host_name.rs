//! The name of a host, as its certificate carries it.

use super::IdentityError;
use std::fmt;
use std::str::FromStr;

/// The name of a host of the cluster: the one DNS name in its certificate.
///
/// 1 to 63 characters (a certificate's common name ends at 64): labels of lowercase letters, digits and
/// hyphens, separated by dots. The last label is not a number, so that no address is ever taken for a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

impl HostName {
    /// The longest name, in characters.
    pub const LENGTH_MAX: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = IdentityError;

    fn from_str(given: &str) -> Result<Self, IdentityError> {
        match fault(given) {
            None => Ok(Self(given.to_owned())),
            Some(why) => Err(IdentityError::HostName { given: given.chars().take(80).collect(), why }),
        }
    }
}

/// What is wrong with a name, if anything (RFC 1123 section 2.1, narrowed to lowercase).
fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > HostName::LENGTH_MAX {
        return Some("it is longer than 63 characters");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("it has an uppercase letter");
    }
    if name.split('.').any(str::is_empty) {
        return Some("it has an empty part before, between or after its dots");
    }
    if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')) {
        return Some("it has a character that host names do not have");
    }
    if name.split('.').any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Some("a part of it starts or ends with a hyphen");
    }
    if name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some("its last part is a number, as in an IP address");
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::ServerName;

    #[test]
    fn names_of_hosts_are_accepted() {
        for name in ["a", "host-a", "h1.rack-2.example.org", "0x.a", &"a".repeat(63)] {
            assert_eq!(name.parse::<HostName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn what_is_not_a_name_is_refused_and_the_error_says_why() {
        let cases = [
            ("", "empty"),
            (&"a".repeat(64), "longer than 63"),
            ("Host", "uppercase"),
            ("a..b", "empty part"),
            (".a", "empty part"),
            ("a.", "empty part"),
            ("a_b", "character"),
            ("*.example.org", "character"),
            ("höst", "character"),
            ("a b", "character"),
            ("../a", "empty part"),
            ("a/b", "character"),
            ("-a", "hyphen"),
            ("a-.b", "hyphen"),
            ("10.0.0.1", "IP address"),
            ("7", "IP address"),
        ];
        for (name, why) in cases {
            let error = name.parse::<HostName>().unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
            assert!(error.contains("use 1 to 63"), "{name:?}: {error}");
        }
    }

    proptest! {
        /// What we call a name, TLS calls one too; nothing is left to be refused later, in a handshake.
        #[test]
        fn every_host_name_is_a_dns_name(text in "[a-z0-9.-]{1,64}") {
            let is_dns_name = matches!(ServerName::try_from(text.as_str()), Ok(ServerName::DnsName(_)));
            if text.parse::<HostName>().is_ok() {
                prop_assert!(is_dns_name);
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,100}") {
            let _ = text.parse::<HostName>();
        }
    }
}
