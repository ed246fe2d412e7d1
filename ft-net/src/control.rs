//! Questions and answers between the agents of hosts: QUIC with mutual TLS, one stream for each question.
//!
//! A [`ControlEndpoint`] asks and is asked. It carries bytes, and says who asks; what they mean is its user's affair.
//!
//! ```text
//! stream, there   the question, to its end
//! stream, back    the answer, to its end
//! ```
//!
//! A question whose connection breaks is asked once more over a new one: it may arrive twice, so questions must be such that this
//! changes nothing.
//!
//! Invariant: nothing from a peer that has not shown a certificate of the cluster's CA gets further than TLS (R12).
//! Invariant: what a peer can make this host hold is bounded (R9): connections, questions at a time, bytes of each, and the time
//! that a question may take to arrive. What one peer leaves hanging holds up no other.

use crate::endpoint::{Lobby, connection_peer, explain};
use crate::error::NetError;
use crate::identity::{HostName, Identity};
use crate::network::Peer;
use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, EndpointConfig, IdleTimeout, Incoming, ReadToEndError, RecvStream, SendStream,
    ServerConfig, TransportConfig, VarInt,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The protocol's name in TLS. Another version of it is refused in the handshake.
pub const CONTROL_ALPN: &[u8] = b"ft-control/1";

/// The longest question, in bytes.
pub const QUESTION_BYTES_MAX: usize = 1 << 20;

/// The longest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Questions that one connection may ask at a time.
pub const QUESTIONS_MAX: u32 = 16;

/// Connections of one host at a time. One more takes the place of the oldest.
const CONNECTIONS_MAX: usize = 4;

/// Callers that are being identified at a time.
const CALLERS_MAX: usize = 64;

/// How long a handshake may take, and a question to arrive.
const ARRIVE_WITHIN: Duration = Duration::from_secs(5);

/// After this long without a packet a connection is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a stream or a connection is ended.
const CLOSED: VarInt = VarInt::from_u32(0);
const TOO_LONG: VarInt = VarInt::from_u32(1);
const UNANSWERED: VarInt = VarInt::from_u32(2);

/// A question from another host.
#[derive(Debug)]
pub struct Call {
    /// Who asks, by its certificate.
    pub from: HostName,
    /// What.
    pub question: Bytes,
    /// Where the answer goes. Dropped, the caller is told that there is none.
    pub answer: oneshot::Sender<Bytes>,
}

/// A host's end of its conversations with other hosts' agents.
pub struct ControlEndpoint {
    quic: quinn::Endpoint,
    identity: Identity,
    lobby: Lobby,
    inside: Mutex<BTreeMap<HostName, Arc<Lobby>>>,
    lines: Mutex<BTreeMap<HostName, Arc<Line>>>,
}

/// The connection to a peer that is asked. One at a time dials.
type Line = tokio::sync::Mutex<Option<(SocketAddr, Connection)>>;

