//! Planned changes of roles: nothing lost, nothing twice, and either side may fail at any moment.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "rules/machine.rs"]
mod machine;
#[path = "rules/pair.rs"]
mod pair;

use bytes::Bytes;
use ft_core::Event;
use ft_core::config::Config;
use ft_core::error::HaltReason;
use ft_core::message::Message;
use ft_core::primary::{HandoverRefused, Standing};
use ft_core::replica::Notice;
use ft_core::units::{HostId, Term};
use pair::{A, B, Pair, identity};

fn hand_over(pair: &mut Pair, from: usize) -> Result<(), HandoverRefused> {
    let now = pair.now;
    pair.nodes[from].hand_over(now)
}

fn all_answers(pair: &Pair) -> Vec<u64> {
    [pair.answers(A), pair.answers(B)].concat()
}

#[test]
fn roles_change_and_change_back_with_every_answer_once_and_the_pair_protected() {
    let mut pair = Pair::protected(Config::default());
    for (from, to) in [(A, B), (B, A), (A, B)] {
        for _ in 0..3 {
            assert!(pair.packet(from));
            pair.pass(3);
        }
        hand_over(&mut pair, from).unwrap();
        // What comes in while the machine stands still enters as well.
        assert!(pair.packet(from));
        let began = pair.now;
        while !pair.is_protected(to) {
            pair.pass(1);
            assert!(pair.now.since(began).0 < 50_000_000, "{:?}", pair.notices);
        }
        assert_eq!(pair.standing(from), None, "it follows");
        pair.pass(50);
    }
    let sorted = {
        let mut released: Vec<_> = pair.released.iter().map(|(_, numbered)| numbered.seq.0).collect();
        released.sort_unstable();
        released
    };
    assert_eq!(sorted, (1..=12).collect::<Vec<_>>(), "each once");
    assert_eq!(pair.nodes[B].term(), Term(4));
    assert_eq!(pair.nodes[A].machine().count, 12);
    assert_eq!(pair.nodes[B].machine().count, 12);
}

#[test]
fn an_heir_that_fails_later_is_survived_by_who_yielded() {
    let mut pair = Pair::protected(Config::default());
    pair.packet(A);
    hand_over(&mut pair, A).unwrap();
    pair.pass(50);
    pair.packet(B);
    // Long enough for A to hear that the answers have left: it need not repeat them.
    pair.pass(200);
    pair.stopped.insert(B);
    pair.pass(1000);
    assert_eq!(pair.standing(A), Some(Standing::Solo));
    assert_eq!(pair.nodes[A].term(), Term(3));
    pair.packet(A);
    pair.pass(20);
    assert_eq!(all_answers(&pair), [3, 1, 2], "the third was asked when A was live again");
}

#[test]
fn who_is_not_protected_or_not_live_does_not_hand_over() {
    let mut pair = Pair::solo(Config::default());
    assert_eq!(hand_over(&mut pair, A), Err(HandoverRefused::NotProtected));
    let mut pair = Pair::protected(Config::default());
    assert_eq!(hand_over(&mut pair, B), Err(HandoverRefused::NotLive));
    pair.arbiter_away = true;
    pair.cut();
    pair.pass(1000);
    pair.cuts.clear();
    pair.pass(50);
    assert!(pair.is_protected(A), "{:?}", pair.notices);
    assert_eq!(hand_over(&mut pair, A), Err(HandoverRefused::ClaimPending));
}

#[test]
fn a_machine_that_waits_for_its_disk_too_long_goes_on_where_it_is() {
    let mut pair = Pair::protected(Config::default());
    // Typing starts a disk read, which nobody answers yet.
    pair.nodes[A].handle_event(Event::Console { device: 0, bytes: Bytes::from_static(b"x") }).unwrap();
    pair.pass(5);
    hand_over(&mut pair, A).unwrap();
    pair.packet(A);
    pair.pass(100);
    assert!(pair.is_protected(A));
    assert_eq!(pair.answers(A), [], "it stands still");
    pair.pass(450);
    assert!(pair.notices.iter().any(|(_, notice)| matches!(notice, Notice::HandoverFailed(_))));
    assert_eq!(pair.answers(A), [2], "it goes on");
    pair.nodes[A].handle_event(Event::BlockDone { device: 0, id: 1, status: 0, data: Bytes::new() }).unwrap();
    hand_over(&mut pair, A).unwrap();
    pair.pass(50);
    assert!(pair.is_protected(B), "{:?}", pair.notices);
}

