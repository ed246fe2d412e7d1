//! The switch's own TCP/IP, with which it talks to guests.
//!
//! smoltcp's timers are those of the Internet: its first retransmission waits for a second (RFC 6298). Between a switch
//! and a guest on the same host a round trip takes far below a millisecond, so the stack lives on a clock of its own that
//! runs [`CLOCK_RATE`] times as fast as the host's: lost segments are sent again after 20 ms, then 40, at most every
//! 1.2 s.
//!
//! When a guest turns up behind another port, it has just failed over, and the segments of the last moments are lost. The
//! clock then skips the time for which the guest was silent: all timers set since are due, and everything
//! unacknowledged is sent again at once instead of at some time in the next back-off.
//!
//! Invariant: the stack's clock never goes back.

use super::config::SwitchConfig;
use super::fabric::Moved;
use super::frame::{ARP, HEADER, Header, IPV4};
use super::neighbours::Neighbours;
use super::packets::Packets;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How much faster than the host's the stack's clock runs.
const CLOCK_RATE: u32 = 50;
/// smoltcp's first retransmission timeout, and its longest, on the host's clock.
const FIRST_RETRANSMISSION: Duration = Duration::from_millis(1_000 / CLOCK_RATE as u64);
const LAST_RETRANSMISSION: Duration = Duration::from_millis(60_000 / CLOCK_RATE as u64);
/// How long an acknowledgement waits for data to go with, on the host's clock.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Bytes of packets made before they are passed on.
const BURST: usize = 1 << 20;
/// First of the ports from which connections to guests come (RFC 6335).
const FIRST_PORT: u16 = 49152;
const PORTS: u16 = u16::MAX - FIRST_PORT;

pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    neighbours: Neighbours,
    started: Instant,
    skipped: Duration,
    /// The port that the next connection tries first.
    next_port: u16,
    buffer: usize,
}

impl Stack {
    pub(super) fn new(config: &SwitchConfig, now: Instant) -> Self {
        let mut wire = Wire {
            mtu: config.mtu(),
            received: Packets::default(),
            made: Packets::default(),
            refused: false,
        };
        let mut settings = Config::new(HardwareAddress::Ip);
        // Initial sequence numbers must not be guessed, nor be the same after a restart of the switch.
        settings.random_seed = RandomState::new().hash_one(std::process::id());
        let mut interface = Interface::new(settings, &mut wire, time::Instant::ZERO);
        let address = IpCidr::Ipv4(Ipv4Cidr::new(config.subnet.address, config.subnet.prefix));
        interface.update_ip_addrs(|addresses| {
            // An interface has room for at least one address.
            let _ = addresses.push(address);
        });
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            neighbours: Neighbours::new(config.subnet, config.mac()),
            started: now,
            skipped: Duration::ZERO,
            next_port: (RandomState::new().hash_one(FIRST_PORT) % u64::from(PORTS)) as u16,
            buffer: config.connection_buffer,
        }
    }

    /// A frame for the switch came in.
    pub(super) fn handle_frame(&mut self, frame: &[u8], now: Instant) {
        let Some(header) = Header::parse(frame) else { return };
        let packet = &frame[HEADER..];
        match header.kind {
            ARP => self.neighbours.handle_arp(packet, now),
            IPV4 => {
                if let Some(from) = address_at(packet, 12) {
                    self.neighbours.handle_packet(from, header.from, now);
                    self.wire.received.push(packet);
                }
            }
            _ => {}
        }
    }

    /// A guest turned up behind another port.
    pub(super) fn handle_move(&mut self, moved: &Moved) {
        if self.neighbours.knows(moved.mac) {
            self.skipped += moved.silent.min(LAST_RETRANSMISSION) + FIRST_RETRANSMISSION;
        }
    }

    /// When the guest last said anything.
    pub(super) fn heard(&self, guest: Ipv4Addr) -> Option<Instant> {
        self.neighbours.heard(guest)
    }

    /// Begins a connection to a guest. Nothing if all ports are taken, or the guest's address is none.
    pub(super) fn connect(&mut self, guest: SocketAddrV4) -> Option<SocketHandle> {
        let port = self.free_port(guest)?;
        let buffer = || tcp::SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // Whoever is behind it has already put together what belongs together.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some((ACK_DELAY * CLOCK_RATE).into()));
        socket.connect(self.interface.context(), guest, port).ok()?;
        Some(self.sockets.add(socket))
    }

    /// The port is another than that of every connection to the same guest.
    fn free_port(&mut self, guest: SocketAddrV4) -> Option<u16> {
        let guest = guest.into();
        for _ in 0..PORTS {
            let port = FIRST_PORT + self.next_port;
            self.next_port = (self.next_port + 1) % PORTS;
            let taken = self.sockets.iter().any(|(_, socket)| {
                let smoltcp::socket::Socket::Tcp(socket) = socket;
                let ours = socket.local_endpoint().is_some_and(|local| local.port == port);
                ours && socket.remote_endpoint() == Some(guest)
            });
            if !taken {
                return Some(port);
            }
        }
        None
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(super) fn remove(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// Does all that is due.
    pub(super) fn poll(&mut self, now: Instant) {
        self.neighbours.poll(now);
        let clock = self.clock(now);
        loop {
            self.wire.refused = false;
            self.interface.poll(clock, &mut self.wire, &mut self.sockets);
            while let Some(frame) = self.wire.made.pop() {
                if let Some(to) = address_at(&frame[HEADER..], 16) {
                    self.neighbours.send(to, frame, now);
                }
            }
            if !self.wire.refused {
                return;
            }
        }
    }

    /// The next frame that is ready to go.
    pub(super) fn next_frame(&mut self) -> Option<&[u8]> {
        self.neighbours.next_frame()
    }

    /// When [`Stack::poll`] has something to do, if no frame comes before.
    pub(super) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let clock = self.clock(now);
        let delay = self.interface.poll_delay(clock, &self.sockets);
        let timer = delay.map(|delay| now + Duration::from_micros(delay.total_micros()) / CLOCK_RATE);
        [timer, self.neighbours.deadline()].into_iter().flatten().min()
    }

    fn clock(&self, now: Instant) -> time::Instant {
        let elapsed = (now.saturating_duration_since(self.started) + self.skipped) * CLOCK_RATE;
        time::Instant::from_micros(elapsed.as_micros() as i64)
    }
}

/// The address at an offset of an IPv4 header.
fn address_at(packet: &[u8], offset: usize) -> Option<Ipv4Addr> {
    let bytes = packet.get(offset..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*bytes))
}

/// The stack's network device: two queues of IP packets.
struct Wire {
    mtu: usize,
    received: Packets,
    /// With room in front for an Ethernet header.
    made: Packets,
    /// There was more to send than a burst.
    refused: bool,
}

impl phy::Device for Wire {
    type RxToken<'a> = Receive<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Receive<'_>, Transmit<'_>)> {
        let packet = self.received.pop()?;
        Some((Receive(packet), Transmit(&mut self.made)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Transmit<'_>> {
        self.refused = self.made.size() >= BURST;
        (!self.refused).then_some(Transmit(&mut self.made))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

struct Receive<'a>(&'a [u8]);

impl phy::RxToken for Receive<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

struct Transmit<'a>(&'a mut Packets);

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, make: F) -> R {
        self.0.push_with(HEADER + length, |frame| make(&mut frame[HEADER..]))
    }
}
