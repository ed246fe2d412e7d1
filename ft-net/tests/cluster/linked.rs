//! A host that keeps links to its peers up, and what happens to it.

use super::{ANY_PORT, Cluster, DEADLINE, host};
use crossbeam::channel::Receiver;
use ft_core::message::Envelope;
use ft_core::units::{HostId, NodeId};
use ft_net::{Identity, LinkConfig, NetError, NetEvent, Network, NetworkConfig, Peer};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The host of this number: `host-<number>`.
pub(crate) fn peer(number: u64, address: SocketAddr) -> Peer {
    Peer { name: host(&format!("host-{number}")), address }
}

/// Host 1 as the others know it: it dials them, so they need not know where it is.
pub(crate) const DIALER: (u64, SocketAddr) = (1, ANY_PORT);

/// No two are the same, in this process or another.
pub(crate) fn another_life() -> u64 {
    static LIVES: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | LIVES.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct Host {
    pub(crate) incarnation: u64,
    pub(crate) network: Network,
    pub(crate) events: Receiver<NetEvent>,
}

impl Host {
    pub(crate) fn start(
        cluster: &Cluster,
        number: u64,
        peers: &[(u64, SocketAddr)],
        link: LinkConfig,
    ) -> Self {
        Self::start_at(ANY_PORT, cluster.identity(&format!("host-{number}")), number, peers, link)
    }

    pub(crate) fn start_at(
        listen: SocketAddr,
        identity: Identity,
        number: u64,
        peers: &[(u64, SocketAddr)],
        link: LinkConfig,
    ) -> Self {
        let peers =
            peers.iter().map(|(number, address)| (HostId(*number), peer(*number, *address))).collect();
        let incarnation = another_life();
        let config = NetworkConfig { host: HostId(number), incarnation, listen, peers, link };
        let (network, events) = Network::start(identity, config).unwrap();
        Self { incarnation, network, events }
    }

    /// Two hosts that know each other. The first dials.
    pub(crate) fn pair(cluster: &Cluster, link: LinkConfig) -> [Self; 2] {
        let b = Self::start(cluster, 2, &[DIALER], link.clone());
        let a = Self::start(cluster, 1, &[(2, b.address())], link);
        [a, b]
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.network.address()
    }

    pub(crate) fn add_peer(&self, number: u64, address: SocketAddr) {
        self.network.add_peer(HostId(number), peer(number, address));
    }

    /// Takes events until `meet` has what is awaited. It lets pass what may come before, and panics at anything else.
    pub(crate) fn await_event<T>(&self, awaited: &str, mut meet: impl FnMut(NetEvent) -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            let event = self.events.recv_deadline(until);
            let event = event.unwrap_or_else(|_| panic!("{awaited}: not within {DEADLINE:?}"));
            if let Some(met) = meet(event) {
                return met;
            }
        }
    }

    /// Up to the link's being up; until then it may be down, again and again.
    pub(crate) fn expect_up(&self, number: u64) {
        self.await_event("a link", |event| match event {
            NetEvent::Up(host) if host == HostId(number) => Some(()),
            NetEvent::Down(host, _) if host == HostId(number) => None,
            other => panic!("{other:?} before the link to {number} was up"),
        });
    }

    /// The next event is that the link is down; why.
    pub(crate) fn expect_down(&self, number: u64) -> NetError {
        self.await_event("the end of a link", |event| match event {
            NetEvent::Down(host, error) if host == HostId(number) => Some(error),
            other => panic!("{other:?} where the link to {number} was to go down"),
        })
    }

    /// Up to the end of this life of the peer; the link may go down before.
    pub(crate) fn expect_gone(&self, number: u64, incarnation: u64) {
        let node = NodeId { host: HostId(number), incarnation };
        self.await_event("the end of a process", |event| match event {
            NetEvent::Gone(gone) if gone == node => Some(()),
            NetEvent::Down(host, _) if host == HostId(number) => None,
            other => panic!("{other:?} before {node} was gone"),
        });
    }

    /// The next event is this message.
    pub(crate) fn expect_message(&self, number: u64, envelope: &Envelope) {
        let received = self.await_event("a message", |event| match event {
            NetEvent::Message(from, message) if from == HostId(number) => Some(message),
            other => panic!("{other:?} instead of a message"),
        });
        assert_eq!(received, *envelope);
    }

    /// Waits until the peer's tripwire stands. It is attached beside the link, without an event of its own.
    pub(crate) fn expect_watched(&self, number: u64) {
        let until = Instant::now() + DEADLINE;
        while !self.network.is_watched(HostId(number)) {
            assert!(Instant::now() < until, "no tripwire of host {number} within {DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
