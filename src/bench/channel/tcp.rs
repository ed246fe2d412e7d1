//! Plain TCP: the floor of cost and the ceiling of speed, without any protection of the bytes.

use super::contender::Ready;
use super::error::{Doing, Error};
use super::order::{Buffers, Job};
use super::socket;
use super::stream::Transport;
use std::net::TcpStream;

/// One TCP stream.
pub(super) struct Tcp;

impl Transport for Tcp {
    type Stream = TcpStream;

    fn accept(&self, job: &Job, ready: Ready<'_>) -> Result<(TcpStream, Buffers), Error> {
        let (listener, buffers) = socket::tcp(job.tuning.socket_buffer)?;
        listener.bind(&job.address.into()).doing(format!("bind TCP {}", job.address))?;
        listener.listen(1).doing("listen")?;
        let listener = std::net::TcpListener::from(listener);
        ready(listener.local_addr().doing("read the listening address")?)?;
        let (stream, _) = listener.accept().doing("accept a connection")?;
        stream.set_nodelay(true).doing("set TCP_NODELAY")?;
        Ok((stream, buffers))
    }

    fn connect(&self, job: &Job) -> Result<(TcpStream, Buffers), Error> {
        let (socket, buffers) = socket::tcp(job.tuning.socket_buffer)?;
        socket.connect(&job.address.into()).doing(format!("connect to {}", job.address))?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).doing("set TCP_NODELAY")?;
        Ok((stream, buffers))
    }
}
