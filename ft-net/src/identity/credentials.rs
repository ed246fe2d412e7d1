//! What a CA hands to a host: the CA's certificate, the host's certificate and the host's private key.

use super::files::{self, NewFile};
use super::{CA_CERTIFICATE, HOST_CERTIFICATE, HOST_KEY, HostName, Identity, IdentityError, UtcTime};
use std::fmt;
use std::path::Path;
use std::time::SystemTime;

/// A host's freshly issued certificate and key. Nobody else has the key: the CA does not keep it.
pub struct HostCredentials {
    pub(super) host: HostName,
    pub(super) not_after: UtcTime,
    pub(super) ca_pem: String,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

impl fmt::Debug for HostCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, not_after, .. } = self;
        f.debug_struct("HostCredentials")
            .field("host", host)
            .field("not_after", not_after)
            .finish_non_exhaustive()
    }
}

impl HostCredentials {
    /// The host they are for.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// The end of the certificate's validity.
    pub fn not_after(&self) -> UtcTime {
        self.not_after
    }

    /// Stores them in a new directory (mode 0700): `ca.crt`, `host.crt`, and `host.key` with mode 0600.
    ///
    /// The directory appears with all three files in it or not at all.
    ///
    /// # Errors
    /// If there is something in the directory already; it is left as it is.
    pub fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        let files = [
            NewFile::public(CA_CERTIFICATE, &self.ca_pem),
            NewFile::public(HOST_CERTIFICATE, &self.certificate_pem),
            NewFile::private(HOST_KEY, &self.key_pem),
        ];
        files::create_dir(dir, &files, || IdentityError::Occupied {
            dir: dir.to_owned(),
            holds: if dir.join(HOST_CERTIFICATE).exists() {
                "a host's certificate"
            } else {
                "something else"
            }
            .to_owned(),
            todo: "move it away, or name another directory",
        })
    }

    /// The host's identity, without a detour through files.
    ///
    /// # Errors
    /// Those of [`Identity::load`] which are not about files.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        self.identity_at(SystemTime::now())
    }

    /// The host's identity as it is at `now`.
    ///
    /// # Errors
    /// Those of [`Identity::load`] which are not about files.
    pub fn identity_at(&self, now: SystemTime) -> Result<Identity, IdentityError> {
        Identity::from_pem(
            Path::new(""),
            [self.ca_pem.as_bytes(), self.certificate_pem.as_bytes(), self.key_pem.as_bytes()],
            now,
        )
    }
}
