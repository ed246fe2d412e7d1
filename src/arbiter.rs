//! The arbiters (R4): who owns each term of a VM, kept where the loss of a host does not reach it.
//!
//! | kind | for |
//! |---|---|
//! | [`DirArbiter`] | a directory that all hosts can write to: on NFS, or on one machine |
//! | [`EtcdArbiter`] | an etcd cluster |
//! | [`MemoryArbiter`] | one process: a VM that is run unprotected |
//!
//! Invariants of all kinds: a term has at most one owner, for ever. No decision depends on a clock: times are remarks for people.
//! An answer is given only once it will outlast a crash of whoever gives it. A claim that gets none in time comes back as unreachable, and
//! may have won; in a directory, how long that takes is up to the file system.

mod config;
mod dir;
mod entry;
mod error;
mod etcd;

pub use config::{ArbiterConfig, EtcdConfig};
pub use dir::DirArbiter;
pub use error::ArbiterError;
pub use etcd::{EtcdArbiter, HostRegistry, Registration};

use ft_core::arbiter::{Arbiter, ClaimOutcome, MemoryArbiter};
use ft_core::units::{NodeId, Term};
use std::fmt;

/// An arbiter whose past can be read.
pub trait TermStore: Arbiter + Send {
    /// The last term that anybody owns; `None` before the first.
    ///
    /// # Errors
    /// When the arbiter cannot be reached, or holds something that is none of ours.
    fn last(&mut self) -> Result<Option<OwnedTerm>, ArbiterError>;

    /// All terms that anybody owns, first to last.
    ///
    /// # Errors
    /// As for [`TermStore::last`].
    fn history(&mut self) -> Result<Vec<OwnedTerm>, ArbiterError>;
}

/// A term and who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedTerm {
    /// The term.
    pub term: Term,
    /// Its owner.
    pub owner: NodeId,
    /// What the owner noted when it claimed, such as the time on its clock. For people only.
    pub remark: String,
}

impl fmt::Display for OwnedTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.term, self.owner)?;
        if self.remark.is_empty() { Ok(()) } else { write!(f, " ({})", self.remark) }
    }
}

impl TermStore for MemoryArbiter {
    fn last(&mut self) -> Result<Option<OwnedTerm>, ArbiterError> {
        Ok(self.history()?.pop())
    }

    fn history(&mut self) -> Result<Vec<OwnedTerm>, ArbiterError> {
        let owned = |(&term, &owner): (&Term, &NodeId)| OwnedTerm { term, owner, remark: String::new() };
        Ok(self.owners().iter().map(owned).collect())
    }
}

/// What the answer to a claim means, once it is known who owns the term.
fn outcome(
    owner: Result<NodeId, ArbiterError>,
    claimer: NodeId,
    term: Term,
    place: &dyn fmt::Display,
) -> ClaimOutcome {
    match owner {
        Ok(owner) if owner == claimer => ClaimOutcome::Won,
        Ok(owner) => ClaimOutcome::Lost { owner },
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%term, %place, error, "a claim has no answer yet");
            ClaimOutcome::Unreachable
        }
    }
}
