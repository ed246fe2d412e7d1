//! Keeps links to a set of peers up, on threads of its own: the face of the channel for code that is not async.
//!
//! Of two hosts, the one with the lower number dials, and dials again whenever the link is down. Each link has a tripwire
//! beside it, on the TCP port of the same number.

use crate::endpoint::{Endpoint, LinkConfig};
use crate::error::NetError;
use crate::identity::{HostName, Identity};
use crate::link::{Link, LinkSender};
use crate::stats::LinkStats;
use crate::tripwire::{Broken, Post, Tripwire};
use crossbeam::channel::{Receiver, Sender, TrySendError};
use ft_core::message::Envelope;
use ft_core::units::HostId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};

/// Events that wait to be taken.
const EVENTS_MAX: usize = 1024;

/// Pauses between two attempts to dial: the first, and the longest.
const REDIAL_MIN: Duration = Duration::from_millis(20);
const REDIAL_MAX: Duration = Duration::from_secs(1);

/// Callers that are being identified at a time, for links and for tripwires each.
const CALLERS_MAX: usize = 32;

/// How often statistics are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Tries to find a port number that is free for UDP and for TCP.
const PORT_TRIES: usize = 20;

/// A peer, and where it is.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name in its certificate.
    pub name: HostName,
    /// Its address.
    pub address: SocketAddr,
}

/// Which hosts are to be linked.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// This host's number.
    pub host: HostId,
    /// Where it listens. Port 0 chooses one.
    pub listen: SocketAddr,
    /// The others.
    pub peers: BTreeMap<HostId, Peer>,
    /// How links use the network.
    pub link: LinkConfig,
}

/// What happened on the network.
#[derive(Debug)]
pub enum NetEvent {
    /// A message from an authenticated peer.
    Message(HostId, Envelope),
    /// A link is up: what was on its way in an earlier one may be lost.
    Up(HostId),
    /// A link is down, or could not be made, and why. It is being made again.
    Down(HostId, NetError),
    /// The peer's process has ended.
    Gone(HostId),
}

/// Links to a set of peers.
pub struct Network {
    runtime: Option<Runtime>,
    inner: Arc<Inner>,
    address: SocketAddr,
}

struct Inner {
    host: HostId,
    endpoint: Endpoint,
    peers: RwLock<BTreeMap<HostId, Peer>>,
    links: RwLock<BTreeMap<HostId, LinkSender>>,
    events: Sender<NetEvent>,
    stopped: watch::Sender<bool>,
}

impl Network {
    /// Opens the ports and starts linking.
    ///
    /// # Errors
    /// When the address cannot be used, or TLS not be set up.
    pub fn start(identity: Identity, config: NetworkConfig) -> Result<(Self, Receiver<NetEvent>), NetError> {
        let address = config.listen;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("ft-net")
            .enable_all()
            .build()
            .map_err(|source| NetError::Bind { address, source })?;
        let (events, receiver) = crossbeam::channel::bounded(EVENTS_MAX);
        let (endpoint, post) = runtime.block_on(open(&identity, &config))?;
        let address = endpoint.local_addr().map_err(|source| NetError::Bind { address, source })?;
        let inner = Arc::new(Inner {
            host: config.host,
            endpoint,
            peers: RwLock::default(),
            links: RwLock::default(),
            events,
            stopped: watch::Sender::new(false),
        });
        runtime.spawn(Arc::clone(&inner).accept_links());
        runtime.spawn(Arc::clone(&inner).accept_tripwires(post));
        runtime.spawn(Arc::clone(&inner).publish());
        let network = Self { runtime: Some(runtime), inner, address };
        config.peers.into_iter().for_each(|(host, peer)| network.add_peer(host, peer));
        Ok((network, receiver))
    }

