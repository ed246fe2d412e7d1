//! Why a switch or a port cannot start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a switch or a port cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LanError {
    /// What was asked for cannot work.
    #[error("{0}")]
    Config(String),
    /// Somebody already listens on the socket.
    #[error("a switch already listens on {} ({}); stop it, or use another --socket", path.display(), holder(*pid))]
    Live {
        /// The socket.
        path: PathBuf,
        /// The process that listens there, where the host says so.
        pid: Option<i32>,
    },
    /// There is a file that is no socket.
    #[error("{} exists and is not a socket; remove it, or use another --socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A TCP address cannot be listened on.
    #[error("cannot listen on {address}{}", hint(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the host said.
        source: io::Error,
    },
    /// The host refuses a thread, a descriptor or memory.
    #[error("cannot {doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there, choose another port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need root, choose another port",
        io::ErrorKind::AddrNotAvailable => "; this host does not have that address",
        _ => "",
    }
}

impl LanError {
    pub(super) fn host(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { doing, source }
    }
}
