//! One scenario, or a few, for each rule of docs/protocol.md.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "rules/machine.rs"]
mod machine;
#[path = "rules/pair.rs"]
mod pair;

use bytes::Bytes;
use ft_core::Event;
use ft_core::config::{Config, Verify};
use ft_core::effect::EffectKind;
use ft_core::error::{Divergence, HaltReason};
use ft_core::message::{Message, Refusal};
use ft_core::primary::Standing;
use ft_core::replica::Notice;
use ft_core::units::{HostId, Span, Term};
use pair::{A, B, Pair, identity};

#[test]
fn r1_the_state_follows_from_the_records() {
    let mut pair = Pair::protected(Config::default());
    for _ in 0..50 {
        assert!(pair.packet(A));
        pair.pass(3);
    }
    pair.pass(500);
    let (a, b) = (pair.nodes[A].machine(), pair.nodes[B].machine());
    assert_eq!((a.tick, a.count, &a.due), (b.tick, b.count, &b.due));
    assert_eq!(a.count, 50);
}

#[test]
fn r2_a_secondary_elsewhere_is_a_divergence_that_names_both_points() {
    let mut pair = Pair::protected(Config::default());
    // Corrupt one side behind the protocol's back: its next join sees another count than the primary.
    let frame = Bytes::from_static(b"x");
    pair.nodes[A].handle_event(Event::Net { device: 0, frame }).unwrap();
    let mut flawed = Pair::protected(Config::default());
    std::mem::swap(&mut pair.nodes, &mut flawed.nodes);
    pair.tamper = Some(Box::new(|from, mut envelope| {
        if let Message::Log { frame, .. } = &mut envelope.message
            && from == A
        {
            *frame = moved(frame);
        }
        Some(envelope)
    }));
    pair.packet(A);
    pair.pass(300);
    let Some(HaltReason::Diverged(divergence @ Divergence::Point { .. })) = pair.halted(B) else {
        panic!("{:?}", pair.notices)
    };
    let text = divergence.to_string();
    assert!(
        text.contains("the primary was at tick 0 rip 0xbad")
            && text.contains("this side is at tick 0 rip 0x0"),
        "{text}"
    );
}

/// A frame whose first checked record stands elsewhere, properly chained.
fn moved(frame: &ft_core::frame::Frame) -> ft_core::frame::Frame {
    let mut log = ft_core::log::LogWriter::new(frame.start(), 1 << 16);
    for mut record in frame.records().unwrap() {
        if let Some(check) = record.point.check.as_mut() {
            check.rip = 0xbad;
        }
        log.append(ft_core::units::Instant(0), record.point, record.event).unwrap();
    }
    log.seal().unwrap().clone()
}

#[test]
fn r3_an_effect_waits_for_its_acknowledgement() {
    let mut pair = Pair::protected(Config::default());
    pair.drop_messages(B, |message| matches!(message, Message::Ack(_)));
    pair.packet(A);
    pair.pass(100);
    assert_eq!(pair.answers(A), [], "nobody has acknowledged it");
    pair.tamper = None;
    pair.pass(120);
    assert_eq!(pair.answers(A), [1]);
}

#[test]
fn r3_records_before_an_effect_are_not_enough_its_mark_must_be_held() {
    let mut pair = Pair::protected(Config::default());
    pair.packet(A);
    // The packet's record goes out with others; the mark of its answer does not arrive.
    pair.drop_messages(A, |message| match message {
        Message::Log { frame, .. } => {
            frame.records().unwrap().iter().any(|record| matches!(record.event, Event::Emit { .. }))
        }
        _ => false,
    });
    pair.pass(60);
    assert_eq!(pair.answers(A), []);
    assert_eq!(pair.standing(A), Some(Standing::Paired { host: HostId(1), protected: true }));
}

#[test]
fn r3_disk_reads_do_not_wait() {
    let mut pair = Pair::protected(Config::default());
    pair.cut();
    let typed = Event::Console { device: 0, bytes: Bytes::from_static(b"r") };
    pair.nodes[A].handle_event(typed).unwrap();
    pair.pass(5);
    assert!(pair.released.iter().any(|(from, n)| *from == A && n.effect.kind == EffectKind::BlockRead));
}

#[test]
fn r4_of_two_claims_one_wins() {
    let mut pair = Pair::protected(Config::default());
    pair.cut();
    pair.pass(1000);
    let live: Vec<usize> = [A, B].into_iter().filter(|node| pair.standing(*node).is_some()).collect();
    assert_eq!(live.len(), 1);
    assert_eq!(pair.nodes[live[0]].term(), Term(2));
    assert!(matches!(pair.halted(1 - live[0]), Some(HaltReason::Lost { term: Term(2), .. })));
}

