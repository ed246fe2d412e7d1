//! Three hosts with an agent each, as three directories on this machine: VMs are protected, and stay so whatever is killed.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "hosts/cluster.rs"]
mod cluster;
#[path = "hosts/moves.rs"]
mod moves;
#[path = "hosts/planned.rs"]
mod planned;
#[path = "hosts/upgrade.rs"]
mod upgrade;

use cluster::{Cluster, Counter, VM};
use ft::host::events::Kind;

#[test]
fn a_vm_is_live_elsewhere_and_protected_on_a_third_host_after_its_process_was_killed() {
    let mut cluster = Cluster::start();
    let said = cluster.ft(1, &["protect", "vm.toml"]);
    assert_eq!(said, format!("{VM} is protected, live on host-1 in term 1\n"));
    let refused = cluster.ft_refused(2, &["protect", "vm.toml"]);
    assert!(refused.contains("already: see `ft status store`"), "{refused}");
    cluster.write(0..100);

    let (live, secondary) = cluster.pair();
    assert_eq!(live, 1);
    cluster.kill_vm(live);
    cluster.wait_for_live(secondary);
    cluster.wait_for_protection();
    let (live, third) = cluster.pair();
    assert_eq!(live, secondary, "it is live where its secondary was");
    assert_eq!(third, 6 - 1 - secondary, "and protected by the host where nothing went wrong");
    cluster.check(0..100);
    cluster.write(100..200);

    let list = cluster.ft(1, &["list"]);
    assert!(list.contains("host-3") && list.contains("protected") && !list.contains("NOT"), "{list}");
    let events = cluster.ft(1, &["events"]);
    assert!(events.contains("killed by SIGKILL"), "{events}");
    assert!(cluster.events(live).iter().any(|event| event.kind == Kind::Respawn));
    assert!(cluster.get(live, "/healthz").ends_with("ok\n"));
    for figure in ["ft_vm_protected{vm=\"store\"} 1", "ft_failovers_total 1", "ft_peer_up{peer=\"host-1\"} 1"]
    {
        cluster.wait_until(figure, |cluster| cluster.get(live, "/metrics").contains(figure));
    }

    let said = cluster.ft(third, &["stop", VM]);
    assert_eq!(said, format!("{VM} is stopped\n"));
    cluster.wait_until("the end of all copies", |cluster| cluster.running().is_empty());
    // Its terms are owned: nobody starts it from its disks unawares.
    let refused = cluster.ft_refused(1, &["protect", "vm.toml"]);
    assert!(refused.contains("--again"), "{refused}");
    cluster.ft(1, &["protect", "vm.toml", "--again", "--no-wait"]);
    cluster.check(0..200);
}

#[test]
fn roles_change_on_request_within_the_same_two_processes_and_under_an_open_connection() {
    let mut cluster = Cluster::start();
    cluster.ft(1, &["protect", "vm.toml"]);
    let mut counter = Counter::new(&cluster);
    counter.go_on();
    let processes = cluster.running();
    for _ in 0..3 {
        let (live, secondary) = cluster.pair();
        // Asked on any host.
        let said = cluster.ft(6 - live - secondary, &["switchover", VM]);
        assert_eq!(said, format!("{VM} is live on host-{secondary}; host-{live} follows\n"));
        counter.go_on();
        cluster.wait_for_protection();
        assert_eq!(cluster.pair(), (secondary, live));
    }
    assert_eq!(cluster.running(), processes, "nobody was started or ended");
    let refused = cluster.ft_refused(1, &["switchover", "other"]);
    assert!(refused.contains("ft list"), "{refused}");
}

#[test]
fn vms_do_not_need_their_agents_and_hosts_that_come_back_take_copies() {
    let mut cluster = Cluster::start();
    cluster.ft(1, &["protect", "vm.toml"]);
    cluster.write(0..100);
    let (live, secondary) = cluster.pair();
    let third = 6 - live - secondary;

    // Without its agent the VM goes on, and so it does without its secondary; but nobody makes it redundant.
    let before = cluster.running();
    cluster.kill_agent(live);
    cluster.check(0..100);
    cluster.kill_vm(secondary);
    cluster.wait_until("the end of the secondary", |cluster| cluster.vm_of(secondary).is_none());
    cluster.write(100..200);
    cluster.start_agent(live);
    cluster.wait_for_protection();
    assert_eq!(cluster.running()[&live], before[&live], "it is the same process");
    assert!(cluster.events(live).iter().any(|event| event.kind == Kind::Found));

    // A host dies, and another: what is left is the one that was dead first, once it is back.
    let (live, secondary) = cluster.pair();
    cluster.kill_agent(live);
    cluster.kill_vm(live);
    cluster.wait_for_live(secondary);
    cluster.wait_for_protection();
    cluster.check(0..200);
    cluster.start_agent(live);
    let (back, (live, secondary)) = (live, cluster.pair());
    cluster.wait_until("the host that is back", |cluster| cluster.sees(live, back));
    assert!(cluster.events(back).iter().any(|event| event.kind == Kind::Ended));
    cluster.kill_agent(secondary);
    cluster.kill_vm(secondary);
    cluster.wait_until("a copy on the host that is back", |cluster| {
        cluster.is_protected() && cluster.vm_of(back).is_some()
    });
    assert_eq!(cluster.pair(), (live, back));
    cluster.check(0..200);
    assert!(third > 0);
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let cluster = Cluster::start();
    let vm = cluster.read("vm.toml");
    cluster.write_file("big.toml", &vm.replace("ram_mib = 32", "ram_mib = 65"));
    cluster.write_file(
        "hosts.toml",
        &format!(
            "{vm}[cluster]\narbiter = \"a\"\ncredentials = \"c\"\nhosts = [{}, {}]\n",
            "{ id = 1, name = \"host-1\", address = \"127.0.0.1:1\" }",
            "{ id = 2, name = \"host-2\", address = \"127.0.0.1:2\" }",
        ),
    );
    let other = cluster.read("host-1.toml").replace("credentials = \"host-1\"", "credentials = \"host-2\"");
    cluster.write_file("other.toml", &other.replace("state-1", "state-4"));
    for (args, words) in [
        (&["host", "host-1.toml"][..], &["another agent uses", "state-1"][..]),
        (&["host", "other.toml"], &["is for host-2", "ft ca issue host-1"]),
        (&["list", "--state", "nowhere"], &["nowhere", "is `ft host` running"]),
        (&["protect", "big.toml"], &["64 MiB of memory free", "needs 65"]),
        (&["protect", "hosts.toml"], &["leave it out"]),
        (&["protect", "vm.toml", "--on", "host-9"], &["host-9", "no host of this cluster"]),
        (&["protect", "vm.toml", "--lost", "host-2"], &["--again"]),
        (&["status", "nothing"], &["nothing", "ft list"]),
        (&["stop", "nothing"], &["nothing", "ft list"]),
    ] {
        let said = cluster.ft_refused(1, args);
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
    assert!(cluster.running().is_empty());
}
