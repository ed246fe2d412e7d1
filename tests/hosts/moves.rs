//! Copies move to other hosts while clients work, protected throughout, and whatever is killed meanwhile.

use super::cluster::{Cluster, Counter, VM};
use ft::host::events::{Event, Kind};
use std::collections::BTreeMap;

/// A protected VM, a client that has begun to count, and the hosts of the live copy, of the secondary, and of none.
fn counted() -> (Cluster, Counter, [u64; 3]) {
    let mut cluster = Cluster::start();
    cluster.ft(1, &["protect", "vm.toml"]);
    let mut counter = Counter::new(&cluster);
    counter.go_on();
    let (live, secondary) = cluster.pair();
    (cluster, counter, [live, secondary, 6 - live - secondary])
}

/// What has happened on all hosts, as numbers of the last events, to tell what comes after.
fn mark(cluster: &Cluster) -> BTreeMap<u64, u64> {
    let last = |host| cluster.events(host).last().map_or(0, |event| event.seq);
    (1..=3).map(|host| (host, last(host))).collect()
}

fn since(cluster: &Cluster, mark: &BTreeMap<u64, u64>) -> Vec<Event> {
    let after = |(host, seq): (&u64, &u64)| {
        let seq = *seq;
        cluster.events(*host).into_iter().filter(move |event| event.seq > seq)
    };
    mark.iter().flat_map(after).collect()
}

/// Nothing since then says that the VM had one copy only, or waited for the arbiter.
fn check_protected_throughout(cluster: &Cluster, mark: &BTreeMap<u64, u64>) {
    let gap = |event: &Event| {
        matches!(event.kind, Kind::Solo | Kind::Respawn | Kind::NoHost | Kind::MoveFailed)
            || event.text.contains("effects wait for the arbiter")
    };
    let events = since(cluster, mark);
    assert!(!events.iter().any(gap), "{events:#?}");
}

/// Waits until no host has more than the two copies of a protected pair.
fn wait_for_two(cluster: &Cluster) {
    cluster.wait_until("two copies in step and no other", |cluster| {
        cluster.is_protected() && cluster.running().len() == 2
    });
}

