//! A cable to a host that can be cut: packets are lost, connections go silent, and neither end is told.

use crate::cluster::ANY_PORT;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

/// Carries UDP, and TCP on the port of the same number.
pub(crate) struct Cable {
    address: SocketAddr,
    state: Arc<State>,
    _runtime: Runtime,
}

struct State {
    is_cut: AtomicBool,
    far: Mutex<SocketAddr>,
}

impl Cable {
    /// A cable to the host at `far`.
    pub(crate) fn to(far: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = Arc::new(State { is_cut: AtomicBool::new(false), far: Mutex::new(far) });
        let (packets, streams) = runtime.block_on(plugs());
        let address = packets.local_addr().unwrap();
        runtime.spawn(carry_packets(packets, Arc::clone(&state)));
        runtime.spawn(carry_streams(streams, Arc::clone(&state)));
        Self { address, state, _runtime: runtime }
    }

    /// Where the host at the other end seems to be.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heal(&self) {
        self.state.is_cut.store(false, Ordering::Relaxed);
    }

    /// Another host takes the place of the one at the other end.
    pub(crate) fn plug_into(&self, far: SocketAddr) {
        *self.state.far.lock().unwrap() = far;
    }
}

impl State {
    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Relaxed)
    }

    fn far(&self) -> SocketAddr {
        *self.far.lock().unwrap()
    }
}

/// The two sockets, on one port number that both have free.
async fn plugs() -> (UdpSocket, TcpListener) {
    loop {
        let packets = UdpSocket::bind(ANY_PORT).await.unwrap();
        if let Ok(streams) = TcpListener::bind(packets.local_addr().unwrap()).await {
            return (packets, streams);
        }
    }
}

async fn carry_packets(socket: UdpSocket, state: Arc<State>) {
    let (mut packet, mut near) = (vec![0; 1 << 16], None);
    loop {
        let Ok((len, from)) = socket.recv_from(&mut packet).await else { continue };
        let far = state.far();
        let to = if from == far { near } else { Some(far) };
        if from != far {
            near = Some(from);
        }
        if let Some(to) = to.filter(|_| !state.is_cut()) {
            // What the kernel has no room for is lost, as on any cable.
            let _ = socket.send_to(&packet[..len], to).await;
        }
    }
}

async fn carry_streams(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            if state.is_cut() {
                return hold(near).await;
            }
            let Ok(far) = TcpStream::connect(state.far()).await else { return };
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            let there = carry_stream(from_near, to_far, Arc::clone(&state));
            tokio::join!(there, carry_stream(from_far, to_near, state));
        });
    }
}

/// One direction of a connection. What comes while the cable is cut, the end included, is never heard of.
async fn carry_stream(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Arc<State>) {
    let mut bytes = [0; 4096];
    loop {
        let read = from.read(&mut bytes).await;
        if state.is_cut() {
            return hold((from, to)).await;
        }
        match read {
            Ok(len @ 1..) if to.write_all(&bytes[..len]).await.is_ok() => {}
            // Dropping the writing half ends the connection in this direction.
            _ => return,
        }
    }
}

/// Neither goes on nor lets go.
async fn hold<T>(sockets: T) {
    std::future::pending::<()>().await;
    drop(sockets);
}
