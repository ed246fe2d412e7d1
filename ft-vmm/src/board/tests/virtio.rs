//! The devices as a well-behaved driver uses them.

use super::driver::{BLOCK, CONSOLE, ENTROPY, NET, Rig, Ring, SECTORS, bytes_at, config};
use crate::board::{BoardConfig, DiskConfig};
use crate::devices::virtio::{block, net};
use bytes::Bytes;
use ft_core::Event;
use ft_core::effect::{Effect, EffectKind, OpId};

const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

const NEEDS_RESET: u32 = 0x40;

fn frame(n: usize) -> Event {
    Event::Net { device: 0, frame: Bytes::from(vec![n as u8; 60]) }
}

fn request(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn done(id: Option<OpId>, status: u8, data: &[u8]) -> Event {
    Event::BlockDone { device: 0, id: id.unwrap().0, status, data: Bytes::copy_from_slice(data) }
}

#[test]
fn slots_say_what_they_are() {
    let mut rig = Rig::new(&config());
    for (slot, id) in [(NET, 1), (BLOCK, 2), (CONSOLE, 3), (ENTROPY, 4)] {
        assert_eq!([0x000, 0x004, 0x008].map(|offset| rig.read(slot, offset)), [0x7472_6976, 2, id]);
    }
    assert_eq!(rig.read(NET, 0x100), 2, "the MAC");
    assert_eq!(rig.read(NET, 0x104), 7 << 8 | 1 << 16, "its end, and the link is up");
    assert_eq!(rig.read(BLOCK, 0x100), SECTORS as u32);
    rig.write(NET, 0x030, 9);
    assert_eq!(rig.read(NET, 0x034), 0, "no such queue");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut rig = Rig::new(&config());
    for (page, features) in [(0, 1 << 5 | 1 << 15), (1, 0)] {
        rig.write(NET, 0x070, 0);
        rig.write(NET, 0x024, 1);
        rig.write(NET, 0x020, 1);
        rig.write(NET, 0x024, page);
        rig.write(NET, 0x020, features);
        rig.write(NET, 0x070, 1 | 2 | 8 | 4);
        assert_eq!(rig.read(NET, 0x070), 1 | 2, "neither FEATURES_OK nor DRIVER_OK");
    }
}

#[test]
fn frames_leave_without_header() {
    let mut rig = Rig::new(&config());
    let mut rings = rig.drive(NET, 2);
    let transmit = &mut rings[1];
    transmit.offer(&mut rig, &[&HEADER, b"first ", b"frame"], &[]);
    transmit.offer(&mut rig, &[&[&HEADER[..], b"second"].concat()], &[]);
    assert!(rig.effects().is_empty(), "not before the driver says so");
    transmit.notify(&mut rig);
    let effects = rig.effects();
    let expect = |payload| Effect { kind: EffectKind::Net, device: 0, op: None, payload };
    assert_eq!(effects, [Bytes::from("first frame"), Bytes::from("second")].map(expect));
    assert_eq!(transmit.used(&rig), [(0, 0), (3, 0)]);
    assert_eq!(rig.read(NET, 0x060), 1);
    rig.write(NET, 0x064, 1);
    assert_eq!(rig.read(NET, 0x060), 0);
}

#[test]
fn frames_arrive_with_header() {
    let mut rig = Rig::new(&config());
    let mut rings = rig.drive(NET, 2);
    let receive = &mut rings[0];
    let at = receive.offer(&mut rig, &[], &[12, 1500])[0];
    receive.notify(&mut rig);
    rig.apply(frame(7));
    assert_eq!(receive.used(&rig), [(0, 72)]);
    assert_eq!(bytes_at(&rig, at, 72), [&HEADER[..], &[7; 60]].concat());
    assert_eq!(rig.read(NET, 0x060), 1);
}

#[test]
fn r9_frames_wait_for_buffers_up_to_a_bound() {
    let mut rig = Rig::new(&config());
    rig.apply(frame(99));
    let mut receive = rig.drive(NET, 2).remove(0);
    for n in 0..2 * net::BACKLOG_FRAMES {
        rig.apply(frame(n));
    }
    rig.apply(Event::Net { device: 0, frame: Bytes::from(vec![0; net::FRAME_BYTES_MAX + 1]) });
    let mut arrived = Vec::new();
    for _ in 0..net::BACKLOG_FRAMES + 1 {
        let at = receive.offer(&mut rig, &[], &[72])[0];
        receive.notify(&mut rig);
        if !receive.used(&rig).is_empty() {
            arrived.push(usize::from(bytes_at(&rig, at, 13)[12]));
        }
        receive.rewind();
    }
    let expected: Vec<usize> = (0..net::BACKLOG_FRAMES).map(|n| n & 0xff).collect();
    assert_eq!(arrived, expected, "the one before there was a driver is lost, as are those beyond the bound");
}

#[test]
fn a_frame_that_fits_nowhere_costs_no_buffer() {
    let mut rig = Rig::new(&config());
    let receive = &mut rig.drive(NET, 2)[0];
    receive.offer(&mut rig, &[], &[20]);
    rig.apply(frame(1));
    assert_eq!(receive.used(&rig), []);
    rig.apply(Event::Net { device: 0, frame: Bytes::from_static(b"12345678") });
    assert_eq!(receive.used(&rig), [(0, 20)]);
}

#[test]
fn reads_complete_with_their_data() {
    let mut rig = Rig::new(&config());
    let ring = &mut rig.drive(BLOCK, 1)[0];
    let buffers = ring.offer(&mut rig, &[&request(0, 5)], &[512, 512, 1]);
    ring.notify(&mut rig);
    let effect = rig.effect();
    assert_eq!(effect.kind, EffectKind::BlockRead);
    assert_eq!(effect.payload[..], [&5u64.to_le_bytes()[..], &1024u32.to_le_bytes()].concat());
    assert_eq!(rig.board.in_flight(), std::slice::from_ref(&effect));
    assert_eq!(ring.used(&rig), []);
    let data: Vec<u8> = (0..1024).map(|n| (n / 5) as u8).collect();
    rig.apply(done(effect.op, 0, &data));
    assert_eq!(ring.used(&rig), [(0, 1025)]);
    assert_eq!(bytes_at(&rig, buffers[0], 1024), data);
    assert_eq!(bytes_at(&rig, buffers[2], 1), [block::STATUS_OK]);
    assert_eq!(rig.board.in_flight(), []);
    rig.apply(done(effect.op, 0, &data));
    assert_eq!(ring.used(&rig), [], "r7: a second completion is ignored");
}

#[test]
fn writes_and_flushes_leave_in_order() {
    let mut rig = Rig::new(&config());
    let ring = &mut rig.drive(BLOCK, 1)[0];
    let status = ring.offer(&mut rig, &[&request(1, 9), &[0xaa; 512]], &[1])[0];
    ring.offer(&mut rig, &[&request(4, 0)], &[1]);
    ring.notify(&mut rig);
    let effects = rig.effects();
    let kinds: Vec<EffectKind> = effects.iter().map(|effect| effect.kind).collect();
    assert_eq!(kinds, [EffectKind::BlockWrite, EffectKind::BlockFlush]);
    assert_eq!(effects[0].payload[..], [&9u64.to_le_bytes()[..], &[0xaa; 512]].concat());
    assert!(effects[1].payload.is_empty());
    // Whatever the guest does to its buffers meanwhile, the same is issued again.
    assert_eq!(rig.board.in_flight(), effects);
    rig.apply(done(effects[1].op, 0, &[]));
    rig.apply(done(effects[0].op, block::STATUS_IO_ERROR, &[]));
    assert_eq!(ring.used(&rig), [(3, 1), (0, 1)]);
    assert_eq!(bytes_at(&rig, status, 1), [block::STATUS_IO_ERROR]);
}

#[test]
fn requests_that_cannot_be_are_answered() {
    let config = BoardConfig { disk: Some(DiskConfig { sectors: 8, read_only: true }), ..config() };
    let mut rig = Rig::new(&config);
    let ring = &mut rig.drive(BLOCK, 1)[0];
    let cases: [(&[u8], u32, u8); 6] = [
        (&request(0, 8), 512, block::STATUS_IO_ERROR),
        (&request(0, u64::MAX), 512, block::STATUS_IO_ERROR),
        (&request(0, 0), 100, block::STATUS_IO_ERROR),
        (&request(0, 0), 0, block::STATUS_IO_ERROR),
        (&[&request(1, 0)[..], &[0; 512]].concat(), 0, block::STATUS_IO_ERROR),
        (&request(77, 0), 0, block::STATUS_UNSUPPORTED),
    ];
    for (header, len, expected) in cases {
        let status = ring.offer(&mut rig, &[header], &[len, 1])[1];
        ring.notify(&mut rig);
        assert_eq!(ring.used(&rig).len(), 1);
        assert_eq!(bytes_at(&rig, status, 1), [expected], "{header:?}");
    }
    let name = ring.offer(&mut rig, &[&request(8, 0)], &[20, 1])[0];
    ring.notify(&mut rig);
    assert_eq!(bytes_at(&rig, name, 8), *b"ft-disk\0");
    assert!(rig.effects().is_empty());
    assert_eq!(rig.read(BLOCK, 0x070) & NEEDS_RESET, 0);
}

#[test]
fn a_read_of_another_length_is_an_error() {
    let mut rig = Rig::new(&config());
    let ring = &mut rig.drive(BLOCK, 1)[0];
    let status = ring.offer(&mut rig, &[&request(0, 0)], &[512, 1])[1];
    ring.notify(&mut rig);
    let op = rig.effect().op;
    rig.apply(done(op, 0, &[1; 511]));
    assert_eq!(bytes_at(&rig, status, 1), [block::STATUS_IO_ERROR]);
    assert_eq!(ring.used(&rig), [(0, 1)]);
}

#[test]
fn a_device_reset_forgets_operations() {
    let mut rig = Rig::new(&config());
    let mut ring = rig.drive(BLOCK, 1).remove(0);
    ring.offer(&mut rig, &[&request(0, 0)], &[512, 1]);
    ring.notify(&mut rig);
    let op = rig.effect().op;
    rig.write(BLOCK, 0x070, 0);
    assert_eq!(rig.board.in_flight(), []);
    let mut ring = rig.drive(BLOCK, 1).remove(0);
    rig.apply(done(op, 0, &[1; 512]));
    assert_eq!(ring.used(&rig), []);
    assert_eq!(rig.read(BLOCK, 0x060), 0);
}

#[test]
fn the_console_speaks_in_one_go() {
    let mut rig = Rig::new(&config());
    let rings = &mut rig.drive(CONSOLE, 2);
    rings[1].offer(&mut rig, &[b"hello "], &[]);
    rings[1].offer(&mut rig, &[b"world"], &[]);
    rings[1].notify(&mut rig);
    let effect = rig.effect();
    assert_eq!(
        (effect.kind, effect.device, &effect.payload[..]),
        (EffectKind::Console, 1, &b"hello world"[..])
    );
    rig.apply(Event::Console { device: 1, bytes: Bytes::from_static(b"typed before") });
    let first = rings[0].offer(&mut rig, &[], &[5])[0];
    let second = rings[0].offer(&mut rig, &[], &[50])[0];
    rings[0].notify(&mut rig);
    assert_eq!(rings[0].used(&rig), [(0, 5), (1, 7)]);
    assert_eq!(bytes_at(&rig, first, 5), b"typed");
    assert_eq!(bytes_at(&rig, second, 7), b" before");
}

#[test]
fn random_bytes_come_from_outside() {
    let mut rig = Rig::new(&config());
    let ring = &mut rig.drive(ENTROPY, 1)[0];
    let first = ring.offer(&mut rig, &[], &[16])[0];
    let second = ring.offer(&mut rig, &[], &[9000])[0];
    ring.notify(&mut rig);
    let effects = rig.effects();
    assert_eq!(
        effects.iter().map(|effect| &effect.payload[..]).collect::<Vec<_>>(),
        [16u32.to_le_bytes(), 4096u32.to_le_bytes()]
    );
    assert!(effects.iter().all(|effect| effect.kind == EffectKind::EntropyRead));
    assert_eq!(rig.board.in_flight(), effects);
    rig.apply(Event::Entropy(Bytes::new()));
    rig.apply(Event::Entropy(Bytes::from(vec![7; 20])));
    rig.apply(Event::Entropy(Bytes::from(vec![8; 20])));
    rig.apply(Event::Entropy(Bytes::from(vec![9; 20])));
    assert_eq!(ring.used(&rig), [(0, 16), (1, 20)]);
    assert_eq!(bytes_at(&rig, first, 17), [vec![7; 16], vec![8]].concat());
    assert_eq!(bytes_at(&rig, second, 20), [8; 20]);
    assert_eq!(rig.board.in_flight(), []);
}

#[test]
fn a_driver_that_does_not_want_interrupts_gets_none() {
    use vm_memory::{Bytes as _, GuestAddress};
    let mut rig = Rig::new(&config());
    let ring = &mut rig.drive(CONSOLE, 2)[1];
    rig.ram.memory().write_obj(1u16, GuestAddress(super::driver::rings_gpa(CONSOLE, 1) + 0x1000)).unwrap();
    ring.offer(&mut rig, &[b"x"], &[]);
    ring.notify(&mut rig);
    assert_eq!(ring.used(&rig).len(), 1);
    assert_eq!(rig.read(CONSOLE, 0x060), 0);
}

#[test]
fn buffers_offered_before_the_driver_was_ready_are_used_then() {
    let mut rig = Rig::new(&config());
    rig.drive(CONSOLE, 2);
    rig.write(CONSOLE, 0x070, 0);
    rig.write(CONSOLE, 0x024, 1);
    rig.write(CONSOLE, 0x020, 1);
    rig.write(CONSOLE, 0x070, 1 | 2 | 8);
    let mut ring = Ring::set_up(&mut rig, CONSOLE, 1);
    ring.offer(&mut rig, &[b"early"], &[]);
    ring.notify(&mut rig);
    assert!(rig.effects().is_empty());
    rig.write(CONSOLE, 0x070, 1 | 2 | 8 | 4);
    assert_eq!(&rig.effect().payload[..], b"early");
}