impl ControlEndpoint {
    /// Opens UDP `address`. With `allowed`, only those hosts may ask; otherwise every host of the cluster. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be used, or TLS not be set up.
    pub fn bind(
        address: SocketAddr,
        identity: Identity,
        allowed: Option<BTreeSet<HostName>>,
    ) -> Result<Self, NetError> {
        let bind = |source| NetError::Bind { address, source };
        let tls = |error: quinn::crypto::rustls::NoInitialCipherSuite| NetError::Tls(error.to_string());
        let transport = Arc::new(transport());
        let server = QuicServerConfig::try_from(identity.server_config_for(CONTROL_ALPN, allowed));
        let mut server = ServerConfig::with_crypto(Arc::new(server.map_err(tls)?));
        server.transport_config(Arc::clone(&transport));
        let client = QuicClientConfig::try_from(identity.client_config(CONTROL_ALPN));
        let mut client = ClientConfig::new(Arc::new(client.map_err(tls)?));
        client.transport_config(transport);
        let socket = UdpSocket::bind(address).map_err(bind)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut quic =
            quinn::Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime).map_err(bind)?;
        quic.set_default_client_config(client);
        let (inside, lines) = Default::default();
        Ok(Self { quic, identity, lobby: Lobby::new(CALLERS_MAX), inside, lines })
    }

    /// Where peers reach this host.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Hands questions to `calls`, until nobody takes them any more or the endpoint is closed.
    pub async fn serve(self: Arc<Self>, calls: mpsc::Sender<Call>) {
        loop {
            let incoming = tokio::select! {
                incoming = self.quic.accept() => incoming,
                () = calls.closed() => return,
            };
            let Some(incoming) = incoming else { return };
            let (endpoint, calls, place) = (Arc::clone(&self), calls.clone(), self.lobby.enter());
            tokio::spawn(async move {
                let identified = tokio::select! {
                    identified = endpoint.identify(incoming) => identified,
                    () = place.lost() => return,
                };
                match identified {
                    Ok((peer, connection)) => endpoint.converse(peer, connection, calls).await,
                    Err(error) => tracing::warn!(%error, "refused a caller"),
                }
            });
        }
    }

    async fn identify(&self, incoming: Incoming) -> Result<(HostName, Connection), NetError> {
        let caller = incoming.remote_address().to_string();
        let lost =
            |error: quinn::ConnectionError| explain(&self.identity, CONTROL_ALPN, &caller, None, &error);
        let connecting = incoming.accept().map_err(lost)?;
        let late =
            |_| NetError::Lost { peer: caller.clone(), reason: "handshake not finished in time".into() };
        let connection =
            tokio::time::timeout(ARRIVE_WITHIN, connecting).await.map_err(late)?.map_err(lost)?;
        Ok((connection_peer(&connection)?, connection))
    }

    /// Takes questions off a connection until it ends, or newer ones of the same host take its place.
    async fn converse(&self, peer: HostName, connection: Connection, calls: mpsc::Sender<Call>) {
        let lobby = {
            let mut inside = lock(&self.inside);
            Arc::clone(inside.entry(peer.clone()).or_insert_with(|| Arc::new(Lobby::new(CONNECTIONS_MAX))))
        };
        let place = lobby.enter();
        let questions = async {
            while let Ok((back, there)) = connection.accept_bi().await {
                tokio::spawn(answer(peer.clone(), calls.clone(), back, there));
            }
        };
        tokio::select! {
            () = questions => {}
            () = place.lost() => {}
            () = calls.closed() => {}
        }
        connection.close(CLOSED, b"closed");
    }

    /// Asks a peer, and returns its answer.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer `within` that time, when one of the two does not accept who the other is, or when
    /// question or answer is too long.
    pub async fn ask(&self, peer: &Peer, question: Bytes, within: Duration) -> Result<Bytes, NetError> {
        if question.len() > QUESTION_BYTES_MAX {
            let what =
                format!("a question of {} bytes, above its limit of {QUESTION_BYTES_MAX}", question.len());
            return Err(NetError::Protocol { peer: peer.name.to_string(), what });
        }
        let late = |_| NetError::Unreachable {
            peer: peer.name.to_string(),
            address: peer.address,
            reason: format!("no answer within {within:?}; is ft host running there, and UDP let through?"),
        };
        tokio::time::timeout(within, self.ask_twice(peer, &question)).await.map_err(late)?
    }

    async fn ask_twice(&self, peer: &Peer, question: &[u8]) -> Result<Bytes, NetError> {
        let (connection, is_new) = self.connection(peer).await?;
        match self.exchange(peer, &connection, question).await {
            // It was dead before the question: the peer has been started again since.
            Err(NetError::Lost { .. }) if !is_new => {
                let (connection, _) = self.connection(peer).await?;
                self.exchange(peer, &connection, question).await
            }
            other => other,
        }
    }

    /// A connection to the peer, and whether it was made for this.
    async fn connection(&self, peer: &Peer) -> Result<(Connection, bool), NetError> {
        let line = Arc::clone(lock(&self.lines).entry(peer.name.clone()).or_default());
        let mut line = line.lock().await;
        match &*line {
            Some((address, connection))
                if *address == peer.address && connection.close_reason().is_none() =>
            {
                return Ok((connection.clone(), false));
            }
            Some((_, other)) => other.close(CLOSED, b"closed"),
            None => {}
        }
        let unreachable = |reason: String| NetError::Unreachable {
            peer: peer.name.to_string(),
            address: peer.address,
            reason,
        };
        let connecting = self.quic.connect(peer.address, peer.name.as_str());
        let connecting = connecting.map_err(|error| unreachable(error.to_string()))?;
        let lost =
            |error| explain(&self.identity, CONTROL_ALPN, peer.name.as_str(), Some(peer.address), &error);
        let connection = connecting.await.map_err(lost)?;
        *line = Some((peer.address, connection.clone()));
        Ok((connection, true))
    }

    async fn exchange(
        &self,
        peer: &Peer,
        connection: &Connection,
        question: &[u8],
    ) -> Result<Bytes, NetError> {
        let name = || peer.name.to_string();
        let outcome = async {
            let (mut there, mut back) = connection.open_bi().await.map_err(|_| None)?;
            // A peer that has heard enough stops the stream: its answer says why, or there is none.
            let _ = there.write_all(question).await;
            let _ = there.finish();
            back.read_to_end(ANSWER_BYTES_MAX).await.map_err(Some)
        };
        let what = match outcome.await {
            Ok(answer) => return Ok(answer.into()),
            Err(Some(ReadToEndError::TooLong)) => "an answer above the limit".to_owned(),
            Err(Some(ReadToEndError::Read(quinn::ReadError::Reset(TOO_LONG)))) => {
                "it found the question too long".to_owned()
            }
            Err(Some(ReadToEndError::Read(quinn::ReadError::Reset(_)))) => {
                let (peer, address) = (name(), peer.address);
                return Err(NetError::Unreachable { peer, address, reason: "it gave no answer".into() });
            }
            Err(_) => {
                let reason = connection.close_reason();
                return Err(match reason {
                    Some(error) => explain(&self.identity, CONTROL_ALPN, &name(), None, &error),
                    None => NetError::Lost { peer: name(), reason: "the stream broke".into() },
                });
            }
        };
        Err(NetError::Protocol { peer: name(), what })
    }

    /// Ends all connections with a farewell.
    pub async fn close(&self) {
        self.quic.close(CLOSED, b"closed");
        // The farewell is a courtesy: who misses it finds out by itself.
        let _ = tokio::time::timeout(FAREWELL, self.quic.wait_idle()).await;
    }
}

