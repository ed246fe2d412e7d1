//! The child process: one host with one copy of the machine.
//!
//! Standard input: `peer NUMBER NAME ADDRESS`, then `start` or `join NUMBER`, then `input REQUEST NUMBER` as often as needed.
//! Standard output: `address ADDRESS`, `notice TEXT`, `reply TOTAL`.

use super::adder::{Adder, request, words};
use crossbeam::channel::{Sender, bounded};
use ft::arbiter::DirArbiter;
use ft::core::Event;
use ft::core::config::Config;
use ft::core::effect::Numbered;
use ft::core::message::{PROTOCOL_VERSION, Profile};
use ft::core::node::Node;
use ft::core::replica::{Identity as Replica, Notice};
use ft::core::units::{HostId, NodeId, Session, Term};
use ft::driver::{Backend, Driver, now};
use ft::net::{Identity, LinkConfig, Network, NetworkConfig, Peer, Peers};
use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};

/// In the environment of the child: its directory of credentials, its number, the arbiter's directory.
pub(crate) const CREDENTIALS: &str = "FT_TEST_CREDENTIALS";
pub(crate) const NUMBER: &str = "FT_TEST_NUMBER";
pub(crate) const ARBITER: &str = "FT_TEST_ARBITER";

struct Out;

impl Backend for Out {
    fn release(&mut self, Numbered { effect, .. }: Numbered) {
        say(&format!("reply {}", words(&effect.payload)[0]));
    }

    fn notice(&mut self, notice: &Notice) {
        say(&format!("notice {notice:?}"));
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).unwrap();
}

pub(crate) fn run() {
    let env = |name| std::env::var(name).unwrap();
    let host = HostId(env(NUMBER).parse().unwrap());
    let node = NodeId { host, incarnation: u64::from(std::process::id()) };
    let identity = Identity::load(env(CREDENTIALS).as_ref()).unwrap();
    let config = NetworkConfig {
        host,
        incarnation: node.incarnation,
        listen: ([127, 0, 0, 1], 0).into(),
        peers: BTreeMap::new(),
        link: LinkConfig::default(),
    };
    let (network, events) = Network::start(identity, config).unwrap();
    say(&format!("address {}", network.address()));
    let (input, inputs) = bounded(64);
    let (start, started) = bounded(1);
    let peers = network.peers();
    std::thread::spawn(move || obey(&peers, &start, &input));
    let profile = Profile { protocol: PROTOCOL_VERSION, vm: "adder".into(), ..Profile::default() };
    let replica = Replica { node, profile, config: Config::default() };
    let machine = match started.recv().unwrap() {
        None => Node::create(now(), replica, Term(0), Adder::default()),
        Some(primary) => Node::join(now(), replica, primary, Session(node.incarnation), Adder::default()),
    };
    let arbiter = DirArbiter::open(env(ARBITER).as_ref(), "adder").unwrap();
    let mut driver = Driver::new(machine.unwrap(), node, Out, (network, events), inputs, arbiter).unwrap();
    driver.run(&crossbeam::channel::never()).unwrap();
}

/// Does what the parent says; ends the process when the parent is gone.
fn obey(peers: &Peers, start: &Sender<Option<HostId>>, input: &Sender<Event>) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let host = |number: &str| HostId(number.parse().unwrap());
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["peer", number, name, address] => {
                peers.add(
                    host(number),
                    Peer { name: name.parse().unwrap(), address: address.parse().unwrap() },
                );
            }
            ["start"] => start.send(None).unwrap(),
            ["join", number] => start.send(Some(host(number))).unwrap(),
            ["input", id, number] => {
                let frame = request(id.parse().unwrap(), number.parse().unwrap());
                // A machine that is over takes nothing in.
                let _ = input.send(Event::Net { device: 0, frame });
            }
            _ => panic!("{line:?}"),
        }
    }
    std::process::exit(0);
}
