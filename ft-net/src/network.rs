//! Keeps links to a set of peers up, on threads of its own: the face of the channel for code that is not async.
//!
//! Of two hosts, the one with the lower number dials, and dials again whenever the link is down. Each link has a tripwire
//! beside it, on the TCP port of the same number.

use crate::endpoint::{Endpoint, LinkConfig, Lobby};
use crate::error::NetError;
use crate::identity::{HostName, Identity};
use crate::link::{Link, LinkSender};
use crate::stats::LinkStats;
use crate::tripwire::{Broken, Post, Tripwire};
use crossbeam::channel::{Receiver, Sender, TrySendError};
use ft_core::message::Envelope;
use ft_core::units::{HostId, NodeId};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, watch};

/// Events that wait to be taken.
const EVENTS_MAX: usize = 1024;

/// Pauses between two attempts to dial: the first, and the longest. A host that returns waits this long at most for the others to call.
const REDIAL_MIN: Duration = Duration::from_millis(20);
const REDIAL_MAX: Duration = Duration::from_millis(200);

/// An attempt to dial that is older than this is begun anew when the host's tripwire stands again: the pauses between the packets of an
/// attempt double, so an old one would find out late that the host is back.
const DIAL_FRESH: Duration = Duration::from_millis(100);

/// A link that lasted this long ended for a reason of its own: the next is made at once.
const LASTING: Duration = Duration::from_secs(1);

/// Callers at the tripwires that are being identified at a time.
const CALLERS_MAX: usize = 32;

/// How often statistics are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Tries to find a port number that is free for UDP and for TCP.
const PORT_TRIES: usize = 20;

/// A peer, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// This life of its process, as in the replica's [`NodeId`]: peers are told which life has ended.
    pub incarnation: u64,
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
    Gone(NodeId),
}

/// Links to a set of peers.
pub struct Network {
    runtime: Option<Runtime>,
    inner: Arc<Inner>,
    address: SocketAddr,
}

/// Adds peers to a [`Network`], from any thread.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

impl Peers {
    /// Lets one more peer link, and links to it. A peer that is known already is dialled at once; where it is another one now, or
    /// elsewhere, the link to the old one ends.
    pub fn add(&self, host: HostId, peer: Peer) {
        let inner = &self.0;
        let older = write(&inner.peers).insert(host, peer.clone());
        if older.as_ref().is_some_and(|older| inner.is_other(host, older, &peer)) {
            let link = write(&inner.links).remove(&host);
            if let Some(link) = link {
                link.close();
            }
        }
        if older.is_some() {
            inner.called.send_replace(());
        } else if inner.host < host {
            let back = Arc::new(Notify::new());
            inner.runtime.spawn(Arc::clone(inner).dial_for_ever(host, Arc::clone(&back)));
            inner.runtime.spawn(Arc::clone(inner).watch_for_ever(host, back));
        }
    }
}

struct Inner {
    runtime: Handle,
    host: HostId,
    incarnation: u64,
    endpoint: Endpoint,
    peers: RwLock<BTreeMap<HostId, Peer>>,
    links: RwLock<BTreeMap<HostId, LinkSender>>,
    /// Changes with every new link.
    linked: watch::Sender<()>,
    /// Changes whenever a known peer is added again.
    called: watch::Sender<()>,
    /// Tripwires that stand, by number.
    wires: RwLock<BTreeMap<HostId, usize>>,
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
            runtime: runtime.handle().clone(),
            host: config.host,
            incarnation: config.incarnation,
            endpoint,
            peers: RwLock::default(),
            links: RwLock::default(),
            linked: watch::Sender::new(()),
            called: watch::Sender::new(()),
            wires: RwLock::default(),
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

    /// A handle to add peers with, from any thread.
    pub fn peers(&self) -> Peers {
        Peers(Arc::clone(&self.inner))
    }

    /// Lets one more peer link, and links to it.
    pub fn add_peer(&self, host: HostId, peer: Peer) {
        self.peers().add(host, peer);
    }

