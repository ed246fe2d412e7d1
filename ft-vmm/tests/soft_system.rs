//! Rings, exceptions, interrupts, ports and registers of the system in long mode.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/bed.rs"]
mod bed;
#[path = "soft/handlers.rs"]
mod handlers;

use bed::{Bed, CODE, DATA, STACK, get, put};
use ft_core::units::Tick;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::{CpuState, Vcpu as _, VcpuStop};
use handlers::{HANDLER, machine, run, vector};
use vm_memory::{Bytes as _, GuestAddress};

#[test]
fn exceptions_have_their_vectors_and_codes() {
    #[rustfmt::skip]
    let cases: &[(&str, u16, &[u8], u64, u64)] = &[
        ("div cl", 3, &[0xf6, 0xf1], 0, 0),
        ("int3", 3, &[0xcc], 3, 0),
        ("int1", 3, &[0xf1], 1, 0),
        ("ud2", 3, &[0x0f, 0x0b], 6, 0),
        ("an encoding without meaning", 3, &[0x0f, 0xff, 0xc0], 6, 0),
        ("vaddps, which this processor does not have", 3, &[0xc5, 0xf8, 0x58, 0xc0], 6, 0),
        ("lock nop", 3, &[0xf0, 0x90], 6, 0),
        ("16 bytes", 3, &[0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90], 13, 0),
        ("hlt", 3, &[0xf4], 13, 0),
        ("cli", 3, &[0xfa], 13, 0),
        ("mov eax, cr0", 3, &[0x0f, 0x20, 0xc0], 13, 0),
        ("wrmsr", 3, &[0x0f, 0x30], 13, 0),
        ("rdmsr of none", 0, &[0xb9, 0x99, 0x99, 0, 0, 0x0f, 0x32], 13, 0),
        ("lgdt", 3, &[0x0f, 0x01, 0x17], 13, 0),
        ("mov ds, ax: not in the table", 3, &[0x66, 0xb8, 0x03, 0x02, 0x8e, 0xd8], 13, 0x200),
        ("mov ss, ax: null", 3, &[0x31, 0xc0, 0x8e, 0xd0], 13, 0),
        ("mov ss, ax: of another ring", 3, &[0x66, 0xb8, 0x18, 0x00, 0x8e, 0xd0], 13, 0x18),
        ("mov cs, ax", 0, &[0x8e, 0xc8], 6, 0),
        ("jmp to no canonical address", 3, &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0xe0], 13, 0),
        ("movaps at 8", 3, &[0x0f, 0x28, 0x04, 0x25, 0x08, 0, 0x08, 0], 13, 0),
        ("clearing paging in 64-bit mode", 0, &[0x31, 0xc0, 0x0f, 0x22, 0xc0], 13, 0),
        ("swapgs", 3, &[0x0f, 0x01, 0xf8], 13, 0),
        ("aaa", 3, &[0x37], 6, 0),
    ];
    for (name, ring, code, wanted, error) in cases {
        let ram = machine();
        let (found, code_found, after) = vector(&ram, &bed::long_state(*ring), code);
        assert_eq!((found, code_found), (*wanted, *error), "{name}");
        assert_eq!(after.segments[2].attributes >> 5 & 3, 0, "{name}: ring 0");
    }
}

#[test]
fn sse_and_x87_ask_the_control_registers() {
    let (em, ts, osfxsr) = (1 << 2, 1 << 3, 1 << 9);
    let sse: &[u8] = &[0x0f, 0x57, 0xc0];
    let x87: &[u8] = &[0xd9, 0xe8];
    let cases = [(sse, em, 0, 6), (sse, ts, 0, 7), (sse, 0, osfxsr, 6), (x87, em, 0, 7), (x87, ts, 0, 7)];
    for (code, cr0, cr4, wanted) in cases {
        let mut state = bed::long_state(3);
        state.cr0 |= cr0;
        state.cr4 &= !cr4;
        assert_eq!(vector(&machine(), &state, code).0, wanted);
    }
    // divps with the division by zero unmasked
    let mut state = bed::long_state(3);
    state.fpu.mxcsr = 0x1f80 & !(1 << 9);
    state.fpu.xmm[0] = 0x3f80_0000;
    let (found, _, after) = vector(&machine(), &state, &[0xf3, 0x0f, 0x5e, 0xc1]);
    assert_eq!((found, after.fpu.xmm[0]), (19, 0x3f80_0000));
    assert_eq!(after.fpu.mxcsr & 0x3f, 4);
}

