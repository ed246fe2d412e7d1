//! TLS 1.3 over TCP, mutually authenticated: what the logging channel replaces, and the honest bar for its cost.

use super::contender::Ready;
use super::error::{Doing, Error};
use super::identity::{self, SERVER_NAME};
use super::order::{Buffers, Job};
use super::stream::Transport;
use super::tcp::Tcp;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;

/// One TLS stream.
pub(super) struct Tls;

/// Either end; rustls gives them different types.
pub(super) enum TlsStream {
    Server(StreamOwned<ServerConnection, TcpStream>),
    Client(StreamOwned<ClientConnection, TcpStream>),
}

impl Transport for Tls {
    type Stream = TlsStream;

    fn accept(&self, job: &Job, ready: Ready<'_>) -> Result<(TlsStream, Buffers), Error> {
        let config = identity::server_config(&job.identity)?;
        let (mut socket, buffers) = Tcp.accept(job, ready)?;
        let mut session = ServerConnection::new(config).doing("start a TLS server")?;
        session.complete_io(&mut socket).doing("shake hands over TLS")?;
        Ok((TlsStream::Server(StreamOwned::new(session, socket)), buffers))
    }

    fn connect(&self, job: &Job) -> Result<(TlsStream, Buffers), Error> {
        let config = identity::client_config(&job.identity)?;
        let name = SERVER_NAME.try_into().doing("name the TLS server")?;
        let (mut socket, buffers) = Tcp.connect(job)?;
        let mut session = ClientConnection::new(config, name).doing("start a TLS client")?;
        session.complete_io(&mut socket).doing("shake hands over TLS")?;
        Ok((TlsStream::Client(StreamOwned::new(session, socket)), buffers))
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Server(stream) => stream.read(buffer),
            Self::Client(stream) => stream.read(buffer),
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Server(stream) => stream.write(bytes),
            Self::Client(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Server(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
        }
    }
}
