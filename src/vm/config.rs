//! A VM's file: what it is made of, and the hosts that may run it.
//!
//! ```toml
//! name = "exchange"
//! ram_mib = 64
//! heartbeat_ms = 100               # between two signs of life; a host is lost after three
//!
//! [guest]                          # left out: the built-in key-value store
//! kind = "flat"                    # built-in, flat or linux
//! image = "guest.elf"
//! command_line = "mode=kv"
//! on_crash = "restart"             # or "stop"
//! again_within_s = 600             # down again so soon, it is handed over to the other host, by agents; 0: never
//!
//! [net]
//! mac = "52:54:00:12:34:56"
//! switch = "/run/ft/lan.sock"      # of `ft switch`
//!
//! [disk]
//! path = "/shared/exchange.img"    # the same file on every host
//! mib = 64
//! # mirror = true                  # or a file of its own on each host, such as "/var/lib/exchange.img"; for hosts that see one file
//! #                                # system, path = "/san/exchange-{host}.img" has the host's name in it
//!
//! [cluster]
//! arbiter = "/shared/arbiter"      # a directory that all hosts share; or an etcd cluster:
//! # arbiter = { etcd = ["https://10.0.0.1:2379"], ca = "ca.pem", cert = "host.pem", key = "host.key" }
//! credentials = "/etc/ft/host-a"   # of `ft ca issue`; this host's
//! hosts = [
//!     { id = 1, name = "host-a", address = "10.0.0.1:7001" },
//!     { id = 2, name = "host-b", address = "10.0.0.2:7001" },
//! ]
//! ```
//!
//! Paths are relative to the file's directory. `[placement]`, for agents: see [`Wishes`].

use crate::arbiter::ArbiterConfig;
use crate::lan::Mac;
use crate::vm::wishes::Wishes;
use ft_vmm::power::OnCrash;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// A guest that goes down again within so many seconds is handed over, unless its file says otherwise.
const AGAIN_WITHIN_S: u64 = 600;

/// A VM's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmFile {
    /// The VM's name: its terms stand under it at the arbiter.
    pub name: String,
    /// RAM in MiB.
    #[serde(default = "default_ram_mib")]
    pub ram_mib: u64,
    /// Milliseconds between two signs of life; a host is lost after three. Left out: [`HEARTBEAT_MS`].
    pub heartbeat_ms: Option<u64>,
    /// What runs in it.
    #[serde(default)]
    pub guest: Guest,
    /// Its network card; left out: none.
    pub net: Option<Net>,
    /// Its disk; left out: none.
    pub disk: Option<DiskFile>,
    /// Where agents are to have its copies.
    #[serde(default, skip_serializing_if = "Wishes::is_empty")]
    pub placement: Wishes,
    /// The hosts; left out: it can only be run unprotected.
    pub cluster: Option<Cluster>,
}

/// Milliseconds between two signs of life, unless something else is asked for.
pub const HEARTBEAT_MS: u64 = 100;

/// The environment variable with the file to which `ft primary` records, unless it is told. Agents hand it on to the first copies of VMs.
pub const RECORD_VARIABLE: &str = "FT_RECORD";

/// What can be asked for.
pub const HEARTBEAT_MS_RANGE: std::ops::RangeInclusive<u64> = 10..=1000;

fn default_ram_mib() -> u64 {
    64
}

/// What runs in a VM.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Which kind of guest.
    #[serde(default)]
    pub kind: GuestKind,
    /// The image, unless it is the built-in one.
    pub image: Option<PathBuf>,
    /// Initial RAM disk, for Linux.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    #[serde(default)]
    pub command_line: String,
    /// What the machine does when it crashes.
    #[serde(default)]
    pub on_crash: OnCrash,
    /// A guest that hangs or crashes again within so many seconds is handed over to the other host, by agents; 0: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub again_within_s: Option<u64>,
}

