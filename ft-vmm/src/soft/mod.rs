//! A software x86-64 processor.
//!
//! Instructions are decoded once, into blocks of operations with a handler each, and executed from there; every instruction counts one
//! tick, and a run stops at exactly the tick that it was asked to.
//!
//! ```text
//! execute   the loop: attention, interrupts, find a block, run it
//! blocks    cache of decoded blocks        fetch, decode, op   how a block comes about
//! tlb       translations and RAM (unsafe)  memory, paging      what the TLBs do not know
//! cpu, flags, word, segments               the state and its accessors
//! alu mov shift muldiv bits string atomic stack control   handlers of programs
//! sse mmx fpu, forms                      move operands for what xmm and x87 compute
//! far gate deliver syscall                 handlers that change rings, exceptions and interrupts
//! system registers tables msr cpuid io fxstate legacy     handlers of operating systems
//! ```
//!
//! Invariant: nothing but [`CpuState`], memory and the platform's answers influences execution: caches are invisible. A run that is
//! split at any tick, or moved to a new vCPU by its state, goes on the same.
//!
//! Not here: virtual-8086 mode, hardware task switching, breakpoint registers, alignment checks (#AC), SMM, virtualisation.

mod alu;
mod atomic;
mod bits;
mod blocks;
mod control;
mod cpu;
mod cpuid;
mod decode;
mod deliver;
mod execute;
mod far;
mod fetch;
mod flags;
mod forms;
mod fpu;
mod fxstate;
mod gate;
mod io;
mod legacy;
mod memory;
mod mmx;
mod mov;
mod msr;
mod muldiv;
mod op;
mod paging;
mod registers;
mod segments;
mod shift;
mod sse;
mod stack;
mod string;
mod syscall;
mod system;
mod tables;
mod tlb;
mod word;
mod x87;
mod xmm;

use crate::ram::Ram;
use crate::vcpu::{CpuState, Platform, Segment, Table, Vcpu, VcpuStop};
use blocks::Blocks;
use cpu::{Cpu, attention};
use ft_core::Point;
use ft_core::digest::digest64;
use ft_core::error::Fault;
use ft_core::units::Tick;
use op::Env;

/// A software x86-64 processor.
pub struct SoftVcpu {
    cpu: Box<Cpu>,
    blocks: Blocks,
}

impl Default for SoftVcpu {
    fn default() -> Self {
        Self::new()
    }
}

impl SoftVcpu {
    /// A processor as it is after reset.
    pub fn new() -> Self {
        Self { cpu: Cpu::new(&reset_state()), blocks: Blocks::new() }
    }
}

impl Vcpu for SoftVcpu {
    fn run(&mut self, ram: &Ram, platform: &mut impl Platform, until: Tick) -> Result<VcpuStop, Fault> {
        let cpu = &mut *self.cpu;
        if cpu.tlb.attach(ram) {
            self.blocks.forget();
        }
        if ram.code_was_written() {
            cpu.tlb.distrust();
        }
        cpu.until = until.0;
        cpu.deliveries = 0;
        cpu.attention |= attention::INTERRUPT | attention::CODE;
        let mut env = Env { ram, host: ram.host(), platform };
        Ok(execute::run(cpu, &mut self.blocks, &mut env))
    }

    fn model() -> String {
        format!("soft {:016x}", cpuid::model())
    }

    fn tick(&self) -> Tick {
        Tick(self.cpu.tick)
    }

    fn point(&self) -> Point {
        let mut bytes = [0; 17 * 8];
        let flags = self.cpu.flags.get();
        let words = self.cpu.gpr[..16].iter().chain(std::iter::once(&flags));
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Point::new(self.tick(), self.cpu.rip, digest64(0, &bytes) as u32)
    }

    fn state(&self) -> CpuState {
        self.cpu.save()
    }

    fn set_state(&mut self, state: &CpuState) -> Result<(), Fault> {
        check(state)?;
        self.cpu.load(state);
        self.cpu.tlb.distrust();
        Ok(())
    }

    fn forget_writes(&mut self) {
        self.cpu.tlb.flush_writes();
    }
}

/// Refuses a state in which this processor cannot be.
fn check(state: &CpuState) -> Result<(), Fault> {
    let refuse = |what: &str| Err(Fault(format!("the software processor cannot take on this state: {what}")));
    if state.rflags & flags::VM != 0 {
        return refuse("it is in virtual-8086 mode, which is not supported");
    }
    if state.rflags & flags::FIXED == 0 || state.rflags & !(flags::ALL | flags::FIXED) != 0 {
        return refuse("RFLAGS has impossible bits");
    }
    if state.efer & cpu::EFER_LMA != 0 && state.cr0 & cpu::CR0_PG == 0 {
        return refuse("long mode without paging");
    }
    Ok(())
}

/// The state after reset, with a clock of 0.
fn reset_state() -> CpuState {
    let data = Segment { selector: 0, base: 0, limit: 0xffff, attributes: segments::REAL };
    let code = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, attributes: 0x9b };
    let mut segments = [data; 6];
    segments[usize::from(op::CS)] = code;
    CpuState {
        gpr: {
            let mut gpr = [0; 16];
            gpr[usize::from(op::RDX)] = 0x0006_0f01;
            gpr
        },
        rip: 0xfff0,
        rflags: flags::FIXED,
        segments,
        ldt: Segment { limit: 0xffff, attributes: 0x82, ..Segment::default() },
        task: Segment { limit: 0xffff, attributes: 0x8b, ..Segment::default() },
        gdt: Table { base: 0, limit: 0xffff },
        idt: Table { base: 0, limit: 0xffff },
        cr0: 0x6000_0010,
        debug: [0, 0, 0, 0, 0xffff_0ff0, 0x400],
        pat: 0x0007_0406_0007_0406,
        misc_enable: 1,
        mtrr: vec![0; msr::MTRR_COUNT],
        ..CpuState::default()
    }
}
