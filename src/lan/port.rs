//! A VMM's place on the LAN: the other end of a port of the switch.
//!
//! A thread of its own talks to the switch, so that nothing here blocks the machine's thread. While there is no
//! connection, frames are dropped as on an unplugged cable, and the thread tries again.
//!
//! Invariant: [`Port::send`] and [`Port::announce`] never block; what waits is bounded in both directions.

use super::error::LanError;
use super::frame::{Mac, announcement};
use super::link::{Endpoint, Link};
use super::stream::{FrameQueue, FrameReader};
use bytes::Bytes;
use crossbeam::channel::{self, Receiver, Sender, TrySendError};
use mio::{Events, Interest, Poll, Token, Waker};
use serde::Serialize;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const WAKER: Token = Token(0);
const LINK: Token = Token(1);

/// There is an address, which may be all zeros.
const HERE: u64 = 1 << 48;
/// It is to be announced, even if it was before.
const DUE: u64 = 1 << 49;

/// Waits between attempts to connect: the first, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How a port behaves.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Where the switch is.
    pub endpoint: Endpoint,
    /// Longest frame; the switch's setting.
    pub max_frame: usize,
    /// Frames in each direction that wait at most for the other side to take them.
    pub frames: usize,
    /// Bytes that wait at most for the switch to take them.
    pub queue: usize,
}

impl PortConfig {
    /// A port with the defaults of the switch.
    pub fn new(endpoint: impl Into<Endpoint>) -> Self {
        Self { endpoint: endpoint.into(), max_frame: 1518, frames: 4096, queue: 4 << 20 }
    }
}

/// What a port did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortCounts {
    /// Frames taken from the switch.
    pub received: u64,
    /// Frames given to the switch.
    pub sent: u64,
    /// Frames from the switch that nobody took in time.
    pub dropped_in: u64,
    /// Frames for the switch that found no connection or a full queue, or are none.
    pub dropped_out: u64,
    /// Connections made.
    pub connects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
    dropped_in: AtomicU64,
    dropped_out: AtomicU64,
    connects: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    waker: Waker,
    /// The thread was woken and has not looked yet.
    woken: AtomicBool,
    stop: AtomicBool,
    /// The address that is here, with [`HERE`], and with [`DUE`] until it is announced; or 0.
    address: AtomicU64,
    counters: Counters,
    connected: Mutex<bool>,
    changed: Condvar,
}

