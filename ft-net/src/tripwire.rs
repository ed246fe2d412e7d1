//! Notices at once that the peer's process has ended on a living host.
//!
//! QUIC cannot tell a dead process from a silent one before a timeout: nothing answers either way. So beside every
//! link stands an idle TLS connection over TCP. When a process ends, however it ends, its kernel closes that connection,
//! without the farewell (close_notify) that a process sends that goes in peace. The host's power cut sends nothing; for
//! that there is the timeout.
//!
//! Invariant: the wire is only trusted from a peer that has shown its certificate on it (R12). What it says is a hint that
//! saves waiting; the arbiter decides (R4).

use crate::identity::{HostName, Identity, peer_host};
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// The protocol's name in TLS: a wire cannot be taken for a link.
const ALPN: &[u8] = b"ft-tripwire/1";

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// What the accepting end says once; later versions may say more.
const ACCEPTED: u8 = 1;

/// How a wire ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer's process has ended.
    Gone,
    /// The peer closed it in peace, or the network broke it: no evidence of anything.
    Closed,
}

/// One end of a wire to a peer that has shown who it is.
pub(crate) struct Tripwire {
    stream: TlsStream<TcpStream>,
    peer: HostName,
    /// Which life of the peer: the end of an earlier one says nothing of the next.
    incarnation: u64,
}

impl Tripwire {
    pub(crate) fn peer(&self) -> &HostName {
        &self.peer
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Attaches a wire to `peer`. It counts once the other end has said that it has accepted us: until then a connection
    /// that breaks is one that was refused.
    pub(crate) async fn connect(
        address: SocketAddr,
        peer: &HostName,
        (identity, incarnation): (&Identity, u64),
    ) -> io::Result<Self> {
        let attempt = async {
            let tcp = TcpStream::connect(address).await?;
            let name = ServerName::try_from(peer.as_str().to_owned()).map_err(io::Error::other)?;
            TlsConnector::from(identity.client_config(ALPN)).connect(name, tcp).await
        };
        let stream = tokio::time::timeout(HANDSHAKE, attempt).await.map_err(io::Error::other)??;
        let mut wire = Self { stream: stream.into(), peer: peer.clone(), incarnation: 0 };
        match tokio::time::timeout(HANDSHAKE, wire.introduce(incarnation)).await {
            Ok(Ok(ACCEPTED)) => Ok(wire),
            Ok(Ok(_)) => Err(io::Error::other("the other end of the wire speaks something else")),
            Ok(Err(error)) => Err(error),
            Err(late) => {
                // The other end may have accepted us by now: nobody has ended.
                wire.farewell().await;
                Err(io::Error::other(late))
            }
        }
    }

    /// Says which life we are, and hears whether we are accepted, and by which life.
    async fn introduce(&mut self, incarnation: u64) -> io::Result<u8> {
        self.stream.write_u64(incarnation).await?;
        self.stream.flush().await?;
        let answer = self.stream.read_u8().await?;
        self.incarnation = self.stream.read_u64().await?;
        Ok(answer)
    }

    /// Tells the caller that it is accepted, and by which life.
    pub(crate) async fn accept(&mut self, incarnation: u64) -> io::Result<()> {
        self.stream.write_u8(ACCEPTED).await?;
        self.stream.write_u64(incarnation).await?;
        self.stream.flush().await
    }

    async fn farewell(&mut self) {
        // The other end may be gone already.
        let _ = tokio::time::timeout(HANDSHAKE, self.stream.shutdown()).await;
    }

    /// Watches until the wire breaks or `stop` resolves; in the latter case the peer gets a farewell.
    pub(crate) async fn watch(mut self, stop: impl Future<Output = ()>) -> Option<Broken> {
        let mut byte = [0];
        tokio::select! {
            read = self.stream.read(&mut byte) => Some(judge(read)),
            () = stop => {
                self.farewell().await;
                None
            }
        }
    }
}

fn judge(read: io::Result<usize>) -> Broken {
    match read.map_err(|error| error.kind()) {
        // The peer's kernel closed the connection in order: rustls saw no farewell before the end. A reset proves nothing:
        // boxes on the way send those.
        Err(io::ErrorKind::UnexpectedEof) => Broken::Gone,
        _ => Broken::Closed,
    }
}

/// Where peers attach their wires.
pub(crate) struct Post {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Post {
    pub(crate) async fn bind(address: SocketAddr, identity: &Identity) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(identity.server_config(ALPN)) })
    }

    /// The next connection, before it has shown who it is.
    pub(crate) async fn accept(&self) -> io::Result<Caller> {
        let (tcp, _) = self.listener.accept().await?;
        Ok(Caller { tcp, acceptor: self.acceptor.clone() })
    }
}

/// A connection that has not shown who it is.
pub(crate) struct Caller {
    tcp: TcpStream,
    acceptor: TlsAcceptor,
}

impl Caller {
    pub(crate) async fn identify(self) -> io::Result<Tripwire> {
        let handshake = self.acceptor.accept(self.tcp);
        let stream = tokio::time::timeout(HANDSHAKE, handshake).await.map_err(io::Error::other)??;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = peer_host(certificates).map_err(io::Error::other)?;
        let mut wire = Tripwire { stream: stream.into(), peer, incarnation: 0 };
        let named = tokio::time::timeout(HANDSHAKE, wire.stream.read_u64()).await;
        wire.incarnation = named.map_err(io::Error::other)??;
        Ok(wire)
    }
}
