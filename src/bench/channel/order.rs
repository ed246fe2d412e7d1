//! What the coordinator and its peer processes say to each other: one order in, a few lines out, all JSON.

use super::contender::{Contender, Method};
use super::payload::Data;
use super::plan::Tuning;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Which end of a measurement a peer process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    /// Listens; receives the volume, or answers messages.
    Serve,
    /// Connects; sends the volume, or asks.
    Drive,
}

/// Everything a peer process needs, as one line on its standard input. The input then stays open: its end means that
/// the coordinator is gone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) side: Side,
    pub(super) work: Work,
    pub(super) job: Job,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Work {
    Volume { contender: Contender, bytes: u64, data: Data },
    RoundTrips { method: Method, count: usize },
}

impl Work {
    /// The name of what is measured, for messages.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Volume { contender, .. } => contender.title(),
            Self::RoundTrips { method, .. } => method.title(),
        }
    }
}

/// Where and with what a side works, whatever the contender.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    /// To bind (serve; port 0) or to connect to (drive).
    pub(super) address: SocketAddr,
    /// This side's certificate and key.
    pub(super) identity: PathBuf,
    pub(super) tuning: Tuning,
}

/// One line of a peer's standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The serving side can be connected to.
    Ready { address: SocketAddr },
    /// The side has finished.
    Done(Sample),
    /// The side has given up.
    Failed { error: String },
}

/// What one side measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Payload bytes this side sent or received.
    pub(super) bytes: u64,
    /// From "go" to the receipt.
    pub(super) seconds: f64,
    /// User and system time of this process in that span.
    pub(super) cpu_seconds: f64,
    /// Busy time of all cores in that span, whoever used it.
    pub(super) machine_seconds: f64,
    /// One entry for each answered message.
    pub(super) round_trips_ns: Vec<u64>,
    /// What the kernel granted of the socket buffers asked for.
    pub(super) buffers: Option<Buffers>,
}

/// Socket buffers in bytes, as an application can fill them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Buffers {
    pub(super) send: usize,
    pub(super) receive: usize,
}
