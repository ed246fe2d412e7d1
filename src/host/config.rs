//! A host's file: who this host is, what it may use, and who the others are.
//!
//! ```toml
//! id = 1                              # this host's number in the cluster
//! name = "host-a"                     # the name in its certificate
//! listen = "10.0.0.1:7000"            # where the other hosts' agents reach this one (UDP)
//! vm_address = "10.0.0.1"             # where the VMs of other hosts reach this host's (UDP and TCP)
//! credentials = "/etc/ft/host-a"      # of `ft ca issue`
//! arbiter = "/shared/arbiter"         # as in a VM's file: a directory that all hosts share, or etcd
//! state = "/var/lib/ft"               # left out: this
//! domain = "rack-1"                   # what fails together; left out: the host's name
//! metrics = "127.0.0.1:9464"          # Prometheus metrics and /healthz; left out: none
//! draining = false                    # true: takes no further copies
//! keep_ended_hours = 168              # how long the files of a copy that is over are kept; left out: this
//! peers = [
//!     { id = 2, name = "host-b", address = "10.0.0.2:7000" },
//!     { id = 3, name = "host-c", address = "10.0.0.3:7000" },
//! ]
//!
//! [capacity]                          # what VMs may use here
//! memory_mib = 16384
//! vms = 20
//! ```
//!
//! Paths are relative to the file's directory.

use crate::arbiter::ArbiterConfig;
use crate::vm::config::{ConfigError, Host, read_as};
use ft_net::{HostName, Peer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where an agent keeps its state, unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/ft";

/// A host's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// This host's number in the cluster.
    pub id: u64,
    /// The name in its certificate.
    pub name: String,
    /// Where the other hosts' agents reach this one.
    pub listen: SocketAddr,
    /// Where the VMs of other hosts reach this host's.
    pub vm_address: IpAddr,
    /// This host's certificate and key.
    pub credentials: PathBuf,
    /// The arbiter, the same one for all hosts.
    pub arbiter: ArbiterConfig,
    /// Where the agent keeps what must outlive it.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// What fails together with this host; left out: nothing.
    pub domain: Option<String>,
    /// Where metrics and health are served, on this machine only.
    pub metrics: Option<SocketAddr>,
    /// Whether it takes no further copies.
    #[serde(default)]
    pub draining: bool,
    /// How long the files of a copy that is over are kept.
    #[serde(default = "default_keep")]
    pub keep_ended_hours: u64,
    /// The other hosts, and where their agents are.
    #[serde(default)]
    pub peers: Vec<Host>,
    /// What VMs may use here.
    pub capacity: Capacity,
}

/// Room for VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Memory of guests in MiB.
    pub memory_mib: u64,
    /// How many VMs.
    pub vms: u64,
}

fn default_state() -> PathBuf {
    STATE_DIR.into()
}

fn default_keep() -> u64 {
    168
}

impl HostFile {
    /// Reads a host's file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file, the place and what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut file = read_as(path, |text| {
            let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
            file.check()?;
            Ok(file)
        })?;
        if let Some(dir) = path.parent() {
            for path in [&mut file.credentials, &mut file.state] {
                *path = dir.join(&*path);
            }
            file.arbiter.resolve(dir);
        }
        Ok(file)
    }

    /// The other hosts by number, as the network knows them.
    pub fn peers(&self) -> BTreeMap<u64, Peer> {
        let peer = |host: &Host| {
            let name = host.name.parse().expect("checked when the file was read");
            (host.id, Peer { name, address: host.address })
        };
        self.peers.iter().map(peer).collect()
    }

    /// What fails together with this host.
    pub fn domain(&self) -> &str {
        self.domain.as_deref().unwrap_or(&self.name)
    }

    fn check(&self) -> Result<(), String> {
        for (what, id, name) in std::iter::once(("this host", self.id, &self.name))
            .chain(self.peers.iter().map(|peer| ("peers", peer.id, &peer.name)))
        {
            name.parse::<HostName>().map_err(|error| format!("{what}: {error}"))?;
            // 0 is what an unprotected VM runs on.
            if id == 0 {
                return Err(format!("{what}: id = 0: number the hosts from 1"));
            }
        }
        let ids: BTreeSet<u64> = self.peers.iter().map(|peer| peer.id).chain([self.id]).collect();
        let names: BTreeSet<&str> =
            self.peers.iter().map(|peer| &peer.name[..]).chain([&self.name[..]]).collect();
        if ids.len() != self.peers.len() + 1 || names.len() != ids.len() {
            return Err("peers: list the other hosts, each with an id and a name of its own".into());
        }
        if self.vm_address.is_unspecified() {
            return Err(format!(
                "vm_address = {}: give the address under which the other hosts reach this one",
                self.vm_address
            ));
        }
        if let Some(metrics) = self.metrics.filter(|address| !address.ip().is_loopback()) {
            return Err(format!(
                "metrics = {metrics}: choose a loopback address such as 127.0.0.1:9464; metrics are not protected"
            ));
        }
        if self.capacity.vms == 0 || self.capacity.memory_mib == 0 {
            return Err("capacity: give this host room for at least one VM, or set draining = true".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example in the module's documentation.
    fn example() -> String {
        include_str!("config.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
            .collect()
    }

    fn read(text: &str) -> Result<HostFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.toml");
        std::fs::write(&path, text).unwrap();
        HostFile::read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn the_documented_file_is_read() {
        let file = read(&example()).unwrap();
        assert_eq!((file.id, file.peers().len(), file.domain()), (1, 2, "rack-1"));
        assert_eq!(file.capacity, Capacity { memory_mib: 16384, vms: 20 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (right, wrong, word) in [
            ("name = \"host-a\"", "name = \"Host A\"", "uppercase"),
            ("id = 2,", "id = 1,", "of its own"),
            ("id = 2,", "id = 0,", "from 1"),
            ("\"host-b\"", "\"host-a\"", "of its own"),
            ("vm_address = \"10.0.0.1\"", "vm_address = \"0.0.0.0\"", "reach this one"),
            ("127.0.0.1:9464", "10.0.0.1:9464", "loopback"),
            ("vms = 20", "vms = 0", "at least one"),
            ("domain = ", "domian = ", "unknown field"),
            ("id = 1 ", "", "missing field `id`"),
        ] {
            let text = example();
            assert!(text.contains(right), "{right}");
            let error = read(&text.replacen(right, wrong, 1)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
