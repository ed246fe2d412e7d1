//! A host's end of all its links: one UDP port for QUIC, and the TCP port of the same number for tripwires.

use crate::error::NetError;
use crate::identity::{HostName, Identity, peer_host};
use crate::link::{Link, printable};
use crate::socket::{self, CappedSocket, SocketBuffers};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;

/// The protocol's name in TLS. Another version of it is refused in the handshake.
pub const ALPN: &[u8] = b"ft/1";

/// IPv6 and UDP headers: QUIC's packets fit the MTU on either IP version.
const IP_UDP_BYTES: u16 = 48;

/// Callers that are being identified at a time. Who finds the lobby full must first prove that it can receive at the
/// address it sends from, which costs a flood its spoofed senders, and then enters the lobby of those that did.
const CALLERS_MAX: usize = 64;

/// What the round trip is taken for before it is measured. Hosts of a pair are close, and a dialled host may be about to start: a third
/// of a second, as on the internet, would let seconds pass between two attempts to reach it.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// How a link uses the network. All limits are per link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// MTU of the network between the hosts. Set it to what both hosts and the switch have; 1500 is safe.
    pub mtu: u16,
    /// Kernel buffers of the socket, in bytes, as far as net.core.rmem_max and wmem_max allow.
    pub socket_buffer: usize,
    /// Data in flight, in bytes. At least rate times round trip.
    pub window: u32,
    /// Messages that wait to be sent, in bytes for each lane.
    pub queue_bytes: usize,
    /// Messages that wait to be taken, by number.
    pub inbox_messages: usize,
    /// Whether frames are compressed when that pays.
    pub compress: bool,
    /// After this long without a packet the connection is given up, and made anew.
    pub idle_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            socket_buffer: 8 << 20,
            window: 16 << 20,
            queue_bytes: 64 << 20,
            inbox_messages: 256,
            compress: true,
            idle_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// A host's end of its links.
pub struct Endpoint {
    quic: quinn::Endpoint,
    identity: Identity,
    config: LinkConfig,
    buffers: SocketBuffers,
    unproven: Lobby,
    proven: Lobby,
}

impl Endpoint {
    /// Opens UDP `address`. With `allowed`, only those hosts may connect; otherwise every host of the cluster.
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be used, or TLS not be set up.
    pub fn bind(
        address: SocketAddr,
        identity: Identity,
        allowed: Option<BTreeSet<HostName>>,
        config: LinkConfig,
    ) -> Result<Self, NetError> {
        let bind = |source| NetError::Bind { address, source };
        let (socket, buffers) = socket::udp(address, config.socket_buffer).map_err(bind)?;
        let socket = CappedSocket::new(socket, packet_bytes(config.mtu)).map_err(bind)?;
        let endpoint = Self::on_socket(socket, identity, allowed, config).map_err(|error| match error {
            NetError::Bind { source, .. } => NetError::Bind { address, source },
            other => other,
        })?;
        Ok(Self { buffers, ..endpoint })
    }

    /// The same on a socket of the caller's, for tests with bad networks.
    ///
    /// # Errors
    /// Those of [`Endpoint::bind`].
    pub fn on_socket(
        socket: Arc<dyn quinn::AsyncUdpSocket>,
        identity: Identity,
        allowed: Option<BTreeSet<HostName>>,
        config: LinkConfig,
    ) -> Result<Self, NetError> {
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let bind = |source| NetError::Bind { address: unspecified, source };
        let mut endpoint = EndpointConfig::default();
        endpoint
            .max_udp_payload_size(packet_bytes(config.mtu))
            .map_err(|error| NetError::Tls(error.to_string()))?;
        let server = server_config(&identity, allowed, &config)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut quic = quinn::Endpoint::new_with_abstract_socket(endpoint, Some(server), socket, runtime)
            .map_err(bind)?;
        quic.set_default_client_config(client_config(&identity, &config)?);
        let [unproven, proven] = [Lobby::new(CALLERS_MAX), Lobby::new(CALLERS_MAX)];
        Ok(Self { quic, identity, config, buffers: SocketBuffers::default(), unproven, proven })
    }

