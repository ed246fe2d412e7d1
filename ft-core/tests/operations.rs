//! Any sequence of operations on a pair: time, traffic, losses, repetitions, damage that still decodes, claims and their answers
//! in any order. Nothing panics, and in what is not damaged nothing leaves that the other side does not know.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "rules/machine.rs"]
mod machine;
#[path = "rules/pair.rs"]
#[allow(dead_code, reason = "shared with rules.rs")]
mod pair;

use bytes::Bytes;
use ft_core::config::Config;
use ft_core::error::HaltReason;
use ft_core::message::Envelope;
use ft_core::units::HostId;
use pair::{A, B, Pair, identity};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Pass(u64),
    Packet(usize),
    Stop(usize),
    Continue(usize),
    Cut,
    Mend,
    ArbiterAway(bool),
    LinkUp(usize),
    /// A message that was sent before arrives again.
    Again(prop::sample::Index),
    /// A message that was sent before arrives with some bytes changed, if it still decodes.
    Damaged(prop::sample::Index, Vec<(prop::sample::Index, u8)>),
    Quit,
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (1u64..120).prop_map(Op::Pass),
        4 => (0usize..2).prop_map(Op::Packet),
        1 => (0usize..2).prop_map(Op::Stop),
        2 => (0usize..2).prop_map(Op::Continue),
        1 => Just(Op::Cut),
        2 => Just(Op::Mend),
        1 => any::<bool>().prop_map(Op::ArbiterAway),
        1 => (0usize..2).prop_map(Op::LinkUp),
        4 => index().prop_map(Op::Again),
        1 => Just(Op::Quit),
    ]
}

fn op_or_damage() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    let bytes = proptest::collection::vec((index(), 1u8..), 1..4);
    prop_oneof![
        3 => op(),
        1 => (index(), bytes).prop_map(|(at, bytes)| Op::Damaged(at, bytes)),
    ]
}

/// Everything that was ever sent.
type Past = std::rc::Rc<std::cell::RefCell<Vec<(usize, Envelope)>>>;

fn recorded(pair: &mut Pair) -> Past {
    let past = Past::default();
    let sink = past.clone();
    pair.tamper = Some(Box::new(move |from, envelope| {
        sink.borrow_mut().push((from, envelope.clone()));
        Some(envelope)
    }));
    past
}

fn carry_out(pair: &mut Pair, past: &Past, op: Op) {
    match op {
        Op::Pass(ms) => pair.pass(ms),
        Op::Packet(to) => drop(pair.packet(to)),
        Op::Stop(node) => drop(pair.stopped.insert(node)),
        Op::Continue(node) => drop(pair.stopped.remove(&node)),
        Op::Cut => pair.cut(),
        Op::Mend => pair.cuts.clear(),
        Op::ArbiterAway(away) => pair.arbiter_away = away,
        Op::LinkUp(node) => {
            let now = pair.now;
            pair.nodes[node].handle_link_up(now, HostId(1 - node as u64));
        }
        Op::Again(at) => deliver(pair, past, at, &[]),
        Op::Damaged(at, bytes) => deliver(pair, past, at, &bytes),
        Op::Quit => pair.nodes[B].halt(HaltReason::Requested),
    }
}

fn deliver(pair: &mut Pair, past: &Past, at: prop::sample::Index, changes: &[(prop::sample::Index, u8)]) {
    let Some((from, envelope)) = past.borrow().get(at.index(past.borrow().len().max(1))).cloned() else {
        return;
    };
    let mut bytes = envelope.to_bytes().to_vec();
    for (at, flip) in changes {
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
    }
    if let Ok(envelope) = Envelope::decode(Bytes::from(bytes))
        && !pair.stopped.contains(&(1 - from))
    {
        let now = pair.now;
        pair.nodes[1 - from].handle_message(now, HostId(from as u64), envelope);
        pair.nodes[1 - from].step(now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A peer that is authenticated and broken: whatever it says, nobody panics.
    #[test]
    fn damaged_messages_never_panic(ops in proptest::collection::vec(op_or_damage(), 1..60)) {
        let mut pair = Pair::solo(Config::default());
        let past = recorded(&mut pair);
        pair.join(identity(B, Config::default()), A);
        for op in ops {
            carry_out(&mut pair, &past, op);
        }
    }

    /// Losses, repetitions, stops and cuts: all answers that ever left, from either side, are one history.
    #[test]
    fn r7_what_leaves_is_one_history(ops in proptest::collection::vec(op(), 1..60)) {
        let mut pair = Pair::solo(Config::default());
        let past = recorded(&mut pair);
        pair.join(identity(B, Config::default()), A);
        for op in ops {
            carry_out(&mut pair, &past, op);
        }
        let mut history = Vec::new();
        for (_, numbered) in pair.released.iter().filter(|(_, numbered)| numbered.seq.0 > 0) {
            let at = numbered.seq.0 as usize - 1;
            prop_assert!(at <= history.len(), "{} leaves a gap", numbered.seq);
            if at == history.len() {
                history.push(numbered.effect.clone());
            }
            prop_assert_eq!(&history[at], &numbered.effect);
        }
    }
}
