use super::*;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn candidate(domain: &str, free_mib: u64, vms: usize) -> Candidate {
    Candidate {
        free_bytes: free_mib * MIB,
        free_slots: 4,
        domain: Some(domain.into()),
        vms: (0..vms).map(|vm| format!("other-{vm}")).collect(),
        ..Candidate::default()
    }
}

fn hosts(candidates: impl IntoIterator<Item = (u64, Candidate)>) -> Hosts {
    candidates.into_iter().map(|(host, candidate)| (HostId(host), candidate)).collect()
}

/// Of 256 MiB, live on host 1 in rack a.
fn demand() -> Demand {
    Demand {
        vm: "exchange".into(),
        ram_bytes: 256 * MIB,
        live: Some(HostId(1)),
        live_domain: Some("rack a".into()),
        ..Demand::default()
    }
}

/// What is said of host 2, beside host 1 with the live copy and host 3, which is none too good.
fn said_of_2(demand: &Demand, candidate_2: Candidate) -> String {
    let hosts = hosts([(1, candidate("rack a", 999, 1)), (2, candidate_2), (3, candidate("rack b", 300, 3))]);
    let decision = place(demand, &hosts);
    let opinion = decision.opinions.into_iter().find(|opinion| opinion.host == HostId(2));
    opinion.unwrap().to_string()
}

#[test]
fn each_rejection_is_explained_with_both_values() {
    let fit = || candidate("rack b", 400, 0);
    assert_eq!(said_of_2(&demand(), fit()), "host 2 (rack b): chosen");
    for (candidate, line) in [
        (Candidate { state: HostState::Unreachable, ..fit() }, "unreachable"),
        (Candidate { state: HostState::Draining, ..fit() }, "draining"),
        (Candidate { vms: ["exchange".into()].into(), ..fit() }, "has a copy of it already"),
        (Candidate { free_bytes: 256 * MIB - 1, ..fit() }, "no room: 256 MiB asked, 255 MiB free"),
        (Candidate { free_slots: 0, ..candidate("rack b", 400, 7) }, "no room: takes no more than its 7 VMs"),
        (
            Candidate { traits: HostTraits { cpu: "new".into(), ..HostTraits::default() }, ..fit() },
            "incompatible: CPU model is \"new\", and the VM needs \"\"",
        ),
        (
            Candidate { traits: HostTraits { protocol: 2, ..HostTraits::default() }, ..fit() },
            "incompatible: protocol version is \"2\", and the VM needs \"0\"",
        ),
    ] {
        assert_eq!(said_of_2(&demand(), candidate), format!("host 2 (rack b): {line}"));
    }
    let on = |demand: Demand, candidate, line: &str| assert_eq!(said_of_2(&demand, candidate), line);
    let live = Demand { live: Some(HostId(2)), ..demand() };
    on(live, fit(), "host 2 (rack b): the live copy is there");
    let elsewhere = Demand { possible: Some([HostId(3)].into()), ..demand() };
    on(elsewhere, fit(), "host 2 (rack b): not among the VM's possible hosts");
    let apart = Demand { apart_from: ["other-0".into()].into(), ..demand() };
    on(apart, candidate("rack b", 400, 1), "host 2 (rack b): runs other-0, from which it must be apart");
    let spread = || Demand { spread: Spread::Require, ..demand() };
    let beside = "host 2 (rack a): in rack a as the live copy, or that one's failure domain is not known";
    on(spread(), candidate("rack a", 400, 0), beside);
    on(spread(), Candidate { domain: None, ..fit() }, "host 2: its failure domain is not known");
}

#[test]
fn each_criterion_counts_only_where_those_before_it_are_equal() {
    let worse = candidate("rack a", 100_000, 0);
    let tie = || candidate("rack b", 300, 3);
    let prefers = |host| Demand { preferred: vec![HostId(host)], ..demand() };
    let suspects = Demand { suspects: [HostId(2)].into(), preferred: vec![HostId(2)], ..demand() };
    for (demand, candidate, reason) in [
        (suspects, candidate("rack c", 400, 0), "a copy failed there lately"),
        (prefers(2), worse.clone(), "in rack a as the live copy, and host 3 is not"),
        (
            prefers(2),
            Candidate { domain: None, ..worse },
            "its failure domain is not known, and host 3 is in another than the live copy",
        ),
        (prefers(3), candidate("rack b", 400, 0), "host 3 is preferred"),
        (
            Demand { preferred: vec![HostId(3), HostId(2)], ..demand() },
            candidate("rack b", 400, 0),
            "host 3 comes first among the preferred",
        ),
        (demand(), candidate("rack c", 299, 0), "299 MiB free, and host 3 has 300 MiB"),
        (demand(), candidate("rack c", 300, 4), "4 VMs, and host 3 has 3"),
    ] {
        let said = said_of_2(&demand, candidate);
        assert!(said.ends_with(&format!("would do, in place 2: {reason}")), "{said}");
    }
    assert_eq!(said_of_2(&demand(), tie()), "host 2 (rack b): chosen", "the lower number");
    let ignores = Demand { spread: Spread::Ignore, ..demand() };
    assert_eq!(said_of_2(&ignores, candidate("rack a", 400, 0)), "host 2 (rack a): chosen");
    let last_resort = Demand { suspects: [HostId(2), HostId(3)].into(), ..demand() };
    assert_eq!(said_of_2(&last_resort, candidate("rack b", 400, 0)), "host 2 (rack b): chosen");
}