    /// The address that peers connect to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// What the kernel granted of the socket buffers asked for; zero for a socket of the caller's.
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.buffers
    }

    /// Who this host is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Connects to `host` at `address`, and waits until it has accepted us.
    ///
    /// # Errors
    /// When nobody answers, or one of the two does not accept who the other is, or what it speaks.
    pub async fn connect(&self, address: SocketAddr, host: &HostName) -> Result<Link, NetError> {
        let unreachable = |reason: String| NetError::Unreachable { peer: host.to_string(), address, reason };
        let attempt = async {
            let connecting =
                self.quic.connect(address, host.as_str()).map_err(|error| unreachable(error.to_string()))?;
            let connection =
                connecting.await.map_err(|error| self.explain(host.as_str(), Some(address), &error))?;
            self.establish(connection, host.clone()).await
        };
        let timeout = self.config.connect_timeout;
        let late = |_| {
            unreachable(format!("no answer within {timeout:?}; is ft running there, and UDP let through?"))
        };
        tokio::time::timeout(timeout, attempt).await.map_err(late)?
    }

    /// The next connection, before anything is known about the caller; `None` once the endpoint is closed. Call it again
    /// at once: it is here that callers are turned away when there are too many.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.quic.accept().await?;
            let place = match incoming.remote_address_validated() {
                true => Some(self.proven.enter()),
                false => self.unproven.enter_if_free(),
            };
            match place {
                Some(place) => return Some(Incoming { quic: incoming, place }),
                // An error means that the caller has proven itself already.
                None => drop(incoming.retry()),
            }
        }
    }

    /// Ends all links with a farewell.
    pub async fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"closed");
        self.quic.wait_idle().await;
    }

    async fn establish(&self, connection: quinn::Connection, peer: HostName) -> Result<Link, NetError> {
        match Link::establish(connection.clone(), peer.clone(), &self.config).await {
            // Why the connection ended explains more than what failed on it.
            Err(error @ NetError::Lost { .. }) => Err(match connection.close_reason() {
                Some(reason) => self.explain(peer.as_str(), None, &reason),
                None => error,
            }),
            other => other,
        }
    }

    fn explain(&self, peer: &str, address: Option<SocketAddr>, error: &quinn::ConnectionError) -> NetError {
        explain(&self.identity, ALPN, peer, address, error)
    }
}

/// Why there is no connection: who refused whom, what is not spoken, or what the network did.
pub(crate) fn explain(
    identity: &Identity,
    alpn: &[u8],
    peer: &str,
    address: Option<SocketAddr>,
    error: &quinn::ConnectionError,
) -> NetError {
    if let Some(refused) = identity.explain_quic(peer, error, SystemTime::now()) {
        return refused.into();
    }
    let (peer, reason) = (peer.to_owned(), printable(&error.to_string()));
    if has_no_common_protocol(error) {
        let what = format!("it does not know {}", String::from_utf8_lossy(alpn));
        return NetError::Protocol { peer, what };
    }
    match address {
        Some(address) => NetError::Unreachable { peer, address, reason },
        None => NetError::Lost { peer, reason },
    }
}

/// Where callers stand while it is found out who they are: a bounded number of them.
///
/// An honest caller is known after a few round trips. So when there is no place left, it is the one who has been
/// there longest that goes: a flood must bring a whole lobby full within a handshake to keep honest callers out.
pub(crate) struct Lobby {
    /// Those inside, the oldest first. To drop one is to show them the door.
    callers: Mutex<VecDeque<oneshot::Sender<()>>>,
    max: usize,
}

/// A place in a [`Lobby`], free again when this is dropped.
pub(crate) struct Place(oneshot::Receiver<()>);

impl Lobby {
    pub(crate) fn new(max: usize) -> Self {
        Self { callers: Mutex::default(), max }
    }

    /// A place, if need be that of the caller who has been there longest.
    pub(crate) fn enter(&self) -> Place {
        let mut callers = self.callers();
        if callers.len() >= self.max {
            callers.pop_front();
        }
        Self::seat(&mut callers)
    }

    fn enter_if_free(&self) -> Option<Place> {
        let mut callers = self.callers();
        (callers.len() < self.max).then(|| Self::seat(&mut callers))
    }

