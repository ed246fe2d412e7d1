//! A machine's worth of board and RAM, and a virtio driver that knows only registers and guest memory.

use crate::board::{Board, BoardConfig, DiskConfig, SLOTS_GPA};
use crate::ram::Ram;
use crate::vcpu::Platform as _;
use ft_core::Event;
use ft_core::effect::Effect;
use ft_core::units::Tick;
use vm_memory::{Bytes as _, GuestAddress};

pub(super) const NET: u64 = 0;
pub(super) const BLOCK: u64 = 1;
pub(super) const CONSOLE: u64 = 2;
pub(super) const ENTROPY: u64 = 3;

pub(super) const RAM_BYTES: u64 = 1 << 20;
pub(super) const SECTORS: u64 = 4096;

/// Where a queue's rings lie: 16 KiB for each.
pub(super) fn rings_gpa(slot: u64, queue: u64) -> u64 {
    0x1_0000 + (slot * 2 + queue) * 0x4000
}

/// Where a queue's buffers lie: 16 KiB for each.
pub(super) fn buffers_gpa(slot: u64, queue: u64) -> u64 {
    0x4_0000 + (slot * 2 + queue) * 0x4000
}

pub(super) fn config() -> BoardConfig {
    BoardConfig {
        mac: Some([2, 0, 0, 0, 0, 7]),
        disk: Some(DiskConfig { sectors: SECTORS, read_only: false }),
        console: true,
        entropy: true,
        ..BoardConfig::default()
    }
}

pub(super) struct Rig {
    pub(super) board: Board,
    pub(super) ram: Ram,
    pub(super) tick: u64,
}

impl Rig {
    pub(super) fn new(config: &BoardConfig) -> Self {
        Self { board: Board::new(config), ram: Ram::new(RAM_BYTES).unwrap(), tick: 0 }
    }

    pub(super) fn read(&mut self, slot: u64, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.board.attach(&self.ram).mmio_read(
            Tick(self.tick),
            SLOTS_GPA + 0x1000 * slot + offset,
            &mut data,
        );
        u32::from_le_bytes(data)
    }

    pub(super) fn write(&mut self, slot: u64, offset: u64, value: u32) {
        let gpa = SLOTS_GPA + 0x1000 * slot + offset;
        self.board.attach(&self.ram).mmio_write(Tick(self.tick), gpa, &value.to_le_bytes());
    }

    pub(super) fn inb(&mut self, port: u16) -> u8 {
        let mut data = [0];
        self.board.attach(&self.ram).pio_read(Tick(self.tick), port, &mut data);
        data[0]
    }

    pub(super) fn outb(&mut self, port: u16, value: u8) {
        self.board.attach(&self.ram).pio_write(Tick(self.tick), port, &[value]);
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.board.apply(&event, &self.ram, Tick(self.tick)).unwrap();
    }

    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.board.take_effect()).collect()
    }

    pub(super) fn effect(&mut self) -> Effect {
        let mut effects = self.effects();
        assert_eq!(effects.len(), 1, "{effects:?}");
        effects.remove(0)
    }

    pub(super) fn ram_u16(&self, gpa: u64) -> u16 {
        self.ram.memory().read_obj(GuestAddress(gpa)).unwrap()
    }

    /// Reset, features, FEATURES_OK, the queues, DRIVER_OK.
    pub(super) fn drive(&mut self, slot: u64, queues: u64) -> Vec<Ring> {
        self.write(slot, 0x070, 0);
        self.write(slot, 0x070, 1 | 2);
        for page in 0..2 {
            self.write(slot, 0x014, page);
            let offered = self.read(slot, 0x010);
            self.write(slot, 0x024, page);
            self.write(slot, 0x020, offered);
        }
        self.write(slot, 0x070, 1 | 2 | 8);
        assert_eq!(self.read(slot, 0x070) & 8, 8, "features are agreed on");
        let rings = (0..queues).map(|queue| Ring::set_up(self, slot, queue)).collect();
        self.write(slot, 0x070, 1 | 2 | 8 | 4);
        rings
    }
}