    /// Sends a message. `false` when it was dropped: no link, or its queue is full.
    pub fn send(&self, to: HostId, envelope: Envelope) -> bool {
        self.inner.link(to).is_some_and(|link| link.send(envelope))
    }

    /// What the link to a peer has carried; `None` while it is down.
    pub fn stats(&self, host: HostId) -> Option<LinkStats> {
        read(&self.inner.links).get(&host).map(LinkSender::stats)
    }

    /// What all links that are up have carried.
    pub fn all_stats(&self) -> Vec<LinkStats> {
        read(&self.inner.links).values().map(LinkSender::stats).collect()
    }

    /// Whether it would be noticed at once that the peer's process has ended: its tripwire stands.
    pub fn is_watched(&self, host: HostId) -> bool {
        read(&self.inner.wires).get(&host).is_some_and(|wires| *wires > 0)
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
            let all = async {
                self.inner.endpoint.close().await;
                // Each task listens until it has said farewell; cut short, a tripwire would say that we died.
                self.inner.stopped.closed().await;
            };
            // The farewell is a courtesy: who misses it finds out by itself.
            let _ = tokio::time::timeout(Duration::from_millis(500), all).await;
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
        let mut stopped = self.stopped.subscribe();
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Some(incoming) = incoming else { return };
            let inner = Arc::clone(&self);
            tokio::spawn(async move {
                match incoming.identify(&inner.endpoint).await {
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
                let (caller, own) = (link.peer().clone(), self.endpoint.identity().host());
                tracing::warn!(peer = %caller, "refused a host of the cluster that is no peer of this one");
                link.refuse(&format!("{caller} is no peer of {own}; add it there"));
            }
        }
    }

    /// `back` is notified when the host's tripwire has been made.
    async fn dial_for_ever(self: Arc<Self>, host: HostId, back: Arc<Notify>) {
        let mut pause = Pause::new(&self);
        while let Some(peer) = self.peer(host) {
            let connected = tokio::select! {
                connected = self.endpoint.connect(peer.address, &peer.name) => connected,
                () = self.moved(host, &peer) => continue,
                () = notified_after(DIAL_FRESH, &back) => continue,
            };
            match connected {
                Ok(link) => {
                    let began = Instant::now();
                    self.run(host, link).await;
                    // A link that ends as soon as it is made must not be made without pause.
                    if began.elapsed() > LASTING {
                        pause.reset();
                    }
                }
                Err(error) => self.report(NetEvent::Down(host, error)).await,
            }
            if pause.is_stopped().await {
                return;
            }
        }
    }

    /// Whether a link to `older` is of no use for `peer`. The address of a peer that dials us is its own affair.
    fn is_other(&self, host: HostId, older: &Peer, peer: &Peer) -> bool {
        older.name != peer.name || self.host < host && older.address != peer.address
    }

    /// Resolves when the peer is not any more what it was.
    async fn moved(&self, host: HostId, was: &Peer) {
        let mut called = self.called.subscribe();
        while self.peer(host).is_some_and(|peer| !self.is_other(host, was, &peer)) {
            // An error means that nobody can add peers any more.
            if called.changed().await.is_err() {
                return std::future::pending().await;
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
        self.linked.send_replace(());
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
        let lobby = Lobby::new(CALLERS_MAX);
        let mut stopped = self.stopped.subscribe();
        loop {
            let caller = tokio::select! {
                caller = post.accept() => caller,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let Ok(caller) = caller else {
                // Out of file descriptors, most likely: try again when some may be free.
                tokio::time::sleep(REDIAL_MIN).await;
                continue;
            };
            let (inner, place) = (Arc::clone(&self), lobby.enter());
            tokio::spawn(async move {
                let wire = tokio::select! {
                    wire = caller.identify() => wire,
                    () = place.lost() => return,
                };
                match wire.map(|wire| (inner.number_of(wire.peer()), wire)) {
                    Ok((Some(host), mut wire)) => {
                        if wire.accept(inner.incarnation).await.is_ok() {
                            inner.watch(host, wire).await;
                        }
                    }
                    Ok((None, wire)) => {
                        tracing::warn!(peer = %wire.peer(), "refused the tripwire of no peer")
                    }
                    Err(error) => tracing::debug!(%error, "refused a tripwire"),
                }
            });
        }
    }

    async fn watch_for_ever(self: Arc<Self>, host: HostId, back: Arc<Notify>) {
        let mut pause = Pause::new(&self);
        while let Some(peer) = self.peer(host) {
            let Peer { name, address } = &peer;
            let connected = tokio::select! {
                wire = Tripwire::connect(*address, name, (self.endpoint.identity(), self.incarnation)) => wire,
                () = self.moved(host, &peer) => continue,
            };
            match connected {
                Ok(wire) => {
                    pause.reset();
                    back.notify_waiters();
                    self.watch(host, wire).await;
                }
                Err(error) => tracing::debug!(%error, peer = %name, "no tripwire"),
            }
            if pause.is_stopped().await {
                return;
            }
        }
    }

    /// Watches a tripwire until it breaks, the network is stopped or the peer is elsewhere; or until a newer link than the one
    /// beside it is up: the wire may lead to a process that ended while nothing could be heard of it.
    async fn watch(&self, host: HostId, wire: Tripwire) {
        let Some(peer) = self.peer(host) else { return };
        let (mut stopped, mut linked) = (self.stopped.subscribe(), self.linked.subscribe());
        let mut link = self.link(host);
        *write(&self.wires).entry(host).or_default() += 1;
        let stop = async {
            loop {
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                    () = self.moved(host, &peer) => return,
                    _ = linked.changed() => {}
                }
                let now = self.link(host);
                if is_newer(&now, &link) {
                    return;
                }
                link = link.take().or(now);
            }
        };
        let node = NodeId { host, incarnation: wire.incarnation() };
        let broken = wire.watch(stop).await;
        *write(&self.wires).entry(host).or_default() -= 1;
        let now = self.link(host);
        if broken == Some(Broken::Gone) && !is_newer(&now, &link) {
            // The link leads nowhere: waiting for its timeout would only delay the next one.
            if let Some(link) = now.filter(|link| self.forget(host, link)) {
                link.close();
            }
            self.report(NetEvent::Gone(node)).await;
        }
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

    fn link(&self, host: HostId) -> Option<LinkSender> {
        read(&self.links).get(&host).cloned()
    }

    fn peer(&self, host: HostId) -> Option<Peer> {
        read(&self.peers).get(&host).cloned()
    }

    fn number_of(&self, name: &HostName) -> Option<HostId> {
        read(&self.peers).iter().find(|(_, peer)| peer.name == *name).map(|(host, _)| *host)
    }
}

/// Resolves at the first notification after `pause`.
async fn notified_after(pause: Duration, notify: &Notify) {
    tokio::time::sleep(pause).await;
    notify.notified().await;
}

/// The growing pause between two attempts to dial.
struct Pause {
    length: Duration,
    stopped: watch::Receiver<bool>,
    called: watch::Receiver<()>,
}

impl Pause {
    fn new(inner: &Inner) -> Self {
        let (stopped, called) = (inner.stopped.subscribe(), inner.called.subscribe());
        Self { length: REDIAL_MIN, stopped, called }
    }

    fn reset(&mut self) {
        self.length = REDIAL_MIN;
    }

    /// Waits for as long as is due, or until peers are added again; then says whether the network is stopped.
    async fn is_stopped(&mut self) -> bool {
        tokio::select! {
            _ = self.stopped.wait_for(|stopped| *stopped) => return true,
            Ok(()) = self.called.changed() => {}
            () = tokio::time::sleep(self.length) => {
                self.length = (self.length * 2).min(REDIAL_MAX);
                return false;
            }
        }
        self.reset();
        false
    }
}

/// Whether `link` took the place of `older`.
fn is_newer(link: &Option<LinkSender>, older: &Option<LinkSender>) -> bool {
    matches!((link, older), (Some(link), Some(older)) if !link.is_same(older))
}

/// A panic elsewhere leaves these maps whole: each is changed in one step.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
