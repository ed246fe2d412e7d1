//! The switch's thread: waits until something is ready, and then does all that can be done.
//!
//! A turn reads frames from ports, lets the stack and the forwarded connections work until nothing moves any more, and
//! writes what waits for ports. Nothing in it blocks. Readiness is edge-triggered: a side stays marked as ready until
//! it says that it would block.
//!
//! Invariant: one turn reads from each port, and accepts from each listener, a bounded amount, so everybody gets a turn.

use super::config::SwitchConfig;
use super::error::LanError;
use super::fabric::{Fabric, PortId};
use super::forward::{End, Forwarding, Pumped};
use super::link::{Endpoint, Link};
use super::listen::{SocketFile, listen_tcp};
use super::stack::Stack;
use super::stream::{BadLength, FrameReader};
use super::switch::{Notice, Request, SwitchStats};
use super::table::Table;
use crossbeam::channel::Receiver;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

pub(super) const WAKER: Token = Token(0);
/// Ready for connections from VMMs, on the Unix socket and on TCP.
const UNIX: Token = Token(1);
const TCP: Token = Token(2);
/// Tokens of forwardings, then, alternating, those of ports and connections.
const FIRST_FORWARD: usize = 3;
const FIRST_STREAM: usize = 1 << 16;

/// Connections taken from one listener in one turn.
const MOST_ACCEPTED: usize = 64;
/// Reads from one port in one turn.
const MOST_READS: usize = 4;
/// Rounds of copying in one turn.
const MOST_ROUNDS: usize = 16;
/// A listener that failed is tried again after this.
const RETRY: Duration = Duration::from_millis(100);
/// The waits of epoll are whole milliseconds.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

struct PortIo {
    link: Link,
    reader: FrameReader,
    readable: bool,
    writable: bool,
}

struct ForwardListener {
    listener: TcpListener,
    address: SocketAddr,
    guest: SocketAddrV4,
    ready: bool,
}

pub(super) struct Turns {
    config: SwitchConfig,
    poll: Poll,
    requests: Receiver<Request>,
    notice: Box<dyn FnMut(Notice) + Send>,
    socket: SocketFile,
    unix_ready: bool,
    tcp: Option<(TcpListener, SocketAddr, bool)>,
    forwards: Vec<ForwardListener>,
    fabric: Fabric,
    stack: Stack,
    ports: BTreeMap<PortId, PortIo>,
    connections: BTreeMap<u64, Forwarding>,
    /// Number of the next port or connection.
    next_id: u64,
    /// Something was left for the next turn.
    unfinished: bool,
    /// When a listener that failed is tried again.
    retry_at: Option<Instant>,
    /// When a guest has been silent for too long.
    silence_at: Option<Instant>,
    /// Of connections that are over, and of ports that were sent away.
    stats: SwitchStats,
}

impl Turns {
    /// Listens everywhere, so that what is in use is found here.
    pub(super) fn new(
        config: SwitchConfig,
        poll: Poll,
        requests: Receiver<Request>,
        notice: Box<dyn FnMut(Notice) + Send>,
    ) -> Result<Self, LanError> {
        let registered = LanError::host;
        let now = Instant::now();
        let registry = poll.registry();
        let mut forwards = Vec::new();
        for (index, forward) in config.forwards.iter().enumerate() {
            let (mut listener, address) = listen_tcp(forward.host)?;
            let token = Token(FIRST_FORWARD + index);
            registry
                .register(&mut listener, token, Interest::READABLE)
                .map_err(registered("wait for clients"))?;
            forwards.push(ForwardListener { listener, address, guest: forward.guest, ready: false });
        }
        let tcp = match config.listen_tcp.map(listen_tcp).transpose()? {
            Some((mut listener, address)) => {
                registry
                    .register(&mut listener, TCP, Interest::READABLE)
                    .map_err(registered("wait for VMMs"))?;
                Some((listener, address, false))
            }
            None => None,
        };
        // Last, because whoever sees the socket expects everything to be there.
        let mut socket = SocketFile::bind(&config.socket)?;
        registry
            .register(&mut socket.listener, UNIX, Interest::READABLE)
            .map_err(registered("wait for VMMs"))?;
        let table = Table::new(config.max_addresses, config.ageing);
        Ok(Self {
            fabric: Fabric::new(config.mac(), table, config.port_queue),
            stack: Stack::new(&config, now),
            config,
            poll,
            requests,
            notice,
            socket,
            unix_ready: false,
            tcp,
            forwards,
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_id: 1,
            unfinished: false,
            retry_at: None,
            silence_at: None,
            stats: SwitchStats::default(),
        })
    }

