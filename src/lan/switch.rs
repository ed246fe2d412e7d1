//! Starting, asking and stopping a switch.

use super::config::SwitchConfig;
use super::error::LanError;
use super::fabric::{FabricStats, PortId, PortStats};
use super::forward::End;
use super::frame::Mac;
use super::link::Endpoint;
use super::turn::{Turns, WAKER};
use crossbeam::channel::{self, Sender};
use mio::{Poll, Waker};
use serde::Serialize;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Something that an operator may want to know.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// A VMM connected.
    PortOpened {
        /// Its port.
        port: PortId,
        /// Where it connected.
        endpoint: Endpoint,
    },
    /// A VMM is gone, or was sent away.
    PortClosed {
        /// Its port.
        port: PortId,
        /// Why.
        why: String,
    },
    /// An address turned up behind another port: a guest failed over, or moved.
    Moved {
        /// The address.
        mac: Mac,
        /// Where it was. Nothing if that port is gone.
        from: Option<PortId>,
        /// Where it is.
        to: PortId,
        /// Time since its last frame.
        silent: Duration,
    },
    /// A forwarded connection was reset.
    Reset {
        /// The client.
        client: SocketAddr,
        /// The guest.
        guest: SocketAddrV4,
        /// Why.
        why: &'static str,
    },
    /// A connection cannot be taken at the moment; it is tried again.
    CannotAccept {
        /// Why.
        why: String,
    },
    /// The switch cannot go on.
    Failed {
        /// Why.
        why: String,
    },
}

impl Notice {
    pub(super) fn reset(client: SocketAddr, guest: SocketAddrV4, end: End) -> Option<Self> {
        let why = match end {
            End::Complete => return None,
            End::ByClient => "the client broke it off",
            End::ByGuest => "the guest refused it or broke it off",
            End::GuestSilent => "the guest did not answer for too long",
        };
        Some(Self::Reset { client, guest, why })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortOpened { port, endpoint } => write!(f, "{port} connected to {endpoint}"),
            Self::PortClosed { port, why } => write!(f, "{port} closed: {why}"),
            Self::Moved { mac, from, to, silent } => {
                let silent = silent.as_secs_f64() * 1e3;
                match from {
                    Some(from) => {
                        write!(f, "{mac} moved from {from} to {to} after {silent:.1} ms of silence")
                    }
                    None => write!(f, "{mac} turned up at {to} after {silent:.1} ms of silence"),
                }
            }
            Self::Reset { client, guest, why } => {
                write!(f, "connection from {client} to {guest} reset: {why}")
            }
            Self::CannotAccept { why } => write!(f, "cannot take a connection for now: {why}"),
            Self::Failed { why } => write!(f, "the switch cannot go on: {why}"),
        }
    }
}

/// What a switch did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SwitchStats {
    /// Of all ports together.
    #[serde(flatten)]
    pub fabric: FabricStats,
    /// Of each port that is connected.
    pub ports: Vec<(PortId, PortStats)>,
    /// Addresses known.
    pub addresses: usize,
    /// Ports closed because of a length that no frame has.
    pub malformed: u64,
    /// Forwarded connections, those that are over included.
    pub connections: u64,
    /// Forwarded connections now.
    pub connections_now: usize,
    /// Forwarded connections that were reset.
    pub resets: u64,
    /// Bytes from clients to guests.
    pub to_guests: u64,
    /// Bytes from guests to clients.
    pub to_clients: u64,
}

/// A request to the switch's thread.
pub(super) enum Request {
    Stats(Sender<SwitchStats>),
    Stop,
}

/// A running switch. Dropping it stops it.
#[derive(Debug)]
pub struct Switch {
    requests: Sender<Request>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
    tcp: Option<SocketAddr>,
    forwards: Vec<SocketAddr>,
}

impl Switch {
    /// Starts a switch on a thread of its own. Ports can connect when this returns. `notice` is called on that thread, so it
    /// must not block.
    ///
    /// # Errors
    /// When the configuration cannot work, an address or the socket is in use, or the host refuses something.
    pub fn start(
        config: SwitchConfig,
        notice: impl FnMut(Notice) + Send + 'static,
    ) -> Result<Self, LanError> {
        config.check()?;
        let poll = Poll::new().map_err(LanError::host("wait for sockets"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(LanError::host("wake a thread"))?;
        let (requests, inbox) = channel::unbounded();
        let socket = config.socket.clone();
        let turns = Turns::new(config, poll, inbox, Box::new(notice))?;
        let (tcp, forwards) = turns.addresses();
        let thread = std::thread::Builder::new()
            .name("ft-switch".to_owned())
            .spawn(move || turns.run())
            .map_err(LanError::host("start the switch's thread"))?;
        Ok(Self { requests, waker: Arc::new(waker), thread: Some(thread), socket, tcp, forwards })
    }

    /// Where VMMs connect.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.socket.clone())
    }

    /// Where VMMs connect by TCP, with the port that the host gave for port 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// The host's side of each forwarding, in their order, with the ports that the host gave for port 0.
    pub fn forward_addresses(&self) -> &[SocketAddr] {
        &self.forwards
    }

    /// What the switch did so far. Nothing if it failed.
    pub fn statistics(&self) -> Option<SwitchStats> {
        let (sender, receiver) = channel::bounded(1);
        self.ask(Request::Stats(sender));
        receiver.recv().ok()
    }

    /// Closes all ports and connections and removes the socket.
    pub fn stop(mut self) {
        self.end();
    }

    fn ask(&self, request: Request) {
        // A thread that is gone drops the request, and its asker notices.
        if self.requests.send(request).is_ok() {
            let _ = self.waker.wake();
        }
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.ask(Request::Stop);
            let _ = thread.join();
        }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.end();
    }
}
