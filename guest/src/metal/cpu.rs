//! Interrupts, faults, idling and ports.
//!
//! Ring 0 runs nothing but the stubs below, each at most ten instructions on integers: one for each line of the interrupt controllers,
//! which sets that line's flag; one for `int3`, which halts unless a flag is set; and those of the faults, which note what happened and
//! return into [`fault_report`] in ring 3.
//!
//! Invariant: a flag set before or during [`idle`] ends it. The stub looks at the flags with interrupts off, and STI holds them off
//! until HLT has begun.

use core::arch::{asm, global_asm};
use core::fmt::Write as _;
use core::ptr::{addr_of, addr_of_mut};
use core::sync::atomic::{AtomicU64, Ordering};

/// First vector of the interrupt controllers' sixteen lines.
const VECTOR_LINE_0: usize = 0x20;
const VECTOR_INT3: usize = 3;
const IDT: *mut Gate = 0x4000 as *mut Gate;
/// Selector of the kernel's code segment.
const KERNEL_CODE: u16 = 0x10;
/// Interrupt gate, present; interrupts are off inside.
const GATE: u8 = 0x8e;
/// The same, and ring 3 may call it.
const GATE_RING_3: u8 = 0xee;
const EMERGENCY_STACK_BYTES: usize = 16 * 1024;

/// Vectors 0-31 that push an error code.
const WITH_ERROR_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;

#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    zero: u32,
}

/// One byte for each line, as two words.
#[unsafe(no_mangle)]
static LINE_FLAGS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// What a fault's stub noted: vector, error code, RIP, CR2.
#[unsafe(no_mangle)]
static mut FAULT: [u64; 4] = [0; 4];

#[unsafe(no_mangle)]
static mut EMERGENCY_STACK: [u8; EMERGENCY_STACK_BYTES] = [0; EMERGENCY_STACK_BYTES];

global_asm!(
    ".balign 16",
    ".global idle_stub",
    "idle_stub:",
    "cmp qword ptr [LINE_FLAGS], 0",
    "jne 2f",
    "cmp qword ptr [LINE_FLAGS + 8], 0",
    "jne 2f",
    "sti",
    "hlt",
    "2: iretq",
    // Sixteen stubs of sixteen bytes.
    ".balign 16",
    ".global line_stubs",
    "line_stubs:",
    ".set line, 0",
    ".rept 16",
    ".balign 16",
    "mov byte ptr [LINE_FLAGS + line], 1",
    "iretq",
    ".set line, line + 1",
    ".endr",
    // Thirty-two stubs of 32 bytes; without an error code a zero stands for it.
    ".balign 32",
    ".global fault_stubs",
    "fault_stubs:",
    ".set vector, 0",
    ".rept 32",
    ".balign 32",
    ".if (({codes} >> vector) & 1) == 0",
    "push 0",
    ".endif",
    "mov dword ptr [FAULT], vector",
    "jmp fault_common",
    ".set vector, vector + 1",
    ".endr",
    // Ends in ring 3, on a stack of its own, with interrupts as they were.
    "fault_common:",
    "pop qword ptr [FAULT + 8]",
    "pop qword ptr [FAULT + 16]",
    "mov rax, cr2",
    "mov qword ptr [FAULT + 24], rax",
    "push offset fault_report",
    "mov qword ptr [rsp + 24], offset EMERGENCY_STACK + {stack} - 8",
    "iretq",
    codes = const WITH_ERROR_CODE,
    stack = const EMERGENCY_STACK_BYTES,
);

unsafe extern "C" {
    static idle_stub: u8;
    static line_stubs: u8;
    static fault_stubs: u8;
}

/// Fills the gates.
pub(crate) fn set_gates() {
    let idle = addr_of!(idle_stub) as usize;
    let lines = addr_of!(line_stubs) as usize;
    let faults = addr_of!(fault_stubs) as usize;
    for vector in 0..32 {
        set_gate(vector, faults + vector * 32, GATE);
    }
    for line in 0..16 {
        set_gate(VECTOR_LINE_0 + line, lines + line * 16, GATE);
    }
    set_gate(VECTOR_INT3, idle, GATE_RING_3);
}