#[test]
fn the_io_bitmap_decides() {
    for (bits, allowed) in [(0, true), (1, false)] {
        let ram = machine();
        // Bit of port 0x60, in the bitmap that begins at 0x68 of the TSS.
        ram.memory().write_obj(bits as u8, GuestAddress(0x1100 + 0x68 + 0x60 / 8)).unwrap();
        bed::load(&ram, &[0xe4, 0x60, 0xcc]);
        let mut bed = Bed::default();
        let (_, after) = bed::run(&ram, &bed::long_state(3), &mut bed, 1000);
        let reached = after.rip - 1 - HANDLER;
        assert_eq!((reached, bed.reads), if allowed { (3, 1) } else { (13, 0) });
    }
}

#[test]
fn int_asks_the_gate() {
    let ram = machine();
    put(&ram, 0x4000 + 0x50 * 16, get(&ram, 0x4000 + 0x50 * 16) & !(3 << 45));
    let (found, error, _) = vector(&ram, &bed::long_state(3), &[0xcd, 0x50]);
    assert_eq!((found, error), (13, 0x50 << 3 | 2));
    let (found, _, after) = vector(&ram, &bed::long_state(3), &[0xcd, 0x51]);
    assert_eq!(found, 0x51);
    assert_eq!(after.gpr[4], 0x8000 - 40);
    let frame: Vec<_> = (0..5).map(|n| get(&ram, after.gpr[4] + n * 8)).collect();
    assert_eq!(frame, [CODE + 2, 0x33, 0x202, STACK, 0x2b]);
    assert_eq!(after.rflags & 0x200, 0);
}

#[test]
fn an_interrupt_stack_is_used() {
    let ram = machine();
    put(&ram, 0x4000 + 6 * 16, get(&ram, 0x4000 + 6 * 16) | 2 << 32);
    put(&ram, 0x1100 + 0x24 + 8, 0x6_0008);
    let (_, _, after) = vector(&ram, &bed::long_state(0), &[0x0f, 0x0b]);
    assert_eq!(after.gpr[4], 0x6_0000 - 40);
}

#[test]
fn faults_within_faults() {
    let ram = machine();
    // #GP's gate is not there: double fault.
    put(&ram, 0x4000 + 13 * 16, 0);
    assert_eq!(vector(&ram, &bed::long_state(3), &[0xf4]).0, 8);
    put(&ram, 0x4000 + 8 * 16, 0);
    let (stop, after) = run(&ram, &bed::long_state(3), &[0xf4]);
    assert_eq!((stop, after.shutdown, after.rip), (VcpuStop::TripleFault, true, CODE));
    // #UD's gate is not there: #NP, which is no double fault.
    put(&ram, 0x4000 + 6 * 16, get(&ram, 0x4000 + 6 * 16) & !(1 << 47));
    assert_eq!(vector(&ram, &bed::long_state(3), &[0x0f, 0x0b]).1, 6 << 3 | 3);
}

#[test]
fn a_guest_that_faults_for_ever_is_shut_down() {
    let ram = machine();
    // The handler of #PF is not mapped, and its stack is always the same.
    let low = get(&ram, 0x4000 + 14 * 16) & !0xffff_0000_0000_ffff;
    put(&ram, 0x4000 + 14 * 16, low | 1 << 32 | 0x5000 << 48);
    put(&ram, 0x1100 + 0x24, 0x6_0000);
    let (stop, _) = run(&ram, &bed::long_state(0), &[0xa0, 0, 0, 0, 0x50, 0, 0, 0, 0]);
    assert_eq!(stop, VcpuStop::TripleFault);
}

