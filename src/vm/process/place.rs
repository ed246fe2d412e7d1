//! Where a copy runs: its host among those of the cluster, the network to the others, and the arbiter.

use super::{Begin, RunError};
use crate::arbiter::{ArbiterError, TermStore};
use crate::vm::config::{Cluster, Host, VmFile};
use crossbeam::channel::Receiver;
use ft_core::arbiter::MemoryArbiter;
use ft_core::units::{HostId, NodeId};
use ft_net::identity::{DAY, IdentityError};
use ft_net::{ClusterCa, Identity, LinkConfig, NetEvent, Network, NetworkConfig, Peer};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// This process's place among the hosts.
pub(super) struct Place<'a> {
    pub(super) node: NodeId,
    cluster: Option<(&'a Cluster, &'a Host)>,
}

impl<'a> Place<'a> {
    pub(super) fn of(file: &'a VmFile, begin: Begin) -> Result<Self, RunError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(RunError::Random)?;
        // One bit less, so that it stays a counter of the protocol.
        let incarnation = u64::from_le_bytes(random) >> 2;
        let id = match begin {
            Begin::Alone => {
                return Ok(Self { node: NodeId { host: HostId(0), incarnation }, cluster: None });
            }
            Begin::Primary { host, .. } | Begin::Secondary { host, .. } => host,
        };
        let cluster = file.cluster.as_ref().ok_or(RunError::NoCluster)?;
        let known = || cluster.hosts.iter().map(|host| host.id.to_string()).collect::<Vec<_>>().join(", ");
        let host = cluster.hosts.iter().find(|host| host.id == id);
        let host = host.ok_or_else(|| RunError::NoSuchHost { id, known: known() })?;
        Ok(Self { node: NodeId { host: HostId(id), incarnation }, cluster: Some((cluster, host)) })
    }

    pub(super) fn network(&self) -> Result<(Network, Receiver<NetEvent>), RunError> {
        let NodeId { host, incarnation } = self.node;
        let (identity, listen, peers) = match self.cluster {
            Some((cluster, own)) => {
                (Identity::load(&cluster.credentials)?, own.address, self.peers(cluster)?)
            }
            // Nobody will call: an identity for the port, and no peers.
            None => (throw_away()?, ([127, 0, 0, 1], 0).into(), BTreeMap::new()),
        };
        let link = LinkConfig::default();
        Ok(Network::start(identity, NetworkConfig { host, incarnation, listen, peers, link })?)
    }

    /// Its name; none where it runs alone.
    pub(super) fn host_name(&self) -> Option<&'a str> {
        self.cluster.map(|(_, own)| &own.name[..])
    }

    fn peers(&self, cluster: &Cluster) -> Result<BTreeMap<HostId, Peer>, RunError> {
        let others = cluster.hosts.iter().filter(|host| HostId(host.id) != self.node.host);
        let peer = |host: &Host| {
            let wrong = |error: IdentityError| RunError::HostName { id: host.id, reason: error.to_string() };
            let name = host.name.parse().map_err(wrong)?;
            Ok((HostId(host.id), Peer { name, address: host.address }))
        };
        others.map(peer).collect()
    }

    /// An arbiter that outlives this process, or one of its own.
    pub(super) fn arbiter(&self, vm: &str) -> Result<Box<dyn TermStore>, ArbiterError> {
        match self.cluster {
            Some((cluster, _)) => cluster.arbiter.open(vm),
            None => Ok(Box::new(MemoryArbiter::default())),
        }
    }
}

fn throw_away() -> Result<Identity, RunError> {
    let ca = ClusterCa::generate("alone", 2 * DAY, SystemTime::now())?;
    let name = "alone".parse()?;
    Ok(ca.issue(&name, DAY)?.identity()?)
}