fn set_gate(vector: usize, to: usize, kind: u8) {
    let gate = Gate {
        offset_low: to as u16,
        selector: KERNEL_CODE,
        stack: 0,
        kind,
        offset_middle: (to >> 16) as u16,
        offset_high: (to >> 32) as u32,
        zero: 0,
    };
    // SAFETY: the loader left a table of 256 gates there for the guest to fill; nothing else uses this memory.
    unsafe { IDT.add(vector).write_volatile(gate) };
}

/// Programs both interrupt controllers: vectors from 0x20 on, edges, no end of interrupt needed. Only `lines` are let through.
pub(crate) fn unmask(lines: u16) {
    const CASCADE: u16 = 1 << 2;
    for (port, vector, cascade) in
        [(0x20u16, VECTOR_LINE_0 as u8, 1 << 2), (0xa0, VECTOR_LINE_0 as u8 + 8, 2)]
    {
        out8(port, 0x11);
        out8(port + 1, vector);
        out8(port + 1, cascade);
        out8(port + 1, 0x03);
    }
    out8(0x4d0, 0);
    out8(0x4d1, 0);
    let masks = !(lines | CASCADE);
    out8(0x21, masks as u8);
    out8(0xa1, (masks >> 8) as u8);
}

/// Takes the flags of the lines that have interrupted: bit n for line n.
pub(crate) fn take_lines() -> u16 {
    let mut lines = 0;
    for (half, flags) in LINE_FLAGS.iter().enumerate() {
        if flags.load(Ordering::Relaxed) != 0 {
            let bytes = flags.swap(0, Ordering::Relaxed).to_le_bytes();
            for (line, flag) in bytes.into_iter().enumerate() {
                lines |= u16::from(flag) << (half * 8 + line);
            }
        }
    }
    lines
}

/// Halts until a line interrupts; at once back if one has since [`take_lines`].
pub(crate) fn idle() {
    // SAFETY: the gate is `idle_stub`, which changes no register.
    unsafe { asm!("int3") };
}

/// Reports the fault that a stub noted. The stack is [`EMERGENCY_STACK`].
#[unsafe(no_mangle)]
extern "C" fn fault_report() -> ! {
    // SAFETY: written by the stub before it returned to here, and by nobody else.
    let [vector, code, rip, cr2] = unsafe { addr_of_mut!(FAULT).read_volatile() };
    let _ =
        writeln!(super::serial::Serial, "fault: vector {vector} code {code:#x} rip {rip:#x} cr2 {cr2:#x}");
    crash()
}

/// Turns the machine off.
pub(crate) fn power_off() -> ! {
    const SLEEP_S5: u16 = 0x2000 | 0x1400;
    out16(0x604, SLEEP_S5);
    loop {
        idle();
        take_lines();
    }
}

/// Shuts the processor down: what becomes of the machine is for whoever runs it to say. A fault finds no gate, nor does the fault that
/// this is, nor the one after.
pub(crate) fn crash() -> ! {
    const GATES: usize = 256;
    for vector in 0..GATES {
        // SAFETY: as in `set_gate`. A gate of zeros is not present.
        unsafe { IDT.add(vector).cast::<[u64; 2]>().write_volatile([0; 2]) };
    }
    // SAFETY: nothing comes after it.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Does nothing any more, and hears nothing.
pub(crate) fn hang() -> ! {
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
    loop {
        core::hint::spin_loop();
    }
}

/// OUT of a byte.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: devices of this machine do nothing to memory that was not handed to them.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// OUT of 16 bits.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as in `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
}

/// IN of a byte.
pub(crate) fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// IN of 32 bits.
pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
    value
}
