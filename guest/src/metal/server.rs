//! The store on the network: smoltcp's sockets on one side, sessions on the other.
//!
//! Invariant: before a frame is taken in that may open a connection, a socket listens, unless [`CONNECTIONS_MAX`] are open: a burst of
//! connections is not refused.

use super::net::Card;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use ft_guest::cmdline::Options;
use ft_guest::service::{Now, Service};
use ft_guest::session::{Demand, Session};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

/// Where it listens.
pub(crate) const PORT: u16 = 6379;
/// Connections at a time, if there is memory for them.
const CONNECTIONS_MAX: usize = 256;
/// Frames taken in at a time.
const BATCH: usize = 32;
/// Sockets that listen. Every socket costs time whenever there is something to do.
const LISTENERS: usize = 8;
/// What surely fits into one segment.
const SEGMENT_BYTES: usize = 536;
/// A connection's buffers together, a third of them for receiving.
const CONNECTION_BYTES: RangeInclusive<usize> = 48 * 1024..=192 * 1024;
/// A client that does not acknowledge anything for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// What the server may use.
pub(crate) struct Memory {
    /// For the sockets' buffers.
    pub(crate) socket_bytes: usize,
    /// For requests and replies that are not complete.
    pub(crate) session_bytes: usize,
}

struct Connection {
    socket: SocketHandle,
    session: Option<Session>,
}

/// All connections.
pub(crate) struct Server {
    card: Card,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    connections_max: usize,
    connection_bytes: usize,
    /// Memory for buffers of sessions.
    buffer_bytes: usize,
    next_id: u64,
}

impl Server {
    /// Listens on `card`.
    pub(crate) fn new(mut card: Card, options: &Options, seed: u64, memory: Memory, now: Now) -> Self {
        let (least, most) = CONNECTION_BYTES.into_inner();
        let connection_bytes = (memory.socket_bytes / CONNECTIONS_MAX).clamp(least, most);
        let mut config = Config::new(EthernetAddress(card.mac()).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut card, instant(now));
        let address = Ipv4Address::from(options.address);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), options.prefix_bits)).expect("room for one address");
        });
        if let Some(gateway) = options.gateway {
            let routes = interface.routes_mut();
            routes.add_default_ipv4_route(Ipv4Address::from(gateway)).expect("room for one route");
        }
        let mut server = Self {
            card,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            connections_max: (memory.socket_bytes / connection_bytes).min(CONNECTIONS_MAX),
            connection_bytes,
            buffer_bytes: memory.session_bytes,
            next_id: 1,
        };
        server.listen();
        server
    }

    /// The card has interrupted.
    pub(crate) fn acknowledge(&self) {
        self.card.acknowledge();
    }

    /// Takes in frames, executes what they ask for and sends the replies. Returns whether there may be more to do at once.
    pub(crate) fn poll(&mut self, now: Now, service: &mut Service) -> bool {
        let now = instant(now);
        let mut more = false;
        if service.is_congested() {
            // The disk's interrupts and the timer's come back to this.
            return false;
        }
        for taken in 1..=BATCH {
            let result = self.interface.poll_ingress_single(now, &mut self.card, &mut self.sockets);
            if matches!(result, PollIngressSingleResult::None) {
                break;
            }
            more = taken == BATCH || self.card.openings() >= LISTENERS;
            if more {
                break;
            }
        }
        self.card.forget_openings();
        let long = self.serve(service);
        // Each call sends a segment of each socket: one call does for replies of one segment.
        while self.interface.poll_egress(now, &mut self.card, &mut self.sockets) != PollResult::None && long {
        }
        self.listen();
        self.card.flush();
        more || self.card.has_frames()
    }

    /// What a client wants to become of the machine.
    pub(crate) fn demand(&self) -> Option<Demand> {
        self.connections.iter().filter_map(|connection| connection.session.as_ref()).find_map(Session::demand)
    }

    /// Lets sessions execute what has come in. Returns whether a socket may have more to send than one segment.
    fn serve(&mut self, service: &mut Service) -> bool {
        let buffered: usize = self
            .connections
            .iter()
            .filter_map(|connection| connection.session.as_ref())
            .map(Session::buffered)
            .sum();
        let mut room = self.buffer_bytes.saturating_sub(buffered);
        let mut clients = 0;
        let mut long = false;
        for connection in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.socket);
            if connection.session.is_none() && socket.is_active() {
                connection.session = Some(Session::new(self.next_id));
                self.next_id += 1;
                service.counters.connections += 1;
            }
            if let Some(session) = &mut connection.session {
                let before = session.buffered();
                transfer(socket, session, room, service);
                room = (room + before).saturating_sub(session.buffered());
                if socket.state() == State::Closed {
                    connection.session = None;
                    socket.abort();
                }
                long |= socket.send_queue() > SEGMENT_BYTES;
                clients += 1;
            }
        }
        service.counters.clients = clients;
        long
    }

    /// Lets go of sockets that are done, and keeps enough of them listening.
    fn listen(&mut self) {
        let sockets = &mut self.sockets;
        self.connections.retain(|connection| {
            let closed = sockets.get::<Socket<'_>>(connection.socket).state() == State::Closed;
            if closed {
                sockets.remove(connection.socket);
            }
            !closed
        });
        let listening = |connection: &&Connection| connection.session.is_none();
        let mut count = self.connections.iter().filter(listening).count();
        while count < LISTENERS && self.connections.len() < self.connections_max {
            self.connections.push(Connection {
                socket: self.sockets.add(listener(self.connection_bytes)),
                session: None,
            });
            count += 1;
        }
    }
}

fn instant(now: Now) -> Instant {
    Instant::from_micros(now.up_us as i64)
}

fn listener(bytes: usize) -> Socket<'static> {
    let receive = SocketBuffer::new(vec![0; bytes / 3]);
    let send = SocketBuffer::new(vec![0; bytes / 3 * 2]);
    let mut socket = Socket::new(receive, send);
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_timeout(Some(TIMEOUT));
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.listen(PORT).expect("a new socket can listen");
    socket
}

/// Moves bytes between a socket and its session until neither has more for the other.
fn transfer(socket: &mut Socket<'_>, session: &mut Session, room: usize, service: &mut Service) {
    loop {
        session.resume(room, service);
        send(socket, session);
        if session.is_stalled() && session.wants_input() {
            continue;
        }
        if !session.wants_input() || !socket.can_recv() {
            break;
        }
        let received = socket.recv(|bytes| {
            session.receive(bytes, room, service);
            (bytes.len(), ())
        });
        if received.is_err() {
            break;
        }
    }
    // A client that is still sending would never come to read why its connection ends.
    while session.is_closing() && socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
    let client_closed = socket.state() == State::CloseWait && !socket.can_recv();
    let over = session.is_closing() || client_closed;
    if over && session.output().is_empty() {
        socket.close();
    }
}

fn send(socket: &mut Socket<'_>, session: &mut Session) {
    while socket.can_send() && !session.output().is_empty() {
        match socket.send_slice(session.output()) {
            Ok(bytes) => session.take(bytes),
            Err(_) => break,
        }
    }
}
