//! Segments, gates, decimal arithmetic and paging of protected mode.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/bed.rs"]
mod bed;
#[path = "soft/handlers.rs"]
mod handlers;

use bed::{CODE, DATA, STACK, get, put};
use ft_vmm::ram::Ram;
use ft_vmm::vcpu::CpuState;
use handlers::{HANDLER, machine, run, vector};
use vm_memory::{Bytes as _, GuestAddress};

/// Protected mode: flat 32-bit segments, a GDT with all that the tests name, an IDT of 32-bit gates.
fn protected(ram: &Ram, ring: u16) -> CpuState {
    for (index, descriptor) in [
        (1, 0x00cf_9b00_0000_ffff_u64),
        (2, 0x00cf_9300_0000_ffff),
        (3, 0x00cf_fb00_0000_ffff),
        (4, 0x00cf_f300_0000_ffff),
        // 5: data at DATA, 16 bytes. 6: the same, read-only. 7: expands down from 0xfff. 9: call gate to 0x08:HANDLER, one value.
        (5, 0x0000_f300_0000_000f | DATA << 16),
        (6, 0x0000_f100_0000_000f | DATA << 16),
        (7, 0x0040_f700_0000_0fff),
        (9, 0x0000_ec01_0008_0000 | (HANDLER & 0xffff) | (HANDLER >> 16) << 48),
    ] {
        put(ram, 0x1000 + index * 8, descriptor);
    }
    for vector in 0..256 {
        let offset = HANDLER + vector;
        put(ram, 0x4000 + vector * 8, offset & 0xffff | 8 << 16 | 0xee00 << 32 | (offset >> 16) << 48);
    }
    put(ram, 0x1100 + 4, 0x10_0000_8000);
    let mut state = bed::long_state(ring);
    let (code, data) = if ring == 0 { (0x08, 0x10) } else { (0x1b, 0x23) };
    state.segments = [bed::flat_segment(data, 0xc093 | ring << 5); 6];
    state.segments[1] = bed::flat_segment(code, 0xc09b | ring << 5);
    (state.cr0, state.cr4, state.efer) = (0x11, 0, 0);
    state.idt.limit = 0x7ff;
    state
}

#[test]
fn segments_are_checked_in_protected_mode() {
    let load = |selector: u8, rest: &[u8]| [&[0x66, 0xb8, selector, 0x00, 0x8e, 0xd8], rest].concat();
    #[rustfmt::skip]
    let cases: &[(&str, u8, &[u8], u64)] = &[
        ("mov eax, [12]", 0x2b, &[0xa1, 12, 0, 0, 0, 0xcc], 3),
        ("mov eax, [13]", 0x2b, &[0xa1, 13, 0, 0, 0], 13),
        ("mov [12], eax", 0x2b, &[0xa3, 12, 0, 0, 0, 0xcc], 3),
        ("mov [12], eax, read-only", 0x33, &[0xa3, 12, 0, 0, 0], 13),
        ("mov eax, [0x1000], down", 0x3b, &[0xa1, 0, 0x10, 0, 0, 0xcc], 3),
        ("mov eax, [0xffe], down", 0x3b, &[0xa1, 0xfe, 0x0f, 0, 0], 13),
        ("mov eax, [0], null", 0x00, &[0xa1, 0, 0, 0, 0], 13),
        ("bound eax, [0]", 0x2b, &[0xb8, 5, 0, 0, 0, 0x62, 0x05, 0, 0, 0, 0], 5),
        ("bound ebx, [0]", 0x2b, &[0x62, 0x1d, 0, 0, 0, 0, 0xcc], 3),
        ("into", 0x2b, &[0xb0, 0x7f, 0x04, 0x01, 0xce], 4),
    ];
    for (name, selector, code, wanted) in cases {
        let ram = machine();
        let state = protected(&ram, 3);
        let (found, error, after) = vector(&ram, &state, &load(*selector, code));
        assert_eq!((found, error), (*wanted, 0), "{name}");
        assert_eq!(after.segments[2].selector, 0x10, "{name}: the stack of ring 0");
    }
}