impl Guest {
    /// How soon a second restart has the VM handed over.
    pub fn again_within(&self) -> Duration {
        Duration::from_secs(self.again_within_s.unwrap_or(AGAIN_WITHIN_S))
    }
}

/// How a guest is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// The key-value store that comes with this program.
    #[default]
    BuiltIn,
    /// An ELF file that is started as the built-in guest is (docs/guest.md).
    Flat,
    /// A Linux kernel.
    Linux,
}

/// A network card.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// Its address: no group's.
    #[serde(deserialize_with = "unicast")]
    pub mac: Mac,
    /// Socket of the switch that it is plugged into.
    pub switch: PathBuf,
}

/// A card has the address of one station.
fn unicast<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
    let mac = Mac::deserialize(deserializer)?;
    if mac.is_unicast() {
        return Ok(mac);
    }
    Err(D::Error::custom(format!(
        "{mac} is a group address: choose one whose first byte is even, such as 52:54:00:12:34:56"
    )))
}

/// A disk in a file: one that all hosts share, or one on each of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFile {
    /// The file. It is made where there is none. Of a mirrored disk, `{host}` in it stands for the host's name, for hosts that see one
    /// file system.
    pub path: PathBuf,
    /// Its size in MiB.
    pub mib: u64,
    /// Each host has a copy of its own at `path`, and the secondary writes what the primary writes. Its copy is made anew whenever it
    /// joins; while that is under way it is `PATH.partial`. `PATH.term` holds the last term in which the copy was in step: a VM whose
    /// copies were all lost starts only from one that is not older than the arbiter's last term.
    #[serde(default)]
    pub mirror: bool,
}

/// In a disk's path: the host's name.
const HOST_NAME: &str = "{host}";

impl DiskFile {
    /// The file on the host of that name; `None` where it takes a host and there is none.
    pub fn path_on(&self, host: Option<&str>) -> Option<PathBuf> {
        match self.path.to_str().filter(|path| path.contains(HOST_NAME)) {
            Some(path) => Some(path.replace(HOST_NAME, host?).into()),
            None => Some(self.path.clone()),
        }
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=1 << 22).contains(&self.mib) {
            return Err("disk: choose mib = 1 to 4194304".into());
        }
        if !self.mirror && self.path.to_str().is_some_and(|path| path.contains(HOST_NAME)) {
            return Err("disk: hosts that share a disk have it under one path; leave {host} out of it, or set mirror = true".into());
        }
        Ok(())
    }
}

/// The hosts of a VM.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Who decides which host is live.
    pub arbiter: ArbiterConfig,
    /// This host's certificate and key.
    pub credentials: PathBuf,
    /// All hosts, this one too.
    pub hosts: Vec<Host>,
}

/// A host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its number in the cluster.
    pub id: u64,
    /// The name in its certificate.
    pub name: String,
    /// Where it listens for the others.
    pub address: SocketAddr,
}

/// A VM's file that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where there is one.
        reason: String,
    },
}

/// What the text of a file says.
pub(crate) fn read_as<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| ConfigError::Read { path: path.into(), source })?;
    parse(&text).map_err(|reason| ConfigError::Content { path: path.into(), reason })
}

