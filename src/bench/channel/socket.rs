//! Sockets with large buffers. A burst at 10 Gbit/s fills the usual 200 KiB in 170 us: less than one scheduling delay.

use super::error::{Doing, Error};
use super::order::Buffers;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, UdpSocket};

/// A TCP socket that neither listens nor is connected yet: the window scale follows from the buffers and is fixed
/// when the connection is made.
pub(super) fn tcp(buffer: usize) -> Result<(Socket, Buffers), Error> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).doing("open a TCP socket")?;
    let granted = widen(&socket, buffer)?;
    Ok((socket, granted))
}

/// A UDP socket bound to `address`.
pub(super) fn udp(address: SocketAddr, buffer: usize) -> Result<(UdpSocket, Buffers), Error> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).doing("open a UDP socket")?;
    let granted = widen(&socket, buffer)?;
    socket.bind(&address.into()).doing(format!("bind UDP {address}"))?;
    Ok((socket.into(), granted))
}

/// Asks for `size` bytes each way and says what was granted. Only root may pass net.core.rmem_max and wmem_max, so
/// that is tried first; less than asked for is not an error but is printed.
fn widen(socket: &Socket, size: usize) -> Result<Buffers, Error> {
    if setsockopt(socket, sockopt::RcvBufForce, &size).is_err() {
        socket.set_recv_buffer_size(size).doing("set a receive buffer")?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &size).is_err() {
        socket.set_send_buffer_size(size).doing("set a send buffer")?;
    }
    // The kernel doubles what is asked for, for its own bookkeeping, and reports the double (socket(7)).
    let granted = Buffers {
        send: socket.send_buffer_size().doing("read a send buffer's size")? / 2,
        receive: socket.recv_buffer_size().doing("read a receive buffer's size")? / 2,
    };
    Ok(granted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_small_buffer_is_granted_in_full() {
        let (_, granted) = udp(([127, 0, 0, 1], 0).into(), 64 << 10).unwrap();
        assert_eq!(granted, Buffers { send: 64 << 10, receive: 64 << 10 });
    }
}