#[test]
fn rings_change_in_protected_mode() {
    let ram = machine();
    let state = protected(&ram, 3);
    // int 0x40, with IRET at its handler, then int3
    ram.memory().write_obj(0xcf_u8, GuestAddress(HANDLER + 0x40)).unwrap();
    let (found, _, after) = vector(&ram, &state, &[0xcd, 0x40, 0x8c, 0xc8, 0x89, 0xe3, 0xcc]);
    assert_eq!((found, after.gpr[0], after.gpr[3]), (3, 0x1b, STACK));
    // push 0x1234; call 0x4b:0, through the gate
    let (found, _, after) = vector(&ram, &state, &[0x68, 0x34, 0x12, 0, 0, 0x9a, 0, 0, 0, 0, 0x4b, 0]);
    assert_eq!((found, after.gpr[4]), (0, 0x8000 - 20));
    let frame: Vec<_> = (0..5).map(|n| get(&ram, after.gpr[4] + n * 4) & 0xffff_ffff).collect();
    assert_eq!(frame, [CODE + 12, 0x1b, 0x1234, STACK - 4, 0x23]);
}

#[test]
fn decimal_arithmetic() {
    // Instruction, AX and flags before, AX and CF, AF after.
    #[rustfmt::skip]
    let cases: &[(&[u8], u64, u64, u64, u64)] = &[
        (&[0x27], 0xae, 0, 0x14, 0x11),
        (&[0x27], 0x79, 0x10, 0x7f, 0x10),
        (&[0x27], 0x12, 0x01, 0x72, 0x01),
        (&[0x2f], 0xee, 0, 0x88, 0x11),
        (&[0x2f], 0x03, 0x10, 0x9d + 0x60, 0x11),
        (&[0x37], 0x010f, 0, 0x0205, 0x11),
        (&[0x37], 0x0105, 0, 0x0105, 0),
        (&[0x3f], 0x020f, 0, 0x0109, 0x11),
        (&[0xd4, 0x0a], 0x3f, 0, 0x0603, 0),
        (&[0xd5, 0x0a], 0x0603, 0, 0x3f, 0),
    ];
    for (code, before, flags, wanted, flags_wanted) in cases {
        let ram = machine();
        let mut state = protected(&ram, 3);
        state.gpr[0] = *before;
        state.rflags |= flags;
        let (_, after) = run(&ram, &state, &[code, &[0xcc][..]].concat());
        assert_eq!((after.gpr[0], after.rflags & 0x11), (*wanted, *flags_wanted), "{code:x?} {before:x}");
    }
}

#[test]
fn paging_of_protected_mode() {
    let directory = 0x30_0000;
    for pae in [false, true] {
        let ram = machine();
        let mut state = protected(&ram, 0);
        state.cr0 |= 1 << 31 | 1 << 16;
        state.cr3 = directory;
        if pae {
            // One GiB, of which the first 2 MiB are mapped at once, and a page of 4 KiB at 2 MiB.
            state.cr4 = 1 << 5;
            put(&ram, directory, (directory + 0x1000) | 1);
            put(&ram, directory + 0x1000, 0x83);
            put(&ram, directory + 0x1008, (directory + 0x2000) | 3);
            put(&ram, directory + 0x2000, DATA | 1);
        } else {
            state.cr4 = 1 << 4;
            put(&ram, directory, 0x83);
            put(&ram, directory + 4, (directory + 0x1000) | 3);
            put(&ram, directory + 0x1000, DATA | 1);
        }
        let mapped: u32 = if pae { 0x20_0000 } else { 0x40_0000 };
        put(&ram, DATA, 0x5555_6666);
        // mov eax, [mapped]; mov [mapped], eax
        let code = [&[0xa1][..], &mapped.to_le_bytes(), &[0xa3], &mapped.to_le_bytes()].concat();
        let (found, error, after) = vector(&ram, &state, &code);
        assert_eq!((found, error, after.cr2, after.gpr[0]), (14, 3, u64::from(mapped), 0x5555_6666), "{pae}");
    }
}