#[test]
fn an_heir_that_dies_with_the_next_term_in_its_hands_does_not_take_the_machine_with_it() {
    let mut pair = Pair::protected(Config::default());
    // B wins term 2, and nothing that it says after accepting arrives.
    hand_over(&mut pair, A).unwrap();
    while pair.arbiter.owners().get(&Term(2)).is_none() {
        pair.pass(1);
        pair.drop_messages(B, |message| !matches!(message, Message::Accept | Message::Ack(_)));
    }
    assert_eq!(pair.arbiter.owners()[&Term(2)].host, HostId(B as u64));
    pair.stopped.insert(B);
    pair.line.clear();
    pair.pass(1000);
    assert_eq!(pair.standing(A), Some(Standing::Solo), "{:?}", pair.notices);
    assert_eq!(pair.nodes[A].term(), Term(3));
    // B goes on, and finds that it was too late.
    pair.stopped.clear();
    pair.tamper = None;
    pair.packet(A);
    pair.pass(1000);
    assert!(pair.halted(B).is_some(), "{:?}", pair.notices);
    assert!(!pair.notices.iter().any(|(who, notice)| *who == B && matches!(notice, Notice::Live(_))));
    assert_eq!(all_answers(&pair), [1]);
}

#[test]
fn who_yields_and_dies_at_once_is_survived_by_its_heir() {
    for confirmed in [false, true] {
        let mut pair = Pair::protected(Config::default());
        pair.packet(A);
        pair.pass(20);
        pair.drop_messages(
            A,
            move |message| matches!(message, Message::Handover { confirmed: c, .. } if *c && !confirmed),
        );
        hand_over(&mut pair, A).unwrap();
        while !pair.notices.iter().any(|(_, notice)| matches!(notice, Notice::Yielded(_))) {
            pair.pass(1);
        }
        pair.deliver();
        pair.stopped.insert(A);
        pair.pass(2000);
        assert_eq!(pair.standing(B), Some(Standing::Solo), "{:?}", pair.notices);
        pair.packet(B);
        pair.pass(20);
        assert_eq!(all_answers(&pair), [1, 2]);
        pair.stopped.clear();
        pair.pass(1000);
        assert!(matches!(pair.halted(A), Some(HaltReason::Lost { .. } | HaltReason::Superseded { .. })));
    }
}

#[test]
fn without_an_arbiter_the_machine_waits_and_then_one_side_goes_on() {
    let mut pair = Pair::protected(Config::default());
    pair.arbiter_away = true;
    hand_over(&mut pair, A).unwrap();
    pair.pass(3000);
    assert!(pair.notices.iter().all(|(_, notice)| !matches!(notice, Notice::Promoting(_))));
    pair.arbiter_away = false;
    pair.pass(2000);
    let live: Vec<usize> = [A, B].into_iter().filter(|node| pair.standing(*node).is_some()).collect();
    assert_eq!(live.len(), 1, "{:?}", pair.notices);
    pair.packet(live[0]);
    pair.pass(20);
    assert_eq!(all_answers(&pair), [1]);
}

#[test]
fn a_handover_whose_messages_are_lost_is_offered_again() {
    let mut pair = Pair::protected(Config::default());
    let mut lost = 0;
    pair.tamper = Some(Box::new(move |_, envelope| {
        let is_part = matches!(envelope.message, Message::Handover { .. } | Message::Accept);
        lost += u32::from(is_part);
        (!is_part || lost > 3).then_some(envelope)
    }));
    hand_over(&mut pair, A).unwrap();
    pair.pass(250);
    assert!(pair.is_protected(B), "{:?}", pair.notices);
    pair.join(identity(2, Config::default()), B);
    pair.pass(50);
    assert!(matches!(pair.halted(2), Some(HaltReason::Refused(_))), "a pair needs no third");
}
