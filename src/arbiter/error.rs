//! What keeps an arbiter from answering.

use ft_core::units::Term;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// Why an arbiter cannot be used or gives no answer.
#[derive(Debug, Error)]
pub enum ArbiterError {
    /// The shared directory itself.
    #[error("cannot use {path} as the arbiter's directory (mount it, or make it where all hosts share it)")]
    Dir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or directory of it.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something stands in a term's place that does not name an owner.
    #[error(
        "{place} does not say who owns {term}: restore it from a backup; claims of this term get no answer until then"
    )]
    Damaged {
        /// The file or key.
        place: String,
        /// The term.
        term: Term,
    },
    /// A name in the store that is none of ours.
    #[error("{place} is not what this program keeps there: move it away")]
    Foreign {
        /// The key.
        place: String,
    },
    /// A configuration that cannot work.
    #[error("arbiter: {0}")]
    Config(String),
    /// No endpoint of an etcd cluster gave an answer.
    #[error("no answer from etcd: {}", .0.join("; "))]
    Etcd(
        /// What became of each endpoint.
        Vec<String>,
    ),
}
