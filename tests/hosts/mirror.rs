//! A VM with a disk on each host: hosts come and go, roles change, and what was written is on every disk that is in step.

use super::cluster::{Cluster, VM};

/// The disks of a pair become the same, byte for byte, once nobody writes.
fn check_equal(cluster: &Cluster, (live, secondary): (u64, u64)) {
    redis::cmd("SAVE").query::<()>(&mut cluster.connect()).unwrap();
    cluster.wait_until("equal disks", |cluster| cluster.disk(live) == cluster.disk(secondary));
    assert!(cluster.disk(live).iter().any(|byte| *byte != 0));
}

/// The guest begins again, from what the live host's disk holds.
fn restart_guest(cluster: &Cluster, live: u64) {
    redis::cmd("SAVE").query::<()>(&mut cluster.connect()).unwrap();
    let mut connection = cluster.connect();
    // It answers nobody any more.
    connection.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    redis::cmd("DEBUG").arg("CRASH").query::<String>(&mut connection).unwrap_err();
    cluster.wait_until("the guest's restart", |cluster| {
        cluster.events(live).iter().any(|event| event.kind == ft::host::events::Kind::GuestRestarted)
    });
}

#[test]
fn a_vm_on_mirrored_disks_is_healed_on_a_third_host_and_changes_roles_and_all_is_on_its_disks() {
    let mut cluster = Cluster::start_with(|config| {
        (config.mirror, config.command_line) = (true, "mode=kv debug".into());
    });
    cluster.ft(1, &["protect", "vm.toml"]);
    cluster.write(0..200);
    let (first, second) = cluster.pair();
    check_equal(&cluster, (first, second));

    cluster.kill_vm(first);
    cluster.wait_for_live(second);
    let third = 6 - first - second;
    assert_eq!(cluster.pair(), (second, third), "healed on the host that had no copy");
    cluster.write(200..300);
    check_equal(&cluster, (second, third));

    // Who yields mirrors from then on, and the heir's disk is the one that the guest reads.
    cluster.ft(first, &["switchover", VM]);
    assert_eq!(cluster.pair(), (third, second));
    cluster.write(300..400);
    check_equal(&cluster, (third, second));
    restart_guest(&cluster, third);
    cluster.check(0..400);

    // What it mirrored after it had yielded is what it goes on from; the first host's old disk is made anew.
    cluster.kill_vm(third);
    cluster.wait_for_live(second);
    assert_eq!(cluster.pair(), (second, first));
    cluster.check(0..400);
    cluster.write(400..500);
    check_equal(&cluster, (second, first));
}
