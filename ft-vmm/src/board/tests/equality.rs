//! Boards that see the same are equal (R1): one that is left alone, one that is saved and restored at every step, and one that is looked at
//! and advanced at every turn.

use super::driver::{BLOCK, CONSOLE, ENTROPY, NET, RAM_BYTES, Rig, Ring, bytes_at, config};
use crate::board::{Board, BoardState, SLOTS_GPA};
use crate::vcpu::Platform as _;
use bytes::Bytes;
use ft_core::Event;
use ft_core::digest::Digester;
use ft_core::effect::{Effect, OpId};
use ft_core::units::{Tick, VirtualTime};
use proptest::prelude::*;

const PORTS: [u16; 37] = [
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x40, 0x41, 0x42, 0x43, 0x43, 0x61, 0x64, 0x70, 0x71, 0x71,
    0x3f8, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x600, 0x601, 0x602, 0x603, 0x604, 0x608,
    0xcf9, 0x441, 0x443, 0x443, 0x80,
];

#[derive(Clone, Debug)]
enum Step {
    In(u16, usize),
    Out(u16, Vec<u8>),
    /// A register of the clock.
    Rtc(u8, Option<u8>),
    Read(u64, u64),
    Write(u64, u64, u32),
    Offer(u64, u64, Vec<u8>, u32),
    Time(u64),
    Net(Vec<u8>),
    Done(u64, u8, usize),
    Type(u8, Vec<u8>),
    Entropy(Vec<u8>),
    Shutdown,
    Take,
    Run(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let port = || proptest::sample::select(&PORTS[..]);
    let some = |max| proptest::collection::vec(any::<u8>(), 1..max);
    prop_oneof![
        6 => (port(), prop_oneof![Just(1usize), Just(2), Just(4)]).prop_map(|(port, len)| Step::In(port, len)),
        10 => (port(), some(3)).prop_map(|(port, data)| Step::Out(port, data)),
        4 => (prop_oneof![0u8..16, Just(0x32), any::<u8>()], any::<Option<u8>>()).prop_map(|(at, value)| Step::Rtc(at, value)),
        2 => (0u64..5, 0u64..0x45).prop_map(|(slot, register)| Step::Read(slot, register * 4)),
        2 => (0u64..5, 0u64..0x45, prop_oneof![0u32..20, any::<u32>()])
            .prop_map(|(slot, register, value)| Step::Write(slot, register * 4, value)),
        8 => (0u64..4, 0u64..2, some(40), 0u32..600).prop_map(|(slot, queue, data, len)| Step::Offer(slot, queue, data, len)),
        3 => (0u64..20_000_000).prop_map(Step::Time),
        3 => some(200).prop_map(Step::Net),
        3 => (0u64..12, 0u8..2, 0usize..600).prop_map(|(id, status, len)| Step::Done(id, status, len)),
        3 => (0u8..3, some(100)).prop_map(|(device, bytes)| Step::Type(device, bytes)),
        2 => some(60).prop_map(Step::Entropy),
        1 => Just(Step::Shutdown),
        4 => Just(Step::Take),
        8 => prop_oneof![0u64..100, 0u64..200_000, 0u64..1_200_000_000].prop_map(Step::Run),
    ]
}

struct World {
    rig: Rig,
    rings: Vec<Vec<Ring>>,
    time: u64,
}

/// What the vCPU and the outside see of a step.
type Seen = (Vec<u8>, Vec<Effect>, Option<crate::board::Request>, bool, Option<Tick>);

impl World {
    fn new() -> Self {
        let mut rig = Rig::new(&config());
        let rings =
            (0..4).map(|slot| rig.drive(slot, if slot == NET || slot == CONSOLE { 2 } else { 1 })).collect();
        Self { rig, rings, time: 0 }
    }

    /// Runs as a machine does: from deadline to deadline.
    fn run(&mut self, ticks: u64) {
        let Rig { board, tick, .. } = &mut self.rig;
        let target = *tick + ticks;
        // A timer may be faster than this test has patience for.
        for _ in 0..200 {
            *tick = board.next_deadline(Tick(*tick)).map_or(target, |deadline| deadline.0.min(target));
            board.advance(Tick(*tick));
            if *tick == target {
                break;
            }
        }
    }

    /// Runs to a tick, and stops for a look at least as often as it is told.
    fn run_to(&mut self, target: u64, mut look: impl FnMut() -> u64) {
        let Rig { board, tick, .. } = &mut self.rig;
        let mut looks = 20;
        while *tick < target {
            let deadline = board.next_deadline(Tick(*tick)).map_or(target, |deadline| deadline.0.min(target));
            *tick = if looks > 0 { deadline.min(*tick + look()) } else { deadline };
            looks -= 1;
            board.advance(Tick(*tick));
        }
    }

