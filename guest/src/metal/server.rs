//! The store on the network: smoltcp's sockets on one side, sessions on the other.
//!
//! Invariant: at least as many sockets listen as frames are taken in at a time, so that a burst of connections is not refused while
//! fewer than [`CONNECTIONS_MAX`] are open.

use super::net::Card;
use alloc::vec;
use alloc::vec::Vec;
use ft_guest::cmdline::Options;
use ft_guest::service::{Now, Service};
use ft_guest::session::Session;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};

/// Where it listens.
pub(crate) const PORT: u16 = 6379;
/// Connections at a time, if there is memory for them.
const CONNECTIONS_MAX: usize = 256;
/// Frames taken in at a time, and sockets that listen.
const BATCH: usize = 32;
const RECEIVE_BYTES: usize = 32 * 1024;
const SEND_BYTES: usize = 64 * 1024;
/// Memory of a connection's buffers.
const CONNECTION_BYTES: usize = RECEIVE_BYTES + SEND_BYTES;
/// A client that does not acknowledge anything for so long is gone.
const TIMEOUT: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

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
    /// Memory for buffers of sessions.
    buffer_bytes: usize,
    next_id: u64,
}

impl Server {
    /// Listens on `card`. Sessions may take `buffer_bytes` for requests and replies.
    pub(crate) fn new(mut card: Card, options: &Options, seed: u64, buffer_bytes: usize, now: Now) -> Self {
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
            connections_max: CONNECTIONS_MAX.min(buffer_bytes / CONNECTION_BYTES).max(BATCH * 2),
            buffer_bytes,
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
        for taken in 0..BATCH {
            let result = self.interface.poll_ingress_single(now, &mut self.card, &mut self.sockets);
            if matches!(result, PollIngressSingleResult::None) {
                break;
            }
            more = taken + 1 == BATCH;
        }
        self.serve(service);
        while self.interface.poll_egress(now, &mut self.card, &mut self.sockets) != PollResult::None {
            // Room in the sockets for more of long replies.
        }
        self.listen();
        self.card.flush();
        more || self.card.has_frames()
    }

    /// Whether a client asked to turn the machine off, and all is saved.
    pub(crate) fn shuts_down(&self) -> bool {
        self.connections.iter().filter_map(|connection| connection.session.as_ref()).any(Session::shuts_down)
    }

    fn serve(&mut self, service: &mut Service) {
        let buffered: usize =
            self.connections.iter().filter_map(|connection| connection.session.as_ref()).map(Session::buffered).sum();
        let mut room = self.buffer_bytes.saturating_sub(buffered);
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
            }
        }
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
        while count < BATCH && self.connections.len() < self.connections_max {
            self.connections.push(Connection { socket: self.sockets.add(listener()), session: None });
            count += 1;
        }
    }
}

fn instant(now: Now) -> Instant {
    Instant::from_micros(now.up_us as i64)
}

fn listener() -> Socket<'static> {
    let receive = SocketBuffer::new(vec![0; RECEIVE_BYTES]);
    let send = SocketBuffer::new(vec![0; SEND_BYTES]);
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
    session.resume(room, service);
    loop {
        send(socket, session);
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