impl VmFile {
    /// Reads a VM's file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file, the place and what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = Self::read_growing(path)?;
        if file.cluster.as_ref().is_some_and(|cluster| cluster.hosts.len() < 2) {
            let reason =
                "cluster.hosts: list at least two hosts, each with an id and a name of its own".into();
            return Err(ConfigError::Content { path: path.into(), reason });
        }
        Ok(file)
    }

    /// Reads the file of a VM that is told of further hosts while it runs: it may begin with this host only.
    ///
    /// # Errors
    /// As [`VmFile::read`].
    pub fn read_growing(path: &Path) -> Result<Self, ConfigError> {
        let mut file = read_as(path, Self::from_text)?;
        if let Some(dir) = path.parent() {
            file.resolve(dir);
        }
        Ok(file)
    }

    /// What a text says, with paths as they stand in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty()
            || self.name.len() > 64
            || !self.name.chars().all(is_plain)
            || self.name.starts_with('.')
        {
            return Err(format!(
                "name = {:?}: choose letters, digits, - _ and . (64 at most, no . in front)",
                self.name
            ));
        }
        if !(1..=3072).contains(&self.ram_mib) {
            return Err(format!("ram_mib = {}: choose 1 to 3072", self.ram_mib));
        }
        if let Some(ms) = self.heartbeat_ms.filter(|ms| !HEARTBEAT_MS_RANGE.contains(ms)) {
            return Err(format!("heartbeat_ms = {ms}: choose 10 to 1000"));
        }
        if (self.guest.kind == GuestKind::BuiltIn) != self.guest.image.is_none() {
            return Err(
                "guest: give an image for kind = \"flat\" and \"linux\", and none for \"built-in\"".into()
            );
        }
        self.disk.as_ref().map_or(Ok(()), DiskFile::check)?;
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let ids: BTreeSet<u64> = cluster.hosts.iter().map(|host| host.id).collect();
        let names: BTreeSet<&str> = cluster.hosts.iter().map(|host| &host.name[..]).collect();
        if ids.len() != cluster.hosts.len() || names.len() != cluster.hosts.len() {
            return Err("cluster.hosts: give each host an id and a name of its own".into());
        }
        Ok(())
    }

    fn resolve(&mut self, dir: &Path) {
        let mut paths: Vec<&mut PathBuf> = Vec::new();
        paths.extend(&mut self.guest.image);
        paths.extend(&mut self.guest.initrd);
        paths.extend(self.net.as_mut().map(|net| &mut net.switch));
        paths.extend(self.disk.as_mut().map(|disk| &mut disk.path));
        if let Some(Cluster { arbiter, credentials, .. }) = &mut self.cluster {
            arbiter.resolve(dir);
            paths.push(credentials);
        }
        for path in paths {
            *path = dir.join(&*path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<VmFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vm.toml");
        std::fs::write(&path, text).unwrap();
        VmFile::read(&path).map_err(|error| error.to_string())
    }

    /// The example in the module's documentation is one that works.
    #[test]
    fn the_documented_file_is_read() {
        let source = include_str!("config.rs");
        let example: String = source
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//!").to_owned() + "\n")
            .collect();
        let file = read(&example).unwrap();
        assert_eq!((file.ram_mib, file.guest.kind), (64, GuestKind::Flat));
        assert_eq!(file.guest.on_crash, OnCrash::Restart);
        assert!(file.guest.image.unwrap().is_absolute(), "paths are relative to the file");
        assert_eq!(file.net.unwrap().mac.to_string(), "52:54:00:12:34:56");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("name = \"a b\"", "choose letters"),
            ("name = \"a\"\nram_mib = 0", "ram_mib"),
            ("name = \"a\"\nheartbeat_ms = 5", "10 to 1000"),
            ("name = \"a\"\nrm_mib = 3", "unknown field"),
            ("name = \"a\"\n[guest]\nkind = \"linux\"", "image"),
            ("name = \"a\"\n[guest]\non_crash = \"cry\"", "`restart` or `stop`"),
            ("name = \"a\"\n[net]\nmac = \"1:2:3\"\nswitch = \"s\"", "six bytes"),
            ("name = \"a\"\n[net]\nmac = \"53:54:00:12:34:56\"\nswitch = \"s\"", "group"),
            ("name = \"a\"\n[disk]\npath = \"d\"\nmib = 0", "mib = 1"),
            ("name = \"a\"\n[disk]\npath = \"{host}/d\"\nmib = 1", "mirror = true"),
            ("name = \"a\"\n[cluster]\narbiter = \"x\"\ncredentials = \"c\"\nhosts = []", "two hosts"),
            ("name = \"a\"\n[cluster]\narbiter = { etc = [] }", "etc"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