/// A queue as its driver sees it: 8 entries.
pub(super) struct Ring {
    slot: u64,
    queue: u64,
    gpa: u64,
    buffers: u64,
    offered: u16,
    taken: u16,
    next_descriptor: u16,
}

pub(super) const RING_SIZE: u16 = 8;

impl Ring {
    pub(super) fn set_up(rig: &mut Rig, slot: u64, queue: u64) -> Self {
        let gpa = rings_gpa(slot, queue);
        rig.write(slot, 0x030, queue as u32);
        rig.write(slot, 0x038, u32::from(RING_SIZE));
        for (register, address) in [(0x080, gpa), (0x090, gpa + 0x1000), (0x0a0, gpa + 0x2000)] {
            rig.write(slot, register, address as u32);
            rig.write(slot, register + 4, 0);
        }
        rig.write(slot, 0x044, 1);
        assert_eq!(rig.read(slot, 0x044), 1);
        let buffers = buffers_gpa(slot, queue);
        Self { slot, queue, gpa, buffers, offered: 0, taken: 0, next_descriptor: 0 }
    }

    /// Makes a chain available: what the device may read, and how much it may write. Returns where the writable buffers are.
    pub(super) fn offer(&mut self, rig: &mut Rig, readable: &[&[u8]], writable: &[u32]) -> Vec<u64> {
        let head = self.next_descriptor;
        let (count, mut addresses) = (readable.len() + writable.len(), Vec::new());
        for n in 0..count {
            let len =
                readable.get(n).map_or_else(|| writable[n - readable.len()], |bytes| bytes.len() as u32);
            let mut flags = u16::from(n + 1 < count);
            match readable.get(n) {
                Some(bytes) => rig.ram.memory().write_slice(bytes, GuestAddress(self.buffers)).unwrap(),
                None => {
                    flags |= 2;
                    addresses.push(self.buffers);
                }
            }
            let at = self.next_descriptor;
            self.next_descriptor = (at + 1) % RING_SIZE;
            write_descriptor(rig, self.gpa, at, (self.buffers, len, flags, self.next_descriptor));
            self.buffers += u64::from(len);
        }
        self.publish(rig, head);
        addresses
    }

    /// Puts a head into the available ring.
    pub(super) fn publish(&mut self, rig: &mut Rig, head: u16) {
        let entry = self.gpa + 0x1004 + 2 * u64::from(self.offered % RING_SIZE);
        rig.ram.memory().write_obj(head, GuestAddress(entry)).unwrap();
        self.offered = self.offered.wrapping_add(1);
        rig.ram.memory().write_obj(self.offered, GuestAddress(self.gpa + 0x1002)).unwrap();
    }

    pub(super) fn notify(&self, rig: &mut Rig) {
        rig.write(self.slot, 0x050, self.queue as u32);
    }

    /// Uses its buffers again from the first on.
    pub(super) fn rewind(&mut self) {
        self.buffers = buffers_gpa(self.slot, self.queue);
    }

    /// What the device has given back since this was last called: head and length.
    pub(super) fn used(&mut self, rig: &Rig) -> Vec<(u32, u32)> {
        let upto = rig.ram_u16(self.gpa + 0x2002);
        let mut used = Vec::new();
        while self.taken != upto {
            let entry = self.gpa + 0x2004 + 8 * u64::from(self.taken % RING_SIZE);
            let word = |gpa| rig.ram.memory().read_obj::<u32>(GuestAddress(gpa)).unwrap();
            used.push((word(entry), word(entry + 4)));
            self.taken = self.taken.wrapping_add(1);
        }
        used
    }
}

/// Address, length, flags, next.
pub(super) fn write_descriptor(rig: &Rig, table: u64, at: u16, descriptor: (u64, u32, u16, u16)) {
    let (gpa, len, flags, next) = descriptor;
    let at = table + 16 * u64::from(at);
    let memory = rig.ram.memory();
    memory.write_obj(gpa, GuestAddress(at)).unwrap();
    memory.write_obj(len, GuestAddress(at + 8)).unwrap();
    memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
    memory.write_obj(next, GuestAddress(at + 14)).unwrap();
}

pub(super) fn bytes_at(rig: &Rig, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rig.ram.memory().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
    bytes
}
