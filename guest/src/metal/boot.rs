//! From the entry point to `main`: the boot page, the gates, the memory.

use super::serial::Serial;
use super::{cpu, memory};
use core::arch::naked_asm;
use core::fmt::Write as _;
use core::panic::PanicInfo;

/// "FLFTBOOT" in memory order.
const MAGIC: u64 = 0x544f_4f42_5446_4c46;
const COMMAND_LINE_BYTES_MAX: u64 = 2048;
/// What the stack may grow to, at the top of RAM.
const STACK_BYTES: usize = 512 * 1024;
/// Above the stack pointer at the start.
const STACK_TOP_BYTES: usize = 16;

#[repr(C)]
struct BootPage {
    magic: u64,
    ram_bytes: u64,
    first_free: u64,
    command_line_bytes: u64,
    command_line: u8,
}

/// What the loader said.
pub(crate) struct Boot {
    /// Memory given to the allocator.
    pub(crate) heap_bytes: usize,
    /// The command line.
    pub(crate) command_line: &'static str,
}

/// RDI is the boot page; the stack pointer is a multiple of 16, as nothing is before a call.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!("xor ebp, ebp", "call {start}", "ud2", start = sym start)
}

extern "C" fn start(page: *const BootPage) -> ! {
    cpu::set_gates();
    Serial::set_up();
    // SAFETY: the loader passes the boot page, which is nobody else's until now.
    let page = unsafe { &*page };
    assert!(page.magic == MAGIC, "no boot page");
    assert!(page.command_line_bytes <= COMMAND_LINE_BYTES_MAX, "a command line without end");
    let from = page.first_free as usize;
    let to = page.ram_bytes as usize - STACK_TOP_BYTES - STACK_BYTES;
    assert!(from < to, "too little memory");
    // SAFETY: free memory, up to where the stack may be.
    unsafe { memory::give(from, to) };
    // SAFETY: inside the boot page, whose content stays as it is.
    let line = unsafe {
        core::slice::from_raw_parts(&raw const page.command_line, page.command_line_bytes as usize)
    };
    let command_line = core::str::from_utf8(line).unwrap_or("");
    crate::main(Boot { heap_bytes: to - from, command_line })
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "guest: {info}");
    cpu::crash()
}

/// The prebuilt library of collections names this; nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    panic!("unwinding")
}