/// Takes a question off its stream, and puts the answer on it.
async fn answer(from: HostName, calls: mpsc::Sender<Call>, mut back: SendStream, mut there: RecvStream) {
    let arrived = tokio::time::timeout(ARRIVE_WITHIN, there.read_to_end(QUESTION_BYTES_MAX)).await;
    let refusal = match arrived {
        Ok(Ok(question)) => {
            let (answer, answered) = oneshot::channel();
            let call = Call { from, question: question.into(), answer };
            if calls.send(call).await.is_ok()
                && let Ok(answer) = answered.await
            {
                // A caller that is gone does not want it any more.
                let _ = back.write_all(&answer).await;
                let _ = back.finish();
                return;
            }
            UNANSWERED
        }
        Ok(Err(ReadToEndError::TooLong)) => TOO_LONG,
        Ok(Err(ReadToEndError::Read(_))) | Err(_) => UNANSWERED,
    };
    let _ = there.stop(refusal);
    let _ = back.reset(refusal);
}

fn transport() -> TransportConfig {
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("a few seconds are in range");
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(QUESTIONS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(256 << 10))
        .receive_window(VarInt::from_u32(4 << 20))
        .send_window(16 << 20)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(IDLE_TIMEOUT / 3));
    transport
}

/// A panic elsewhere leaves these maps whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