    fn take(&mut self, step: &Step) -> Seen {
        let mut read = vec![0; 4];
        let tick = Tick(self.rig.tick);
        match step {
            Step::In(port, len) => {
                self.rig.board.attach(&self.rig.ram).pio_read(tick, *port, &mut read[..*len]);
            }
            Step::Out(port, data) => self.rig.board.attach(&self.rig.ram).pio_write(tick, *port, data),
            Step::Rtc(at, value) => {
                self.rig.outb(0x70, *at);
                match value {
                    Some(value) => self.rig.outb(0x71, *value),
                    None => read[0] = self.rig.inb(0x71),
                }
            }
            Step::Read(slot, offset) => {
                let gpa = SLOTS_GPA + slot * 0x1000 + offset;
                self.rig.board.attach(&self.rig.ram).mmio_read(tick, gpa, &mut read);
            }
            Step::Write(slot, offset, value) => self.rig.write(*slot, *offset, *value),
            Step::Offer(slot, queue, data, len) => self.offer(*slot, *queue, data, *len),
            Step::Time(ns) => {
                self.time += ns;
                self.rig.apply(Event::Time(VirtualTime(self.time)));
            }
            Step::Net(frame) => self.rig.apply(Event::Net { device: 0, frame: Bytes::from(frame.clone()) }),
            Step::Done(id, status, len) => {
                let data = Bytes::from(vec![*id as u8; *len / 512 * 512]);
                self.rig.apply(Event::BlockDone { device: 0, id: *id, status: *status, data });
            }
            Step::Type(device, bytes) => {
                self.rig.apply(Event::Console { device: *device, bytes: Bytes::from(bytes.clone()) });
            }
            Step::Entropy(bytes) => self.rig.apply(Event::Entropy(Bytes::from(bytes.clone()))),
            Step::Shutdown => self.rig.apply(Event::Shutdown),
            Step::Take => {
                let mut view = self.rig.board.attach(&self.rig.ram);
                if view.interrupt() {
                    read[0] = view.acknowledge();
                }
            }
            Step::Run(ticks) => self.run(*ticks),
        }
        let board = &mut self.rig.board;
        let effects = std::iter::from_fn(|| board.take_effect()).collect();
        let interrupt = board.attach(&self.rig.ram).interrupt();
        (read, effects, board.take_request(), interrupt, board.next_deadline(Tick(self.rig.tick)))
    }

    fn offer(&mut self, slot: u64, queue: u64, data: &[u8], len: u32) {
        let rings = &mut self.rings[slot as usize];
        let queue = queue as usize % rings.len();
        let ring = &mut rings[queue];
        let mut header = [0; 16];
        header[0] = data[0] % 5;
        header[8] = data[0] / 5;
        ring.rewind();
        ring.offer(&mut self.rig, &[&header, data], &[len / 100 * 512, 1]);
        ring.notify(&mut self.rig);
    }

    fn state(&self) -> BoardState {
        self.rig.board.state()
    }

    fn restore(&mut self) {
        let bytes = postcard::to_allocvec(&self.state()).unwrap();
        let mut board = Board::new(&config());
        board.set_state(&postcard::from_bytes(&bytes).unwrap()).unwrap();
        assert_eq!(board.in_flight(), self.rig.board.in_flight());
        self.rig.board = board;
    }

    fn digest(&self) -> u64 {
        let mut digester = Digester::new();
        self.rig.board.digest(&mut digester);
        digester.bytes(&bytes_at(&self.rig, 0, RAM_BYTES as usize)).finish().0
    }
}

proptest! {
    #[test]
    fn r1_neither_saving_nor_looking_changes_anything(
        steps in proptest::collection::vec(step(), 1..120),
        looks in proptest::collection::vec(1u64..400_000, 1..20),
    ) {
        let (mut plain, mut saved, mut watched) = (World::new(), World::new(), World::new());
        let mut looks = looks.iter().cycle();
        for step in &steps {
            let seen = plain.take(step);
            saved.restore();
            prop_assert_eq!(&saved.take(step), &seen, "saved, {:?}", step);
            // It goes as far as the others went.
            watched.run_to(plain.rig.tick, || looks.next().copied().unwrap_or(1));
            let step = if let Step::Run(_) = step { &Step::Run(0) } else { step };
            prop_assert_eq!(&watched.take(step), &seen, "watched, {:?}", step);
            prop_assert_eq!(watched.state(), plain.state());
        }
        prop_assert_eq!(saved.state(), plain.state());
        prop_assert_eq!(saved.digest(), plain.digest());
        prop_assert_eq!(watched.digest(), plain.digest());
    }
}

#[test]
fn every_device_counts_in_the_digest() {
    let mut world = World::new();
    let digest = |rig: &Rig| {
        let mut digester = Digester::new();
        rig.board.digest(&mut digester);
        digester.finish()
    };
    let mut digests = vec![digest(&world.rig)];
    for (port, value) in [(0x21, 1), (0x43, 0x34), (0x70, 5), (0x3ff, 3), (0x602, 1), (0xcf9, 2), (0x443, 0)]
    {
        world.rig.outb(port, value);
        digests.push(digest(&world.rig));
    }
    for slot in 0..4 {
        world.rig.write(slot, 0x030, 7);
        digests.push(digest(&world.rig));
    }
    world.rig.apply(Event::Time(VirtualTime(1)));
    digests.push(digest(&world.rig));
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn operations_in_flight_are_told_oldest_first() {
    let mut world = World::new();
    for slot in [BLOCK, ENTROPY, BLOCK] {
        world.offer(slot, 0, &[0], 100);
    }
    let effects: Vec<Effect> = std::iter::from_fn(|| world.rig.board.take_effect()).collect();
    let ops: Vec<Option<OpId>> = effects.iter().map(|effect| effect.op).collect();
    assert_eq!(ops, [1, 2, 3].map(|op| Some(OpId(op))));
    assert_eq!(world.rig.board.in_flight(), effects);
}
