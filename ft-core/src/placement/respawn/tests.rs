use super::*;
use crate::placement::{Candidate, Hosts, place};
use proptest::prelude::*;

const SECOND: Span = Span::from_ms(1000);

fn config() -> RespawnConfig {
    RespawnConfig {
        follow_within: Span(SECOND.0 * 30),
        protect_within: Span(SECOND.0 * 10),
        retry: SECOND,
        retry_max: Span(SECOND.0 * 8),
        suspect_for: Span(SECOND.0 * 100),
        calm: Span(SECOND.0 * 20),
    }
}

fn at(seconds: u64) -> Instant {
    Instant(SECOND.0 * seconds)
}

fn demand() -> Demand {
    Demand { vm: "exchange".into(), live: Some(HostId(1)), ..Demand::default() }
}

fn hosts(numbers: &[u64]) -> Hosts {
    let fit = Candidate { free_slots: 1, ..Candidate::default() };
    numbers.iter().map(|host| (HostId(*host), fit.clone())).collect()
}

/// Answers questions from `hosts`; the other actions.
fn drain(respawner: &mut Respawner, now: Instant, hosts: &Hosts) -> Vec<Action> {
    let mut others = Vec::new();
    while let Some(action) = respawner.poll() {
        match action {
            Action::Place(demand) => respawner.handle_decision(now, place(&demand, hosts)),
            other => others.push(other),
        }
    }
    others
}

fn start(attempt: u64, host: u64) -> Action {
    Action::Start { attempt, host: HostId(host) }
}

fn abandon(attempt: u64, host: u64) -> Action {
    Action::Abandon { attempt, host: HostId(host) }
}

/// Solo at 0, with hosts to choose from, and its first actions.
fn solo(known: &[u64]) -> (Respawner, Vec<Action>) {
    let mut respawner = Respawner::new(config());
    respawner.handle_solo(at(0), demand());
    let actions = drain(&mut respawner, at(0), &hosts(known));
    (respawner, actions)
}

#[test]
fn a_solo_vm_gets_a_second_copy_and_then_there_is_nothing_to_do() {
    let (mut respawner, actions) = solo(&[1, 2, 3]);
    assert_eq!(actions, [start(1, 2)], "never beside the live copy");
    assert!(
        respawner
            .explain(at(1))
            .starts_with("attempt 1: the copy on host 2 is being started; given up in 29 s")
    );
    respawner.handle_following(at(5), 1);
    assert_eq!(respawner.wake(), Some(at(15)));
    respawner.handle_protected(at(6), HostId(2));
    respawner.handle_tick(at(100));
    assert_eq!((respawner.poll(), respawner.wake()), (None, None));
    let said = respawner.explain(at(100));
    assert_eq!(said.lines().next(), Some("protected, with host 2"));
    assert!(said.contains("host 1: the live copy is there"), "{said}");
}

#[test]
fn an_attempt_that_takes_too_long_is_abandoned_and_another_host_is_tried() {
    let (mut respawner, _) = solo(&[1, 2, 3]);
    respawner.handle_tick(at(29));
    assert_eq!(drain(&mut respawner, at(29), &hosts(&[1, 2, 3])), []);
    respawner.handle_tick(at(30));
    assert_eq!(drain(&mut respawner, at(30), &hosts(&[1, 2, 3])), [abandon(1, 2)]);
    assert!(
        respawner.explain(at(30)).starts_with("host 2 failed: not in step within 30 s; tries again in 1 s")
    );
    respawner.handle_tick(at(31));
    assert_eq!(
        drain(&mut respawner, at(31), &hosts(&[1, 2, 3])),
        [start(2, 3)],
        "the failed host comes last"
    );
    respawner.handle_following(at(32), 2);
    respawner.handle_tick(at(42));
    assert_eq!(drain(&mut respawner, at(42), &hosts(&[1, 2, 3])), [abandon(2, 3)]);
    assert!(respawner.explain(at(42)).contains("not protected within 10 s"));
}

#[test]
fn pauses_double_up_to_their_limit() {
    let (mut respawner, _) = solo(&[1, 2]);
    let mut now = 0;
    for (attempt, pause) in (1..).zip([1, 2, 4, 8, 8, 8]) {
        respawner.handle_failed(at(now), attempt, "no disk".into());
        assert_eq!(drain(&mut respawner, at(now), &hosts(&[1, 2])), [abandon(attempt, 2)]);
        assert_eq!(respawner.wake(), Some(at(now + pause)));
        now += pause;
        respawner.handle_tick(at(now));
        assert_eq!(drain(&mut respawner, at(now), &hosts(&[1, 2])), [start(attempt + 1, 2)]);
    }
}

