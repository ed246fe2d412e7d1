//! Who takes part: the contenders for volume, the methods for round trips, and the two traits they share.
//!
//! A new contender is one type with the trait below and one line in [`Contender::channel`] (or [`Method::echo`]).
//! `None` there means "not in this build": it is left out of the default run and refused when asked for by name.

use super::error::Error;
use super::order::{Job, Sample};
use super::payload::Payload;
use super::{log, quic, stream, tcp, tls, udp};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Called once by a serving side, as soon as it can be connected to.
pub(super) type Ready<'a> = &'a mut dyn FnMut(SocketAddr) -> Result<(), Error>;

/// Moves a volume of bytes in one direction, from `drive` to `serve`, each in its own process.
///
/// Both meters start when the connection stands and is authenticated (the receiver says "go") and stop with the
/// receiver's receipt, which carries its own count of bytes.
pub(super) trait Channel: Sync {
    /// Binds `job.address`, calls `ready`, takes one connection and receives exactly `bytes`.
    fn serve(&self, job: &Job, bytes: u64, ready: Ready<'_>) -> Result<Sample, Error>;
    /// Connects to `job.address` and sends the payload.
    fn drive(&self, job: &Job, payload: &Payload) -> Result<Sample, Error>;
}

/// Answers small messages: the round trip that an effect waits for in the gate.
pub(super) trait Echo: Sync {
    /// Binds `job.address`, calls `ready` and sends every message back until the other side is gone.
    fn serve(&self, job: &Job, ready: Ready<'_>) -> Result<Sample, Error>;
    /// Sends `count` messages one after the other and times each answer.
    fn drive(&self, job: &Job, count: usize) -> Result<Sample, Error>;
}

/// A way of moving the log's bytes from one host to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contender {
    /// One plain TCP stream: what the link and the kernel can do
    Tcp,
    /// TLS 1.3 over one TCP stream, AES-128-GCM, mutual authentication
    Tls,
    /// One unidirectional QUIC stream of a bare quinn connection
    Quinn,
    /// The logging channel of this project
    Log,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Quinn, Self::Log];

    /// The contenders this build can measure, in the order in which they take turns.
    pub(crate) fn built() -> Vec<Self> {
        Self::ALL.into_iter().filter(|contender| contender.channel().is_some()).collect()
    }

    pub(super) fn channel(self) -> Option<&'static dyn Channel> {
        match self {
            Self::Tcp => Some(&stream::Volume(tcp::Tcp)),
            Self::Tls => Some(&stream::Volume(tls::Tls)),
            Self::Quinn => Some(&quic::Volume),
            Self::Log => Some(&log::Volume),
        }
    }

    /// The name in tables.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Tls => "TLS over TCP",
            Self::Quinn => "bare quinn",
            Self::Log => "ft log",
        }
    }
}

/// A way of getting a 64-byte message answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Method {
    /// A bare UDP datagram: the floor under every other row, and the link's own round trip.
    Udp,
    Tcp,
    Tls,
    QuinnStream,
    QuinnDatagram,
    /// A record on the log and its acknowledgement.
    LogAck,
}

impl Method {
    const ALL: [Self; 6] =
        [Self::Udp, Self::Tcp, Self::Tls, Self::QuinnStream, Self::QuinnDatagram, Self::LogAck];

    /// The methods this build can measure, in the order in which they take turns.
    pub(super) fn built() -> Vec<Self> {
        Self::ALL.into_iter().filter(|method| method.echo().is_some()).collect()
    }

    pub(super) fn echo(self) -> Option<&'static dyn Echo> {
        match self {
            Self::Udp => Some(&udp::Udp),
            Self::Tcp => Some(&stream::Ping(tcp::Tcp)),
            Self::Tls => Some(&stream::Ping(tls::Tls)),
            Self::QuinnStream => Some(&quic::StreamPing),
            Self::QuinnDatagram => Some(&quic::DatagramPing),
            Self::LogAck => Some(&log::Acknowledged),
        }
    }

    /// The name in tables.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Udp => "UDP datagram",
            Self::Tcp => "TCP",
            Self::Tls => "TLS over TCP",
            Self::QuinnStream => "quinn stream",
            Self::QuinnDatagram => "quinn datagram",
            Self::LogAck => "ft log, acknowledged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baselines_are_always_built() {
        let built = Contender::built();
        assert!([Contender::Tcp, Contender::Tls, Contender::Quinn].iter().all(|base| built.contains(base)));
        assert!(Method::built().contains(&Method::Udp));
    }
}
