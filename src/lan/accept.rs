//! Taking in VMMs and clients.
//!
//! A listener says only once that somebody is there, so it stays marked as ready until it says that nobody is. While all
//! places are taken, those who come wait in the host's queue.

use super::fabric::PortId;
use super::forward::Forwarding;
use super::link::{Endpoint, Link};
use super::stream::FrameReader;
use super::switch::Notice;
use super::turn::{FIRST_STREAM, PortIo, Turns};
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// Connections taken from one listener in one turn.
const MOST_ACCEPTED: usize = 64;
/// A listener that failed is tried again after this.
const RETRY: Duration = Duration::from_millis(100);

impl Turns {
    /// Whether somebody may be accepted whom the listener does not mention again.
    pub(super) fn can_accept(&self) -> bool {
        let vmm = self.unix_ready || self.tcp.as_ref().is_some_and(|(.., ready)| *ready);
        let client = self.forwards.iter().any(|forward| forward.ready);
        let (ports, connections) = (self.ports.len(), self.connections.len());
        self.retry_at.is_none()
            && (vmm && ports < self.config.max_ports || client && connections < self.config.max_connections)
    }

    pub(super) fn accept_ports(&mut self, now: Instant) {
        for _ in 0..MOST_ACCEPTED {
            if !self.unix_ready || self.retry_at.is_some() || self.ports.len() >= self.config.max_ports {
                break;
            }
            let accepted = self.socket.listener.accept().map(|(stream, _)| Link::Unix(stream));
            self.unix_ready = self.add_port(accepted, Endpoint::Unix(self.config.socket.clone()), now);
        }
        for _ in 0..MOST_ACCEPTED {
            let Some((listener, address, true)) = &self.tcp else { break };
            if self.retry_at.is_some() || self.ports.len() >= self.config.max_ports {
                break;
            }
            let (accepted, endpoint) = (listener.accept(), Endpoint::Tcp(*address));
            let ready = self.add_port(accepted.map(|(stream, _)| Link::Tcp(stream)), endpoint, now);
            self.tcp.iter_mut().for_each(|tcp| tcp.2 = ready);
        }
    }

    /// Whether there may be another one to accept.
    fn add_port(&mut self, accepted: io::Result<Link>, endpoint: Endpoint, now: Instant) -> bool {
        let id = self.next_id;
        let registered = accepted.and_then(|mut link| {
            link.established()?;
            self.register(&mut link, id)?;
            Ok(link)
        });
        let link = match registered {
            Ok(link) => link,
            Err(error) => return self.cannot_accept(&error, now),
        };
        self.next_id += 1;
        let reader = FrameReader::new(self.config.max_frame);
        self.ports.insert(PortId(id), PortIo { link, reader, readable: true, writable: true });
        self.fabric.add_port(PortId(id));
        (self.notice)(Notice::PortOpened { port: PortId(id), endpoint });
        true
    }

    pub(super) fn accept_clients(&mut self, now: Instant) {
        for index in 0..self.forwards.len() {
            for _ in 0..MOST_ACCEPTED {
                let forward = &self.forwards[index];
                let full = self.connections.len() >= self.config.max_connections;
                if !forward.ready || self.retry_at.is_some() || full {
                    break;
                }
                let (accepted, guest) = (forward.listener.accept(), forward.guest);
                self.forwards[index].ready = self.add_client(accepted, guest, now);
            }
        }
    }

    /// Whether there may be another one to accept.
    fn add_client(
        &mut self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        guest: SocketAddrV4,
        now: Instant,
    ) -> bool {
        let id = self.next_id;
        let registered = accepted.and_then(|(mut stream, client)| {
            stream.set_nodelay(true)?;
            self.register(&mut stream, id)?;
            Ok((stream, client))
        });
        let (stream, client) = match registered {
            Ok(accepted) => accepted,
            Err(error) => return self.cannot_accept(&error, now),
        };
        self.next_id += 1;
        self.stats.connections += 1;
        // Without a free port towards the guest the client is closed again.
        if let Some(socket) = self.stack.connect(guest) {
            self.connections.insert(id, Forwarding::new((stream, client), (socket, guest), now));
        }
        true
    }

    fn register(&self, source: &mut impl Source, id: u64) -> io::Result<()> {
        let token = Token(FIRST_STREAM + id as usize);
        self.poll.registry().register(source, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether there may be another one to accept.
    fn cannot_accept(&mut self, error: &io::Error, now: Instant) -> bool {
        match error.kind() {
            ErrorKind::WouldBlock => return false,
            // Gone again before it was accepted.
            ErrorKind::Interrupted
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::InvalidInput => {}
            // Mostly descriptors: some may be free soon.
            _ => {
                self.retry_at = Some(now + RETRY);
                (self.notice)(Notice::CannotAccept { why: error.to_string() });
            }
        }
        true
    }
}
