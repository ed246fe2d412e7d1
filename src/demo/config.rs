//! What a cluster is told at its start, and what can go wrong with it.

use super::agents::WiresError;
use crate::host::client::ClientError;
use crate::lan::LanError;
use crate::vm::config::ConfigError;
use crossbeam::channel::{Receiver, never};
use ft_net::identity::IdentityError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// What the cluster is like. [`HostsConfig::new`] has defaults for all but the program and the directory.
#[derive(Clone, Debug)]
pub struct HostsConfig {
    /// The `ft` program.
    pub program: PathBuf,
    /// A directory for everything: credentials, arbiter, disk, sockets, logs.
    pub dir: PathBuf,
    /// How many hosts there are.
    pub hosts: usize,
    /// The guest's command line, after its addresses.
    pub command_line: String,
    /// RAM in MiB.
    pub ram_mib: u64,
    /// Size of the disk in MiB.
    pub disk_mib: u64,
    /// Each host has a disk of its own, which the others mirror; otherwise all share one.
    pub mirror: bool,
    /// Milliseconds between two signs of life; `None`: what is usual.
    pub heartbeat_ms: Option<u64>,
    /// More arguments for the first primary.
    pub primary_args: Vec<String>,
    /// Closed when nothing is to be waited for any more.
    pub stop: Receiver<()>,
}

impl HostsConfig {
    /// Two hosts, and a key-value store; nobody stops it.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            dir: dir.into(),
            hosts: 2,
            command_line: "mode=kv".into(),
            ram_mib: 64,
            disk_mib: 64,
            mirror: false,
            heartbeat_ms: None,
            primary_args: Vec::new(),
            stop: never(),
        }
    }

    /// The file of the disk, as `host` has it.
    pub fn disk(&self, host: u64) -> PathBuf {
        self.dir.join(if self.mirror { format!("disk-{host}.img") } else { "disk.img".into() })
    }
}

/// Something that cannot be set up, or does not come about.
#[derive(Debug, Error)]
pub enum HostsError {
    /// A file, a port or a process.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// Credentials.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The LAN.
    #[error(transparent)]
    Lan(#[from] LanError),
    /// The network of hosts.
    #[error(transparent)]
    Wires(#[from] WiresError),
    /// The VM's file.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A host's agent.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// There is no live host to be killed.
    #[error("no host is live")]
    NoneLive,
    /// It was stopped; see [`HostsConfig::stop`].
    #[error("interrupted; everything that was started is ended")]
    Interrupted,
    /// What was waited for did not happen.
    #[error("{what} did not happen within {after:?}; last words of the hosts:\n{words}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
        /// What the hosts said last.
        words: String,
    },
}
