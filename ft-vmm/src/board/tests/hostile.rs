//! Drivers that do whatever they can to break out: no panic, and no byte written that was not lent.

use super::driver::{
    BLOCK, CONSOLE, ENTROPY, NET, RAM_BYTES, RING_SIZE, Rig, Ring, bytes_at, config, rings_gpa,
    write_descriptor,
};
use bytes::Bytes;
use ft_core::Event;
use proptest::prelude::*;
use vm_memory::{Bytes as _, GuestAddress};

const NEEDS_RESET: u32 = 0x40;

/// What descriptors may lend: buffers, and the end of RAM.
const LENT: std::ops::Range<u64> = 0x4_0000..0x8_0000;
const LENT_END: std::ops::Range<u64> = RAM_BYTES - 64..RAM_BYTES;

type Descriptor = (u64, u32, u16, u16);

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let gpa = prop_oneof![
        8 => LENT.start..LENT.end - 0x1_0000,
        1 => LENT_END,
        1 => Just(RAM_BYTES),
        1 => Just(0xd000_0000),
        1 => u64::MAX - 32..=u64::MAX,
    ];
    let len =
        prop_oneof![8 => 0u32..600, 2 => Just(16), 2 => Just(1), 1 => 0u32..0x2_0000, 1 => any::<u32>()];
    (gpa, len, 0u16..8, 0u16..RING_SIZE + 1)
}

/// Ends within what is lent, if it begins there.
fn confine((gpa, len, flags, next): Descriptor) -> Descriptor {
    let len = if LENT.contains(&gpa) { len.min((LENT.end - gpa) as u32) } else { len };
    (gpa, len, flags, next)
}

#[derive(Clone, Debug)]
struct Attack {
    slot: u64,
    queue: u64,
    descriptors: Vec<Descriptor>,
    heads: Vec<u16>,
    index: u16,
    /// Request headers for the disk at the buffers' start.
    header: [u8; 16],
}

fn attack() -> impl Strategy<Value = Attack> {
    let heads = proptest::collection::vec(0u16..RING_SIZE + 2, RING_SIZE as usize);
    let index = prop_oneof![6 => 1u16..=RING_SIZE, 1 => any::<u16>()];
    let header = (0u32..10, 0u64..5000).prop_map(|(kind, sector)| {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    });
    let descriptors = proptest::collection::vec(descriptor().prop_map(confine), RING_SIZE as usize);
    (0u64..4, 0u64..2, descriptors, heads, index, header).prop_map(
        |(slot, queue, descriptors, heads, index, header)| {
            let queue = if slot == NET || slot == CONSOLE { queue } else { 0 };
            Attack { slot, queue, descriptors, heads, index, header }
        },
    )
}

impl Attack {
    fn lay(&self, rig: &Rig) {
        let (memory, gpa) = (rig.ram.memory(), rings_gpa(self.slot, self.queue));
        for (at, descriptor) in self.descriptors.iter().enumerate() {
            write_descriptor(rig, gpa, at as u16, *descriptor);
        }
        // Headers wherever a descriptor might begin, and what an indirect table there would look like.
        for (gpa, ..) in self.descriptors.iter().filter(|descriptor| LENT.contains(&descriptor.0)) {
            memory.write_slice(&self.header, GuestAddress(*gpa)).unwrap();
        }
        for (at, head) in self.heads.iter().enumerate() {
            memory.write_obj(*head, GuestAddress(gpa + 0x1004 + 2 * at as u64)).unwrap();
        }
        memory.write_obj(self.index, GuestAddress(gpa + 0x1002)).unwrap();
    }
}

/// What comes from outside meanwhile.
fn events(rig: &mut Rig) {
    for effect in rig.effects() {
        let Some(id) = effect.op.map(|op| op.0) else { continue };
        let len = effect.payload.get(8..12).map_or(0, |len| u32::from_le_bytes(len.try_into().unwrap()));
        rig.apply(Event::BlockDone { device: 0, id, status: 0, data: Bytes::from(vec![0x5a; len as usize]) });
    }
    rig.apply(Event::Net { device: 0, frame: Bytes::from(vec![0x5a; 300]) });
    rig.apply(Event::Console { device: 1, bytes: Bytes::from(vec![0x5a; 300]) });
    rig.apply(Event::Entropy(Bytes::from(vec![0x5a; 300])));
}

/// RAM without what may have been written.
fn rest_of_ram(rig: &Rig, attack: &Attack) -> Vec<u8> {
    let mut bytes = bytes_at(rig, 0, RAM_BYTES as usize);
    let used = rings_gpa(attack.slot, attack.queue) + 0x2000;
    for range in [LENT, LENT_END, used..used + 6 + 8 * u64::from(RING_SIZE)] {
        bytes[range.start as usize..range.end as usize].fill(0);
    }
    bytes
}

