//! A second secondary relieves the first, and the machine is protected throughout.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "rules/machine.rs"]
mod machine;
#[path = "rules/pair.rs"]
mod pair;

use ft_core::config::Config;
use ft_core::error::HaltReason;
use ft_core::message::{Envelope, Message};
use ft_core::primary::{ReliefRefused, Standing};
use ft_core::replica::{Notice, Role};
use ft_core::units::{HostId, Term};
use pair::{A, B, Pair, identity};

const C: usize = 2;

/// A and B, protected, and C that is to relieve B and has greeted.
fn relieving(config: Config) -> Pair {
    let mut pair = Pair::protected(config.clone());
    pair.nodes[A].relieve(HostId(C as u64)).unwrap();
    pair.join(identity(C, config), A);
    pair
}

fn has_secondary_on(pair: &Pair, host: usize) -> bool {
    pair.standing(A) == Some(Standing::Paired { host: HostId(host as u64), protected: true })
}

fn pass_until(pair: &mut Pair, is_so: impl Fn(&Pair) -> bool) {
    for _ in 0..5000 {
        if is_so(pair) {
            return;
        }
        pair.pass(1);
    }
    panic!("{:?}", pair.notices);
}

#[test]
fn a_secondary_is_relieved_and_the_next_failure_survived_by_who_relieved_it() {
    let mut pair = relieving(Config::default());
    for _ in 0..20 {
        assert!(pair.packet(A));
        pair.pass(10);
        assert!(matches!(
            pair.standing(A),
            Some(Standing::Paired { protected: true, .. } | Standing::Contested(_))
        ));
    }
    pass_until(&mut pair, |pair| has_secondary_on(pair, C));
    assert!(matches!(pair.halted(B), Some(HaltReason::Relieved)));
    pair.pass(300);
    pair.stopped.insert(A);
    pair.pass(1000);
    assert_eq!(pair.standing(C), Some(Standing::Solo));
    pair.packet(C);
    pair.pass(20);
    assert_eq!([pair.answers(A), pair.answers(C)].concat(), (1..=21).collect::<Vec<_>>());
    assert_eq!(pair.nodes[C].machine().count, 21);
}

#[test]
fn r3_effects_wait_for_both_while_both_may_claim() {
    let mut pair = relieving(Config::default());
    // C may claim, and B does not hear that it is to retire.
    pair.drop_messages(A, |message| matches!(message, Message::Retire));
    pair.pass(300);
    assert!(pair.standing(A) == Some(Standing::Paired { host: HostId(B as u64), protected: true }));
    for deaf in [B, C] {
        pair.cuts.insert((deaf, A));
        let before = pair.answers(A).len();
        pair.packet(A);
        pair.pass(50);
        assert_eq!(pair.answers(A).len(), before, "not before {deaf} has acknowledged");
        pair.cuts.clear();
        pair.pass(50);
        assert_eq!(pair.answers(A).len(), before + 1);
    }
}

#[test]
fn whoever_of_the_three_fails_while_two_may_claim_the_machine_goes_on() {
    for victim in [A, B, C] {
        let mut pair = relieving(Config::default());
        pair.drop_messages(A, |message| matches!(message, Message::Retire));
        pair.packet(A);
        pair.pass(300);
        pair.stopped.insert(victim);
        pair.pass(1500);
        let live: Vec<usize> =
            [A, B, C].into_iter().filter(|node| *node != victim && pair.standing(*node).is_some()).collect();
        assert_eq!(live.len(), 1, "{victim}: {:?}", pair.notices);
        if victim != A {
            let left = if victim == B { C } else { B };
            assert!(has_secondary_on(&pair, left), "{victim}: {:?}", pair.notices);
            assert_eq!(pair.nodes[A].term(), Term(2));
        }
        pair.packet(live[0]);
        pair.pass(50);
        assert_eq!(pair.answers(live[0]).last(), Some(&2));
        pair.stopped.clear();
        pair.tamper = None;
        pair.pass(1500);
        assert!(pair.halted(victim).is_some(), "{victim}: {:?}", pair.notices);
    }
}

#[test]
fn r8_a_relief_that_fails_before_it_may_claim_changes_nothing() {
    let mut pair = relieving(Config::default());
    pair.drop_messages(A, |message| matches!(message, Message::State(_)));
    pair.pass(1);
    pair.stopped.insert(C);
    pair.packet(A);
    pair.pass(1000);
    assert!(has_secondary_on(&pair, B));
    assert_eq!(pair.answers(A), [1]);
    assert_eq!(pair.nodes[A].term(), Term(1));
    assert!(pair.notices.iter().any(|(_, notice)| matches!(notice, Notice::SeedingFailed(HostId(2), _))));
    // It greets again: nobody expects it any more.
    pair.stopped.clear();
    pair.tamper = None;
    pair.pass(1000);
    assert!(pair.halted(C).is_some());
    assert!(has_secondary_on(&pair, B));
}

