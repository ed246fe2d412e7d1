//! What every arbiter must do.

use crate::child::Child;
use ft::arbiter::ArbiterConfig;
use ft::core::arbiter::{Arbiter, ClaimOutcome};
use ft::core::units::{HostId, NodeId, Term};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(crate) const VM: &str = "vm";

/// How long anything may take on a machine that is busy with other things.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn node(host: u64, incarnation: u64) -> NodeId {
    NodeId { host: HostId(host), incarnation }
}

/// Claims until the outcome is known, as the protocol does.
pub(crate) fn claim(arbiter: &mut (impl Arbiter + ?Sized), term: Term, node: NodeId) -> ClaimOutcome {
    let started = Instant::now();
    loop {
        match arbiter.claim(term, node) {
            ClaimOutcome::Unreachable => assert!(started.elapsed() < DEADLINE, "{term} of {node}: no answer"),
            known => return known,
        }
    }
}

/// Claims every term from 1 to `terms`.
pub(crate) fn race(config: &ArbiterConfig, node: NodeId, terms: u64) -> Vec<(Term, ClaimOutcome)> {
    let mut arbiter = config.open(VM).unwrap();
    (1..=terms).map(Term).map(|term| (term, claim(&mut arbiter, term, node))).collect()
}

/// Five threads here and in each of three processes: 20 claims to each of 50 terms.
pub(crate) fn one_winner_each_term(config: &ArbiterConfig) {
    const TERMS: u64 = 50;
    const THREADS: u64 = 5;
    let mut children: Vec<Child> =
        (1..=3).map(|host| Child::start(config, host, &format!("race {THREADS} {TERMS}"))).collect();
    children.iter_mut().for_each(Child::go);
    let mut claims: Vec<(NodeId, Term, ClaimOutcome)> = std::thread::scope(|scope| {
        let claimers = (0..THREADS).map(|thread| {
            let node = node(0, thread);
            (node, scope.spawn(move || race(config, node, TERMS)))
        });
        let claimers: Vec<_> = claimers.collect();
        let outcomes = claimers.into_iter().map(|(node, claims)| (node, claims.join().unwrap()));
        outcomes
            .flat_map(|(node, claims)| claims.into_iter().map(move |(term, outcome)| (node, term, outcome)))
            .collect()
    });
    claims.extend(children.into_iter().flat_map(Child::claims));
    assert_eq!(claims.len() as u64, 4 * THREADS * TERMS);

    let history = config.open(VM).unwrap().history().unwrap();
    assert_eq!(history.iter().map(|owned| owned.term.0).collect::<Vec<_>>(), Vec::from_iter(1..=TERMS));
    let owners: BTreeMap<Term, NodeId> = history.into_iter().map(|owned| (owned.term, owned.owner)).collect();
    for (node, term, outcome) in &claims {
        let owner = owners[term];
        let expected = if owner == *node { ClaimOutcome::Won } else { ClaimOutcome::Lost { owner } };
        assert_eq!(*outcome, expected, "{term}, {node}");
    }
}

/// A process claims term after term and is killed, again and again.
pub(crate) fn killed_claimers(config: &ArbiterConfig) {
    let mut arbiter = config.open(VM).unwrap();
    let mut survivors = 0;
    for round in 1..=20 {
        let last = arbiter.last().unwrap().map_or(0, |last| last.term.0);
        let mut child = Child::start(config, round, &format!("hurry {}", last + 1));
        child.go();
        // Moments from before its first claim to some claims later, spread over the few that a claim takes.
        let claims_before = child.listen(round as usize % 4);
        let moment = Instant::now() + Duration::from_micros(round * 317 % 2500);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        let mut claims = child.kill();
        claims.extend(claims_before);
        // What it was told is so, and stays so.
        let history = arbiter.history().unwrap();
        for (node, term, outcome) in claims {
            assert_eq!(outcome, ClaimOutcome::Won, "nobody else claims");
            assert!(
                history.iter().any(|owned| (owned.term, owned.owner) == (term, node)),
                "{term}: {history:?}"
            );
        }
        // Others go on. At most one claim of the dead was on its way, and may count or not.
        let next = history.last().map_or(Term(1), |last| last.term.next());
        let survivor = node(1000, round);
        match claim(&mut arbiter, next, survivor) {
            ClaimOutcome::Won => {}
            ClaimOutcome::Lost { owner } => {
                assert_eq!(owner.host, HostId(round), "{next}");
                assert_eq!(claim(&mut arbiter, next.next(), survivor), ClaimOutcome::Won);
            }
            ClaimOutcome::Unreachable => unreachable!("claims are repeated"),
        }
        survivors += 1;
        let history = arbiter.history().unwrap();
        let terms: Vec<u64> = history.iter().map(|owned| owned.term.0).collect();
        assert_eq!(terms, Vec::from_iter(1..=history.len() as u64), "no term is skipped");
        assert_eq!(history.iter().filter(|owned| owned.owner.host == HostId(1000)).count(), survivors);
    }
}

pub(crate) fn owners(config: &ArbiterConfig) {
    let (a, b) = (node(1, 17), node(2, 18));
    let mut arbiter = config.open(VM).unwrap();
    assert_eq!(arbiter.last().unwrap(), None);
    assert_eq!(arbiter.history().unwrap(), []);
    // Terms need not come in order: a late claim to an early term is none the less one.
    for (term, claimer, other) in [(2, a, b), (1, b, a), (1_000_000, a, b), (999_999, b, a)] {
        let term = Term(term);
        assert_eq!(claim(&mut arbiter, term, claimer), ClaimOutcome::Won);
        assert_eq!(claim(&mut arbiter, term, claimer), ClaimOutcome::Won, "its owner wins again");
        let mut another = config.open(VM).unwrap();
        assert_eq!(claim(&mut another, term, other), ClaimOutcome::Lost { owner: claimer });
        assert_eq!(claim(&mut another, term, claimer), ClaimOutcome::Won, "wherever it asks");
        let next_life = NodeId { incarnation: claimer.incarnation + 1, ..claimer };
        assert_eq!(claim(&mut another, term, next_life), ClaimOutcome::Lost { owner: claimer });
    }
    let history = arbiter.history().unwrap();
    let owners: Vec<_> = history.iter().map(|owned| (owned.term.0, owned.owner)).collect();
    assert_eq!(owners, [(1, b), (2, a), (999_999, b), (1_000_000, a)]);
    assert_eq!(arbiter.last().unwrap().as_ref(), history.last());
    assert!(history.iter().all(|owned| owned.remark.starts_with("at 2")), "{history:?}");
    // Another VM has terms of its own, also one whose name begins alike.
    for vm in ["v", "vm-2", "hosts"] {
        let mut other = config.open(vm).unwrap();
        assert_eq!(other.last().unwrap(), None, "{vm}");
        assert_eq!(claim(&mut other, Term(1), a), ClaimOutcome::Won);
    }
    assert_eq!(arbiter.history().unwrap(), history);
}