#[test]
fn a_vm_moves_to_a_third_host_and_its_second_copy_alone_protected_throughout() {
    let (mut cluster, mut counter, [live, secondary, third]) = counted();
    let begin = mark(&cluster);
    // Its live copy to where no copy is.
    let said = cluster.ft(secondary, &["move", VM, &format!("host-{third}")]);
    assert_eq!(said, format!("{VM} is live on host-{third}; its other copy is on host-{live}\n"));
    counter.go_on();
    wait_for_two(&cluster);
    assert_eq!(cluster.pair(), (third, live));
    let told: Vec<Event> = since(&cluster, &begin)
        .into_iter()
        .filter(|event| matches!(event.kind, Kind::Moving | Kind::Moved))
        .collect();
    assert_eq!(
        told.iter().map(|event| event.kind).collect::<Vec<_>>(),
        [Kind::Moving, Kind::Moved],
        "{told:?}"
    );
    assert!(told[0].text.contains(&format!("from host-{secondary} to host-{third}")), "{told:?}");

    // Only its second copy.
    let to = format!("host-{secondary}");
    let json = cluster.ft(live, &["move", VM, &to, "--secondary", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["moved"], serde_json::json!({ "live_on": format!("host-{third}"), "secondary_on": to }));
    counter.go_on();
    wait_for_two(&cluster);
    assert_eq!(cluster.pair(), (third, secondary));

    // Its live copy to where the other is.
    cluster.ft(third, &["move", VM, &to]);
    counter.go_on();
    wait_for_two(&cluster);
    assert_eq!(cluster.pair(), (secondary, third));
    check_protected_throughout(&cluster, &begin);
}

#[test]
fn a_host_is_emptied_without_its_vms_being_unprotected() {
    let (mut cluster, mut counter, [live, secondary, third]) = counted();
    let begin = mark(&cluster);
    cluster.ft(live, &["drain", &format!("host-{secondary}")]);
    counter.go_on();
    wait_for_two(&cluster);
    assert_eq!(cluster.pair(), (live, third));
    cluster.ft(live, &["undrain", &format!("host-{secondary}")]);
    cluster.ft(live, &["drain", &format!("host-{live}")]);
    counter.go_on();
    wait_for_two(&cluster);
    assert_eq!(cluster.pair(), (third, secondary));
    check_protected_throughout(&cluster, &begin);
}

#[test]
fn moves_that_cannot_work_are_refused_with_the_reason() {
    let mut cluster = Cluster::start();
    let vm = cluster.read("vm.toml");
    cluster.write_file("vm.toml", &format!("{vm}[placement]\npossible = [\"host-1\", \"host-2\"]\n"));
    cluster.ft(1, &["protect", "vm.toml"]);
    assert_eq!(cluster.pair(), (1, 2));
    let refused = |cluster: &Cluster, args: &[&str], words: &[&str]| {
        let said = cluster.ft_refused(1, args);
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    };
    refused(&cluster, &["move", VM, "host-9"], &["host-9 is no host", "host-1, host-2, host-3"]);
    refused(&cluster, &["move", "other", "host-3"], &["ft list"]);
    refused(&cluster, &["move", VM, "host-1"], &["is live on", "already"]);
    refused(&cluster, &["move", VM, "host-1", "--secondary"], &["ft switchover"]);
    refused(&cluster, &["move", VM, "host-2", "--secondary"], &["already"]);
    refused(&cluster, &["move", VM, "host-3"], &["host-3 cannot take", "not among the VM's possible hosts"]);
    cluster.ft(1, &["drain", "host-3"]);
    refused(&cluster, &["move", VM, "host-3"], &["draining", "ft undrain host-3"]);
    cluster.kill_agent(3);
    cluster.wait_until("the loss of an agent", |cluster| !cluster.sees(1, 3));
    refused(&cluster, &["move", VM, "host-3"], &["host-3 does not answer"]);
    assert_eq!(cluster.pair(), (1, 2));
}

#[test]
fn a_vm_whose_live_copy_dies_while_it_moves_goes_on_and_the_move_ends_with_an_answer() {
    let (mut cluster, mut counter, [live, secondary, third]) = counted();
    let moving = cluster.begin(third, &["move", VM, &format!("host-{third}")]);
    cluster.wait_until("a third copy", |cluster| cluster.vm_of(third).is_some());
    cluster.kill_vm(live);
    let (is_done, said) = moving.join();
    // It may just have been finished, or not yet: what it says is how things are.
    assert!(is_done || said.contains("was lost meanwhile") || said.contains("is not live on"), "{said}");
    counter.go_on();
    wait_for_two(&cluster);
    let (now_live, _) = cluster.pair();
    assert!(now_live == secondary || now_live == third, "it was live on host {live}");
    counter.go_on();
}

#[test]
fn a_vm_stays_where_it_is_when_the_host_that_it_moves_to_dies() {
    let (mut cluster, mut counter, [live, secondary, third]) = counted();
    let mut begin = mark(&cluster);
    begin.remove(&third);
    let moving = cluster.begin(live, &["move", VM, &format!("host-{third}")]);
    cluster.wait_until("a third copy", |cluster| cluster.vm_of(third).is_some());
    cluster.kill_agent(third);
    cluster.kill_vm(third);
    let (is_done, said) = moving.join();
    counter.go_on();
    if is_done {
        // It was faster.
        return;
    }
    assert!(said.contains("could not be moved") || said.contains("lost"), "{said}");
    let told = since(&cluster, &begin);
    assert!(told.iter().any(|event| event.kind == Kind::MoveFailed), "{told:#?}");
    cluster.wait_for_protection();
    assert_eq!(cluster.pair(), (live, secondary));
    counter.go_on();
}
