//! What a chaos test is told at its start, and what can keep it from running.

use crate::arbiter::ArbiterError;
use crate::demo::HostsError;
use crate::load::LoadError;
use crossbeam::channel::{Receiver, never};
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Everything about a chaos test.
#[derive(Clone, Debug)]
pub struct ChaosConfig {
    /// The `ft` program.
    pub program: PathBuf,
    /// An empty directory for everything. Sockets are in it: its path must be short.
    pub dir: PathBuf,
    /// How many hosts there are: two or more.
    pub hosts: u64,
    /// For how long faults strike. Setting up before, and healing and reading back after, come on top.
    pub lasts: Duration,
    /// Decides on all faults.
    pub seed: u64,
    /// Closed when the test is to end at once.
    pub stop: Receiver<()>,
}

impl ChaosConfig {
    /// A minute with three hosts; nobody stops it.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>, seed: u64) -> Self {
        let (program, dir) = (program.into(), dir.into());
        Self { program, dir, hosts: 3, lasts: Duration::from_secs(60), seed, stop: never() }
    }
}

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum ChaosError {
    /// A number of hosts that cannot work.
    #[error("a protected VM needs at least two hosts, and more than 16 are not of use: give --hosts 2 to 16")]
    Hosts,
    /// A file or process.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] HostsError),
    /// The load.
    #[error("cannot start the load")]
    Load(#[from] LoadError),
    /// The arbiter's history.
    #[error("cannot read who owns which term")]
    Arbiter(#[from] ArbiterError),
    /// The load's thread ended in a way of its own.
    #[error("the load crashed: please report it")]
    LoadCrashed,
}

impl ChaosError {
    /// Whether somebody ended the test.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::Cluster(HostsError::Interrupted))
    }

    /// For `map_err`: what was being done.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
