//! A machine in which every exception ends in a handler that halts, so that a piece of code ends with its vector.

use super::bed::{self, Bed, get};
use ft_vmm::ram::Ram;
use ft_vmm::vcpu::{CpuState, VcpuStop};
use vm_memory::{Bytes as _, GuestAddress};

/// Where handlers are: one byte each, HLT.
pub(crate) const HANDLER: u64 = 0x9_8000;

pub(crate) fn machine() -> Ram {
    let ram = bed::ram();
    bed::put_system_tables(&ram, |vector| HANDLER + vector);
    ram.memory().write_slice(&[0xf4; 256], GuestAddress(HANDLER)).unwrap();
    ram
}

/// Runs until the machine stops, at most 1000 ticks.
pub(crate) fn run(ram: &Ram, state: &CpuState, code: &[u8]) -> (VcpuStop, CpuState) {
    bed::load(ram, code);
    bed::run(ram, state, &mut Bed::default(), 1000)
}

/// The vector that a piece of code ends with, the error code if it has one, and the state in the handler.
pub(crate) fn vector(ram: &Ram, state: &CpuState, code: &[u8]) -> (u64, u64, CpuState) {
    let (stop, after) = run(ram, state, code);
    assert_eq!(stop, VcpuStop::Halted, "{code:x?} {after:x?}");
    let vector = after.rip - 1 - HANDLER;
    let error = if matches!(vector, 8 | 10..=14) { get(ram, after.gpr[4]) & 0xffff_ffff } else { 0 };
    (vector, error, after)
}
