use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const ROOMY: Limits = Limits { memory_bytes: u64::MAX / 2, record_bytes: u64::MAX / 2 };

/// Nearly all keys collide.
fn colliding() -> Store {
    Store { hash: |key| key.first().map_or(0, |byte| u64::from(*byte % 3)), ..Store::new(ROOMY) }
}

fn check(store: &Store) {
    let mut entries = Vec::new();
    assert_eq!(store.scan(0, usize::MAX, |entry| entries.push(entry)), 0);
    assert_eq!(entries.len(), store.len());
    assert_eq!(entries.iter().map(|entry| entry.cost()).sum::<u64>(), store.used());
    assert_eq!(entries.iter().map(|entry| entry.record_bytes()).sum::<u64>(), store.record_bytes());
    let deadlines: BTreeSet<_> = entries
        .iter()
        .filter(|entry| entry.deadline != NEVER)
        .map(|entry| (entry.deadline, (store.hash)(&entry.key)))
        .collect();
    assert_eq!(deadlines, store.deadlines);
}

#[derive(Clone, Debug)]
enum Change {
    Set(u8, Vec<u8>, u64),
    Append(u8, Vec<u8>),
    Remove(u8),
    Deadline(u8, u64),
    Expire(u64),
    Clear,
}

fn any_change() -> impl Strategy<Value = Change> {
    let value = || prop::collection::vec(any::<u8>(), 0..50);
    let deadline = prop_oneof![Just(NEVER), 1u64..10];
    prop_oneof![
        4 => (0u8..12, value(), deadline.clone()).prop_map(|(k, v, d)| Change::Set(k, v, d)),
        2 => (0u8..12, value()).prop_map(|(k, v)| Change::Append(k, v)),
        3 => (0u8..12).prop_map(Change::Remove),
        2 => (0u8..12, deadline).prop_map(|(k, d)| Change::Deadline(k, d)),
        1 => (1u64..10).prop_map(Change::Expire),
        1 => Just(Change::Clear),
    ]
}

proptest! {
    #[test]
    fn the_store_is_a_map(changes in prop::collection::vec(any_change(), 0..60)) {
        let mut store = colliding();
        let mut model: HashMap<Vec<u8>, (Vec<u8>, u64)> = HashMap::new();
        for change in changes {
            match change {
                Change::Set(key, value, deadline) => {
                    store.set(&[key], &value, deadline);
                    model.insert(vec![key], (value, deadline));
                }
                Change::Append(key, tail) => {
                    let bytes = store.append(&[key], &tail);
                    let entry = model.entry(vec![key]).or_insert((Vec::new(), NEVER));
                    entry.0.extend(tail);
                    prop_assert_eq!(bytes, entry.0.len());
                }
                Change::Remove(key) => {
                    prop_assert_eq!(store.remove(&[key]), model.remove(&vec![key]).is_some());
                }
                Change::Deadline(key, deadline) => {
                    let entry = model.get_mut(&vec![key]);
                    prop_assert_eq!(store.set_deadline(&[key], deadline), entry.is_some());
                    entry.into_iter().for_each(|entry| entry.1 = deadline);
                }
                Change::Expire(now) => {
                    while let Some(key) = store.due(now).map(Vec::from) {
                        prop_assert!(store.remove(&key));
                    }
                    model.retain(|_, (_, deadline)| *deadline > now);
                }
                Change::Clear => {
                    store.clear();
                    model.clear();
                }
            }
            check(&store);
            prop_assert_eq!(store.len(), model.len());
            for (key, (value, deadline)) in &model {
                let entry = store.get(key).expect("the model has it");
                prop_assert_eq!((entry.value(), entry.deadline()), (&value[..], *deadline));
            }
        }
    }
}

/// What Redis promises: who is there from beginning to end is returned, whatever comes and goes.
#[test]
fn a_scan_misses_no_key_that_stays() {
    let mut store = Store::new(ROOMY);
    let stays = |index: u32| format!("stays:{index}").into_bytes();
    let goes = |index: u32| format!("goes:{index}").into_bytes();
    (0..500).for_each(|index| store.set(&stays(index), b"", NEVER));
    (0..500).for_each(|index| store.set(&goes(index), b"", NEVER));
    let mut seen = BTreeSet::new();
    let (mut cursor, mut calls) = (0, 0);
    loop {
        cursor = store.scan(cursor, 7, |entry| {
            seen.insert(entry.key().to_vec());
        });
        if cursor == 0 {
            break;
        }
        for index in calls * 5..calls * 5 + 5 {
            store.remove(&goes(index));
            store.set(&format!("new:{index}").into_bytes(), b"", NEVER);
        }
        calls += 1;
    }
    assert!(calls > 100, "in many calls");
    assert!((0..500).all(|index| seen.contains(&stays(index))));
}

#[test]
fn limits_are_kept() {
    let limits = Limits { memory_bytes: 1000, record_bytes: 400 };
    let mut store = Store::new(limits);
    assert_eq!(store.admit(cost(1, 900), 1), Err(Full::Memory));
    assert_eq!(store.admit(1, 401), Err(Full::Disk));
    store.set(b"k", &[0; 300], NEVER);
    assert_eq!(store.admit(1, 1), Ok(()));
    assert_eq!(store.admit(1, 400), Err(Full::Disk));
}

#[test]
fn memory_of_a_large_value_is_given_back() {
    let mut store = Store::new(ROOMY);
    store.set(b"k", &[0; 100_000], NEVER);
    store.set(b"k", b"x", NEVER);
    assert!(store.used() < 1000);
}
