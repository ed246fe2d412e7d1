//! The way of a disk from one host to another, without machines.
#![allow(clippy::unwrap_used)]

use super::BLOCK_BYTES;
use super::files::CopyFiles;
use super::outgoing::{Next, Outgoing};
use super::piece::{self, Piece, Sum};
use super::store::Store;
use bytes::Bytes;
use crossbeam::channel::{Receiver, bounded, unbounded};
use ft_core::Event;
use ft_core::effect::{Effect, EffectKind, OpId};
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCKS: u64 = 80;
const BYTES: u64 = BLOCKS * BLOCK_BYTES as u64;
const PATIENCE: Duration = Duration::from_secs(30);

fn write(id: u64, sector: u64, byte: u8, len: usize) -> Effect {
    let payload = [&sector.to_le_bytes()[..], &vec![byte; len]].concat();
    Effect { kind: EffectKind::BlockWrite, device: 0, op: Some(OpId(id)), payload: payload.into() }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// The disk of a live side, and what its operations answer.
fn live(dir: &Path) -> (Store, Receiver<Event>) {
    let path = dir.join("live.img");
    std::fs::File::create(&path).unwrap().set_len(BYTES).unwrap();
    let (send, events) = unbounded();
    let store = Store::open(CopyFiles::new(&path), BYTES, 1, send).unwrap();
    store.set_live(true);
    (store, events)
}

fn copy(dir: &Path) -> Store {
    Store::awaited(CopyFiles::new(&dir.join("copy.img")), BYTES, 2, unbounded().0).unwrap()
}

fn body(piece: &[u8]) -> Bytes {
    match piece::parse(piece).unwrap() {
        Piece::Blocks(body) => Bytes::copy_from_slice(body),
        other => panic!("{other:?}"),
    }
}

/// Writes of the live side fall into every phase of a transfer: before it, behind and before what is being read, and until it is still.
/// What they have in common is that the live side's file has them at the cut.
#[test]
fn r8_a_disk_arrives_as_it_is_at_the_cut_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let ((live, events), copy) = (live(dir.path()), copy(dir.path()));
    let (mut id, mut seed) = (0, 1u64);
    let mut scribble = |count: u64| {
        for _ in 0..count {
            id += 1;
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            // Some write zeros, and many cross from one block to the next.
            live.submit(write(id, (seed >> 33) % (BYTES / 512 - 8), (seed >> 29) as u8 & 3, 4096));
        }
        id
    };
    scribble(40);
    copy.begin();
    // Too early: more follows.
    copy.settle(Sum::default());
    let mut outgoing = Outgoing::new(&live).unwrap();
    let (mut pieces, mut last_write) = (0, 0);
    loop {
        match outgoing.next(&live, || pieces > 20) {
            Next::Machine if outgoing.is_still() => break,
            Next::Machine => {}
            Next::Settle => copy.settle(outgoing.settle()),
            Next::Blocks => copy.fill(body(&outgoing.piece(&live).unwrap())),
        }
        pieces += 1;
        if outgoing.is_still() {
            wait_until("the disk is quiet", || live.is_quiet(last_write));
        } else {
            last_write = scribble(10);
        }
    }
    assert!(pieces > 20, "the guest wrote while it was copied");
    // What comes after the cut is mirrored.
    let after = write(last_write + 1, 5, 9, 512);
    live.submit(after.clone());
    copy.mirror(after);
    wait_until("both are done", || live.is_quiet(last_write + 1) && copy.is_quiet(last_write + 1));
    let failure = copy.failure().map(str::to_owned);
    drop((live, copy));
    assert_eq!(failure, None);
    assert_eq!(events.iter().count() as u64, last_write + 1, "each is answered once");
    let [live, copy] = ["live.img", "copy.img"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
    assert!(live == copy, "the copies differ");
    assert_eq!(live[5 * 512], 9);
}

/// The line takes a piece in every fourth turn, and in each turn the guest would write more than a quarter of one.
#[test]
fn r8_a_guest_that_writes_faster_than_its_disk_is_copied_is_slowed_until_the_copy_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let ((live, _events), copy) = (live(dir.path()), copy(dir.path()));
    copy.begin();
    let mut outgoing = Outgoing::new(&live).unwrap();
    let (mut last_write, mut ran) = (0, 0);
    for turn in 1..100_000 {
        outgoing.handle_turn();
        if !outgoing.rests(turn) {
            ran += 1;
            for _ in 0..8 {
                last_write += 1;
                live.submit(write(last_write, last_write * 37 % BLOCKS * 128, 7, 512));
            }
        }
        wait_until("the disk is quiet", || live.is_quiet(last_write));
        match (turn % 4 == 0).then(|| outgoing.next(&live, || true)) {
            Some(Next::Blocks) => copy.fill(body(&outgoing.piece(&live).unwrap())),
            Some(Next::Settle) => {
                copy.settle(outgoing.settle());
                break;
            }
            Some(Next::Machine) => panic!("nothing of it is left"),
            None => {}
        }
    }
    assert!(outgoing.is_still(), "the copy never catches up");
    assert!(ran > 20, "the guest runs while it is copied: {ran}");
    drop((live, copy));
    let [live, copy] = ["live.img", "copy.img"].map(|name| std::fs::read(dir.path().join(name)).unwrap());
    assert!(live == copy, "the copies differ");
}