#[test]
fn r5_a_stopped_primary_that_goes_on_emits_nothing_and_halts() {
    let mut pair = Pair::protected(Config::default());
    pair.packet(A);
    pair.pass(1);
    pair.stopped.insert(A);
    pair.pass(1000);
    assert_eq!(pair.standing(B), Some(Standing::Solo));
    assert_eq!(pair.answers(B), [1]);
    let before = pair.released.len();
    pair.stopped.remove(&A);
    // It finds acknowledgements in its sockets, and its lease expired.
    pair.deliver();
    pair.pass(1);
    pair.pass(500);
    assert_eq!(pair.released.iter().skip(before).filter(|(from, _)| *from == A).count(), 0);
    assert_eq!(pair.halted(A), Some(&HaltReason::Superseded { term: Term(2) }));
}

#[test]
fn r6_without_an_arbiter_nothing_changes_and_the_pair_goes_on_when_the_peer_is_back() {
    let mut pair = Pair::protected(Config::default());
    pair.arbiter_away = true;
    pair.cut();
    pair.packet(A);
    pair.pass(2000);
    assert_eq!(pair.standing(A), Some(Standing::Contested(HostId(1))));
    assert_eq!(pair.answers(A), [], "held");
    pair.cuts.clear();
    pair.pass(1500);
    assert_eq!(pair.answers(A), [1]);
    assert!(pair.is_protected(A));
    assert!(pair.halted(B).is_none());
    // Its claim is still followed up: won now, the pair moves on together.
    pair.arbiter_away = false;
    pair.pass(1500);
    assert!(pair.is_protected(A) && pair.halted(B).is_none(), "{:?}", pair.notices);
    assert_eq!((pair.nodes[A].term(), pair.nodes[B].term()), (Term(2), Term(2)));
}

#[test]
fn r7_a_new_live_side_emits_what_is_in_doubt_and_asks_its_disk_again() {
    let mut pair = Pair::protected(Config::default());
    let typed = Event::Console { device: 0, bytes: Bytes::from_static(b"r") };
    pair.nodes[A].handle_event(typed).unwrap();
    pair.pass(100);
    // The answer leaves, or not, at the moment of the crash: B cannot know.
    pair.packet(A);
    pair.pass(1);
    pair.drop_messages(B, |message| matches!(message, Message::Ack(_)));
    pair.pass(20);
    pair.stopped.insert(A);
    pair.tamper = None;
    pair.pass(1000);
    assert_eq!(pair.answers(B), [2]);
    let asked = pair.released.iter().filter(|(from, n)| *from == B && n.effect.kind == EffectKind::BlockRead);
    assert_eq!(asked.count(), 1, "the read that had no answer");
    assert_eq!(
        pair.notices.iter().filter(|(from, notice)| *from == B && *notice == Notice::Live(Term(2))).count(),
        1
    );
}

#[test]
fn r8_the_guest_runs_while_a_secondary_joins_and_is_not_protected_before_it_has_all() {
    let mut pair = Pair::solo(Config::default());
    pair.join(identity(B, Config::default()), A);
    pair.drop_messages(A, |message| matches!(message, Message::State(_)));
    for n in 1..=20 {
        pair.packet(A);
        pair.pass(5);
        assert_eq!(pair.standing(A), Some(Standing::Seeding(HostId(1))));
        assert_eq!(pair.answers(A).len(), n, "the guest answers while the state is copied");
    }
    assert!(!pair.is_protected(A));
    pair.tamper = None;
    pair.pass(2000);
    assert!(pair.is_protected(A));
}

#[test]
fn r8_a_join_that_fails_leaves_the_primary_as_it_was() {
    let mut pair = Pair::solo(Config::default());
    pair.join(identity(B, Config::default()), A);
    pair.drop_messages(A, |message| matches!(message, Message::State(_)));
    pair.pass(2);
    assert_eq!(pair.standing(A), Some(Standing::Seeding(HostId(1))));
    pair.stopped.insert(B);
    pair.pass(1000);
    assert_eq!(pair.standing(A), Some(Standing::Solo));
    assert_eq!(pair.nodes[A].term(), Term(1), "nobody depended on it: no claim was needed");
}

