//! Hosts are upgraded one by one: copies of different builds are a pair, if both make the same machine.

use super::cluster::VM;
use super::planned::counted;

#[test]
fn hosts_are_upgraded_one_by_one_while_clients_work() {
    let (mut cluster, mut counter) = counted();
    let next = cluster.stamped("ft-next", &["--build", "0.2.0-next"]);
    let old = env!("CARGO_PKG_VERSION");
    let mut mixed = 0;
    for host in 1..=3 {
        let name = format!("host-{host}");
        cluster.ft(host, &["drain", &name]);
        cluster.upgrade(host, &next);
        cluster.ft(host, &["undrain", &name]);
        cluster.wait_for_protection();
        let builds = cluster.builds();
        mixed += usize::from(builds.values().any(|build| build == old) && builds.len() == 2);
        counter.go_on();
    }
    assert!(mixed > 0, "no pair of two builds was seen");
    let (live, secondary) = cluster.pair();
    let builds = cluster.builds();
    assert_eq!([&builds[&live], &builds[&secondary]], ["0.2.0-next"; 2]);
    cluster.wait_until("a list with the new build alone", |cluster| {
        let list = cluster.ft(1, &["list"]);
        list.matches("0.2.0-next").count() == 3 && !list.contains(old)
    });

    // The state came from build to build, and the copies of the new one are good for a failover.
    cluster.kill_vm(live);
    counter.go_on();
}

#[test]
fn a_build_that_makes_another_machine_is_no_partner_and_says_so() {
    let (mut cluster, mut counter) = counted();
    let (live, secondary) = cluster.pair();
    let third = 6 - live - secondary;
    let other = cluster.stamped("ft-other", &["--machine", "acme1"]);
    cluster.upgrade(third, &other);
    cluster.kill_agent(secondary);
    cluster.kill_vm(secondary);
    let own = ft::stamp::machine();
    let words = format!(r#"incompatible: machine version is "{own}+acme1", and the VM needs "{own}""#);
    cluster.wait_until("a VM for which there is no second host", |cluster| {
        let why = cluster.ft(live, &["status", "--why", VM]);
        why.contains("no host fits") && why.contains(&words)
    });
    assert_eq!(cluster.vm_of(third), None);
    counter.go_on();
}
