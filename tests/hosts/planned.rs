//! What operators plan and wish: hosts are emptied while clients work, failovers are tried, copies are where they are wanted, and guests that
//! go down again are moved.

use super::cluster::{Cluster, Counter, VM};
use ft::host::events::Kind;
use std::time::Duration;

/// A protected VM, and a client that has begun to count.
pub(crate) fn counted() -> (Cluster, Counter) {
    let cluster = Cluster::start();
    cluster.ft(1, &["protect", "vm.toml"]);
    let mut counter = Counter::new(&cluster);
    counter.go_on();
    (cluster, counter)
}

#[test]
fn hosts_are_emptied_under_an_open_connection_and_take_copies_again_when_told() {
    let (mut cluster, mut counter) = counted();

    // The host of the live copy, asked elsewhere.
    let (live, secondary) = cluster.pair();
    let third = 6 - live - secondary;
    let said = cluster.ft(third, &["drain", &format!("host-{live}")]);
    assert_eq!(said, format!("host-{live} is empty and takes no further copies\n"));
    assert_eq!(cluster.vm_of(live), None);
    assert_eq!(cluster.pair(), (secondary, third));
    counter.go_on();
    assert!(cluster.ft(third, &["list"]).contains("draining"));

    // It stays so, also when its agent is started anew.
    cluster.kill_agent(live);
    cluster.start_agent(live);
    cluster.wait_until("the host that is back", |cluster| cluster.sees(secondary, live));
    let refused = cluster.ft_refused(live, &["protect", "vm.toml"]);
    assert!(refused.contains("already") || refused.contains("undrain"), "{refused}");
    assert!(cluster.ft(secondary, &["list"]).contains("draining"));

    // No host is left for another secondary: it stays where it is, and both others are named.
    let refused = cluster.ft_refused(live, &["drain", &format!("host-{third}")]);
    for words in [format!("{VM} stays on host-{third}"), format!("host-{live}: draining")] {
        assert!(refused.contains(&words), "{words} in {refused}");
    }
    assert!(refused.contains(&format!("host-{secondary}: the live copy is there")), "{refused}");
    assert_eq!(cluster.pair(), (secondary, third));
    counter.go_on();

    // The host of the secondary, with the first one as a candidate again.
    assert_eq!(
        cluster.ft(third, &["undrain", &format!("host-{live}")]),
        format!("host-{live} takes copies again\n")
    );
    let json = cluster.ft(third, &["drain", &format!("host-{third}"), "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["moved"][0], json["left"].as_array().unwrap().len()), (&VM.into(), 0));
    assert_eq!(cluster.pair(), (secondary, live));
    assert_eq!(cluster.vm_of(third), None);
    counter.go_on();
    let kinds: Vec<Kind> = cluster.events(third).into_iter().map(|event| event.kind).collect();
    assert!(kinds.contains(&Kind::Draining) && kinds.contains(&Kind::Ended), "{kinds:?}");
}

#[test]
fn a_failover_is_tried_and_told_and_each_host_is_given_a_reason() {
    let (mut cluster, mut counter) = counted();
    let (live, secondary) = cluster.pair();
    let third = 6 - live - secondary;
    let pid = cluster.vm_of(live).unwrap();

    let why = cluster.ft(third, &["status", "--why", VM]);
    let lines = [
        format!("{VM}, live on host-{live}: protected"),
        format!("host-{secondary}: chosen"),
        format!("host-{third}: would do"),
        format!("host-{live}: the live copy is there"),
    ];
    assert!(lines.iter().all(|line| why.contains(line)), "{lines:?} in {why}");

    let refused = cluster.ft_refused(third, &["failover", VM]);
    assert!(refused.contains("--test") && refused.contains("switchover"), "{refused}");
    assert_eq!(cluster.vm_of(live), Some(pid));

    let json = cluster.ft(third, &["failover", VM, "--test", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let told = &json["failover"];
    assert_eq!((&told["killed_on"], &told["pid"]), (&format!("host-{live}").into(), &pid.into()));
    assert_eq!(told["live_on"], format!("host-{secondary}"));
    assert_eq!(told["secondary_on"], format!("host-{third}"), "not where a copy was lost a moment ago");
    let ms = |name: &str| told[name].as_u64().unwrap();
    assert!(0 < ms("live_after_ms") && ms("live_after_ms") <= ms("protected_after_ms"), "{told}");
    assert_eq!(cluster.pair(), (secondary, third));
    counter.go_on();
    let ended = |event: &ft::host::events::Event| event.text.contains("killed by SIGKILL");
    assert!(cluster.events(live).iter().any(ended));

    // Unprotected it is refused.
    let refused = cluster.ft_refused(third, &["failover", "other", "--test"]);
    assert!(refused.contains("ft list"), "{refused}");
}

#[test]
fn copies_are_only_where_the_vm_s_file_wants_them() {
    let mut cluster = Cluster::start();
    let vm = cluster.read("vm.toml");
    let with = |possible: &str| {
        format!("{vm}[placement]\npreferred = [\"host-3\"]\npossible = [{possible}]\npriority = 7\n")
    };
    for (possible, words) in [
        ("\"host-1\", \"host-9\"", &["possible: host-9", "host-1, host-2, host-3"][..]),
        ("\"host-2\", \"host-3\"", &["host-1 is not among placement.possible", "--on"]),
    ] {
        cluster.write_file("wishes.toml", &with(possible));
        let refused = cluster.ft_refused(1, &["protect", "wishes.toml"]);
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    }
    cluster.write_file("wishes.toml", &with("\"host-1\", \"host-3\""));
    cluster.ft(1, &["protect", "wishes.toml"]);
    assert_eq!(cluster.pair(), (1, 3), "host 2 would have come first");
    let why = cluster.ft(2, &["status", "--why"]);
    assert!(
        why.contains("host-3: chosen") && why.contains("host-2: not among the VM's possible hosts"),
        "{why}"
    );

    // The only possible one is taken again, although a copy was lost there a moment ago.
    let lost = cluster.vm_of(3).unwrap();
    cluster.kill_vm(3);
    cluster.wait_until("another secondary", |cluster| {
        cluster.is_protected() && cluster.vm_of(3).is_some_and(|pid| pid != lost)
    });
    assert_eq!(cluster.pair(), (1, 3));
}

#[test]
fn a_guest_that_crashes_a_second_time_is_handed_over_once() {
    let mut cluster = Cluster::start();
    let vm = cluster.read("vm.toml").replace("mode=kv", "mode=kv debug");
    cluster.write_file("vm.toml", &vm);
    cluster.ft(1, &["protect", "vm.toml"]);
    let (live, secondary) = cluster.pair();
    let processes = cluster.running();
    let count = |cluster: &Cluster, host, kind| {
        cluster.events(host).iter().filter(|event| event.kind == kind).count()
    };
    let crash = |cluster: &Cluster, host, restarts| {
        let mut connection = cluster.connect();
        connection.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        redis::cmd("DEBUG").arg("CRASH").query::<String>(&mut connection).unwrap_err();
        cluster.wait_until("the guest's restart", |cluster| {
            count(cluster, host, Kind::GuestRestarted) == restarts
        });
    };

    crash(&cluster, live, 1);
    assert_eq!(count(&cluster, live, Kind::GuestMoved), 0, "the first time it may be chance");
    crash(&cluster, live, 2);
    cluster.wait_for_live(secondary);
    assert_eq!(cluster.pair(), (secondary, live));
    assert_eq!(cluster.running(), processes, "nobody was started or ended");
    assert_eq!(count(&cluster, live, Kind::GuestMoved), 1);
    let metrics = cluster.get(live, "/metrics");
    let counted = |line: &str| {
        line.starts_with("ft_guest_restarts_total{") && line.contains("crash") && line.ends_with(" 2")
    };
    assert!(metrics.lines().any(counted), "{metrics}");

    // It goes on there: so it is the guest's own fault, and moving it helps nobody.
    for restarts in 1..=3 {
        crash(&cluster, secondary, restarts);
    }
    assert_eq!(count(&cluster, secondary, Kind::GuestMoved), 0);
    assert_eq!(cluster.pair(), (secondary, live));
}
