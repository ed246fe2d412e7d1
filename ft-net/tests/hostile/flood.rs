//! Callers that come in masses and never finish (R9, R12).

use super::{ANY_PORT, Honest};
use crate::cluster::linked::{DIALER, Host};
use crate::cluster::{Cluster, host, next, patient, soon, until};
use ft_net::{ALPN, LinkConfig};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A socket that hears nothing, or nothing but the request to try again from an address that can be heard of.
#[derive(Debug)]
struct DeafSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    hears_retry: bool,
    has_sent: AtomicBool,
}

impl DeafSocket {
    fn new(hears_retry: bool) -> Arc<Self> {
        let socket = UdpSocket::bind(ANY_PORT).unwrap();
        let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
        Arc::new(Self { inner, hears_retry, has_sent: AtomicBool::new(false) })
    }
}

impl AsyncUdpSocket for DeafSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        self.has_sent.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            // One at a time is enough.
            let count = ready!(self.inner.poll_recv(cx, &mut buffers[..1], &mut meta[..1]))?;
            // RFC 9000 section 17.2.5: a long header of type 3.
            if self.hears_retry && count == 1 && buffers[0][0] & 0xf0 == 0xf0 {
                return Poll::Ready(Ok(1));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A caller with a good certificate that never gets to show it.
struct Deaf {
    socket: Arc<DeafSocket>,
    _endpoint: quinn::Endpoint,
    _connecting: quinn::Connecting,
}

impl Deaf {
    fn call(cluster: &Cluster, called: SocketAddr, name: &str, hears_retry: bool) -> Self {
        let socket = DeafSocket::new(hears_retry);
        let abstract_socket = Arc::clone(&socket) as Arc<dyn AsyncUdpSocket>;
        let runtime = Arc::new(TokioRuntime);
        let endpoint =
            quinn::Endpoint::new_with_abstract_socket(Default::default(), None, abstract_socket, runtime);
        let (endpoint, tls) = (endpoint.unwrap(), cluster.identity("mallory").client_config(ALPN));
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let connecting = endpoint.connect_with(config, called, name).unwrap();
        Self { socket, _endpoint: endpoint, _connecting: connecting }
    }
}

/// More than both lobbies hold.
const FLOOD: usize = 150;

/// One after the other, a lobby full at a time, they would be waited for too long.
const HALF_OPEN: usize = 300;

async fn flood(cluster: &Cluster, called: SocketAddr, name: &str, hears_retry: bool) -> Vec<Deaf> {
    let flood: Vec<Deaf> = (0..FLOOD).map(|_| Deaf::call(cluster, called, name, hears_retry)).collect();
    until("calling", || flood.iter().all(|caller| caller.socket.has_sent.load(Ordering::Relaxed))).await;
    flood
}

/// Connections to the tripwires' port that say nothing: more than the kernel keeps waiting, so not all come through at
/// once. Returns when the first half has.
async fn half_open(called: SocketAddr) -> JoinSet<()> {
    let (through, mut callers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..HALF_OPEN {
        let through = Arc::clone(&through);
        callers.spawn(async move {
            let stream = TcpStream::connect(called).await.unwrap();
            through.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
            drop(stream);
        });
    }
    until("half of them", || through.load(Ordering::Relaxed) >= HALF_OPEN / 2).await;
    callers
}

/// No more of them than fill the lobby are looked at. Who can be heard of gets through at once.
#[tokio::test]
async fn r9_callers_that_never_finish_take_a_bounded_number_of_places() {
    let cluster = Cluster::new();
    let endpoint = Arc::new(cluster.endpoint("host", patient()));
    let address = endpoint.local_addr().unwrap();
    let _flood = flood(&cluster, address, "host", false).await;
    let (links, mut linked) = mpsc::unbounded_channel();
    let shown = Arc::new(AtomicUsize::new(0));
    let (server, count) = (Arc::clone(&endpoint), Arc::clone(&shown));
    tokio::spawn(async move {
        loop {
            let (incoming, links) = (next(&server).await, links.clone());
            count.fetch_add(1, Ordering::Relaxed);
            let server = Arc::clone(&server);
            tokio::spawn(async move { links.send(incoming.identify(&server).await) });
        }
    });
    let friend = cluster.endpoint("friend", patient());
    let link = soon("an honest peer's link", friend.connect(address, &host("host"))).await.unwrap();
    let accepted = soon("accepting it", linked.recv()).await.unwrap().unwrap();
    assert_eq!((accepted.peer(), link.peer()), (&host("friend"), &host("host")));
    assert_eq!(shown.load(Ordering::Relaxed), 64 + 1, "{FLOOD} called");
}

/// The same where every caller can be heard of: then it is those who take long that go.
#[tokio::test]
async fn r9_callers_that_prove_their_address_and_do_not_finish_make_room() {
    let mut honest = Honest::start_with(patient());
    let _flood = flood(&honest.cluster, honest.address, "host", true).await;
    honest.expect_end("127.0.0.1", "too many callers, and this one took longest").await;
    honest.serves().await;
}

/// A whole network, its links and its tripwires, behind a flood of both kinds.
#[test]
fn r9_a_flooded_network_links_honest_hosts_and_attaches_their_tripwires() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = Cluster::new();
    let b = Host::start(&cluster, 2, &[DIALER], patient());
    let _deaf = runtime.block_on(flood(&cluster, b.address(), "host-2", false));
    let _half_open = runtime.block_on(half_open(b.address()));
    let a = Host::start(&cluster, 1, &[(2, b.address())], LinkConfig::default());
    a.expect_up(2);
    b.expect_up(1);
    a.expect_watched(2);
    b.expect_watched(1);
}
