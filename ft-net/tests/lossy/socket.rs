//! A UDP socket on a bad network: packets are lost, doubled and late, as numbers from a seed say.

use crate::cluster::ANY_PORT;
use crate::traffic::Noise;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime, UdpPoller};
use std::io::{IoSliceMut, Result};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

/// Out of a hundred packets sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
}

/// How late the late ones are, at most: later than many that were sent after them.
const LATE_US_MAX: u64 = 5000;

#[derive(Debug)]
pub(crate) struct LossySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    chances: Fates,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    noise: Noise,
    met: Fates,
}

impl LossySocket {
    pub(crate) fn bind(seed: u64, chances: Fates) -> Arc<Self> {
        let inner = TokioRuntime.wrap_udp_socket(UdpSocket::bind(ANY_PORT).unwrap()).unwrap();
        let state = Mutex::new(State { noise: Noise(seed), met: Fates::default() });
        Arc::new(Self { inner, chances, state })
    }

    /// What its packets met so far.
    pub(crate) fn met(&self) -> Fates {
        self.state.lock().unwrap().met
    }
}

impl AsyncUdpSocket for LossySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    /// One packet: nothing here offers to cut up several.
    fn try_send(&self, transmit: &Transmit<'_>) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let (fate, Fates { lost, doubled, late }) = (state.noise.below(100), self.chances);
        if fate < lost {
            state.met.lost += 1;
        } else if fate < lost + doubled {
            self.inner.try_send(transmit)?;
            state.met.doubled += 1;
            // What the kernel has no room for was not doubled.
            return self.inner.try_send(transmit).or(Ok(()));
        } else if fate < lost + doubled + late {
            state.met.late += 1;
            let by = Duration::from_micros(state.noise.below(LATE_US_MAX));
            send_later(Arc::clone(&self.inner), transmit, by);
        } else {
            return self.inner.try_send(transmit);
        }
        Ok(())
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

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

fn send_later(socket: Arc<dyn AsyncUdpSocket>, transmit: &Transmit<'_>, by: Duration) {
    let Transmit { destination, ecn, segment_size, src_ip, contents } = *transmit;
    let contents = contents.to_vec();
    tokio::spawn(async move {
        tokio::time::sleep(by).await;
        // What the kernel has no room for is lost.
        let _ = socket.try_send(&Transmit { destination, ecn, segment_size, src_ip, contents: &contents });
    });
}
