//! The UDP socket below the channel.
//!
//! quinn hands over up to ten packets in one call. Where packets are larger than 6500 bytes, ten are more than the 65507
//! bytes that one datagram of segmentation offload may hold; the kernel refuses (EMSGSIZE) and quinn takes the refusal
//! for a lost probe: the packets are gone in silence. So the number is capped by the packets' size.

use nix::sys::socket::{setsockopt, sockopt};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{IoSliceMut, Result};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Payload of the largest UDP datagram over IPv4.
const UDP_PAYLOAD_BYTES_MAX: usize = 65_507;

/// quinn's own socket, with fewer packets in a call where they would be too many.
#[derive(Debug)]
pub struct CappedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    segments_max: usize,
}

impl CappedSocket {
    /// For QUIC packets of up to `packet_bytes`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the runtime says of the socket.
    pub fn new(socket: UdpSocket, packet_bytes: u16) -> Result<Arc<Self>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let segments_max = (UDP_PAYLOAD_BYTES_MAX / usize::from(packet_bytes.max(1))).max(1);
        Ok(Arc::new(Self { inner, segments_max }))
    }
}

impl AsyncUdpSocket for CappedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments().min(self.segments_max)
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Kernel buffers of a socket, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBuffers {
    /// For sending.
    pub send: usize,
    /// For receiving.
    pub receive: usize,
}

/// Opens a UDP socket and asks for buffers of `buffer_bytes`. Only root may pass net.core.rmem_max and wmem_max; what is
/// not granted costs throughput at high rates, not correctness. Returns what was granted.
pub(crate) fn udp(address: SocketAddr, buffer_bytes: usize) -> Result<(UdpSocket, SocketBuffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if setsockopt(&socket, sockopt::RcvBufForce, &buffer_bytes).is_err() {
        socket.set_recv_buffer_size(buffer_bytes)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &buffer_bytes).is_err() {
        socket.set_send_buffer_size(buffer_bytes)?;
    }
    socket.bind(&address.into())?;
    // The kernel doubles what it grants, for its own bookkeeping, and reports the double (socket(7)).
    let granted =
        SocketBuffers { send: socket.send_buffer_size()? / 2, receive: socket.recv_buffer_size()? / 2 };
    Ok((socket.into(), granted))
}
