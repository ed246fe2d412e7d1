//! Hosts that enter themselves at etcd under leases.

use crate::server::Etcd;
use crate::suite::DEADLINE;
use ft::arbiter::{EtcdConfig, HostRegistry};
use ft::core::units::HostId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The shortest that etcd grants, and more than a busy machine forgets about us.
const TTL: Duration = Duration::from_secs(5);

fn wait_for(registry: &mut HostRegistry, expected: &BTreeMap<HostId, Value>) {
    let started = Instant::now();
    while registry.list().unwrap() != *expected {
        assert!(started.elapsed() < DEADLINE, "{:?}", registry.list());
        std::thread::sleep(Duration::from_millis(50)); // between two looks
    }
}

#[test]
fn hosts_are_listed_while_they_renew_and_go_when_they_stop() {
    let etcd = Etcd::start();
    let [mut a, mut b] = [(); 2].map(|()| HostRegistry::open(&etcd.config()).unwrap());
    assert_eq!(a.list().unwrap(), BTreeMap::new());
    let first = a.register(HostId(1), &json!({ "free": 3 }), TTL).unwrap();
    let second = b.register(HostId(2), &json!("here"), TTL).unwrap();
    let both = BTreeMap::from([(HostId(1), json!({ "free": 3 })), (HostId(2), json!("here"))]);
    assert_eq!(a.list().unwrap(), both);
    assert_eq!(b.list().unwrap(), both);
    a.update(&first, &json!({ "free": 2 })).unwrap();

    // The second stops; the first renews for longer than its lease would last.
    let alone = BTreeMap::from([(HostId(1), json!({ "free": 2 }))]);
    let started = Instant::now();
    while b.list().unwrap() != alone || started.elapsed() < TTL.mul_f32(1.5) {
        assert!(started.elapsed() < DEADLINE, "{:?}", b.list());
        assert!(a.renew(&first).unwrap());
        std::thread::sleep(Duration::from_millis(100)); // the pace of renewing
    }
    assert!(!b.renew(&second).unwrap(), "gone");
    b.update(&second, &json!("late")).unwrap_err();
    assert_eq!(a.list().unwrap(), alone);
    let again = b.register(HostId(2), &json!("back"), TTL).unwrap();
    assert_eq!(a.list().unwrap()[&HostId(2)], json!("back"));
    b.withdraw(again).unwrap();
    assert_eq!(a.list().unwrap(), alone);
    drop(a);
    wait_for(&mut b, &BTreeMap::new());
}

#[test]
fn a_host_that_comes_back_replaces_its_entry_and_the_old_lease_does_not_take_it_along() {
    let etcd = Etcd::start();
    let mut registry = HostRegistry::open(&etcd.config()).unwrap();
    let old = registry.register(HostId(1), &json!("old"), TTL).unwrap();
    let new = registry.register(HostId(1), &json!("new"), TTL).unwrap();
    registry.withdraw(old).unwrap();
    assert_eq!(registry.list().unwrap(), BTreeMap::from([(HostId(1), json!("new"))]));
    assert!(registry.renew(&new).unwrap());
    // Installations under different prefixes do not see each other.
    let config = EtcdConfig { prefix: "ft-2".into(), ..etcd.config() };
    assert_eq!(HostRegistry::open(&config).unwrap().list().unwrap(), BTreeMap::new());
}