#[test]
fn the_first_copy_goes_to_any_host() {
    let first = Demand { live: None, live_domain: None, spread: Spread::Require, ..demand() };
    let decision =
        place(&first, &hosts([(1, candidate("rack a", 300, 0)), (2, candidate("rack b", 400, 0))]));
    assert_eq!(decision.chosen, Some(HostId(2)));
}

#[test]
fn a_decision_reads_as_a_line_for_each_host() {
    let hosts = hosts([
        (1, candidate("rack a", 999, 1)),
        (2, candidate("rack a", 400, 0)),
        (3, candidate("rack b", 100, 0)),
        (4, candidate("rack b", 300, 0)),
    ]);
    let decision = place(&demand(), &hosts);
    assert_eq!(
        decision.to_string(),
        "host 4 (rack b): chosen\n\
         host 2 (rack a): would do, in place 2: in rack a as the live copy, and host 4 is not\n\
         host 1 (rack a): the live copy is there\n\
         host 3 (rack b): no room: 256 MiB asked, 100 MiB free"
    );
    assert_eq!(place(&demand(), &Hosts::new()).to_string(), "no other hosts are known");
}

#[test]
fn what_is_short_goes_by_priority_then_size_then_name() {
    let demand = |vm: &str, priority, mib| Demand {
        vm: vm.into(),
        priority,
        ram_bytes: mib * MIB,
        ..Demand::default()
    };
    let demands = vec![demand("a", 0, 200), demand("b", 0, 100), demand("c", 0, 200), demand("d", 1, 200)];
    let decisions = plan(demands, &hosts([(1, candidate("x", 450, 0)), (2, candidate("x", 100, 0))]));
    let chosen: Vec<_> = decisions.iter().map(|d| (&d.vm[..], d.chosen.map(|host| host.0))).collect();
    assert_eq!(chosen, [("d", Some(1)), ("a", Some(1)), ("c", None), ("b", Some(2))]);
}

#[test]
fn vms_are_kept_apart_when_either_asks() {
    let a = Demand { vm: "a".into(), ..Demand::default() };
    let b = Demand { vm: "b".into(), apart_from: ["a".into()].into(), ..Demand::default() };
    let decisions = plan(vec![a, b], &hosts([(1, candidate("x", 900, 0)), (2, candidate("x", 100, 0))]));
    assert_eq!(
        decisions.iter().map(|decision| decision.chosen).collect::<Vec<_>>(),
        [Some(HostId(1)), Some(HostId(2))]
    );
    let b = Demand { vm: "b".into(), ..Demand::default() };
    let a = Demand { vm: "a".into(), apart_from: ["b".into()].into(), ..Demand::default() };
    let decisions = plan(vec![b, a], &hosts([(1, candidate("x", 900, 0))]));
    assert_eq!(decisions[1].chosen, None, "{}", decisions[1]);
}

fn any_name() -> impl Strategy<Value = String> {
    (0..4u8).prop_map(|name| format!("vm-{name}"))
}

fn any_domain() -> impl Strategy<Value = Option<String>> {
    proptest::option::of((0..3u8).prop_map(|domain| format!("rack {domain}")))
}

fn any_traits() -> impl Strategy<Value = HostTraits> {
    proptest::bool::weighted(0.1).prop_map(|odd| HostTraits {
        machine: if odd { "odd".into() } else { "even".into() },
        ..HostTraits::default()
    })
}

fn any_host() -> impl Strategy<Value = HostId> {
    (0..6u64).prop_map(HostId)
}

prop_compose! {
    fn any_candidate()(
        state in prop_oneof![8 => Just(HostState::Up), 1 => Just(HostState::Unreachable), 1 => Just(HostState::Draining)],
        free_bytes in 0..6u64,
        free_slots in 0..3u32,
        traits in any_traits(),
        domain in any_domain(),
        vms in proptest::collection::btree_set(any_name(), 0..3),
    ) -> Candidate {
        Candidate { state, free_bytes, free_slots, traits, domain, vms }
    }
}