#[test]
fn r9_a_full_log_stops_the_guest_and_an_acknowledgement_lets_it_go_on() {
    let config = Config { ring_bytes: 4096, gate_bytes: 1 << 20, ..Config::default() };
    let mut pair = Pair::protected(config);
    pair.drop_messages(A, |message| matches!(message, Message::Log { .. }));
    let mut taken = 0;
    for _ in 0..2000 {
        taken += u64::from(pair.packet(A));
        pair.pass(1);
    }
    let ft_core::replica::Role::Primary(primary) = pair.nodes[A].role() else { panic!("still live") };
    assert!(primary.is_blocked() && primary.log().bytes() < 2 * 4096, "{}", primary.log().bytes());
    pair.tamper = None;
    pair.pass(5000);
    assert_eq!(pair.nodes[A].machine().count, taken, "what was taken in has happened");
    assert_eq!(pair.nodes[B].machine().count, taken);
}

#[test]
fn r10_a_mismatch_is_refused_with_the_field_and_both_values() {
    let mut pair = Pair::solo(Config::default());
    let mut other = identity(B, Config::default());
    other.profile.machine = "ft-2".into();
    pair.join(other, A);
    pair.pass(10);
    let reason = pair.halted(B).unwrap();
    assert!(matches!(reason, HaltReason::Refused(Refusal::Mismatch { .. })));
    assert_eq!(
        reason.to_string(),
        "join refused: machine version differs: the primary has , the secondary ft-2"
    );
    assert_eq!(pair.standing(A), Some(Standing::Solo));
}

#[test]
fn r11_a_diverged_secondary_resigns_and_the_primary_goes_on_alone_by_a_claim() {
    let mut pair = Pair::protected(Config::default());
    pair.tamper = Some(Box::new(|_, mut envelope| {
        if let Message::Log { frame, .. } = &mut envelope.message {
            *frame = lied(frame);
        }
        Some(envelope)
    }));
    pair.pass(2500);
    assert!(
        matches!(pair.halted(B), Some(HaltReason::Diverged(Divergence::State { .. }))),
        "{:?}",
        pair.notices
    );
    assert_eq!(pair.standing(A), Some(Standing::Solo));
    assert_eq!(pair.nodes[A].term(), Term(2));
    let told =
        |(_, notice): &(usize, Notice)| matches!(notice, Notice::Resigned(_, why) if why.contains("digest"));
    assert!(pair.notices.iter().any(told), "the operator is told");
    pair.packet(A);
    pair.pass(20);
    assert_eq!(pair.answers(A), [1]);
}

/// A frame whose digests are wrong, properly chained.
fn lied(frame: &ft_core::frame::Frame) -> ft_core::frame::Frame {
    let mut log = ft_core::log::LogWriter::new(frame.start(), 1 << 16);
    for mut record in frame.records().unwrap() {
        if let Event::Digest(digest) = &mut record.event {
            digest.0 ^= 1;
        }
        log.append(ft_core::units::Instant(0), record.point, record.event).unwrap();
    }
    log.seal().unwrap().clone()
}

#[test]
fn r11_strict_effects_wait_for_a_compared_digest() {
    let mut pair = Pair::protected(Config { verify: Verify::Strict, ..Config::default() });
    pair.tamper = Some(Box::new(|from, mut envelope| {
        if let Message::Ack(ack) = &mut envelope.message
            && from == B
        {
            ack.verified = Default::default();
        }
        Some(envelope)
    }));
    pair.packet(A);
    pair.pass(200);
    assert_eq!(pair.answers(A), [], "held and applied, but not verified");
    pair.tamper = None;
    pair.pass(200);
    assert_eq!(pair.answers(A), [1]);
}

#[test]
fn a_machine_that_faults_halts_its_copy_and_the_other_goes_on_without_the_input_that_killed_it() {
    let mut pair = Pair::protected(Config::default());
    pair.packet(A);
    pair.pass(20);
    pair.nodes[A].handle_event(Event::Reset).unwrap();
    pair.pass(2000);
    assert!(matches!(pair.halted(A), Some(HaltReason::Machine(_))));
    assert_eq!(pair.standing(B), Some(Standing::Solo));
    assert_eq!(pair.nodes[B].machine().count, 1);
}

#[test]
fn proof_that_the_primarys_process_ended_saves_the_wait() {
    let mut pair = Pair::protected(Config::default());
    pair.stopped.insert(A);
    let now = pair.now;
    pair.nodes[B].handle_peer_gone(now, identity(A, Config::default()).node);
    pair.pass(2);
    assert_eq!(pair.standing(B), Some(Standing::Solo));
    assert!(pair.now.since(now) < Span::from_ms(5));
}
