//! Fills a store with values that nothing compresses.

use crossbeam::channel::{Receiver, TryRecvError};
use ft::demo::HostsError;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Bytes of a value, and values under way.
const VALUE_BYTES: usize = 64 << 10;
const UNDER_WAY: usize = 8;

/// What the store says to each.
const REPLY: &[u8] = b"+OK\r\n";

/// A store that says nothing for so long has failed.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

/// Puts `bytes` of values into the store at `service`, unless `stop` is closed meanwhile.
pub(super) fn fill(service: SocketAddr, bytes: u64, stop: &Receiver<()>) -> Result<(), HostsError> {
    let doing = |source| HostsError::Io { doing: format!("fill the store at {service}"), source };
    let mut stream = connect(service).map_err(doing)?;
    let values = bytes.div_ceil(VALUE_BYTES as u64);
    for first in (0..values).step_by(UNDER_WAY) {
        if stop.try_recv() == Err(TryRecvError::Disconnected) {
            return Err(HostsError::Interrupted);
        }
        let last = values.min(first + UNDER_WAY as u64);
        put(&mut stream, first..last).map_err(doing)?;
    }
    Ok(())
}

fn connect(service: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(service)?;
    stream.set_read_timeout(Some(REPLY_WITHIN))?;
    stream.set_write_timeout(Some(REPLY_WITHIN))?;
    Ok(stream)
}

fn put(stream: &mut TcpStream, values: std::ops::Range<u64>) -> io::Result<()> {
    let count = (values.end - values.start) as usize;
    let mut requests = Vec::with_capacity(count * (VALUE_BYTES + 64));
    let mut value = vec![0; VALUE_BYTES];
    for number in values {
        getrandom::fill(&mut value).map_err(io::Error::other)?;
        let key = format!("fill:{number}");
        write!(requests, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${VALUE_BYTES}\r\n", key.len())?;
        requests.extend_from_slice(&value);
        requests.extend_from_slice(b"\r\n");
    }
    stream.write_all(&requests)?;
    let mut replies = vec![0; count * REPLY.len()];
    stream.read_exact(&mut replies)?;
    if replies.chunks(REPLY.len()).all(|reply| reply == REPLY) {
        return Ok(());
    }
    Err(io::Error::other(format!("the store refuses: {}", String::from_utf8_lossy(&replies).trim())))
}
