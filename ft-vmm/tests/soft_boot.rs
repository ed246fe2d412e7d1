//! From real mode through protected mode to ring 3 of long mode, with interrupts, far transfers and system calls on the way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/bed.rs"]
mod bed;

#[path = "soft/programs/boot.rs"]
mod boot;

use bed::{Bed, get, put};
use ft_core::units::Tick;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::{Vcpu as _, VcpuStop};
use vm_memory::{Bytes as _, GuestAddress};

/// Addresses in the program.
const START: u64 = 0x7c00;
const IDT: u64 = 0x7d86;
const HANDLER: u64 = 0x7d1a;
const FAULT: u64 = 0x7d23;
const AFTER_INT: u64 = 0x7d07;
const CLI: u64 = 0x7d0c;

fn put_gate(ram: &ft_vmm::ram::Ram, vector: u64, target: u64, dpl: u64) {
    put(ram, IDT + vector * 16, target | 0x18 << 16 | (0x8e00 | dpl << 13) << 32);
}

#[test]
fn a_processor_boots() {
    let ram = bed::ram();
    ram.memory().write_slice(boot::BOOT, GuestAddress(START)).unwrap();
    put_gate(&ram, 0x21, HANDLER, 3);
    put_gate(&ram, 13, FAULT, 0);
    put(&ram, 0x1100 + 4, 0xa000);
    let mut vcpu = SoftVcpu::new();
    let mut state = vcpu.state();
    state.segments[1].base = 0;
    state.segments[1].selector = 0;
    state.rip = START;
    vcpu.set_state(&state).unwrap();
    let stop = vcpu.run(&ram, &mut Bed::default(), Tick(1000)).unwrap();
    let state = vcpu.state();
    assert_eq!(stop, VcpuStop::Halted, "{state:x?}");
    assert_eq!(get(&ram, 0x7030) & 0xffff, 0x1234, "the interrupt in real mode");
    assert_eq!(get(&ram, 0x7010) & 0xff_ffff, 0x63_6261, "the string");
    assert_eq!(get(&ram, 0x7020) & 0xffff_ffff, 0x99, "32-bit code");
    assert_eq!((state.gpr[15], state.gpr[14]), (0x3b, 0x33), "CS and SS of ring 3");
    assert_eq!((state.gpr[12], state.gpr[10]), (2, 1), "the system call, IF masked");
    assert_eq!((state.gpr[9], state.gpr[8]), (AFTER_INT, 0x18), "the interrupt from ring 3");
    assert_eq!((state.gpr[7], state.gpr[6]), (0, CLI), "#GP by CLI");
    assert_eq!(state.gpr[3], 0x77);
    assert_eq!(state.segments[2].attributes & 0x60, 0, "ring 0");
    assert_eq!(state.task.attributes & 0xf, 11, "a busy TSS");
}
