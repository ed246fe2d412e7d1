//! What operators plan: hosts are emptied while clients work, failovers are tried.

use super::cluster::{Cluster, VM};
use ft::host::events::Kind;

/// A client that counts: a request that is lost or done twice is seen.
struct Counter {
    connection: redis::Connection,
    count: u64,
}

impl Counter {
    fn new(cluster: &Cluster) -> Self {
        Self { connection: cluster.connect(), count: 0 }
    }

    fn go_on(&mut self) {
        for _ in 0..100 {
            self.count += 1;
            let counted: u64 = redis::cmd("INCR").arg("counter").query(&mut self.connection).unwrap();
            assert_eq!(counted, self.count, "neither lost nor done twice");
        }
    }
}

#[test]
fn hosts_are_emptied_under_an_open_connection_and_take_copies_again_when_told() {
    let mut cluster = Cluster::start();
    cluster.ft(1, &["protect", "vm.toml"]);
    let mut counter = Counter::new(&cluster);
    counter.go_on();

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
    assert!(kinds.contains(&Kind::Draining) && kinds.contains(&Kind::Relocating), "{kinds:?}");
}

#[test]
fn a_failover_is_tried_and_told_and_each_host_is_given_a_reason() {
    let mut cluster = Cluster::start();
    cluster.ft(1, &["protect", "vm.toml"]);
    let mut counter = Counter::new(&cluster);
    counter.go_on();
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