proptest! {
    #[test]
    fn descriptors_of_any_kind_reach_nothing_but_what_is_lent(attack in attack()) {
        let mut rig = Rig::new(&config());
        let queues = if attack.slot == NET || attack.slot == CONSOLE { 2 } else { 1 };
        let _rings = rig.drive(attack.slot, queues);
        attack.lay(&rig);
        let before = rest_of_ram(&rig, &attack);
        rig.write(attack.slot, 0x050, attack.queue as u32);
        for _ in 0..3 {
            events(&mut rig);
        }
        prop_assert!(before == rest_of_ram(&rig, &attack));
        // And a reset makes it good again.
        rig.ram.memory().write_slice(&[0; 0x8000], GuestAddress(rings_gpa(attack.slot, 0))).unwrap();
        let mut rings = rig.drive(attack.slot, queues);
        prop_assert_eq!(rig.read(attack.slot, 0x070) & NEEDS_RESET, 0);
        rings[0].offer(&mut rig, &[&[0; 16]], &[512, 1]);
        rings[0].notify(&mut rig);
        events(&mut rig);
        prop_assert_eq!(rings[0].used(&rig).len(), 1);
    }

    /// Any writes to any registers, then use: no panic.
    #[test]
    fn registers_take_any_value(
        slot in 0u64..4,
        writes in proptest::collection::vec((0u64..0x44, prop_oneof![any::<u32>(), 0u32..16, 0x1_0000u32..0x8_0000]), 1..60),
    ) {
        let mut rig = Rig::new(&config());
        let _rings = rig.drive(slot, 1);
        for (register, value) in writes {
            rig.write(slot, register * 4, value);
            rig.read(slot, register * 4);
        }
        for queue in 0..3 {
            rig.write(slot, 0x050, queue);
        }
        events(&mut rig);
    }
}

