//! What tests of the software vCPU stand on: a flat machine in long mode, and a platform that records.

#![allow(dead_code, reason = "each test file uses a part")]

use ft_core::units::Tick;
use ft_vmm::ram::Ram;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::{CpuState, Platform, Segment, Table, Vcpu, VcpuStop};
use vm_memory::{Bytes as _, GuestAddress};

/// Where code starts.
pub(crate) const CODE: u64 = 0x10_0000;
/// The top of the stack.
pub(crate) const STACK: u64 = 0x9_0000;
/// Memory for operands.
pub(crate) const DATA: u64 = 0x8_0000;
/// Where the page tables are.
pub(crate) const TABLES: u64 = 0x20_0000;
/// RAM of the bed.
pub(crate) const RAM_BYTES: u64 = 0x40_0000;
/// Where a device answers.
pub(crate) const DEVICE: u64 = 0xd000_0000;

/// Ports and devices that answer from a counter, and record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bed {
    /// Everything that was asked of it.
    pub(crate) log: Vec<String>,
    /// Vector of an interrupt that is asserted from its tick on, until it is acknowledged.
    pub(crate) interrupts: Vec<u8>,
    /// It wants a stop after the next access.
    pub(crate) stop: bool,
    /// Writes to this port assert an interrupt with the value as vector.
    pub(crate) reads: u64,
}

impl Platform for Bed {
    fn pio_read(&mut self, at: Tick, port: u16, data: &mut [u8]) {
        self.reads += 1;
        data.fill(self.reads as u8);
        self.log.push(format!("{} in {port:#x} {}", at.0, data.len()));
    }

    fn pio_write(&mut self, at: Tick, port: u16, data: &[u8]) {
        self.log.push(format!("{} out {port:#x} {data:x?}", at.0));
        match port {
            0x80 => self.interrupts.push(data[0]),
            0x81 => self.stop = true,
            _ => {}
        }
    }

    fn mmio_read(&mut self, at: Tick, gpa: u64, data: &mut [u8]) {
        self.reads += 1;
        data.fill(self.reads as u8);
        self.log.push(format!("{} read {gpa:#x} {}", at.0, data.len()));
    }

    fn mmio_write(&mut self, at: Tick, gpa: u64, data: &[u8]) {
        self.log.push(format!("{} write {gpa:#x} {data:x?}", at.0));
    }

    fn tsc(&mut self, at: Tick) -> u64 {
        at.0 + 1_000_000
    }

    fn interrupt(&self) -> bool {
        !self.interrupts.is_empty()
    }

    fn acknowledge(&mut self) -> u8 {
        self.interrupts.remove(0)
    }

    fn wants_stop(&self) -> bool {
        self.stop
    }
}

/// A segment as a descriptor in a flat table has it.
pub(crate) fn flat_segment(selector: u16, attributes: u16) -> Segment {
    Segment { selector, base: 0, limit: u32::MAX, attributes }
}

/// RAM with an identity map of 4 KiB pages, and 2 MiB pages for the device.
pub(crate) fn ram() -> Ram {
    let ram = Ram::new(RAM_BYTES).unwrap();
    map_identity(&ram);
    ram
}

/// Writes a table entry.
pub(crate) fn put(ram: &Ram, gpa: u64, value: u64) {
    ram.memory().write_obj(value, GuestAddress(gpa)).unwrap();
}

/// Reads 8 bytes.
pub(crate) fn get(ram: &Ram, gpa: u64) -> u64 {
    ram.memory().read_obj(GuestAddress(gpa)).unwrap()
}

/// The entry of the lowest level that maps `address` in [`map_identity`]'s tables.
pub(crate) fn entry_of(address: u64) -> u64 {
    TABLES + 0x4000 + (address >> 12) * 8
}

/// PML4, PDPT, PD for the first GiB, PD for the device, then page tables.
pub(crate) fn map_identity(ram: &Ram) {
    put(ram, TABLES, (TABLES + 0x1000) | 0x27);
    put(ram, TABLES + 0x1000, (TABLES + 0x2000) | 0x27);
    put(ram, TABLES + 0x1000 + 3 * 8, (TABLES + 0x3000) | 0x27);
    for table in 0..RAM_BYTES >> 21 {
        put(ram, TABLES + 0x2000 + table * 8, (TABLES + 0x4000 + table * 0x1000) | 0x27);
    }
    for page in 0..RAM_BYTES >> 12 {
        put(ram, TABLES + 0x4000 + page * 8, page << 12 | 0x67);
    }
    put(ram, TABLES + 0x3000 + ((DEVICE >> 21) & 0x1ff) * 8, DEVICE | 0xff);
}

/// Long mode, ring 3 or ring 0, paging, everything mapped.
pub(crate) fn long_state(ring: u16) -> CpuState {
    let dpl = ring << 5;
    let (code, data) = if ring == 0 { (0x10, 0x18) } else { (0x33, 0x2b) };
    let null = Segment { attributes: Segment::UNUSABLE, ..Segment::default() };
    let mut segments = [null; 6];
    segments[1] = flat_segment(code, 0xa09b | dpl);
    segments[2] = flat_segment(data, 0xc093 | dpl);
    CpuState {
        rip: CODE,
        rflags: 0x202,
        segments,
        task: Segment { selector: 0x40, base: 0x1100, limit: 0x67 + 0x2001, attributes: 0x8b },
        ldt: Segment { attributes: Segment::UNUSABLE, ..Segment::default() },
        gdt: Table { base: 0x1000, limit: 0xff },
        idt: Table { base: 0x4000, limit: 0xfff },
        cr0: 0x8001_0033,
        cr3: TABLES,
        cr4: 0x620,
        efer: 0xd01,
        gpr: {
            let mut gpr = [0; 16];
            gpr[4] = STACK;
            gpr
        },
        mtrr: vec![0; 28],
        ..CpuState::default()
    }
}

/// Writes the GDT, the TSS and an IDT whose vector n leads to `handler(n)`.
pub(crate) fn put_system_tables(ram: &Ram, handler: impl Fn(u64) -> u64) {
    for (index, descriptor) in [
        (2, 0x00af_9b00_0000_ffff_u64),
        (3, 0x00cf_9300_0000_ffff),
        (5, 0x00cf_f300_0000_ffff),
        (6, 0x00af_fb00_0000_ffff),
    ] {
        put(ram, 0x1000 + index * 8, descriptor);
    }
    put(ram, 0x1100 + 4, 0x8000);
    put(ram, 0x1100 + 0x66, 0x68);
    for vector in 0..256 {
        let offset = handler(vector);
        let low = offset & 0xffff | 0x10 << 16 | 0xee00 << 32 | (offset >> 16 & 0xffff) << 48;
        put(ram, 0x4000 + vector * 16, low);
        put(ram, 0x4000 + vector * 16 + 8, offset >> 32);
    }
}

/// Puts code at [`CODE`].
pub(crate) fn load(ram: &Ram, code: &[u8]) {
    ram.memory().write_slice(code, GuestAddress(CODE)).unwrap();
}

/// Runs `state` for `ticks` ticks.
pub(crate) fn run(ram: &Ram, state: &CpuState, bed: &mut Bed, ticks: u64) -> (VcpuStop, CpuState) {
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(state).unwrap();
    let stop = vcpu.run(ram, bed, Tick(state.tick + ticks)).unwrap();
    (stop, vcpu.state())
}