#[test]
fn a_host_that_appears_is_used_at_once() {
    let (mut respawner, actions) = solo(&[1]);
    assert_eq!(actions, []);
    assert!(respawner.explain(at(0)).starts_with("no host fits; looks again in 1 s"));
    for second in 1..20 {
        respawner.handle_tick(at(second));
        assert_eq!(drain(&mut respawner, at(second), &hosts(&[1])), []);
    }
    respawner.handle_hosts_changed(at(20));
    assert_eq!(drain(&mut respawner, at(20), &hosts(&[1, 2])), [start(1, 2)]);
    respawner.handle_failed(at(20), 1, "it has just started".into());
    assert_eq!(respawner.wake(), Some(at(21)), "looking in vain has been no failure");
}

#[test]
fn news_of_hosts_shorten_the_pause_after_failures_but_not_below_the_first() {
    let (mut respawner, _) = solo(&[1, 2]);
    for (attempt, now) in [(1, 0), (2, 1), (3, 3)] {
        respawner.handle_failed(at(now), attempt, "no disk".into());
        respawner.handle_tick(at(now + (1 << (attempt - 1))));
        drain(&mut respawner, at(now), &hosts(&[1, 2]));
    }
    respawner.handle_failed(at(10), 4, "no disk".into());
    drain(&mut respawner, at(10), &hosts(&[1, 2]));
    assert_eq!(respawner.wake(), Some(at(18)));
    for _ in 0..100 {
        respawner.handle_hosts_changed(at(10));
        assert_eq!(drain(&mut respawner, at(10), &hosts(&[1, 2])), []);
    }
    assert_eq!(respawner.wake(), Some(at(11)));
    respawner.handle_hosts_changed(at(11));
    assert_eq!(drain(&mut respawner, at(11), &hosts(&[1, 2, 3])), [start(5, 3)]);
}

#[test]
fn a_copy_that_is_lost_after_long_is_replaced_at_once_and_elsewhere() {
    let (mut respawner, _) = solo(&[1, 2, 3]);
    respawner.handle_protected(at(1), HostId(2));
    respawner.handle_protected(at(20), HostId(2));
    respawner.handle_solo(at(21), demand());
    assert_eq!(drain(&mut respawner, at(21), &hosts(&[1, 2, 3])), [start(2, 3)]);
}

#[test]
fn a_copy_that_is_lost_soon_counts_as_a_failure() {
    let (mut respawner, _) = solo(&[1, 2]);
    for (attempt, pause) in [(1, 1), (2, 2), (3, 4)] {
        let now = 100 * attempt;
        respawner.handle_protected(at(now), HostId(2));
        respawner.handle_solo(at(now + 1), demand());
        assert_eq!(drain(&mut respawner, at(now + 1), &hosts(&[1, 2])), []);
        assert_eq!(respawner.wake(), Some(at(now + 1 + pause)));
        respawner.handle_tick(at(now + 10));
        assert_eq!(drain(&mut respawner, at(now + 10), &hosts(&[1, 2])), [start(attempt + 1, 2)]);
    }
}

#[test]
fn an_attempt_ends_cleanly_when_the_vm_is_protected_otherwise_moves_or_ends() {
    let (mut respawner, _) = solo(&[1, 2]);
    respawner.handle_protected(at(1), HostId(7));
    assert_eq!(drain(&mut respawner, at(1), &hosts(&[1, 2])), [abandon(1, 2)], "somebody else was faster");

    let (mut respawner, _) = solo(&[1, 2]);
    respawner.handle_over();
    assert_eq!(drain(&mut respawner, at(1), &hosts(&[1, 2])), [abandon(1, 2)]);
    assert_eq!(respawner.explain(at(1)), "nothing to see to");

    let (mut respawner, _) = solo(&[1, 2]);
    let moved = |host| Demand { live: Some(HostId(host)), ..demand() };
    respawner.handle_solo(at(1), moved(2));
    assert_eq!(
        drain(&mut respawner, at(1), &hosts(&[1, 2])),
        [start(2, 1)],
        "what is live now is left alone"
    );
    respawner.handle_solo(at(1), moved(3));
    assert_eq!(drain(&mut respawner, at(1), &hosts(&[1, 2])), [abandon(2, 1), start(3, 1)]);
}

