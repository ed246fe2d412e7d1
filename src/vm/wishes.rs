//! Where an operator wants the copies of a VM, as its file says it.
//!
//! ```toml
//! [placement]
//! preferred = ["host-a", "host-b"]   # rather there, the best first
//! possible = ["host-a", "host-b"]    # nowhere else; left out: anywhere
//! apart_from = ["other-vm"]          # never beside a copy of these
//! priority = 0                       # the higher, the earlier it gets room that is short
//! spread = "prefer"                  # other failure domains: "prefer", "require" or "ignore"
//! ```
//!
//! Only agents make anything of it: they know the hosts.

use ft_core::placement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where the copies of a VM had better be, or must be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wishes {
    /// Hosts that it should rather be on, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferred: Vec<String>,
    /// The only hosts that it may be on; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub possible: Option<BTreeSet<String>>,
    /// VMs that it must not share a host with.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub apart_from: BTreeSet<String>,
    /// The higher, the earlier it gets what is short.
    pub priority: i32,
    /// What is made of failure domains.
    pub spread: Spread,
}

/// What is made of failure domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// The copies had better be in different ones.
    #[default]
    Prefer,
    /// They must be.
    Require,
    /// They do not matter.
    Ignore,
}

impl From<Spread> for placement::Spread {
    fn from(spread: Spread) -> Self {
        match spread {
            Spread::Prefer => Self::Prefer,
            Spread::Require => Self::Require,
            Spread::Ignore => Self::Ignore,
        }
    }
}

impl Wishes {
    /// Whether nothing is wished for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What cannot be meant, of the VM `name` in a cluster of these hosts.
    ///
    /// # Errors
    /// What is wrong, with what there is to choose from.
    pub fn check(&self, name: &str, hosts: &BTreeSet<&str>) -> Result<(), String> {
        let possible = self.possible.iter().flatten().map(|host| ("possible", host));
        let named = self.preferred.iter().map(|host| ("preferred", host)).chain(possible);
        for (field, host) in named {
            if !hosts.contains(&**host) {
                let known: Vec<&str> = hosts.iter().copied().collect();
                return Err(format!(
                    "placement.{field}: {host} is no host of this cluster: choose among {}",
                    known.join(", ")
                ));
            }
        }
        if self.possible.as_ref().is_some_and(|possible| possible.len() < 2) {
            return Err("placement.possible: name at least two hosts, or leave it out".into());
        }
        if self.apart_from.contains(name) {
            return Err(format!("placement.apart_from: {name} cannot be apart from itself"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_documented_wishes_are_read_and_what_cannot_be_meant_is_named() {
        let source = include_str!("wishes.rs").lines();
        let example: String = source
            .skip_while(|line| *line != "//! [placement]")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
            .collect();
        let wishes: Wishes = toml::from_str(&example).unwrap();
        let hosts = BTreeSet::from(["host-a", "host-b"]);
        wishes.check("exchange", &hosts).unwrap();
        assert_eq!(toml::from_str::<Wishes>(&toml::to_string(&wishes).unwrap()).unwrap(), wishes);
        assert!(!wishes.is_empty() && Wishes::default().is_empty());
        for (right, wrong, word) in [
            ("preferred = [\"host-a\"", "preferred = [\"host-x\"", "choose among host-a, host-b"),
            ("possible = [\"host-a\"", "possible = [\"host-x\"", "placement.possible: host-x"),
            ("possible = [\"host-a\", \"host-b\"]", "possible = [\"host-a\"]", "at least two"),
            ("other-vm", "exchange", "itself"),
        ] {
            assert!(example.contains(right), "{right}");
            let wishes: Wishes = toml::from_str(&example.replacen(right, wrong, 1)).unwrap();
            let error = wishes.check("exchange", &hosts).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(toml::from_str::<Wishes>("spread = \"maybe\"").is_err());
    }
}