#[test]
fn hlt_waits_for_an_interrupt() {
    let ram = machine();
    bed::load(&ram, &[0xfb, 0xf4, 0x90]);
    let mut state = bed::long_state(0);
    state.rflags = 2;
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(&state).unwrap();
    let mut bed = Bed::default();
    assert_eq!(vcpu.run(&ram, &mut bed, Tick(100)).unwrap(), VcpuStop::Halted);
    assert_eq!((vcpu.tick(), vcpu.state().rip), (Tick(2), CODE + 2));
    assert_eq!(vcpu.run(&ram, &mut bed, Tick(100)).unwrap(), VcpuStop::Halted);
    bed.interrupts.push(0x70);
    assert_eq!(vcpu.run(&ram, &mut bed, Tick(3)).unwrap(), VcpuStop::Reached);
    assert_eq!(vcpu.state().rip, HANDLER + 0x71);
}

#[test]
fn an_interrupt_waits_for_the_instruction_after_sti() {
    // sti; nop; nop, with an interrupt asserted all the time
    let ram = machine();
    bed::load(&ram, &[0xfb, 0x90, 0x90]);
    let mut state = bed::long_state(0);
    state.rflags = 2;
    let mut bed = Bed { interrupts: vec![0x70], ..Bed::default() };
    let (_, after) = bed::run(&ram, &state, &mut bed, 100);
    assert_eq!((after.rip, after.tick), (HANDLER + 0x71, 3));
    assert_eq!(get(&ram, after.gpr[4]), CODE + 2);
}

#[test]
fn a_stop_comes_before_the_next_instruction() {
    // mov al, 1; out 0x81, al; inc ebx, many times
    let ram = machine();
    bed::load(&ram, &[0xb0, 0x01, 0xe6, 0x81, 0xff, 0xc3, 0xff, 0xc3]);
    let mut bed = Bed::default();
    let (stop, after) = bed::run(&ram, &bed::long_state(0), &mut bed, 100);
    assert_eq!((stop, after.tick, after.gpr[3]), (VcpuStop::Platform, 2, 0));
    assert_eq!(bed.log, ["1 out 0x81 [1]"]);
}

#[test]
fn impossible_states_are_refused() {
    let mut vcpu = SoftVcpu::new();
    let before = vcpu.state();
    for change in [
        (|state: &mut CpuState| state.rflags |= 1 << 17) as fn(&mut CpuState),
        |state| state.rflags = 0,
        |state| state.efer |= 1 << 10,
    ] {
        let mut state = before.clone();
        change(&mut state);
        assert!(vcpu.set_state(&state).is_err());
    }
    assert_eq!(vcpu.state(), before);
}

#[test]
fn descriptors_are_looked_at() {
    // Instruction with AX as selector and ECX as result; selector, ring, ECX and ZF after.
    type Query = (&'static str, &'static [u8], u64, u16, u64, bool);
    #[rustfmt::skip]
    let cases: &[Query] = &[
        ("lar of data", &[0x0f, 0x02, 0xc8], 0x2b, 3, 0x00c0_f300, true),
        ("lar of an inner ring", &[0x0f, 0x02, 0xc8], 0x18, 3, 7, false),
        ("lar of nothing", &[0x0f, 0x02, 0xc8], 0, 0, 7, false),
        ("lsl of data", &[0x0f, 0x03, 0xc8], 0x2b, 3, 0xffff_ffff, true),
        ("lsl beyond the table", &[0x0f, 0x03, 0xc8], 0x200, 0, 7, false),
        ("verr of code", &[0x0f, 0x00, 0xe0], 0x33, 3, 7, true),
        ("verw of code", &[0x0f, 0x00, 0xe8], 0x33, 3, 7, false),
        ("verw of data", &[0x0f, 0x00, 0xe8], 0x2b, 3, 7, true),
    ];
    for (name, code, selector, ring, wanted, zero) in cases {
        let ram = machine();
        let mut state = bed::long_state(*ring);
        (state.gpr[0], state.gpr[1]) = (*selector, 7);
        let (_, after) = run(&ram, &state, &[code, &[0xcc][..]].concat());
        assert_eq!((after.gpr[1], get(&ram, after.gpr[4] + 16) & 0x40 != 0), (*wanted, *zero), "{name}");
    }
}