    /// Where it listens for VMMs by TCP, and for clients.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Vec<SocketAddr>) {
        let forwards = self.forwards.iter().map(|forward| forward.address).collect();
        (self.tcp.as_ref().map(|(_, address, _)| *address), forwards)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.timeout(Instant::now());
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return (self.notice)(Notice::Failed { why: error.to_string() }),
            }
            for event in &events {
                self.mark(event);
            }
            self.turn(Instant::now());
            if !self.answer() {
                return;
            }
        }
    }

    fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if self.unfinished || self.can_accept() {
            return Some(Duration::ZERO);
        }
        let deadlines = [self.stack.deadline(now), self.retry_at, self.silence_at];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now).max(SHORTEST_WAIT))
    }

    /// Whether somebody may be accepted whom the listener does not mention again.
    fn can_accept(&self) -> bool {
        let vmm = self.unix_ready || self.tcp.as_ref().is_some_and(|(.., ready)| *ready);
        let client = self.forwards.iter().any(|forward| forward.ready);
        let (ports, connections) = (self.ports.len(), self.connections.len());
        self.retry_at.is_none()
            && (vmm && ports < self.config.max_ports || client && connections < self.config.max_connections)
    }

    /// Answers requests. Whether to go on.
    fn answer(&mut self) -> bool {
        for request in self.requests.try_iter() {
            match request {
                Request::Stop => return false,
                Request::Stats(reply) => {
                    let _ = reply.send(self.statistics());
                }
            }
        }
        true
    }

    fn statistics(&self) -> SwitchStats {
        let mut stats = SwitchStats {
            fabric: self.fabric.stats(),
            ports: self.fabric.port_stats().collect(),
            addresses: self.fabric.addresses(),
            connections_now: self.connections.len(),
            ..self.stats.clone()
        };
        for connection in self.connections.values() {
            let (to_guest, to_client) = connection.bytes();
            stats.to_guests += to_guest;
            stats.to_clients += to_client;
        }
        stats
    }

    fn mark(&mut self, event: &mio::event::Event) {
        let token = event.token().0;
        match event.token() {
            WAKER => {}
            UNIX => self.unix_ready = true,
            TCP => self.tcp.iter_mut().for_each(|(.., ready)| *ready = true),
            _ if token < FIRST_STREAM => {
                if let Some(forward) = self.forwards.get_mut(token - FIRST_FORWARD) {
                    forward.ready = true;
                }
            }
            _ => {
                let id = (token - FIRST_STREAM) as u64;
                if let Some(port) = self.ports.get_mut(&PortId(id)) {
                    port.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    port.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
                } else if let Some(connection) = self.connections.get_mut(&id) {
                    connection.handle_event(event);
                }
            }
        }
    }

    fn turn(&mut self, now: Instant) {
        self.unfinished = false;
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        self.accept_ports(now);
        self.accept_clients(now);
        self.read_ports(now);
        self.copy(now);
        self.write_ports();
    }

    fn read_ports(&mut self, now: Instant) {
        let mut gone = Vec::new();
        for (&id, port) in &mut self.ports {
            for read in 0.. {
                if !port.readable {
                    break;
                }
                if read == MOST_READS {
                    self.unfinished = true;
                    break;
                }
                let result = port.read(id, &mut self.fabric, &mut self.stack, &mut self.notice, now);
                if let Err(why) = result {
                    gone.push((id, why));
                    break;
                }
            }
        }
        for (id, why) in gone {
            self.close_port(id, why);
        }
    }

    /// Lets connections and the stack work until nothing moves.
    fn copy(&mut self, now: Instant) {
        for _ in 0..MOST_ROUNDS {
            self.stack.poll(now);
            while let Some(frame) = self.stack.next_frame() {
                self.fabric.handle_host_frame(frame, now);
            }
            if !self.pump_connections() {
                self.check_guests(now);
                return;
            }
        }
        self.unfinished = true;
    }

    fn pump_connections(&mut self) -> bool {
        let (mut moved, mut ended) = (false, Vec::new());
        for (&id, connection) in &mut self.connections {
            match connection.pump(self.stack.socket(connection.socket)) {
                Pumped::Open { moved: this } => moved |= this,
                Pumped::Ended(end) => ended.push((id, end)),
            }
        }
        for (id, end) in ended {
            self.close_connection(id, end);
        }
        moved
    }

    fn check_guests(&mut self, now: Instant) {
        self.silence_at = None;
        for connection in self.connections.values_mut() {
            let heard = self.stack.heard(*connection.guest.ip());
            let socket = self.stack.socket(connection.socket);
            let next = connection.check_guest(socket, heard, self.config.guest_timeout, now);
            self.silence_at = [self.silence_at, next].into_iter().flatten().min();
        }
    }

    fn close_connection(&mut self, id: u64, end: End) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        let _ = self.poll.registry().deregister(connection.stream());
        self.stack.remove(connection.socket);
        let (to_guest, to_client) = connection.bytes();
        self.stats.to_guests += to_guest;
        self.stats.to_clients += to_client;
        if let Some(notice) = Notice::reset(connection.client, connection.guest, end) {
            self.stats.resets += 1;
            (self.notice)(notice);
        }
    }

    fn write_ports(&mut self) {
        let mut gone = Vec::new();
        for (&id, port) in &mut self.ports {
            let Some(queue) = self.fabric.queue(id) else { continue };
            if !port.writable || queue.is_empty() {
                continue;
            }
            match queue.write_to(&mut port.link) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => port.writable = false,
                Err(error) => gone.push((id, error.into())),
            }
        }
        for (id, why) in gone {
            self.close_port(id, why);
        }
    }

    fn close_port(&mut self, id: PortId, why: Gone) {
        if let Some(mut port) = self.ports.remove(&id) {
            let _ = self.poll.registry().deregister(&mut port.link);
            self.fabric.remove_port(id);
            self.stats.malformed += u64::from(matches!(why, Gone::Malformed(_)));
            (self.notice)(Notice::PortClosed { port: id, why: why.to_string() });
        }
    }

    fn accept_ports(&mut self, now: Instant) {
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

    fn accept_clients(&mut self, now: Instant) {
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

    fn register(&self, source: &mut impl mio::event::Source, id: u64) -> io::Result<()> {
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

/// Why a port closes.
#[derive(Debug, thiserror::Error)]
enum Gone {
    #[error("the other side closed it")]
    Closed,
    #[error("{0}")]
    Failed(#[from] io::Error),
    #[error("it {0}")]
    Malformed(#[from] BadLength),
}

impl PortIo {
    /// Reads once, and passes on all that came.
    fn read(
        &mut self,
        id: PortId,
        fabric: &mut Fabric,
        stack: &mut Stack,
        notice: &mut Box<dyn FnMut(Notice) + Send>,
        now: Instant,
    ) -> Result<(), Gone> {
        match self.reader.fill(&mut self.link) {
            Ok(0) => return Err(Gone::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        while let Some(frame) = self.reader.next_frame()? {
            let seen = fabric.handle_frame(id, frame, now);
            if let Some(moved) = seen.moved {
                stack.handle_move(&moved);
                notice(Notice::Moved { mac: moved.mac, from: moved.from, to: id, silent: moved.silent });
            }
            if seen.for_host {
                stack.handle_frame(frame, now);
            }
        }
        Ok(())
    }
}
