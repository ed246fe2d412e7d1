//! One forwarded connection: a client's TCP on one side, a guest's on the other, bytes copied both ways.
//!
//! Back-pressure goes through: neither side is read while the other's buffer is full. So does the end of each direction:
//! a half-closed connection stays open the other way. A connection that breaks on one side is reset on the other, so that
//! nobody takes a broken stream for a complete one.

use mio::net::TcpStream;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{self, State};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides said all they had to say.
    Complete,
    /// The client broke it off.
    ByClient,
    /// The guest refused it, or broke it off.
    ByGuest,
    /// The guest was silent for too long.
    GuestSilent,
}

pub(super) struct Forwarding {
    pub(super) client: SocketAddr,
    pub(super) guest: SocketAddrV4,
    pub(super) socket: SocketHandle,
    stream: TcpStream,
    /// The stream may have something to read. Edge-triggered: stays until a read says otherwise.
    readable: bool,
    /// Something that can be read is its end, which comes with no further event.
    end_is_near: bool,
    writable: bool,
    /// The client's last byte is on its way to the guest.
    client_done: bool,
    /// The guest's last byte is on its way to the client.
    guest_done: bool,
    /// Why the guest's side was aborted.
    aborted: Option<End>,
    sent: u64,
    received: u64,
    acknowledged: u64,
    /// There was something for the guest to acknowledge.
    waited: bool,
    /// When the guest last acknowledged something, or was first given something to acknowledge.
    progress: Instant,
}

/// What a look at a connection found.
pub(super) enum Pumped {
    /// Whether bytes, or an end, went from one side to the other.
    Open { moved: bool },
    /// Both sides are done with. The socket can be removed.
    Ended(End),
}

impl Forwarding {
    pub(super) fn new(
        (stream, client): (TcpStream, SocketAddr),
        (socket, guest): (SocketHandle, SocketAddrV4),
        now: Instant,
    ) -> Self {
        Self {
            client,
            guest,
            socket,
            stream,
            readable: true,
            end_is_near: false,
            writable: true,
            client_done: false,
            guest_done: false,
            aborted: None,
            sent: 0,
            received: 0,
            acknowledged: 0,
            waited: false,
            progress: now,
        }
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The client's side became ready for something.
    pub(super) fn handle_event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.end_is_near |= event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Bytes to the guest, and to the client.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// Copies what can be copied.
    pub(super) fn pump(&mut self, socket: &mut tcp::Socket<'_>) -> Pumped {
        // An aborted socket stays closed until the stack has sent the reset, so it is looked at again after that.
        if socket.state() == State::Closed && socket.local_endpoint().is_none() {
            return Pumped::Ended(self.end());
        }
        if self.aborted.is_some() {
            return Pumped::Open { moved: false };
        }
        let moved = match (self.to_guest(socket), self.to_client(socket)) {
            (Ok(there), Ok(back)) => there || back,
            (Err(_), _) | (_, Err(_)) => {
                self.abort(socket, End::ByClient);
                true
            }
        };
        Pumped::Open { moved }
    }

    fn to_guest(&mut self, socket: &mut tcp::Socket<'_>) -> io::Result<bool> {
        let mut moved = false;
        while self.readable && !self.client_done && socket.can_send() {
            let stream = &mut self.stream;
            let read = socket.send(|room| match stream.read(room) {
                Ok(count) => (count, Ok((count, room.len()))),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok((0, _))) => {
                    self.client_done = true;
                    socket.close();
                }
                Ok(Ok((count, room))) => {
                    self.sent += count as u64;
                    self.readable = count == room || self.end_is_near;
                }
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    continue;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(moved),
            }
            moved = true;
        }
        Ok(moved)
    }

    fn to_client(&mut self, socket: &mut tcp::Socket<'_>) -> io::Result<bool> {
        let mut moved = false;
        while self.writable && socket.can_recv() {
            let stream = &mut self.stream;
            let written = socket.recv(|bytes| match stream.write(bytes) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(count)) => self.received += count as u64,
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    continue;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(moved),
            }
            moved = true;
        }
        if !self.guest_done && !socket.can_recv() && said_all(socket.state()) {
            self.guest_done = true;
            // The client may have closed in the meantime.
            let _ = self.stream.shutdown(Shutdown::Write);
            moved = true;
        }
        Ok(moved)
    }

    /// Gives up on a guest that acknowledges nothing although it should, and is not heard of otherwise: one that lives and
    /// merely does not read is waited for. Returns when to look again.
    pub(super) fn check_guest(
        &mut self,
        socket: &mut tcp::Socket<'_>,
        heard: Option<Instant>,
        patience: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let acknowledged = self.sent - socket.send_queue() as u64;
        let opening = socket.state() == State::SynSent;
        let waits = opening
            || socket.send_queue() > 0
            || matches!(socket.state(), State::FinWait1 | State::Closing | State::LastAck);
        if !self.waited || acknowledged > self.acknowledged {
            self.progress = now;
        }
        (self.acknowledged, self.waited) = (acknowledged, waits);
        let alive = heard.filter(|_| !opening).map_or(self.progress, |heard| heard.max(self.progress));
        if waits && self.aborted.is_none() && now >= alive + patience {
            self.abort(socket, End::GuestSilent);
        }
        waits.then(|| alive + patience)
    }

    fn abort(&mut self, socket: &mut tcp::Socket<'_>, why: End) {
        self.aborted = Some(why);
        socket.abort();
    }

    /// Called when the guest's side is closed for good.
    fn end(&mut self) -> End {
        let end = match self.aborted {
            Some(why) => why,
            None if self.client_done && self.guest_done => End::Complete,
            None => End::ByGuest,
        };
        if matches!(end, End::ByGuest | End::GuestSilent) {
            // Closing then resets.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
        end
    }
}

/// Whether the guest closed its direction, and all that it said before has arrived.
fn said_all(state: State) -> bool {
    matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait)
}
