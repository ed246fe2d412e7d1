//! Throw-away identities: one cluster CA for each run, one host on each side.
//!
//! Every contender that encrypts uses these, so all of them pay for the same suite (AES-128-GCM comes first) and for
//! the same check of the peer.

use super::error::{Doing, Error};
use ft_net::identity::{ClusterCa, DAY, Identity};
use rustls::{ClientConfig, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;

/// The serving host, as its certificate says.
pub(super) const SERVER_NAME: &str = "receiver";
const CLIENT_NAME: &str = "sender";
/// QUIC insists on an application protocol.
const ALPN: &[u8] = b"ft-bench";
const MAKING: &str = "make throw-away certificates";

/// The credentials of both hosts in a private directory, which goes when this is dropped.
pub(super) struct Identities {
    dir: TempDir,
}

impl Identities {
    pub(super) fn make() -> Result<Self, Error> {
        let dir = TempDir::with_prefix("ft-bench-").doing(MAKING)?;
        let identities = Self { dir };
        // A CA refuses to issue what would outlive it, if only by the second that passes in between.
        let ca = ClusterCa::generate("bench", 2 * DAY, SystemTime::now()).doing(MAKING)?;
        for name in [SERVER_NAME, CLIENT_NAME] {
            let host = ca.issue(&name.parse().doing(MAKING)?, DAY).doing(MAKING)?;
            host.write(&identities.dir.path().join(name)).doing(MAKING)?;
        }
        Ok(identities)
    }

    /// The serving host's directory.
    pub(super) fn serve(&self) -> PathBuf {
        self.dir.path().join(SERVER_NAME)
    }

    /// The driving host's directory.
    pub(super) fn drive(&self) -> PathBuf {
        self.dir.path().join(CLIENT_NAME)
    }
}

/// The serving side's TLS.
pub(super) fn server_config(dir: &Path) -> Result<Arc<ServerConfig>, Error> {
    Ok(load(dir)?.server_config(ALPN))
}

/// The driving side's TLS.
pub(super) fn client_config(dir: &Path) -> Result<Arc<ClientConfig>, Error> {
    Ok(load(dir)?.client_config(ALPN))
}

/// Who this side is.
pub(super) fn load(dir: &Path) -> Result<Identity, Error> {
    Identity::load(dir).doing("load this side's identity")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_sides_load_and_leave_nothing() {
        let identities = Identities::make().unwrap();
        let (serve, drive) = (identities.serve(), identities.drive());
        assert_eq!(load(&serve).unwrap().host().as_str(), SERVER_NAME);
        assert_eq!(load(&drive).unwrap().host().as_str(), CLIENT_NAME);
        drop(identities);
        assert!(!serve.exists() && !drive.exists());
    }
}