    /// Where peers reach this host.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets one more peer link, and links to it.
    pub fn add_peer(&self, host: HostId, peer: Peer) {
        let is_new = write(&self.inner.peers).insert(host, peer).is_none();
        if let Some(runtime) = self.runtime.as_ref().filter(|_| is_new && self.inner.host < host) {
            runtime.spawn(Arc::clone(&self.inner).dial_for_ever(host));
            runtime.spawn(Arc::clone(&self.inner).watch_for_ever(host));
        }
    }

    /// Sends a message. `false` when it was dropped: no link, or its queue is full.
    pub fn send(&self, to: HostId, envelope: Envelope) -> bool {
        let link = read(&self.inner.links).get(&to).cloned();
        link.is_some_and(|link| link.send(envelope))
    }

    /// What the link to a peer has carried; `None` while it is down.
    pub fn stats(&self, host: HostId) -> Option<LinkStats> {
        read(&self.inner.links).get(&host).map(LinkSender::stats)
    }
}

impl Network {
    /// Ends without a farewell, as if the process had been killed: for tests and demonstrations.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Network {
    /// Ends all links with a farewell.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        self.inner.stopped.send_replace(true);
        let close = async {
            // The farewell is a courtesy: who misses it finds out by itself.
            let _ = tokio::time::timeout(Duration::from_millis(500), self.inner.endpoint.close()).await;
        };
        runtime.block_on(close);
        runtime.shutdown_timeout(Duration::from_millis(500));
    }
}

/// Opens the same port number for links and for tripwires.
async fn open(identity: &Identity, config: &NetworkConfig) -> Result<(Endpoint, Post), NetError> {
    let mut tries = if config.listen.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let endpoint = Endpoint::bind(config.listen, identity.clone(), None, config.link.clone())?;
        let bind = |source| NetError::Bind { address: config.listen, source };
        let address = endpoint.local_addr().map_err(bind)?;
        match Post::bind(address, identity).await {
            Ok(post) => return Ok((endpoint, post)),
            Err(source) if tries == 0 => return Err(NetError::Bind { address, source }),
            Err(_) => {}
        }
    }
}

impl Inner {
    async fn accept_links(self: Arc<Self>) {
        let callers = Arc::new(Semaphore::new(CALLERS_MAX));
        let mut stopped = self.stopped.subscribe();
        loop {
            // Who floods us waits in the kernel's buffer, not in ours.
            let Ok(permit) = Arc::clone(&callers).acquire_owned().await else { return };
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Some(incoming) = incoming else { return };
            let inner = Arc::clone(&self);
            tokio::spawn(async move {
                let link = incoming.identify(&inner.endpoint).await;
                drop(permit);
                match link {
                    Ok(link) => inner.run_accepted(link).await,
                    Err(error) => tracing::warn!(%error, "refused a connection"),
                }
            });
        }
    }

    async fn run_accepted(&self, link: Link) {
        match self.number_of(link.peer()) {
            Some(host) => self.run(host, link).await,
            None => {
                tracing::warn!(peer = %link.peer(), "refused a host of the cluster that is no peer of this one")
            }
        }
    }

    async fn dial_for_ever(self: Arc<Self>, host: HostId) {
        let mut pause = REDIAL_MIN;
        let mut stopped = self.stopped.subscribe();
        while let Some(Peer { name, address }) = self.peer(host) {
            match self.endpoint.connect(address, &name).await {
                Ok(link) => {
                    pause = REDIAL_MIN;
                    self.run(host, link).await;
                }
                Err(error) => {
                    self.report(NetEvent::Down(host, error)).await;
                    pause = (pause * 2).min(REDIAL_MAX);
                }
            }
            let stop = stopped.wait_for(|stopped| *stopped);
            if tokio::time::timeout(pause, stop).await.is_ok() {
                return;
            }
        }
    }