/// A port of a switch, as its VMM has it. Dropping it unplugs it.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
    outgoing: Sender<Bytes>,
    frames: Receiver<Bytes>,
    max_frame: usize,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    /// Plugs in at the switch's socket. It does not have to be there yet.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn connect(endpoint: impl Into<Endpoint>) -> Result<Self, LanError> {
        Self::with_config(PortConfig::new(endpoint))
    }

    /// The same, with other settings.
    ///
    /// # Errors
    /// When the host refuses a thread or a descriptor.
    pub fn with_config(config: PortConfig) -> Result<Self, LanError> {
        let poll = Poll::new().map_err(LanError::host("wait for sockets"))?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(LanError::host("wake a thread"))?;
        let shared = Arc::new(Shared {
            waker,
            woken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            address: AtomicU64::new(0),
            counters: Counters::default(),
            connected: Mutex::new(false),
            changed: Condvar::new(),
        });
        let (outgoing, from_machine) = channel::bounded(config.frames);
        let (to_machine, frames) = channel::bounded(config.frames);
        let max_frame = config.max_frame;
        let plug = Plug {
            config,
            poll,
            shared: Arc::clone(&shared),
            from_machine,
            to_machine,
            connection: None,
            retry: FIRST_RETRY,
            retry_at: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("ft-lan-port".to_owned())
            .spawn(move || plug.run())
            .map_err(LanError::host("start the port's thread"))?;
        Ok(Self { shared, outgoing, frames, max_frame, thread: Some(thread) })
    }

    /// Frames from the LAN, for `select!`.
    pub fn frames(&self) -> &Receiver<Bytes> {
        &self.frames
    }

    /// Sends a frame. False if it was dropped because it is no frame or too much waits already. It is also dropped if there
    /// turns out to be no connection; [`PortCounts::dropped_out`] counts both.
    pub fn send(&self, frame: &[u8]) -> bool {
        let good = (super::frame::HEADER..=self.max_frame).contains(&frame.len());
        let sent = good && self.outgoing.try_send(Bytes::copy_from_slice(frame)).is_ok();
        if sent {
            self.shared.wake();
        } else {
            self.shared.counters.dropped_out.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Tells the LAN that `mac` is here now; at once or as soon as there is a connection, and again on every connection that
    /// follows, because what is written to one that is about to break may be lost.
    pub fn announce(&self, mac: Mac) {
        self.shared.address.store(pack(mac), Ordering::SeqCst);
        self.shared.wake();
    }

    /// The address is not here any more: later connections do not announce it.
    pub fn withdraw(&self) {
        self.shared.address.store(0, Ordering::SeqCst);
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        *self.shared.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a connection. Whether there is one.
    pub fn wait_connected(&self, patience: Duration) -> bool {
        let connected = self.shared.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.changed.wait_timeout_while(connected, patience, |connected| !*connected);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// What it did so far.
    pub fn counts(&self) -> PortCounts {
        let counters = &self.shared.counters;
        PortCounts {
            received: counters.received.load(Ordering::Relaxed),
            sent: counters.sent.load(Ordering::Relaxed),
            dropped_in: counters.dropped_in.load(Ordering::Relaxed),
            dropped_out: counters.dropped_out.load(Ordering::Relaxed),
            connects: counters.connects.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Woken without regard to earlier wakes, because nothing comes after this one.
        let _ = self.shared.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Wakes the thread, unless somebody did already.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            let _ = self.waker.wake();
        }
    }

    fn set_connected(&self, now: bool) {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.changed.notify_all();
    }
}

/// An address that is to be announced.
fn pack(Mac([a, b, c, d, e, f]): Mac) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f]) | HERE | DUE
}

fn unpack(packed: u64) -> Mac {
    let [_, _, mac @ ..] = packed.to_be_bytes();
    Mac(mac)
}

struct Connection {
    link: Link,
    reader: FrameReader,
    queue: FrameQueue,
    established: Option<Instant>,
    /// This connection was told which address is here.
    announced: bool,
    readable: bool,
    writable: bool,
}

/// The thread's side.
struct Plug {
    config: PortConfig,
    poll: Poll,
    shared: Arc<Shared>,
    from_machine: Receiver<Bytes>,
    to_machine: Sender<Bytes>,
    connection: Option<Connection>,
    /// Wait after the next attempt that fails.
    retry: Duration,
    retry_at: Instant,
}

impl Plug {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        while !self.shared.stop.load(Ordering::SeqCst) {
            let wait = match &self.connection {
                None => Some(self.retry_at.saturating_duration_since(Instant::now())),
                // What is still readable is read in the next turn, after what the machine has to say.
                Some(connection) => connection.readable.then_some(Duration::ZERO),
            };
            match self.poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            }
            for event in events.iter().filter(|event| event.token() == LINK) {
                if let Some(connection) = &mut self.connection {
                    connection.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                    connection.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
                }
            }
            self.turn(Instant::now());
        }
        self.shared.set_connected(false);
    }

    fn turn(&mut self, now: Instant) {
        if self.connection.is_none() && self.retry_at <= now {
            match self.open() {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => self.back_off(now),
            }
        }
        // Before looking at what it was set for, so that whatever comes later wakes again.
        self.shared.woken.store(false, Ordering::SeqCst);
        if self.work(now).is_err() {
            self.close(now);
        }
        if self.connection.as_ref().is_none_or(|connection| connection.established.is_none()) {
            let dropped = self.from_machine.try_iter().count() as u64;
            self.shared.counters.dropped_out.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn open(&self) -> io::Result<Connection> {
        let mut link = Link::connect(&self.config.endpoint)?;
        self.poll.registry().register(&mut link, LINK, Interest::READABLE | Interest::WRITABLE)?;
        let (reader, queue) = (FrameReader::new(self.config.max_frame), FrameQueue::new(self.config.queue));
        Ok(Connection {
            link,
            reader,
            queue,
            established: None,
            announced: false,
            readable: false,
            writable: false,
        })
    }

    fn back_off(&mut self, now: Instant) {
        self.retry_at = now + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }

    fn close(&mut self, now: Instant) {
        let Some(mut connection) = self.connection.take() else { return };
        let _ = self.poll.registry().deregister(&mut connection.link);
        self.shared.set_connected(false);
        // One that held for a while broke for a new reason.
        if connection.established.is_some_and(|since| now.saturating_duration_since(since) > LAST_RETRY) {
            self.retry = FIRST_RETRY;
        }
        self.back_off(now);
    }

    fn work(&mut self, now: Instant) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if connection.established.is_none() {
            if !connection.writable {
                return Ok(());
            }
            connection.link.established()?;
            connection.established = Some(now);
            self.shared.counters.connects.fetch_add(1, Ordering::Relaxed);
            self.shared.set_connected(true);
        }
        connection.send(&self.shared, &self.from_machine)?;
        connection.receive(&self.shared.counters, &self.to_machine)
    }
}

impl Connection {
    fn send(&mut self, shared: &Shared, frames: &Receiver<Bytes>) -> io::Result<()> {
        let address = shared.address.load(Ordering::SeqCst);
        let due = address & DUE != 0 || !self.announced;
        // A full queue waits for the switch to read, and then there is a next turn.
        if address != 0 && due && self.queue.push(&announcement(unpack(address))) {
            self.announced = true;
            shared.counters.sent.fetch_add(1, Ordering::Relaxed);
            // Unless another one came in between, which then is due itself.
            let _ =
                shared.address.compare_exchange(address, address & !DUE, Ordering::SeqCst, Ordering::SeqCst);
        }
        for frame in frames.try_iter() {
            let counters = &shared.counters;
            let counter = if self.queue.push(&frame) { &counters.sent } else { &counters.dropped_out };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if !self.writable {
            return Ok(());
        }
        match self.queue.write_to(&mut self.link) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(())
            }
            other => other,
        }
    }

    /// Reads once, and passes on all that came.
    fn receive(&mut self, counters: &Counters, to_machine: &Sender<Bytes>) -> io::Result<()> {
        if !self.readable {
            return Ok(());
        }
        match self.reader.fill(&mut self.link) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        while let Some(frame) = self.reader.next_frame().map_err(io::Error::other)? {
            let counter = match to_machine.try_send(Bytes::copy_from_slice(frame)) {
                Ok(()) => &counters.received,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => &counters.dropped_in,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_packing_and_is_never_nothing() {
        for mac in [Mac([0; 6]), Mac([1, 2, 3, 4, 5, 6]), Mac::BROADCAST] {
            assert_ne!(pack(mac), 0);
            assert_eq!(unpack(pack(mac)), mac);
        }
    }
}
