//! What a run measures. Plain data: the command line fills it, the report repeats it.

use super::contender::{Contender, Method};
use super::link::{LinkKind, LinkSpec};
use super::payload::Data;
use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plan {
    /// Who is measured, in the order of their turns.
    pub(crate) contenders: Vec<Contender>,
    /// On which kinds of link.
    pub(crate) link_kinds: Vec<LinkKind>,
    /// Round-trip times to add on the shaped link, one link for each, in microseconds.
    pub(crate) rtt_us: Vec<u64>,
    /// What the bytes look like.
    pub(crate) data: Data,
    /// Volume of one measurement.
    pub(crate) bytes: u64,
    /// How often each contender has its turn.
    pub(crate) rounds: usize,
    /// Messages timed for each method, over all rounds; 0 leaves the latency part out.
    pub(crate) round_trips: usize,
    /// Settings of every contender.
    pub(crate) tuning: Tuning,
}

impl Plan {
    /// The links to measure, one after the other.
    pub(super) fn links(&self) -> Vec<LinkSpec> {
        let specs = |kind: &LinkKind| match kind {
            LinkKind::Loopback => vec![LinkSpec::Loopback],
            LinkKind::Shaped => self.rtt_us.iter().map(|&rtt_us| LinkSpec::Shaped { rtt_us }).collect(),
        };
        self.link_kinds.iter().flat_map(specs).collect()
    }

    /// The ways to time a small message in this run.
    pub(super) fn methods(&self) -> Vec<Method> {
        if self.round_trips == 0 { Vec::new() } else { Method::built() }
    }

    /// Messages in each round: the total is spread so that a noisy moment hits every method alike.
    pub(super) fn round_trips_each(&self) -> usize {
        self.round_trips.div_ceil(self.rounds.max(1))
    }
}

/// Settings that decide how fast a contender can be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tuning {
    /// QUIC flow-control windows, of the stream and of the connection, in bytes.
    pub(crate) window: u32,
    /// Socket buffer to ask for, each way, in bytes.
    pub(crate) socket_buffer: usize,
    /// Generic segmentation offload for QUIC: one system call for several datagrams.
    pub(crate) gso: bool,
    /// MTU of the shaped link; QUIC looks for datagrams up to this size, on loopback too.
    pub(crate) mtu: u16,
}
