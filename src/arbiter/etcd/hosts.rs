//! The hosts of a cluster, as they say of themselves: each keeps an entry under a lease, so that it goes when its host does.

use super::place;
use super::store::{Lease, Store};
use crate::arbiter::{ArbiterError, EtcdConfig};
use ft_core::units::HostId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// The hosts that are there.
///
/// This is news, not a promise: a host may be in the list for up to its lease after it is gone, and out of it while it lives on but cannot
/// reach etcd. Nothing that must be safe is decided on it.
#[derive(Debug)]
pub struct HostRegistry {
    store: Store,
    /// What the keys of all hosts begin with.
    hosts: String,
}

/// A host's entry, for as long as it is renewed.
#[derive(Debug)]
pub struct Registration {
    host: HostId,
    lease: Lease,
}

impl HostRegistry {
    /// The hosts under the configured prefix. Asks nothing of the cluster yet.
    ///
    /// # Errors
    /// When the configuration is wrong, or a file that it names cannot be used.
    pub fn open(config: &EtcdConfig) -> Result<Self, ArbiterError> {
        Ok(Self { store: Store::new(config)?, hosts: format!("{}/hosts/", config.prefix) })
    }

    /// Enters `host`, in place of an entry of an earlier life of it. The entry goes when it is not renewed for `ttl`; etcd counts in
    /// seconds, and not below one and a half of its own election timeouts. Renew three times as often.
    ///
    /// # Errors
    /// When etcd gives no answer. The entry may be there all the same, and goes by itself.
    pub fn register(
        &mut self,
        host: HostId,
        value: &Value,
        ttl: Duration,
    ) -> Result<Registration, ArbiterError> {
        let registration = Registration { host, lease: self.store.grant(ttl)? };
        self.update(&registration, value)?;
        Ok(registration)
    }

    /// Changes what a host says of itself.
    ///
    /// # Errors
    /// When etcd gives no answer, or the entry is gone.
    pub fn update(&mut self, registration: &Registration, value: &Value) -> Result<(), ArbiterError> {
        let Registration { host, lease } = registration;
        self.store.put(&format!("{}{}", self.hosts, host.0), value.to_string().as_bytes(), *lease)
    }

    /// Keeps an entry. False when it is gone already, because it was not renewed in time: register again.
    ///
    /// # Errors
    /// When etcd gives no answer.
    pub fn renew(&mut self, registration: &Registration) -> Result<bool, ArbiterError> {
        self.store.renew(registration.lease)
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// When etcd gives no answer. The entry goes by itself when its time is over.
    pub fn withdraw(&mut self, registration: Registration) -> Result<(), ArbiterError> {
        self.store.revoke(registration.lease)
    }

    /// The hosts that are there, and what each says of itself.
    ///
    /// # Errors
    /// When etcd gives no answer, or holds entries that are none of ours.
    pub fn list(&mut self) -> Result<BTreeMap<HostId, Value>, ArbiterError> {
        let hosts = self.store.list(&self.hosts)?.into_iter().map(|pair| {
            let host = pair.key.strip_prefix(&self.hosts).and_then(|number| number.parse().ok());
            let value = serde_json::from_slice(&pair.value).ok();
            host.map(HostId).zip(value).ok_or_else(|| ArbiterError::Foreign { place: place(&pair.key) })
        });
        hosts.collect()
    }
}
