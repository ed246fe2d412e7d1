//! A UDP socket that never asks the kernel for more than one datagram can carry.
//!
//! quinn hands over ten packets in one call. Beyond about 6500 bytes each, that is more than the 65507 bytes of a UDP
//! datagram; the kernel refuses (EMSGSIZE), quinn takes the refusal for a lost path probe, and the ten packets are
//! lost in silence. At MTU 9000 this costs four fifths of the throughput. (quinn issue 1457.)

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::io::{IoSliceMut, Result};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The payload of the largest IPv4 UDP datagram.
const UDP_PAYLOAD_BYTES_MAX: usize = 65_507;

/// quinn's own socket, with fewer packets in a call where they would be too many.
#[derive(Debug)]
pub(super) struct CappedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    segments_max: usize,
}

impl CappedSocket {
    /// For packets of up to `packet_bytes`. Must be called inside a tokio runtime.
    pub(super) fn new(socket: UdpSocket, packet_bytes: u16) -> Result<Arc<Self>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self { inner, segments_max: segments_max(packet_bytes) }))
    }
}

fn segments_max(packet_bytes: u16) -> usize {
    (UDP_PAYLOAD_BYTES_MAX / usize::from(packet_bytes.max(1))).max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_never_exceeds_a_datagram() {
        assert_eq!(segments_max(1452), 45);
        assert_eq!(segments_max(8952), 7);
        assert_eq!(segments_max(u16::MAX), 1);
    }
}
