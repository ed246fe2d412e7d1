//! Starts Linux by its 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit boot protocol").

use super::{BootError, BootSource, attributes, descriptor, flat_segment, load_elf, long_mode, write};
use crate::ram::{RAM_BYTES_MAX, Ram};
use crate::vcpu::{CpuState, Segment, Table};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator as _, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, KernelLoader as _};
use vm_memory::GuestAddress;

const GDT: u64 = 0x500;
const IDT: u64 = 0x520;
const ZERO_PAGE: u64 = 0x7000;
const STACK: u64 = 0x8ff0;
const PML4: u64 = 0x9000;
const COMMAND_LINE: u64 = 0x2_0000;
/// The end of RAM below the legacy hole, less the last KiB, where firmware keeps its data.
const LOW_END: u64 = 0x9_fc00;
const HIGH_START: u64 = 0x10_0000;
/// The 64-bit entry point stands this far behind the 32-bit one.
const ENTRY_64: u64 = 0x200;
const E820_RAM: u32 = 1;
const LOADER_UNDEFINED: u8 = 0xff;

pub(super) fn load(source: &BootSource, ram: &Ram) -> Result<CpuState, BootError> {
    let (entry, end, mut params) = load_kernel(&source.image, ram)?;
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = 0x5372_6448;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    params.hdr.cmdline_size = source.command_line.len() as u32;
    write(ram, COMMAND_LINE, format!("{}\0", source.command_line).as_bytes(), "the command line")?;
    if let Some(initrd) = &source.initrd {
        let at = initrd_address(initrd.len() as u64, end, ram)?;
        write(ram, at, initrd, "the initial RAM disk")?;
        params.hdr.ramdisk_image = at as u32;
        params.hdr.ramdisk_size = initrd.len() as u32;
    }
    let regions = [(0, LOW_END), (HIGH_START, ram.bytes())];
    for (n, (from, to)) in regions.into_iter().enumerate() {
        params.e820_table[n] = boot_e820_entry { addr: from, size: to - from, r#type: E820_RAM };
    }
    params.e820_entries = regions.len() as u8;
    let params = BootParams::new(&params, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, ram.memory())
        .map_err(|_| BootError::Room { what: "the boot parameters", ram_bytes: ram.bytes() })?;
    write_tables(ram)?;
    Ok(start(entry))
}

/// Loads a bzImage, or an ELF file. Returns where to enter, where it ends, and the header that it brings.
fn load_kernel(image: &[u8], ram: &Ram) -> Result<(u64, u64, boot_params), BootError> {
    if ram.bytes() < 16 << 20 {
        return Err(BootError::Room { what: "a Linux kernel", ram_bytes: ram.bytes() });
    }
    let mut params = boot_params::default();
    if image.starts_with(b"\x7fELF") {
        let (entry, end) = load_elf(image, ram)?;
        return Ok((entry, end, params));
    }
    let wrong = |error: linux_loader::loader::Error| {
        let expected = "a Linux kernel (bzImage or ELF)";
        BootError::Image { expected, reason: error.to_string() }
    };
    let mut reader = std::io::Cursor::new(image);
    let loaded =
        BzImage::load(ram.memory(), None, &mut reader, Some(GuestAddress(HIGH_START))).map_err(wrong)?;
    params.hdr = loaded.setup_header.unwrap_or_default();
    // The decompressor works in place, above the compressed image.
    let end = loaded.kernel_load.0 + u64::from(params.hdr.init_size);
    Ok((loaded.kernel_load.0 + ENTRY_64, end.max(loaded.kernel_end), params))
}

/// As high as it may be: away from the kernel while it unpacks itself.
fn initrd_address(bytes: u64, kernel_end: u64, ram: &Ram) -> Result<u64, BootError> {
    let top = ram.bytes().min(RAM_BYTES_MAX);
    top.checked_sub(bytes)
        .map(|at| at & !0xfff)
        .filter(|at| *at >= kernel_end)
        .ok_or(BootError::Room { what: "the initial RAM disk", ram_bytes: ram.bytes() })
}

/// GDT, an empty IDT, and an identity map of the first 4 GiB in 2 MiB pages.
fn write_tables(ram: &Ram) -> Result<(), BootError> {
    let gdt = [0, 0, descriptor(attributes::KERNEL_CODE), descriptor(attributes::KERNEL_DATA)];
    let bytes = |entries: &[u64]| entries.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>();
    write(ram, GDT, &bytes(&gdt), "the GDT")?;
    let pdpt = PML4 + 0x1000;
    write(ram, PML4, &bytes(&[pdpt | 3]), "the page tables")?;
    for gib in 0..4 {
        let directory = pdpt + 0x1000 * (gib + 1);
        write(ram, pdpt + 8 * gib, &bytes(&[directory | 3]), "the page tables")?;
        let pages: Vec<u64> = (0..512).map(|n| gib << 30 | n << 21 | 0x83).collect();
        write(ram, directory, &bytes(&pages), "the page tables")?;
    }
    Ok(())
}

fn start(entry: u64) -> CpuState {
    let mut gpr = [0; 16];
    gpr[4] = STACK;
    gpr[5] = STACK;
    gpr[6] = ZERO_PAGE;
    let data = flat_segment(0x18, attributes::KERNEL_DATA);
    let code = flat_segment(0x10, attributes::KERNEL_CODE);
    CpuState {
        gpr,
        rip: entry,
        rflags: 2,
        segments: [data, code, data, data, data, data],
        task: Segment { selector: 0, base: 0, limit: 0x67, attributes: attributes::TSS },
        gdt: Table { base: GDT, limit: 4 * 8 - 1 },
        idt: Table { base: IDT, limit: 7 },
        ..long_mode(PML4)
    }
}