    /// Those who are still there.
    fn callers(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<()>>> {
        // A panic elsewhere leaves the list whole: each change is one step.
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        callers.retain(|caller| !caller.is_closed());
        callers
    }

    fn seat(callers: &mut VecDeque<oneshot::Sender<()>>) -> Place {
        let (caller, place) = oneshot::channel();
        callers.push_back(caller);
        Place(place)
    }
}

impl Place {
    /// Resolves when the place is given to somebody else.
    pub(crate) async fn lost(self) {
        // The lobby never says anything; it only drops its end.
        let _ = self.0.await;
    }
}

/// A connection whose caller is not known yet.
pub struct Incoming {
    quic: quinn::Incoming,
    place: Place,
}

impl Incoming {
    /// Finds out who calls, and makes the link. Takes as long as the caller does, up to the connect timeout: run several
    /// at a time.
    ///
    /// # Errors
    /// When the caller is not accepted, or does not accept us, or speaks something else.
    pub async fn identify(self, endpoint: &Endpoint) -> Result<Link, NetError> {
        let Self { quic: incoming, place } = self;
        let caller = incoming.remote_address().to_string();
        let lost = |reason: &str| NetError::Lost { peer: caller.clone(), reason: reason.to_owned() };
        let attempt = async {
            let lost = |error: quinn::ConnectionError| endpoint.explain(&caller, None, &error);
            let connection = incoming.accept().map_err(lost)?.await.map_err(lost)?;
            let peer = connection_peer(&connection)?;
            endpoint.establish(connection, peer).await
        };
        tokio::select! {
            link = attempt => link,
            () = tokio::time::sleep(endpoint.config.connect_timeout) => {
                Err(lost("handshake not finished in time"))
            }
            () = place.lost() => Err(lost("too many callers, and this one took longest")),
        }
    }
}

/// Whether one of the two ends knows no version of the protocol that the other does.
fn has_no_common_protocol(error: &quinn::ConnectionError) -> bool {
    /// The alert no_application_protocol (RFC 7301 section 3.2).
    const ALERT: u8 = 120;
    let code = match error {
        quinn::ConnectionError::TransportError(ours) => ours.code,
        quinn::ConnectionError::ConnectionClosed(theirs) => theirs.error_code,
        _ => return false,
    };
    code == quinn::TransportErrorCode::crypto(ALERT)
}

/// The host name in the certificate that TLS has verified.
pub(crate) fn connection_peer(connection: &quinn::Connection) -> Result<HostName, NetError> {
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>().ok());
    Ok(peer_host(certificates.as_deref().map_or(&[], Vec::as_slice))?)
}

fn server_config(
    identity: &Identity,
    allowed: Option<BTreeSet<HostName>>,
    config: &LinkConfig,
) -> Result<ServerConfig, NetError> {
    let tls = identity.server_config_for(ALPN, allowed);
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| NetError::Tls(error.to_string()))?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport(config)?);
    Ok(server)
}

fn client_config(identity: &Identity, config: &LinkConfig) -> Result<ClientConfig, NetError> {
    let tls = identity.client_config(ALPN);
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| NetError::Tls(error.to_string()))?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    client.transport_config(transport(config)?);
    Ok(client)
}

fn transport(config: &LinkConfig) -> Result<Arc<TransportConfig>, NetError> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(packet_bytes(config.mtu));
    let idle =
        config.idle_timeout.try_into().map_err(|_| NetError::Tls("idle timeout out of range".into()))?;
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(config.window))
        // Room for every stream at once: a lane that is read slowly does not take the others' room.
        .receive_window(VarInt::from_u32(config.window.saturating_mul(4).min(1 << 30)))
        .send_window(u64::from(config.window) * 4)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(crate::link::STREAMS_MAX))
        .datagram_receive_buffer_size(Some(64 << 10))
        .datagram_send_buffer_size(64 << 10)
        .max_idle_timeout(Some(idle))
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(config.idle_timeout / 3))
        .mtu_discovery_config(Some(discovery));
    Ok(Arc::new(transport))
}

/// The largest QUIC packet on a network of this MTU.
fn packet_bytes(mtu: u16) -> u16 {
    mtu.saturating_sub(IP_UDP_BYTES).max(1200)
}