/// As when the other side's storage hangs: its trouble is not the guest's.
#[test]
fn r8_a_guest_does_not_rest_for_a_copy_that_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (live, _events) = live(dir.path());
    let mut outgoing = Outgoing::new(&live).unwrap();
    for _ in 0..3 {
        outgoing.piece(&live).unwrap();
        assert_eq!(outgoing.next(&live, || true), Next::Blocks);
        assert!(outgoing.is_still() && (0..50).all(|turn| outgoing.rests(turn)));
        let rested = (0..1000).take_while(|turn| {
            outgoing.handle_turn();
            outgoing.rests(*turn)
        });
        assert!((50..1000).contains(&rested.count()));
        assert!(!outgoing.is_still());
    }
    // It is slowed only.
    assert!((0..50).any(|turn| !outgoing.rests(turn)));
}

#[test]
fn a_hole_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let (live, _events) = live(dir.path());
    live.submit(write(1, 128 * 70, 7, 512));
    wait_until("the write", || live.is_quiet(1));
    let mut outgoing = Outgoing::new(&live).unwrap();
    let piece = outgoing.piece(&live).unwrap();
    let body = body(&piece);
    let sent: Vec<u64> = piece::blocks(&body, BLOCKS).unwrap().iter().map(|(index, _)| *index).collect();
    assert_eq!(sent, [70]);
}

/// A piece that is missing, or one that is damaged on its way.
#[test]
fn a_copy_that_is_not_what_was_sent_is_never_complete() {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy(dir.path());
    copy.begin();
    copy.settle(Sum { pieces: 1, digest: 5 });
    copy.mirror(write(1, 0, 7, 512));
    wait_until("it is found out", || copy.failure().is_some());
    let reason = copy.failure().unwrap().to_owned();
    assert!(reason.contains("cannot complete") && reason.contains("1 pieces"), "{reason}");
    drop(copy);
    assert!(!dir.path().join("copy.img").exists());
    let partial = std::fs::read(dir.path().join("copy.img.partial")).unwrap();
    assert!(partial.iter().all(|byte| *byte == 0), "nothing is carried out after the failure");
}

#[test]
fn r9_a_copy_that_is_slow_says_that_it_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    std::fs::File::create(&path).unwrap().set_len(BYTES).unwrap();
    let (send, events) = bounded(0);
    let store = Store::open(CopyFiles::new(&path), BYTES, 1, send).unwrap();
    // It is held up until somebody takes the answer.
    store.submit(write(1, 0, 7, 512));
    for id in 2..9 {
        store.mirror(write(id, 0, 7, 1 << 20));
        assert!(store.has_room(), "{id}");
    }
    store.mirror(write(9, 0, 7, 1 << 20));
    assert!(!store.has_room() && !store.is_quiet(1));
    events.recv_timeout(PATIENCE).unwrap();
    wait_until("there is room again", || store.has_room() && store.is_quiet(9));
    assert_eq!(store.failure(), None);
}