#[test]
fn what_is_said_of_an_earlier_attempt_changes_nothing() {
    let (mut respawner, _) = solo(&[1, 2]);
    respawner.handle_failed(at(0), 1, "no disk".into());
    respawner.handle_tick(at(1));
    assert_eq!(drain(&mut respawner, at(1), &hosts(&[1, 2])), [abandon(1, 2), start(2, 2)]);
    respawner.handle_failed(at(2), 1, "late".into());
    respawner.handle_following(at(2), 1);
    assert_eq!((respawner.poll(), respawner.wake()), (None, Some(at(31))));
}

#[derive(Clone, Debug)]
enum Op {
    Solo { live: u64 },
    Protected { host: u64 },
    Following { back: u64 },
    Failed { back: u64 },
    Over,
    Hosts { known: Vec<u64> },
    Tick { seconds: u64 },
}

fn any_op() -> impl Strategy<Value = Op> {
    let host = || 1..5u64;
    prop_oneof![
        3 => prop_oneof![4 => Just(1), 1 => host()].prop_map(|live| Op::Solo { live }),
        2 => host().prop_map(|host| Op::Protected { host }),
        1 => (0..3u64).prop_map(|back| Op::Following { back }),
        2 => (0..3u64).prop_map(|back| Op::Failed { back }),
        1 => Just(Op::Over),
        2 => proptest::collection::vec(host(), 0..4).prop_map(|known| Op::Hosts { known }),
        4 => (0..40u64).prop_map(|seconds| Op::Tick { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Attempts do not overlap: each is protected, abandoned, or live before the next begins. And a solo VM is never forgotten.
    #[test]
    fn never_two_at_once_and_never_beside_the_live_copy(ops in proptest::collection::vec(any_op(), 1..60)) {
        let mut respawner = Respawner::new(config());
        let (mut now, mut known, mut live) = (0, hosts(&[1, 2, 3]), 1);
        let (mut is_solo, mut running, mut last) = (false, None, 0);
        for op in ops {
            match op {
                Op::Solo { live: host } => {
                    (live, is_solo) = (host, true);
                    running.take_if(|(_, running)| *running == HostId(host));
                    respawner.handle_solo(at(now), Demand { live: Some(HostId(host)), ..demand() });
                }
                Op::Protected { host } => {
                    is_solo = false;
                    running.take_if(|(_, running)| *running == HostId(host));
                    respawner.handle_protected(at(now), HostId(host));
                }
                Op::Following { back } => respawner.handle_following(at(now), last - last.min(back)),
                Op::Failed { back } => respawner.handle_failed(at(now), last - last.min(back), "broken".into()),
                Op::Over => {
                    is_solo = false;
                    respawner.handle_over();
                }
                Op::Hosts { known: numbers } => {
                    known = hosts(&numbers);
                    respawner.handle_hosts_changed(at(now));
                }
                Op::Tick { seconds } => {
                    now += seconds;
                    respawner.handle_tick(at(now));
                }
            }
            for action in drain(&mut respawner, at(now), &known) {
                match action {
                    Action::Start { attempt, host } => {
                        prop_assert_eq!(running, None, "two at once");
                        prop_assert!(is_solo && attempt > last);
                        prop_assert_ne!(host, HostId(live));
                        (running, last) = (Some((attempt, host)), attempt);
                    }
                    Action::Abandon { attempt, host } => {
                        prop_assert_eq!(running.take(), Some((attempt, host)));
                        prop_assert!(!is_solo || host != HostId(live));
                    }
                    Action::Place(_) => unreachable!("answered"),
                }
            }
            prop_assert!(is_solo || running.is_none());
            prop_assert_eq!(respawner.wake().is_some(), is_solo);
            prop_assert!(!respawner.explain(at(now)).is_empty());
        }
        // With a host that works, it is protected again in bounded time.
        if is_solo {
            known = hosts(&[live, 9]);
            let until = now + 30 + 8 + 1;
            while running.is_none_or(|(_, host)| host != HostId(9)) {
                prop_assert!(now <= until);
                respawner.handle_tick(at(now));
                for action in drain(&mut respawner, at(now), &known) {
                    match action {
                        Action::Start { attempt, host } => running = Some((attempt, host)),
                        _ => running = None,
                    }
                }
                now += 1;
            }
        }
    }
}