    /// Hands on what comes over a link until it is down. A newer link to the same peer takes its place.
    async fn run(&self, host: HostId, link: Link) {
        let (sender, mut receiver) = link.split();
        let older = write(&self.links).insert(host, sender.clone());
        if let Some(older) = older {
            older.close();
        }
        self.report(NetEvent::Up(host)).await;
        let error = loop {
            match receiver.recv().await {
                Ok(envelope) => self.report(NetEvent::Message(host, envelope)).await,
                Err(error) => break error,
            }
        };
        if self.forget(host, &sender) {
            self.report(NetEvent::Down(host, error)).await;
        }
    }

    async fn accept_tripwires(self: Arc<Self>, post: Post) {
        let callers = Arc::new(Semaphore::new(CALLERS_MAX));
        let mut stopped = self.stopped.subscribe();
        loop {
            let Ok(permit) = Arc::clone(&callers).acquire_owned().await else { return };
            let caller = tokio::select! {
                caller = post.accept() => caller,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Ok(caller) = caller else {
                // Out of file descriptors, most likely: try again when some may be free.
                tokio::time::sleep(REDIAL_MIN).await;
                continue;
            };
            let inner = Arc::clone(&self);
            tokio::spawn(async move {
                let wire = caller.identify().await;
                drop(permit);
                match wire.map(|wire| (inner.number_of(wire.peer()), wire)) {
                    Ok((Some(host), wire)) => drop(inner.watch(host, wire).await),
                    Ok((None, wire)) => {
                        tracing::warn!(peer = %wire.peer(), "refused the tripwire of no peer")
                    }
                    Err(error) => tracing::debug!(%error, "refused a tripwire"),
                }
            });
        }
    }

    async fn watch_for_ever(self: Arc<Self>, host: HostId) {
        let mut stopped = self.stopped.subscribe();
        let mut pause = REDIAL_MIN;
        while let Some(Peer { name, address }) = self.peer(host) {
            match Tripwire::connect(address, &name, self.endpoint.identity()).await {
                Ok(wire) => {
                    pause = REDIAL_MIN;
                    if self.watch(host, wire).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, peer = %name, "no tripwire");
                    pause = (pause * 2).min(REDIAL_MAX);
                }
            }
            let stop = stopped.wait_for(|stopped| *stopped);
            if tokio::time::timeout(pause, stop).await.is_ok() {
                return;
            }
        }
    }

    /// Watches a tripwire until it breaks; `None` when the network was stopped.
    async fn watch(&self, host: HostId, wire: Tripwire) -> Option<Broken> {
        let mut stopped = self.stopped.subscribe();
        let stop = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        let broken = wire.watch(stop).await;
        if broken == Some(Broken::Gone) {
            // The link leads nowhere: waiting for its timeout would only delay the next one.
            let link = write(&self.links).remove(&host);
            if let Some(link) = link {
                link.close();
            }
            self.report(NetEvent::Gone(host)).await;
        }
        broken
    }

    async fn publish(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            let stop = stopped.wait_for(|stopped| *stopped);
            if tokio::time::timeout(PUBLISH_EVERY, stop).await.is_ok() {
                return;
            }
            for link in read(&self.links).values() {
                link.stats().publish(link.peer().as_str());
            }
        }
    }

    /// Hands on an event. Whoever takes them slowly slows the links, and through them the peers.
    async fn report(&self, mut event: NetEvent) {
        loop {
            match self.events.try_send(event) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => event = back,
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Removes a link unless a newer one has taken its place.
    fn forget(&self, host: HostId, link: &LinkSender) -> bool {
        let mut links = write(&self.links);
        let is_current = links.get(&host).is_some_and(|current| current.is_same(link));
        if is_current {
            links.remove(&host);
        }
        is_current
    }

    fn peer(&self, host: HostId) -> Option<Peer> {
        read(&self.peers).get(&host).cloned()
    }

    fn number_of(&self, name: &HostName) -> Option<HostId> {
        read(&self.peers).iter().find(|(_, peer)| peer.name == *name).map(|(host, _)| *host)
    }
}

/// A panic elsewhere leaves these maps whole: each is changed in one step.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
