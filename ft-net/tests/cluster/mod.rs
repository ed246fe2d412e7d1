//! A cluster on this machine: one CA, its hosts, and links between them over loopback.

pub(crate) mod linked;

use ft_net::identity::DAY;
use ft_net::{ClusterCa, Endpoint, HostName, Identity, Incoming, Link, LinkConfig};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

/// What should happen at once is given this long, for machines under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A port of the kernel's choice.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Time ends nothing: neither a slow machine's links, nor those that a test wants to see end for another reason.
pub(crate) fn patient() -> LinkConfig {
    let ages = Duration::from_secs(600);
    LinkConfig { idle_timeout: ages, connect_timeout: ages, ..LinkConfig::default() }
}

pub(crate) struct Cluster(ClusterCa);

impl Cluster {
    pub(crate) fn new() -> Self {
        Self(ClusterCa::generate("test", 10 * DAY, SystemTime::now()).unwrap())
    }

    pub(crate) fn ca(&self) -> &ClusterCa {
        &self.0
    }

    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.0.issue(&host(name), DAY).unwrap().identity().unwrap()
    }

    pub(crate) fn endpoint(&self, name: &str, config: LinkConfig) -> Endpoint {
        Endpoint::bind(ANY_PORT, self.identity(name), None, config).unwrap()
    }

    /// Two hosts, and the link that `host-a` made to `host-b`.
    pub(crate) async fn pair(&self, config: LinkConfig) -> Pair {
        let a = self.endpoint("host-a", config.clone());
        let b = self.endpoint("host-b", config);
        Pair::of(a, b).await
    }
}

/// Two linked hosts.
pub(crate) struct Pair {
    pub(crate) a: Link,
    pub(crate) b: Link,
    /// The sockets under the links.
    pub(crate) endpoints: [Endpoint; 2],
}

impl Pair {
    pub(crate) async fn of(a: Endpoint, b: Endpoint) -> Self {
        let (called, name) = (b.local_addr().unwrap(), b.identity().host().clone());
        let accepted = async { next(&b).await.identify(&b).await };
        let both = async { tokio::join!(a.connect(called, &name), accepted) };
        let (at_a, at_b) = soon("a link", both).await;
        Self { a: at_a.unwrap(), b: at_b.unwrap(), endpoints: [a, b] }
    }
}

/// The next caller.
pub(crate) async fn next(endpoint: &Endpoint) -> Incoming {
    endpoint.accept().await.expect("the endpoint is open")
}

pub(crate) fn host(name: &str) -> HostName {
    name.parse().unwrap()
}

/// What comes of `future`, which must not take long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = |_| panic!("{what}: not within {DEADLINE:?}");
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(late)
}

/// Waits for what no event tells of.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let met = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    soon(what, met).await;
}

/// An error and what it was caused by, in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
