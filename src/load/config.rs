//! What a load is told at its start.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Everything about a load. [`LoadConfig::new`] has defaults for all but the address.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server.
    pub address: SocketAddr,
    /// Connections, each with a thread of its own.
    pub connections: usize,
    /// Requests that a connection has under way at most.
    pub pipeline: usize,
    /// Keys of each kind (registers, counters, logs) for each connection.
    pub keys: usize,
    /// Bytes of a register's value. Values are never shorter than what identifies them, some 40 bytes.
    pub value_size: RangeInclusive<usize>,
    /// Operations per second of all connections together. As many as possible if none.
    pub rate: Option<f64>,
    /// Decides on all operations; the same seed does the same.
    pub seed: u64,
    /// First part of all keys' names.
    pub prefix: String,
    /// A connection without a reply for so long is broken.
    pub reply_timeout: Duration,
}

impl LoadConfig {
    /// Eight connections that pipeline 16 requests.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connections: 8,
            pipeline: 16,
            keys: 32,
            value_size: 16..=512,
            rate: None,
            seed: 1,
            prefix: "load".to_owned(),
            reply_timeout: Duration::from_secs(60),
        }
    }

    pub(super) fn check(&self) -> Result<(), LoadError> {
        let wrong = match self {
            _ if !(1..=4096).contains(&self.connections) => "connections must be 1 to 4096",
            _ if !(1..=4096).contains(&self.pipeline) => "a pipeline must be 1 to 4096 requests",
            _ if !(1..=100_000).contains(&self.keys) => "keys must be 1 to 100000",
            _ if self.value_size.is_empty() || *self.value_size.end() > 1 << 20 => {
                "values must be at most 1 MiB"
            }
            _ if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) => "a rate must be above 0",
            _ if self.prefix.len() > 64 || !self.prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                "a prefix must be at most 64 letters and digits"
            }
            _ if self.reply_timeout.is_zero() => "a reply needs some time",
            _ => return Ok(()),
        };
        Err(LoadError::Config(wrong))
    }
}

/// Why a load cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// What was asked for cannot work.
    #[error("{0}")]
    Config(&'static str),
    /// Nobody answers.
    #[error("cannot connect to {address}; is the server there?")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// What the host said.
        source: io::Error,
    },
    /// The host refuses a thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}
