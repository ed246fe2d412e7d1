//! A machine of your own, protected: two copies in lockstep over real QUIC, one is killed, and the client notices nothing.
//!
//! `cargo run --release --example embed`
//!
//! The machine is in `adder.rs`. Part one here puts two copies of it on two hosts (two threads, each with its own ports);
//! part two is the world outside: a client that checks every reply.

mod adder;

use adder::{Adder, words};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use ft::core::Event;
use ft::core::arbiter::{Arbiter, ClaimOutcome, MemoryArbiter};
use ft::core::config::Config;
use ft::core::effect::Numbered;
use ft::core::message::{PROTOCOL_VERSION, Profile};
use ft::core::node::Node;
use ft::core::replica::{Identity as Replica, Notice};
use ft::core::units::{HostId, NodeId, Session, Term};
use ft::driver::{Backend, Driver, now};
use ft::net::identity::DAY;
use ft::net::{ClusterCa, LinkConfig, NetEvent, Network, NetworkConfig, Peer};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

// ---- 1. A host ------------------------------------------------------------------------------------------------------

/// What a host's backends tell the world.
enum News {
    Reply(u64),
    Notice(HostId, Notice),
}

struct Lan(HostId, Sender<News>);

impl Backend for Lan {
    fn release(&mut self, Numbered { effect, .. }: Numbered) {
        drop(self.1.send(News::Reply(words(&effect.payload)[0])));
    }

    fn notice(&mut self, notice: &Notice) {
        drop(self.1.send(News::Notice(self.0, notice.clone())));
    }
}

/// Stands outside both hosts. In production: a shared directory or etcd.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<MemoryArbiter>>);

impl Arbiter for Shared {
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome {
        self.0.lock().map_or(ClaimOutcome::Unreachable, |mut arbiter| arbiter.claim(term, node))
    }
}

/// A host's end of the network, and what happens on it.
type Links = (Network, Receiver<NetEvent>);

struct Host {
    input: Sender<Event>,
    kill: Sender<()>,
    thread: std::thread::JoinHandle<Result<(), String>>,
}

fn start_host(
    host: HostId,
    join: Option<HostId>,
    links: Links,
    arbiter: Shared,
    news: Sender<News>,
) -> Result<Host, Box<dyn Error>> {
    let id = NodeId { host, incarnation: incarnation(host) };
    let profile = Profile { protocol: PROTOCOL_VERSION, vm: "adder".into(), ..Profile::default() };
    let identity = Replica { node: id, profile, config: Config::default() };
    let node = match join {
        None => Node::create(now(), identity, Term(0), Adder::default())?,
        Some(primary) => Node::join(now(), identity, primary, Session(id.incarnation), Adder::default())?,
    };
    let (input, inputs) = bounded(64);
    let (kill, killed) = bounded(1);
    let mut driver = Driver::new(node, id, Lan(host, news), links, inputs, arbiter)?;
    let thread = std::thread::spawn(move || {
        let over = driver.run(&killed).map_err(|error| error.to_string())?;
        driver.kill();
        over.map_or(Ok(()), |reason| Err(reason.to_string()))
    });
    Ok(Host { input, kill, thread })
}

/// Which life of a host this is. In production: random.
fn incarnation(host: HostId) -> u64 {
    u64::from(std::process::id()) << 8 | host.0
}

/// Two hosts of a throw-away cluster, linked over QUIC with mutual TLS.
fn network() -> Result<[Links; 2], Box<dyn Error>> {
    let ca = ClusterCa::generate("example", DAY, SystemTime::now())?;
    let names = ["host-a".parse()?, "host-b".parse()?];
    let start = |n: usize| -> Result<_, Box<dyn Error>> {
        let config = NetworkConfig {
            host: HostId(n as u64),
            incarnation: incarnation(HostId(n as u64)),
            listen: ([127, 0, 0, 1], 0).into(),
            peers: BTreeMap::new(),
            link: LinkConfig::default(),
        };
        Ok(Network::start(ca.issue(&names[n], DAY)?.identity()?, config)?)
    };
    let hosts = [start(0)?, start(1)?];
    for (n, (network, _)) in hosts.iter().enumerate() {
        let other = 1 - n;
        let peer = Peer { name: names[other].clone(), address: hosts[other].0.address() };
        network.add_peer(HostId(other as u64), peer);
    }
    Ok(hosts)
}

// ---- 2. The world ---------------------------------------------------------------------------------------------------

const REQUESTS: u64 = 20_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let [a, b] = network()?;
    let (news, heard) = unbounded();
    let arbiter = Shared::default();
    let first = start_host(HostId(0), None, a, arbiter.clone(), news.clone())?;
    let second = start_host(HostId(1), Some(HostId(0)), b, arbiter, news)?;
    wait_for(&heard, |notice| matches!(notice, Notice::Protected(_)))?;

    let mut total = 0;
    let mut longest = Duration::ZERO;
    let mut live = &first;
    for request in 1..=REQUESTS {
        if request == REQUESTS / 2 {
            println!("killing host 0 after {request} requests");
            first.kill.send(())?;
        }
        let number = request % 7 + 1;
        let asked = Instant::now();
        drop(live.input.send(event(request, number)));
        loop {
            match heard.recv_timeout(Duration::from_millis(20)) {
                Ok(News::Reply(reply)) if reply == total + number => break,
                // The reply before, emitted again by a machine that had to be sure (R7).
                Ok(News::Reply(reply)) if reply == total => {}
                Ok(News::Reply(reply)) => return Err(format!("{reply} is not {total} + {number}").into()),
                Ok(News::Notice(host, notice)) => {
                    println!("{host}: {notice:?}");
                    if matches!(notice, Notice::Live(_)) {
                        // Whether the dead primary had taken the request in, nobody knows: ask again.
                        live = &second;
                        drop(live.input.send(event(request, number)));
                    }
                }
                Err(RecvTimeoutError::Timeout) if asked.elapsed() < PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
        }
        total += number;
        longest = longest.max(asked.elapsed());
    }
    println!("{REQUESTS} requests, every reply right, total {total}; longest wait {longest:.1?}");
    second.kill.send(())?;
    for host in [first, second] {
        host.thread.join().map_err(|_| "a host panicked")??;
    }
    Ok(())
}

fn event(request: u64, number: u64) -> Event {
    Event::Net { device: 0, frame: adder::request(request, number) }
}

fn wait_for(heard: &Receiver<News>, wanted: impl Fn(&Notice) -> bool) -> Result<(), Box<dyn Error>> {
    loop {
        if let News::Notice(host, notice) = heard.recv_timeout(PATIENCE)? {
            println!("{host}: {notice:?}");
            if wanted(&notice) {
                return Ok(());
            }
        }
    }
}