#[test]
fn sysenter_and_sysexit_change_rings() {
    let ram = machine();
    let mut state = bed::long_state(3);
    state.sysenter = [0x10, 0x7000, CODE + 0x100];
    // sysenter; at the entry: mov rcx, rsp; mov rdx, rax; o64 sysexit; back in ring 3: int3
    ram.memory()
        .write_slice(&[0x48, 0x89, 0xe1, 0x48, 0x89, 0xc2, 0x48, 0x0f, 0x35], GuestAddress(CODE + 0x100))
        .unwrap();
    state.gpr[0] = CODE + 2;
    let (found, _, after) = vector(&ram, &state, &[0x0f, 0x34, 0xcc]);
    let frame: Vec<_> = (0..5).map(|n| get(&ram, after.gpr[4] + n * 8)).collect();
    assert_eq!((found, frame), (3, vec![CODE + 3, 0x33, 2, 0x7000, 0x3b]));
}

#[test]
fn the_fpu_state_is_saved_and_restored() {
    let ram = machine();
    let mut state = bed::long_state(3);
    state.gpr[7] = DATA;
    state.fpu.xmm = std::array::from_fn(|n| u128::from_le_bytes([n as u8 + 1; 16]));
    state.fpu.registers = std::array::from_fn(|n| [n as u8 + 0x11; 10]);
    (state.fpu.status, state.fpu.tags, state.fpu.mxcsr) = (0x1800, 0xf0, 0x1f85);
    // fxsave64 [rdi]; fninit; xorps xmm3, xmm3; emms; fxrstor64 [rdi]; int3
    let code =
        [0x48, 0x0f, 0xae, 0x07, 0xdb, 0xe3, 0x0f, 0x57, 0xdb, 0x0f, 0x77, 0x48, 0x0f, 0xae, 0x0f, 0xcc];
    let (_, _, after) = vector(&ram, &state, &code);
    assert_eq!(after.fpu, state.fpu);
    assert_eq!(get(&ram, DATA + 32), 0x1414_1414_1414_1414, "ST0 is R3");
}

#[test]
fn model_specific_registers_keep_what_they_take() {
    // mov ecx, number; mov eax, low; mov edx, high; wrmsr; rdmsr; int3
    let write = |number: u32, value: u64| {
        [
            &[0xb9][..],
            &number.to_le_bytes(),
            &[0xb8],
            &(value as u32).to_le_bytes(),
            &[0xba],
            &((value >> 32) as u32).to_le_bytes(),
            &[0x0f, 0x30, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x32, 0xcc],
        ]
        .concat()
    };
    for (number, value) in [
        (0x174, 0x10),
        (0x176, 0xffff_8000_0000_1234),
        (0x1a0, 1),
        (0x200, 6),
        (0x26f, 0x0606_0606_0606_0606),
        (0x277, 0x0007_0406_0007_0406),
        (0x2ff, 0xc06),
        (0xc000_0081, 0x0023_0010_0000_0000),
        (0xc000_0082, 0xffff_ffff_8000_0000),
        (0xc000_0100, 0x7fff_ffff_f000),
        (0xc000_0101, 0xffff_8880_0000_0000),
        (0xc000_0102, 5),
        (0xc000_0103, 3),
    ] {
        let (found, _, after) = vector(&machine(), &bed::long_state(0), &write(number, value));
        assert_eq!((found, after.gpr[2] << 32 | after.gpr[0]), (3, value), "{number:x}");
    }
    for (number, value) in
        [(0x176, 1 << 60), (0xc000_0080, 1 << 20), (0xc000_0103, 1 << 32), (0x277, 2), (0x9999, 0)]
    {
        assert_eq!(vector(&machine(), &bed::long_state(0), &write(number, value)).0, 13, "{number:x}");
    }
    // The time stamp counter goes on from what was written: WRMSR is the fourth instruction, RDMSR the seventh.
    let (_, _, after) = vector(&machine(), &bed::long_state(0), &write(0x10, 1 << 40));
    assert_eq!(after.gpr[2] << 32 | after.gpr[0], (1 << 40) + 3);
}