prop_compose! {
    fn any_demand()(
        vm in any_name(),
        ram_bytes in 0..4u64,
        traits in any_traits(),
        (live, live_domain) in (proptest::option::of(any_host()), any_domain()),
        spread in prop_oneof![Just(Spread::Prefer), Just(Spread::Require), Just(Spread::Ignore)],
        preferred in proptest::collection::vec(any_host(), 0..3),
        possible in proptest::option::of(proptest::collection::btree_set(any_host(), 1..6)),
        apart_from in proptest::collection::btree_set(any_name(), 0..2),
        suspects in proptest::collection::btree_set(any_host(), 0..2),
        priority in 0..3i32,
    ) -> Demand {
        Demand { vm, ram_bytes, traits, live, live_domain, spread, preferred, possible, apart_from, suspects, priority }
    }
}

fn any_hosts() -> impl Strategy<Value = Hosts> {
    proptest::collection::btree_map(any_host(), any_candidate(), 0..6)
}

/// The rules once more, as they are asked for.
fn may_take(demand: &Demand, host: HostId, candidate: &Candidate) -> bool {
    let elsewhere =
        candidate.domain.is_some() && demand.live_domain.is_some() && candidate.domain != demand.live_domain;
    demand.live != Some(host)
        && candidate.state == HostState::Up
        && candidate.traits == demand.traits
        && candidate.free_bytes >= demand.ram_bytes
        && candidate.free_slots > 0
        && !candidate.vms.contains(&demand.vm)
        && candidate.vms.is_disjoint(&demand.apart_from)
        && demand.possible.as_ref().is_none_or(|possible| possible.contains(&host))
        && (demand.spread != Spread::Require || demand.live.is_none() || elsewhere)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_host_is_chosen_just_when_one_may_be_and_every_host_has_one_verdict(
        demand in any_demand(), hosts in any_hosts(),
    ) {
        let decision = place(&demand, &hosts);
        let mut explained: Vec<HostId> = decision.opinions.iter().map(|opinion| opinion.host).collect();
        explained.sort();
        prop_assert_eq!(explained, hosts.keys().copied().collect::<Vec<_>>());
        for (index, opinion) in decision.opinions.iter().enumerate() {
            let may = may_take(&demand, opinion.host, &hosts[&opinion.host]);
            match &opinion.verdict {
                Verdict::Chosen => prop_assert!(may && index == 0 && decision.chosen == Some(opinion.host)),
                Verdict::Fits { rank, .. } => prop_assert!(may && *rank == index + 1 && index > 0),
                Verdict::Rejected(_) => prop_assert!(!may, "{}", opinion),
            }
        }
        let one_may = hosts.iter().any(|(host, candidate)| may_take(&demand, *host, candidate));
        prop_assert_eq!(decision.chosen.is_some(), one_may);
        prop_assert_eq!(decision.to_string().lines().count(), hosts.len().max(1));
        prop_assert_eq!(decision, place(&demand, &hosts), "the same again");
    }

    #[test]
    fn no_better_host_is_passed_over(demand in any_demand(), hosts in any_hosts()) {
        let decision = place(&demand, &hosts);
        let suspects = |host: &HostId| demand.suspects.contains(host);
        if let Some(chosen) = decision.chosen {
            let mut fits = decision.opinions.iter().filter(|opinion| !matches!(opinion.verdict, Verdict::Rejected(_)));
            prop_assert!(!suspects(&chosen) || fits.all(|opinion| suspects(&opinion.host)));
            // Without its winner, the second wins: the order is one.
            let mut rest = hosts.clone();
            rest.remove(&chosen);
            let second = decision.opinions.get(1).filter(|opinion| !matches!(opinion.verdict, Verdict::Rejected(_)));
            prop_assert_eq!(place(&demand, &rest).chosen, second.map(|opinion| opinion.host));
        }
    }

    #[test]
    fn a_plan_is_never_over_capacity_and_does_not_depend_on_the_order_of_asking(
        demands in proptest::collection::vec(any_demand(), 0..6), hosts in any_hosts(), turn in 0..6usize,
    ) {
        // A VM asks once.
        let demands: BTreeMap<String, Demand> = demands.into_iter().map(|demand| (demand.vm.clone(), demand)).collect();
        let mut turned: Vec<Demand> = demands.values().cloned().collect();
        let by = turn.min(turned.len());
        turned.rotate_left(by);
        let decisions = plan(demands.values().cloned().collect(), &hosts);
        prop_assert_eq!(&decisions, &plan(turned, &hosts));
        prop_assert_eq!(decisions.len(), demands.len());
        for (host, candidate) in &hosts {
            let taken: Vec<&Demand> =
                decisions.iter().filter(|d| d.chosen == Some(*host)).map(|d| &demands[&d.vm]).collect();
            prop_assert!(taken.iter().map(|demand| demand.ram_bytes).sum::<u64>() <= candidate.free_bytes);
            prop_assert!(taken.len() <= candidate.free_slots as usize);
            prop_assert!(taken.iter().all(|demand| may_take(demand, *host, candidate)));
            for demand in &taken {
                prop_assert!(taken.iter().all(|other| other.vm == demand.vm || !demand.apart_from.contains(&other.vm)));
            }
        }
    }
}
