//! Which arbiter, as files of VMs and hosts say it.
//!
//! ```toml
//! arbiter = "/shared/arbiter"
//! arbiter = { etcd = ["http://10.0.0.1:2379", "http://10.0.0.2:2379"], prefix = "ft" }
//! ```

use super::{ArbiterError, DirArbiter, EtcdArbiter, TermStore};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which arbiter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ArbiterConfig {
    /// A directory that all hosts share.
    Dir(PathBuf),
    /// An etcd cluster.
    Etcd(EtcdConfig),
}

/// An etcd cluster, and how to talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// Its members' client URLs, tried in turn.
    #[serde(rename = "etcd")]
    pub endpoints: Vec<String>,
    /// What all keys begin with: one for each installation that shares the cluster.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// Certificates of the authority that signed the members' own, for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This host's certificate, where etcd asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// etcd's user, where it has users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file with the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How long one request may take, over all endpoints together, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_prefix() -> String {
    "ft".into()
}

/// Some twenty times what a commit takes on a healthy cluster. A claim that gets no answer is repeated.
fn default_timeout_ms() -> u64 {
    2000
}

impl<'de> Deserialize<'de> for ArbiterConfig {
    /// By hand, because serde's untagged enums do not say what is wrong with either form.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EitherForm;

        impl<'de> Visitor<'de> for EitherForm {
            type Value = ArbiterConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a directory that all hosts share, or { etcd = [\"http://10.0.0.1:2379\"] }")
            }

            fn visit_str<E: serde::de::Error>(self, path: &str) -> Result<Self::Value, E> {
                Ok(ArbiterConfig::Dir(path.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let etcd = EtcdConfig::deserialize(MapAccessDeserializer::new(map))?;
                etcd.check().map_err(A::Error::custom)?;
                Ok(ArbiterConfig::Etcd(etcd))
            }
        }

        deserializer.deserialize_any(EitherForm)
    }
}

impl From<PathBuf> for ArbiterConfig {
    fn from(dir: PathBuf) -> Self {
        Self::Dir(dir)
    }
}

impl ArbiterConfig {
    /// The terms of VM `vm` at this arbiter.
    ///
    /// # Errors
    /// When the arbiter cannot be used as it is configured. An etcd that does not answer now is none: it may later.
    pub fn open(&self, vm: &str) -> Result<Box<dyn TermStore>, ArbiterError> {
        Ok(match self {
            Self::Dir(dir) => Box::new(DirArbiter::open(dir, vm)?),
            Self::Etcd(config) => Box::new(EtcdArbiter::open(config, vm)?),
        })
    }

    /// Makes paths relative to `dir` absolute.
    pub fn resolve(&mut self, dir: &Path) {
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        match self {
            Self::Dir(path) => paths.push(path),
            Self::Etcd(EtcdConfig { ca, cert, key, password_file, .. }) => {
                paths.extend([ca, cert, key, password_file].into_iter().flatten());
            }
        }
        for path in paths {
            *path = dir.join(&*path);
        }
    }
}

impl EtcdConfig {
    /// A cluster that is reached without TLS and without users.
    pub fn new(endpoints: impl IntoIterator<Item = String>) -> Self {
        Self {
            endpoints: endpoints.into_iter().collect(),
            prefix: default_prefix(),
            ca: None,
            cert: None,
            key: None,
            user: None,
            password_file: None,
            timeout_ms: default_timeout_ms(),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let is_url = |endpoint: &String| {
            let rest = endpoint.strip_prefix("http://").or(endpoint.strip_prefix("https://"));
            rest.is_some_and(|rest| !rest.trim_end_matches('/').is_empty())
        };
        if let Some(wrong) = self.endpoints.iter().find(|endpoint| !is_url(endpoint)) {
            return Err(format!("etcd: {wrong:?} is no URL: write http://HOST:2379 or https://HOST:2379"));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let ends = |c| self.prefix.starts_with(c) && self.prefix.ends_with(c);
        let wrong = if self.endpoints.is_empty() {
            "etcd: list at least one endpoint, such as \"http://10.0.0.1:2379\""
        } else if self.is_tls() != self.ca.is_some() {
            "ca: give it for https endpoints, and only for them"
        } else if self.cert.is_some() != self.key.is_some() {
            "cert and key: give both or neither"
        } else if self.cert.is_some() && !self.is_tls() {
            "cert: it is of use only with https endpoints"
        } else if self.user.is_some() != self.password_file.is_some() {
            "user and password_file: give both or neither"
        } else if self.prefix.is_empty() || !self.prefix.chars().all(is_plain) || ends('/') {
            "prefix: choose letters, digits, - _ . and / in between"
        } else if !(100..=60_000).contains(&self.timeout_ms) {
            "timeout_ms: choose 100 to 60000"
        } else {
            return Ok(());
        };
        Err(wrong.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct File {
        arbiter: ArbiterConfig,
        after: u32,
    }

    fn read(arbiter: &str) -> Result<ArbiterConfig, String> {
        let file = toml::from_str::<File>(&format!("after = 1\narbiter = {arbiter}\n"));
        file.map(|file| file.arbiter).map_err(|error| error.to_string())
    }

    #[test]
    fn both_forms_are_read_and_written() {
        let mut dir = read("\"shared\"").unwrap();
        dir.resolve(Path::new("/vms"));
        assert_eq!(dir, ArbiterConfig::Dir("/vms/shared".into()));
        let mut etcd =
            read("{ etcd = [\"https://a:2379\"], ca = \"ca.pem\", cert = \"/c\", key = \"k\" }").unwrap();
        etcd.resolve(Path::new("/vms"));
        let ArbiterConfig::Etcd(config) = &etcd else { panic!("{etcd:?}") };
        assert_eq!((&config.prefix[..], config.timeout_ms), ("ft", 2000));
        assert_eq!(config.ca.as_deref(), Some(Path::new("/vms/ca.pem")));
        assert_eq!(config.cert.as_deref(), Some(Path::new("/c")));
        for arbiter in [dir, etcd] {
            let text = toml::to_string(&File { arbiter: arbiter.clone(), after: 1 }).unwrap();
            assert_eq!(toml::from_str::<File>(&text).unwrap().arbiter, arbiter, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let url = "etcd = [\"http://a:1\"]";
        for (text, word) in [
            ("3", "a directory that all hosts share"),
            ("{ }", "missing field `etcd`"),
            ("{ etcd = [] }", "at least one endpoint"),
            ("{ etcd = [\"10.0.0.1:2379\"] }", "http://HOST:2379"),
            ("{ etcd = [\"https://a:1\"] }", "ca:"),
            (&format!("{{ {url}, ca = \"x\" }}"), "ca:"),
            (&format!("{{ {url}, key = \"x\" }}"), "cert and key"),
            (&format!("{{ {url}, cert = \"x\", key = \"x\" }}"), "https"),
            (&format!("{{ {url}, user = \"x\" }}"), "password_file"),
            (&format!("{{ {url}, prefix = \"\" }}"), "prefix"),
            (&format!("{{ {url}, timeout_ms = 1 }}"), "timeout_ms"),
            (&format!("{{ {url}, pasword = \"x\" }}"), "unknown field `pasword`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word) && error.contains("line 2"), "{error}");
        }
    }
}
