//! Named nodes, a line between them, an arbiter, and a clock that moves when told to.

use super::machine::Counter;
use bytes::Bytes;
use ft_core::Event;
use ft_core::arbiter::{Arbiter as _, ClaimOutcome, MemoryArbiter};
use ft_core::config::Config;
use ft_core::effect::Numbered;
use ft_core::error::HaltReason;
use ft_core::message::{Envelope, Message, PROTOCOL_VERSION, Profile};
use ft_core::node::Node;
use ft_core::primary::Standing;
use ft_core::replica::{Identity, Notice, Output, Role};
use ft_core::units::{HostId, Instant, NodeId, Session, Span, Term};
use std::collections::{BTreeSet, VecDeque};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;

/// Takes who sends and what; gives back what goes on its way, if anything.
pub(crate) type Tamper = Box<dyn FnMut(usize, Envelope) -> Option<Envelope>>;

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node<Counter>>,
    pub(crate) arbiter: MemoryArbiter,
    pub(crate) arbiter_away: bool,
    pub(crate) line: VecDeque<(usize, usize, Envelope)>,
    /// Directions in which nothing passes.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    /// Nodes that do nothing: stopped or dead.
    pub(crate) stopped: BTreeSet<usize>,
    pub(crate) released: Vec<(usize, Numbered)>,
    pub(crate) notices: Vec<(usize, Notice)>,
    /// Rewrites messages on their way.
    pub(crate) tamper: Option<Tamper>,
}

pub(crate) fn identity(node: usize, config: Config) -> Identity {
    let profile = Profile { protocol: PROTOCOL_VERSION, vm: "counter".into(), ..Profile::default() };
    Identity { node: NodeId { host: HostId(node as u64), incarnation: node as u64 + 100 }, profile, config }
}

impl Pair {
    /// A that is live and alone.
    pub(crate) fn solo(config: Config) -> Self {
        let a = Node::create(Instant(0), identity(A, config), Term(0), Counter::default()).unwrap();
        let mut pair = Self {
            now: Instant(0),
            nodes: vec![a],
            arbiter: MemoryArbiter::default(),
            arbiter_away: false,
            line: VecDeque::new(),
            cuts: BTreeSet::new(),
            stopped: BTreeSet::new(),
            released: Vec::new(),
            notices: Vec::new(),
            tamper: None,
        };
        pair.pass(10);
        pair
    }

    /// A and B, protected.
    pub(crate) fn protected(config: Config) -> Self {
        let mut pair = Self::solo(config.clone());
        pair.join(identity(B, config), A);
        pair.pass(500);
        assert!(pair.is_protected(A), "{:?}", pair.notices);
        pair
    }

    /// Adds a node that joins `primary`.
    pub(crate) fn join(&mut self, identity: Identity, primary: usize) {
        let session = Session(identity.node.incarnation);
        let node = Node::join(self.now, identity, HostId(primary as u64), session, Counter::default());
        self.nodes.push(node.unwrap());
    }

    /// Lets `ms` milliseconds pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now = self.now + Span::from_ms(1);
            for me in 0..self.nodes.len() {
                if !self.stopped.contains(&me) {
                    self.nodes[me].handle_tick(self.now);
                    self.nodes[me].step(self.now);
                    self.carry_out(me);
                }
            }
            self.deliver();
        }
    }

    /// Delivers everything that is under way to nodes that are awake.
    pub(crate) fn deliver(&mut self) {
        let mut kept = VecDeque::new();
        while let Some((from, to, envelope)) = self.line.pop_front() {
            if self.stopped.contains(&to) {
                kept.push_back((from, to, envelope));
                continue;
            }
            self.nodes[to].handle_message(self.now, HostId(from as u64), envelope);
            self.nodes[to].step(self.now);
            self.carry_out(to);
        }
        self.line = kept;
    }

    fn carry_out(&mut self, me: usize) {
        while let Some(output) = self.nodes[me].poll() {
            match output {
                Output::Send { to, envelope } => self.send(me, to.0 as usize, envelope),
                Output::Release(numbered) => self.released.push((me, numbered)),
                Output::Sealed(_) => {}
                Output::Notice(notice) => self.notices.push((me, notice)),
                Output::Claim(term) => {
                    let node = identity(me, Config::default()).node;
                    let outcome = match self.arbiter_away {
                        true => ClaimOutcome::Unreachable,
                        false => self.arbiter.claim(term, node),
                    };
                    self.nodes[me].handle_claim(self.now, term, outcome);
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, envelope: Envelope) {
        if self.cuts.contains(&(from, to)) || to >= self.nodes.len() {
            return;
        }
        let envelope = match &mut self.tamper {
            Some(tamper) => tamper(from, envelope),
            None => Some(envelope),
        };
        self.line.extend(envelope.map(|envelope| (from, to, envelope)));
    }

    pub(crate) fn packet(&mut self, to: usize) -> bool {
        self.nodes[to].handle_event(Event::Net { device: 0, frame: Bytes::from_static(b"hello") }).unwrap()
    }

    #[allow(dead_code, reason = "not every test that shares this file cuts the line")]
    pub(crate) fn cut(&mut self) {
        self.cuts.extend([(A, B), (B, A)]);
    }

    pub(crate) fn is_protected(&self, node: usize) -> bool {
        matches!(self.standing(node), Some(Standing::Paired { protected: true, .. }))
    }

    pub(crate) fn standing(&self, node: usize) -> Option<Standing> {
        match self.nodes[node].role() {
            Role::Primary(primary) => Some(primary.standing()),
            _ => None,
        }
    }

    pub(crate) fn halted(&self, node: usize) -> Option<&HaltReason> {
        match self.nodes[node].role() {
            Role::Halted(halted) => Some(&halted.reason),
            _ => None,
        }
    }

    /// Numbers in the answers that a node has let out.
    pub(crate) fn answers(&self, node: usize) -> Vec<u64> {
        let of_node = self.released.iter().filter(|(from, released)| *from == node && released.seq.0 > 0);
        of_node.map(|(_, n)| u64::from_le_bytes(n.effect.payload.as_ref().try_into().unwrap())).collect()
    }

    /// Drops every message of a kind that a node sends.
    pub(crate) fn drop_messages(&mut self, of: usize, unwanted: impl Fn(&Message) -> bool + 'static) {
        self.tamper = Some(Box::new(move |from, envelope| {
            (from != of || !unwanted(&envelope.message)).then_some(envelope)
        }));
    }
}
