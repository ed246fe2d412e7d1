//! Errors of the channel, sorted by who is at fault.

use crate::identity::{IdentityError, PeerRefused};
use ft_core::message::MessageError;
use std::io;
use std::net::SocketAddr;

/// What went wrong on the channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// This host's: the address cannot be used.
    #[error("cannot listen on {address}; choose a free port with --listen, or stop what uses it")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This host's: certificates or keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// This host's: TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// Nobody answers.
    #[error("cannot reach {peer} at {address}: {reason}")]
    Unreachable {
        /// Who should be there.
        peer: String,
        /// Where.
        address: SocketAddr,
        /// What was tried and what came of it.
        reason: String,
    },
    /// The two ends do not accept who the other is.
    #[error(transparent)]
    Refused(#[from] PeerRefused),
    /// The peer's: it speaks something else.
    #[error("{peer} does not speak this protocol: {what}; run the same version of ft on both hosts")]
    Protocol {
        /// Who.
        peer: String,
        /// What was wrong.
        what: String,
    },
    /// The peer's: it sent what no encoder writes.
    #[error("{peer} sent a message that cannot be taken")]
    Message {
        /// Who.
        peer: String,
        /// What was wrong.
        #[source]
        source: MessageError,
    },
    /// The connection ended.
    #[error("connection to {peer} ended: {reason}")]
    Lost {
        /// Who.
        peer: String,
        /// Why.
        reason: String,
    },
}
