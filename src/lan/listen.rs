//! Listening sockets, and why they cannot be had.

use super::error::LanError;
use mio::net::{TcpListener, UnixListener};
use nix::sys::socket::{getsockopt, sockopt};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A Unix socket whose file goes with it.
pub(super) struct SocketFile {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that nobody else's file is removed.
    file: Option<(u64, u64)>,
}

impl SocketFile {
    /// Makes the socket. A file that a switch left behind when it was killed is replaced.
    pub(super) fn bind(path: &Path) -> Result<Self, LanError> {
        let failed = |source| LanError::Socket { path: path.to_owned(), source };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                refuse_if_used(path)?;
                std::fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path)
            }
            other => other,
        };
        let listener = listener.map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), file: identity(path) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.file.is_some() && identity(&self.path) == self.file {
            // What cannot be removed is replaced by the next switch.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// An error unless the file is a socket on which nobody listens.
fn refuse_if_used(path: &Path) -> Result<(), LanError> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if !is_socket {
        return Err(LanError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let peer = getsockopt(&stream, sockopt::PeerCredentials);
            Err(LanError::Live { path: path.to_owned(), pid: peer.ok().map(|peer| peer.pid()) })
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(source) => Err(LanError::Socket { path: path.to_owned(), source }),
    }
}

/// Listens on a TCP address. Returns the address with the port that it got.
pub(super) fn listen_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), LanError> {
    let failed = |source| LanError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let actual = listener.local_addr().map_err(failed)?;
    Ok((listener, actual))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_live_socket_is_respected_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("switch");
        let first = SocketFile::bind(&path).unwrap();
        match SocketFile::bind(&path).err().unwrap() {
            LanError::Live { pid, .. } => assert_eq!(pid, Some(std::process::id() as i32)),
            other => panic!("{other}"),
        }
        drop(first);
        assert!(!path.exists());
        // Left behind by a switch that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = SocketFile::bind(&path).unwrap();
        // Its file was replaced meanwhile, and the new one is not its own.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        drop(second);
        assert!(path.exists());
        assert!(matches!(SocketFile::bind(&path), Err(LanError::NotASocket { .. })));
    }

    #[test]
    fn a_port_in_use_says_what_to_do() {
        let (_first, address) = listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen_tcp(address).unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");
    }
}
