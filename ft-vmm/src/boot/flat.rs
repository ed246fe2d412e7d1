//! Starts a guest that runs in ring 3 from its first instruction on. The layout is docs/guest.md's.

use super::{BootError, BootSource, attributes, descriptor, flat_segment, load_elf, long_mode, write};
use crate::ram::{PAGE_BYTES, Ram};
use crate::vcpu::{CpuState, Segment, Table};

const GDT: u64 = 0x1000;
const TSS: u64 = 0x1100;
/// I/O bitmap of all ports, and the byte of ones that must follow it.
const TSS_BYTES: usize = 104 + 8192 + 1;
const BOOT_PAGE: u64 = 0x3200;
const IDT: u64 = 0x4000;
const RING0_STACK: u64 = 0x8000;
const LOW_END: u64 = 0x10_0000;
const MAGIC: u64 = u64::from_le_bytes(*b"FLFTBOOT");

/// virtio-mmio slots.
const DEVICES: std::ops::Range<u64> = 0xd000_0000..0xd000_0000 + 8 * PAGE_BYTES as u64;

mod pte {
    /// Present, writable, user, accessed.
    pub(super) const TABLE: u64 = 0x27;
    /// The same, and dirty.
    pub(super) const PAGE: u64 = 0x67;
    /// Write-through and not cached.
    pub(super) const DEVICE: u64 = PAGE | 0x18;
}

pub(super) fn load(source: &BootSource, ram: &Ram) -> Result<CpuState, BootError> {
    let (entry, image_end) = load_elf(&source.image, ram)?;
    if entry < LOW_END {
        let reason = format!("its entry point {entry:#x} is in the first MiB, where the loader's tables are");
        return Err(BootError::Image { expected: "a flat guest", reason });
    }
    let tables = image_end.max(LOW_END).next_multiple_of(PAGE_BYTES as u64);
    let free = PageTables { ram, next: tables }.build()?;
    write_gdt(ram)?;
    write_tss(ram)?;
    write_boot_page(source, ram, free)?;
    let stack = ram.bytes() - 16;
    if free >= stack {
        return Err(BootError::Room { what: "the guest", ram_bytes: ram.bytes() });
    }
    Ok(start(entry, tables, stack))
}

fn start(entry: u64, cr3: u64, stack: u64) -> CpuState {
    let mut gpr = [0; 16];
    gpr[4] = stack;
    gpr[7] = BOOT_PAGE;
    let null = Segment { attributes: Segment::UNUSABLE, ..Segment::default() };
    let code = flat_segment(0x33, attributes::USER_CODE);
    let stack = flat_segment(0x2b, attributes::USER_DATA);
    CpuState {
        gpr,
        rip: entry,
        rflags: 0x202,
        segments: [null, code, stack, null, null, null],
        task: Segment { selector: 0x40, base: TSS, limit: TSS_BYTES as u32 - 1, attributes: attributes::TSS },
        gdt: Table { base: GDT, limit: 10 * 8 - 1 },
        idt: Table { base: IDT, limit: 256 * 16 - 1 },
        ..long_mode(cr3)
    }
}

fn write_gdt(ram: &Ram) -> Result<(), BootError> {
    let tss = (TSS_BYTES as u64 - 1) | TSS << 16 | u64::from(attributes::TSS & 0xff) << 40;
    let entries = [
        0,
        0,
        descriptor(attributes::KERNEL_CODE),
        descriptor(attributes::KERNEL_DATA),
        0,
        descriptor(attributes::USER_DATA),
        descriptor(attributes::USER_CODE),
        0,
        tss,
        0,
    ];
    let bytes: Vec<u8> = entries.iter().flat_map(|entry: &u64| entry.to_le_bytes()).collect();
    write(ram, GDT, &bytes, "the GDT")
}

/// Every port is allowed: the bitmap is all zero but for the byte after it.
fn write_tss(ram: &Ram) -> Result<(), BootError> {
    let mut tss = vec![0; TSS_BYTES];
    tss[4..12].copy_from_slice(&RING0_STACK.to_le_bytes());
    tss[102..104].copy_from_slice(&104u16.to_le_bytes());
    tss[TSS_BYTES - 1] = 0xff;
    write(ram, TSS, &tss, "the TSS")
}

fn write_boot_page(source: &BootSource, ram: &Ram, free: u64) -> Result<(), BootError> {
    let line = source.command_line.as_bytes();
    let words = [MAGIC, ram.bytes(), free, line.len() as u64];
    let mut page: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    page.extend_from_slice(line);
    write(ram, BOOT_PAGE, &page, "the boot page")
}

/// An identity map of RAM and devices in 4 KiB pages.
struct PageTables<'a> {
    ram: &'a Ram,
    /// Where the next table goes.
    next: u64,
}

impl PageTables<'_> {
    /// Returns the first address after the tables. The first table is where they began.
    fn build(mut self) -> Result<u64, BootError> {
        let pml4 = self.table()?;
        let pdpt = self.table()?;
        self.entry(pml4, 0, pdpt | pte::TABLE)?;
        for (range, flags) in [(0..self.ram.bytes(), pte::PAGE), (DEVICES, pte::DEVICE)] {
            self.map(pdpt, range, flags)?;
        }
        Ok(self.next)
    }

    fn map(&mut self, pdpt: u64, range: std::ops::Range<u64>, flags: u64) -> Result<(), BootError> {
        let (mut directory, mut table) = (None, 0);
        for (n, address) in range.clone().step_by(PAGE_BYTES).enumerate() {
            if n == 0 || address % (1 << 30) == 0 {
                let fresh = self.table()?;
                self.entry(pdpt, address >> 30, fresh | pte::TABLE)?;
                directory = Some(fresh);
            }
            if n == 0 || address % (1 << 21) == 0 {
                table = self.table()?;
                let directory = directory.expect("made with the first page");
                self.entry(directory, address >> 21 & 511, table | pte::TABLE)?;
            }
            self.entry(table, address >> 12 & 511, address | flags)?;
        }
        Ok(())
    }

    fn table(&mut self) -> Result<u64, BootError> {
        let table = self.next;
        self.next += PAGE_BYTES as u64;
        if self.next > self.ram.bytes() {
            return Err(BootError::Room { what: "the page tables", ram_bytes: self.ram.bytes() });
        }
        Ok(table)
    }

    fn entry(&self, table: u64, index: u64, value: u64) -> Result<(), BootError> {
        write(self.ram, table + 8 * index, &value.to_le_bytes(), "the page tables")
    }
}
