//! The arbiter that is an etcd cluster, and the list of hosts that it keeps.
//!
//! ```text
//! PREFIX/vms/VM/terms/00000000000000000001   who owns the term, as in a directory's term-000001
//! PREFIX/hosts/7                             what host 7 says of itself, as JSON; gone soon after the host is
//! ```
//!
//! A claim is one transaction: put the key if it was never created, else read it. All nodes of the cluster agree on it, or it gets no
//! answer. A claim that is repeated finds itself.
//!
//! Spoken is etcd's JSON interface, version 3, the same in all releases since 3.4.

mod client;
mod hosts;
mod store;

pub use hosts::{HostRegistry, Registration};

use super::entry::Entry;
use super::{ArbiterError, EtcdConfig, OwnedTerm, TermStore, outcome};
use ft_core::arbiter::{Arbiter, ClaimOutcome};
use ft_core::units::{NodeId, Term};
use store::{Created, Pair, Store};

/// Terms of one VM at an etcd cluster.
#[derive(Debug)]
pub struct EtcdArbiter {
    store: Store,
    /// What the keys of all terms begin with.
    terms: String,
}

impl EtcdArbiter {
    /// The terms of VM `vm` under the configured prefix. Asks nothing of the cluster yet.
    ///
    /// # Errors
    /// When the configuration is wrong, or a file that it names cannot be used.
    pub fn open(config: &EtcdConfig, vm: &str) -> Result<Self, ArbiterError> {
        Ok(Self { store: Store::new(config)?, terms: format!("{}/vms/{vm}/terms/", config.prefix) })
    }

    fn try_claim(&mut self, term: Term, node: NodeId) -> Result<NodeId, ArbiterError> {
        let key = self.key(term);
        match self.store.create(&key, Entry::now(node).to_string().as_bytes())? {
            Created::New => Ok(node),
            Created::Exists(value) => Ok(entry(&key, term, &value)?.owner),
        }
    }

    /// All digits of a term, so that keys are in the order of their terms.
    fn key(&self, term: Term) -> String {
        format!("{}{:020}", self.terms, term.0)
    }

    fn owned(&self, pair: Pair) -> Result<OwnedTerm, ArbiterError> {
        let term = pair.key.strip_prefix(&self.terms).and_then(|number| number.parse().ok()).map(Term);
        let term = term.filter(|term| self.key(*term) == pair.key);
        let term = term.ok_or_else(|| ArbiterError::Foreign { place: place(&pair.key) })?;
        let Entry { owner, remark } = entry(&pair.key, term, &pair.value)?;
        Ok(OwnedTerm { term, owner, remark })
    }
}

impl Arbiter for EtcdArbiter {
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome {
        let owner = self.try_claim(term, node);
        outcome(owner, node, term, &self.terms)
    }
}

impl TermStore for EtcdArbiter {
    fn last(&mut self) -> Result<Option<OwnedTerm>, ArbiterError> {
        self.store.last(&self.terms)?.map(|pair| self.owned(pair)).transpose()
    }

    fn history(&mut self) -> Result<Vec<OwnedTerm>, ArbiterError> {
        let pairs = self.store.list(&self.terms)?;
        pairs.into_iter().map(|pair| self.owned(pair)).collect()
    }
}

fn entry(key: &str, term: Term, value: &[u8]) -> Result<Entry, ArbiterError> {
    let entry = str::from_utf8(value).ok().and_then(Entry::parse);
    entry.ok_or_else(|| ArbiterError::Damaged { place: place(key), term })
}

fn place(key: &str) -> String {
    format!("etcd's key {key}")
}