fn broken(slot: u64, lay: impl FnOnce(&mut Rig, &mut Ring)) -> Rig {
    let mut rig = Rig::new(&config());
    let mut ring = rig.drive(slot, 1).remove(0);
    lay(&mut rig, &mut ring);
    ring.notify(&mut rig);
    assert_eq!(rig.read(slot, 0x070) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(rig.read(slot, 0x060) & 2, 2, "the driver is told");
    assert!(rig.effects().is_empty());
    rig
}

#[test]
fn chains_that_are_not_sound_need_a_reset() {
    let table = rings_gpa(BLOCK, 0);
    let chains: [&[Descriptor]; 9] = [
        // A loop.
        &[(0x4_0000, 16, 1, 1), (0x4_1000, 513, 3, 1)],
        // Goes on nowhere.
        &[(0x4_0000, 16, 1, 1), (0x4_1000, 513, 3, RING_SIZE)],
        // What may be read after what may be written.
        &[(0x4_0000, 16, 1, 1), (0x4_1000, 512, 3, 2), (0x4_2000, 1, 0, 0)],
        // Outside RAM, and around its end.
        &[(RAM_BYTES, 16, 1, 1), (0x4_0000, 1, 2, 0)],
        &[(RAM_BYTES - 8, 16, 1, 1), (0x4_0000, 1, 2, 0)],
        &[(u64::MAX - 8, 16, 1, 1), (0x4_0000, 1, 2, 0)],
        &[(0x4_0000, 16, 1, 1), (RAM_BYTES - 512, 513, 2, 0)],
        // No header; no status.
        &[(0x4_0000, 15, 1, 1), (0x4_1000, 1, 2, 0)],
        &[(0x4_0000, 16, 0, 0)],
    ];
    for chain in chains {
        broken(BLOCK, |rig, ring| {
            for (at, descriptor) in chain.iter().enumerate() {
                write_descriptor(rig, table, at as u16, *descriptor);
            }
            ring.publish(rig, 0);
        });
    }
    broken(ENTROPY, |rig, ring| ring.publish(rig, RING_SIZE));
    // More heads than the ring has entries.
    broken(ENTROPY, |rig, _| {
        let index = GuestAddress(rings_gpa(ENTROPY, 0) + 0x1002);
        rig.ram.memory().write_obj(RING_SIZE + 1, index).unwrap();
    });
}

#[test]
fn a_device_that_needs_a_reset_does_nothing() {
    let mut rig = broken(BLOCK, |rig, ring| ring.publish(rig, RING_SIZE));
    let table = rings_gpa(BLOCK, 0);
    for (at, descriptor) in [(0x4_0000, 16, 1, 1), (0x4_1000, 513, 2, 0)].into_iter().enumerate() {
        write_descriptor(&rig, table, at as u16, descriptor);
    }
    rig.ram.memory().write_obj(2u16, GuestAddress(table + 0x1002)).unwrap();
    rig.write(BLOCK, 0x050, 0);
    assert!(rig.effects().is_empty());
    rig.write(BLOCK, 0x070, 0);
    assert_eq!([0x060, 0x070].map(|register| rig.read(BLOCK, register)), [0, 0]);
}

#[test]
fn rings_outside_ram_are_not_ready() {
    let mut rig = Rig::new(&config());
    let _ring = rig.drive(ENTROPY, 1);
    rig.write(ENTROPY, 0x044, 0);
    rig.write(ENTROPY, 0x0a0, RAM_BYTES as u32 - 4);
    rig.write(ENTROPY, 0x044, 1);
    assert_eq!(rig.read(ENTROPY, 0x044), 0);
    assert_eq!(rig.read(ENTROPY, 0x070) & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn indirect_tables_are_followed_within_the_queues_size() {
    let mut rig = Rig::new(&config());
    let mut ring = rig.drive(BLOCK, 1).remove(0);
    let (table, indirect) = (rings_gpa(BLOCK, 0), 0x5_0000);
    write_descriptor(&rig, table, 0, (indirect, 32, 4, 0));
    write_descriptor(&rig, indirect, 0, (0x4_0000, 16, 1, 1));
    write_descriptor(&rig, indirect, 1, (0x4_1000, 513, 2, 0));
    ring.publish(&mut rig, 0);
    ring.notify(&mut rig);
    assert_eq!(rig.effects().len(), 1);
    // A table of many: bounded work.
    let long = RING_SIZE + 1;
    write_descriptor(&rig, table, 0, (indirect, 16 * u32::from(long), 4, 0));
    for at in 0..long {
        write_descriptor(&rig, indirect, at, (0x4_0000, 16, u16::from(at + 1 < long), at + 1));
    }
    ring.publish(&mut rig, 0);
    ring.notify(&mut rig);
    assert_eq!(rig.read(BLOCK, 0x070) & NEEDS_RESET, NEEDS_RESET);
}

/// What the device writes is the ring's own index: without a bound the driver would get a turn for every two bytes that somebody types.
#[test]
fn a_ring_that_the_device_is_made_to_write_turns_once() {
    let mut rig = Rig::new(&config());
    let mut ring = rig.drive(CONSOLE, 2).remove(0);
    let typed: Vec<u8> = (2u16..40).flat_map(u16::to_le_bytes).collect();
    rig.apply(Event::Console { device: 1, bytes: Bytes::from(typed) });
    let gpa = rings_gpa(CONSOLE, 0);
    write_descriptor(&rig, gpa, 0, (gpa + 0x1002, 2, 2, 0));
    ring.publish(&mut rig, 0);
    ring.notify(&mut rig);
    assert_eq!(ring.used(&rig).len(), usize::from(RING_SIZE));
    assert_eq!(rig.read(CONSOLE, 0x070) & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn r9_requests_wait_while_much_is_under_way() {
    let mut rig = Rig::new(&config());
    let mut ring = rig.drive(BLOCK, 1).remove(0);
    let table = rings_gpa(BLOCK, 0);
    // One large write, made available again and again.
    let len = crate::devices::virtio::block::TRANSFER_BYTES_MAX;
    rig.ram.memory().write_obj(1u32, GuestAddress(0)).unwrap();
    write_descriptor(&rig, table, 0, (0, 16, 1, 1));
    write_descriptor(&rig, table, 1, (0, len, 1, 2));
    write_descriptor(&rig, table, 2, (0x4_0000, 1, 2, 0));
    let mut effects = Vec::new();
    for _ in 0..2 {
        (0..RING_SIZE).for_each(|_| ring.publish(&mut rig, 0));
        ring.notify(&mut rig);
        effects.extend(rig.effects());
    }
    let bytes = effects.len() as u64 * u64::from(len);
    let bound = crate::devices::virtio::block::IN_FLIGHT_BYTES_MAX;
    assert!((bound..bound + u64::from(len) + 16 * 9).contains(&bytes), "{bytes}");
    // What waits goes on as room is made.
    let id = effects[0].op.unwrap().0;
    rig.apply(Event::BlockDone { device: 0, id, status: 0, data: Bytes::new() });
    assert_eq!(rig.effects().len(), 1);
}
