//! What can go wrong with identities, sorted by who is at fault.

use super::{HostName, RefusedCertificate, UtcTime};
use std::io;
use std::path::PathBuf;

/// An identity could not be made, stored or loaded, or a peer's certificate tells no host name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    // The caller's misuse.
    /// Text that is not the name of a host.
    #[error("host name {given:?} is refused: {why}; use 1 to 63 lowercase letters, digits, hyphens and dots")]
    HostName {
        /// The text, at most its first 80 characters.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Text that is not the name of a cluster.
    #[error(
        "cluster name {given:?} is refused: use 1 to 64 letters, digits, spaces, dots, hyphens and \
         underscores, starting with a letter or digit"
    )]
    ClusterName {
        /// The text, at most its first 80 characters.
        given: String,
    },
    /// A validity that no certificate can have.
    #[error("a validity of {days} days is refused: use at least 1 and at most 36500 days")]
    Validity {
        /// The validity, in days, rounded down.
        days: u64,
    },
    /// A host certificate that would outlive its CA: it would be of no use after the CA's end.
    #[error(
        "a certificate for {host} valid until {until} would outlive the CA `{ca}`, which ends {ca_until}; \
         {todo}"
    )]
    OutlivesCa {
        /// The host it was for.
        host: HostName,
        /// The end of the validity that was asked for.
        until: UtcTime,
        /// The CA's name.
        ca: String,
        /// The CA's end.
        ca_until: UtcTime,
        /// What to do next.
        todo: String,
    },
    /// Something is where a new directory was to be made. Nothing was changed.
    #[error("{} already holds {holds}, which is left as it is; {todo}", dir.display())]
    Occupied {
        /// The directory that was to be made.
        dir: PathBuf,
        /// What is there.
        holds: String,
        /// What to do next.
        todo: &'static str,
    },

    // The host's fault: files.
    /// The operating system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not there.
    #[error("{} does not exist; {todo}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do next.
        todo: String,
    },
    /// Others than its owner can read or change a private key.
    #[error(
        "{0} has mode {mode:04o}, so others than its owner can get at the private key; run `chmod 600 {0}`, \
         and make a new key if somebody may have read this one",
        path.display()
    )]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {why}; {todo}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do next.
        todo: String,
    },
    /// A private key that belongs to another certificate.
    #[error("{} is not the key of {}; put back the pair that was made together, or {todo}",
        key.display(), certificate.display())]
    KeyMismatch {
        /// The key file.
        key: PathBuf,
        /// The certificate file.
        certificate: PathBuf,
        /// What to do next, if there is no such pair.
        todo: String,
    },
    /// A file that should hold a CA's certificate holds another one.
    #[error(
        "{} is the certificate of {subject}, which is not a CA; put the cluster's ca.crt there",
        path.display()
    )]
    NotCa {
        /// The file.
        path: PathBuf,
        /// Whose certificate it holds.
        subject: String,
    },
    /// A CA that is out of its time.
    #[error("{}: the CA `{subject}` {why}; {todo}", path.display())]
    CaOutOfTime {
        /// The file.
        path: PathBuf,
        /// The CA's name.
        subject: String,
        /// How it is out of its time, and since or until when.
        why: String,
        /// What to do next.
        todo: &'static str,
    },
    /// Our own certificate is such that every peer would refuse it.
    #[error("{} is of no use", path.display())]
    Unusable {
        /// The certificate file.
        path: PathBuf,
        /// Why.
        source: RefusedCertificate,
    },

    // The peer's fault.
    /// A peer presented no certificate.
    #[error("the peer presented no certificate; give it one with `ft ca issue`")]
    NoPeerCertificate,
    /// A peer's certificate is not one of a host of the cluster.
    #[error(transparent)]
    Peer(#[from] RefusedCertificate),

    // The cryptographic library's fault.
    /// A key or certificate could not be made.
    #[error("cannot {doing}: {why}")]
    Crypto {
        /// What was being done.
        doing: &'static str,
        /// What the library said.
        why: String,
    },
}
