//! A run that is split goes on the same: at any tick, with the same vCPU or with a new one that takes on the state.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/bed.rs"]
mod bed;

#[path = "soft/programs/mixed.rs"]
mod mixed;

use bed::{Bed, CODE};
use ft_core::units::Tick;
use ft_vmm::ram::Ram;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::{CpuState, Vcpu as _, VcpuStop};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// Ticks of a run: several rounds of the program.
const TICKS: u64 = 30_000;

struct Machine {
    ram: Ram,
    bed: Bed,
    vcpu: SoftVcpu,
}

impl Machine {
    fn new() -> Self {
        let ram = bed::ram();
        bed::put_system_tables(&ram, |vector| match vector {
            0 | 6 => CODE + 0x200,
            14 => CODE + 0x240,
            _ => CODE + 0x280,
        });
        bed::load(&ram, mixed::MIXED);
        let mut vcpu = SoftVcpu::new();
        vcpu.set_state(&bed::long_state(0)).unwrap();
        Self { ram, bed: Bed::default(), vcpu }
    }

    fn run(&mut self, until: u64) {
        let stop = self.vcpu.run(&self.ram, &mut self.bed, Tick(until)).unwrap();
        assert_eq!(stop, VcpuStop::Reached, "{:x?}", self.vcpu.state());
        assert_eq!(self.vcpu.tick(), Tick(until));
    }

    /// Everything that is left of it.
    fn outcome(self) -> (CpuState, Bed, Vec<[u8; 4096]>) {
        let pages = (0..self.ram.page_count()).map(|page| self.ram.page(page)).collect();
        (self.vcpu.state(), self.bed, pages)
    }
}

fn in_one_go() -> (CpuState, Bed, Vec<[u8; 4096]>) {
    let mut machine = Machine::new();
    machine.run(TICKS);
    machine.outcome()
}

/// Compares without printing megabytes.
fn assert_same(found: (CpuState, Bed, Vec<[u8; 4096]>)) {
    let expected = in_one_go();
    assert_eq!(found.0, expected.0);
    assert_eq!(found.1, expected.1);
    let differs = found.2.iter().zip(&expected.2).position(|(a, b)| a != b);
    assert_eq!(differs, None, "first page that differs");
}

#[test]
fn the_program_does_what_it_is_for() {
    let (state, bed, _) = in_one_go();
    let rounds = state.gpr[10];
    assert!(rounds >= 3, "{rounds} rounds");
    assert!(state.gpr[11] >= 2 * rounds, "divide errors and invalid opcodes");
    assert!(state.gpr[12] >= rounds, "page faults");
    assert!(state.gpr[13] > 8 * rounds, "interrupts, and more traps than instructions");
    assert!(bed.log.iter().any(|line| line.contains("write 0xd0000004")));
    assert_ne!(state.fpu.xmm[1], 0);
}

#[test]
fn one_tick_at_a_time() {
    let mut machine = Machine::new();
    (1..=TICKS).for_each(|tick| machine.run(tick));
    assert_same(machine.outcome());
}

#[test]
fn split_anywhere() {
    for seed in 0..20 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut machine = Machine::new();
        let mut tick = 0;
        while tick < TICKS {
            tick = (tick + 1 + u64::from(dice.next_u32()) % 400).min(TICKS);
            machine.run(tick);
            if dice.next_u32() % 4 == 0 {
                machine.vcpu.forget_writes();
                machine.ram.take_dirty();
            }
        }
        assert_same(machine.outcome());
    }
}

#[test]
fn a_state_is_everything_at_every_tick() {
    let mut machine = Machine::new();
    for tick in 1..=TICKS {
        let state = machine.vcpu.state();
        machine.vcpu.set_state(&state).unwrap();
        assert_eq!(machine.vcpu.state(), state);
        machine.run(tick);
    }
    assert_same(machine.outcome());
}

#[test]
fn pages_that_change_are_marked() {
    let mut machine = Machine::new();
    machine.ram.take_dirty();
    for round in 1..200 {
        let before: Vec<_> = (0..machine.ram.page_count()).map(|page| machine.ram.page(page)).collect();
        machine.run(round * 150);
        machine.vcpu.forget_writes();
        let dirty = machine.ram.take_dirty();
        for (page, content) in before.iter().enumerate() {
            assert!(dirty.contains(&page) || machine.ram.page(page) == *content, "page {page:#x} changed");
        }
    }
}
