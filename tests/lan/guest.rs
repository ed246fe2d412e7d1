//! A guest for tests: smoltcp behind a port, serving TCP echo. Its TCP state survives when it is moved to another port, as
//! that of a replicated machine does.

use bytes::Bytes;
use crossbeam::channel::{self, Sender, after, never, select};
use ft::lan::{Mac, Port};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address};
use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
pub(crate) const ECHO: u16 = 7;
/// Takes connections and resets them at the first byte.
pub(crate) const HANG_UP: u16 = 8;
pub(crate) const MAC: Mac = Mac([2, 0, 0, 0, 0, 15]);
/// Retransmissions after 20 ms instead of a second.
const CLOCK_RATE: u32 = 50;

enum Command {
    /// Lose all frames for so long, then be behind the new port.
    FailOver(Port, Duration),
}

pub(crate) struct Guest {
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Boots behind a port with so many echo sockets.
    pub(crate) fn boot(port: Port, sockets: usize) -> Self {
        let (commands, inbox) = channel::unbounded();
        let thread = std::thread::spawn(move || {
            let mut machine = Machine::new(sockets);
            let mut port = port;
            let mut outage: Option<(Port, Instant)> = None;
            loop {
                let wait = machine.run();
                for frame in machine.wire.made.drain(..).filter(|_| outage.is_none()) {
                    port.send(&frame);
                }
                let timer = wait.map_or_else(never, after);
                let end = outage.as_ref().map_or_else(never, |(_, at)| channel::at(*at));
                select! {
                    recv(port.frames()) -> frame => if let (Ok(frame), None) = (frame, &outage) {
                        machine.wire.received.push_back(frame);
                    },
                    recv(inbox) -> command => match command {
                        Ok(Command::FailOver(to, length)) => outage = Some((to, Instant::now() + length)),
                        Err(_) => return,
                    },
                    recv(end) -> _ => if let Some((to, _)) = outage.take() {
                        port = to;
                        port.announce(MAC);
                    },
                    recv(timer) -> _ => {}
                }
            }
        });
        Self { commands, thread: Some(thread) }
    }

    pub(crate) fn fail_over(&self, to: Port, outage: Duration) {
        self.commands.send(Command::FailOver(to, outage)).unwrap();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let (closed, _) = channel::unbounded();
        self.commands = closed;
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(result, Some(Ok(()))), "the guest crashed");
        }
    }
}

struct Machine {
    interface: Interface,
    sockets: SocketSet<'static>,
    echoes: Vec<SocketHandle>,
    hang_ups: Vec<SocketHandle>,
    wire: Wire,
    started: Instant,
}

impl Machine {
    fn new(echoes: usize) -> Self {
        let mut wire = Wire::default();
        let config = Config::new(EthernetAddress(MAC.0).into());
        let mut interface = Interface::new(config, &mut wire, time::Instant::ZERO);
        interface.update_ip_addrs(|all| all.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let mut add = |_| {
            let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.set_nagle_enabled(false);
            sockets.add(socket)
        };
        let echoes = (0..echoes).map(&mut add).collect();
        let hang_ups = (0..4).map(&mut add).collect();
        Self { interface, sockets, echoes, hang_ups, wire, started: Instant::now() }
    }

    fn run(&mut self) -> Option<Duration> {
        let clock = (self.started.elapsed() * CLOCK_RATE).as_micros() as i64;
        let clock = time::Instant::from_micros(clock);
        loop {
            self.interface.poll(clock, &mut self.wire, &mut self.sockets);
            let mut moved = false;
            for handle in &self.echoes {
                moved |= echo(self.sockets.get_mut(*handle));
            }
            for handle in &self.hang_ups {
                moved |= hang_up(self.sockets.get_mut(*handle));
            }
            if !moved {
                break;
            }
        }
        let delay = self.interface.poll_delay(clock, &self.sockets)?;
        Some((Duration::from_micros(delay.total_micros()) / CLOCK_RATE).max(Duration::from_millis(1)))
    }
}

fn echo(socket: &mut tcp::Socket) -> bool {
    if !socket.is_open() {
        return socket.listen(ECHO).is_ok();
    }
    let mut moved = false;
    while socket.can_recv() && socket.can_send() {
        let mut piece = [0; 16 << 10];
        let room = (socket.send_capacity() - socket.send_queue()).min(piece.len());
        let count = socket.recv_slice(&mut piece[..room]).unwrap();
        assert_eq!(socket.send_slice(&piece[..count]), Ok(count));
        moved |= count > 0;
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
        moved = true;
    }
    moved
}

fn hang_up(socket: &mut tcp::Socket) -> bool {
    if !socket.is_open() {
        return socket.listen(HANG_UP).is_ok();
    }
    let talks = socket.can_recv();
    if talks {
        socket.abort();
    }
    talks
}

#[derive(Default)]
struct Wire {
    received: VecDeque<Bytes>,
    made: Vec<Vec<u8>>,
}

impl phy::Device for Wire {
    type RxToken<'a> = Receive;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Receive, Transmit<'_>)> {
        Some((Receive(self.received.pop_front()?), Transmit(&mut self.made)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.made))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Receive(Bytes);

impl phy::RxToken for Receive {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Transmit<'a>(&'a mut Vec<Vec<u8>>);

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, make: F) -> R {
        let mut frame = vec![0; length];
        let result = make(&mut frame);
        self.0.push(frame);
        result
    }
}