#[test]
fn who_is_not_asked_for_is_refused() {
    let mut pair = Pair::protected(Config::default());
    assert_eq!(pair.nodes[A].relieve(HostId(B as u64)), Err(ReliefRefused::SameHost));
    assert_eq!(pair.nodes[B].relieve(HostId(C as u64)), Err(ReliefRefused::NotLive));
    pair.nodes[A].relieve(HostId(3)).unwrap();
    pair.join(identity(C, Config::default()), A);
    pair.pass(50);
    assert!(matches!(pair.halted(C), Some(HaltReason::Refused(_))), "another was expected");
    let mut solo = Pair::solo(Config::default());
    assert_eq!(solo.nodes[A].relieve(HostId(B as u64)), Err(ReliefRefused::NotProtected));
}

#[test]
fn r6_no_arbiter_is_needed_and_the_term_stays() {
    let mut pair = relieving(Config::default());
    pair.arbiter_away = true;
    pass_until(&mut pair, |pair| has_secondary_on(pair, C));
    pair.packet(A);
    pair.pass(50);
    assert_eq!(pair.answers(A), [1]);
    assert_eq!(pair.nodes[A].term(), Term(1));
    assert!(!pair.notices.iter().any(|(_, notice)| matches!(notice, Notice::Contested(_))));
}

#[test]
fn a_relief_goes_on_as_the_next_secondary_when_the_first_is_lost() {
    let mut pair = relieving(Config::default());
    pair.drop_messages(A, |message| matches!(message, Message::State(_)));
    pair.pass(1);
    pair.stopped.insert(B);
    pass_until(&mut pair, |pair| pair.standing(A) == Some(Standing::Seeding(HostId(C as u64))));
    assert_eq!(pair.nodes[A].term(), Term(2));
    pair.packet(A);
    pair.pass(5);
    assert_eq!(pair.answers(A), [1], "nobody else may claim");
    pair.tamper = None;
    pass_until(&mut pair, |pair| has_secondary_on(pair, C));
    assert!(pair.halted(C).is_none());
}

#[test]
fn a_word_to_retire_that_comes_late_is_not_obeyed() {
    let mut pair = relieving(Config::default());
    pair.drop_messages(A, |message| matches!(message, Message::Retire));
    pair.pass(300);
    let Role::Secondary(first) = pair.nodes[B].role() else { panic!("it follows") };
    let late = Envelope { session: first.session(), term: Term(1), message: Message::Retire };
    pair.stopped.insert(C);
    pass_until(&mut pair, |pair| pair.nodes[B].term() == Term(2));
    let now = pair.now;
    pair.nodes[B].handle_message(now, HostId(A as u64), late);
    pair.pass(50);
    assert!(has_secondary_on(&pair, B), "C was lost meanwhile: {:?}", pair.notices);
}

#[test]
fn r4_who_may_have_won_a_term_does_not_retire_before_that_is_known() {
    let mut pair = relieving(Config::default());
    pair.drop_messages(A, |message| matches!(message, Message::Retire));
    pair.pass(300);
    pair.arbiter_away = true;
    pair.cuts.extend([(A, B), (B, A)]);
    pass_until(&mut pair, |pair| matches!(pair.standing(A), Some(Standing::Contested(_))));
    pair.pass(300);
    pair.cuts.clear();
    pair.tamper = None;
    pair.pass(300);
    assert!(pair.halted(B).is_none(), "its claim has no answer");
    pair.arbiter_away = false;
    pass_until(&mut pair, |pair| has_secondary_on(pair, C));
    assert!(matches!(pair.halted(B), Some(HaltReason::Relieved)), "{:?}", pair.notices);
    // The primary's own claim may have been won: the other hears of it.
    pair.pass(50);
    pair.stopped.insert(A);
    pass_until(&mut pair, |pair| pair.standing(C) == Some(Standing::Solo));
}

#[test]
fn a_second_secondary_that_gives_up_leaves_the_first() {
    let mut pair = relieving(Config::default());
    pair.drop_messages(A, |message| matches!(message, Message::Retire));
    pair.pass(300);
    assert_eq!(pair.nodes[A].relieve(HostId(3)), Err(ReliefRefused::Busy(HostId(C as u64))));
    pair.nodes[C].halt(HaltReason::Requested);
    pair.pass(50);
    assert!(has_secondary_on(&pair, B), "{:?}", pair.notices);
    assert_eq!(pair.nodes[A].term(), Term(1));
    pair.packet(A);
    pair.pass(50);
    assert_eq!(pair.answers(A), [1]);
}
