//! The processor's state while it runs, and the small accessors that every handler uses.
//!
//! Invariant: what is here beside [`CpuState`] is derived from it, or is empty between two instructions.

use super::flags::{self, Flags};
use super::op::{self, Env, HIGH, Op, Raised, Run};
use super::tlb::Tlb;
use super::word::Word;
use crate::vcpu::{CpuState, Segment};
use std::collections::BTreeSet;

pub(crate) const CR0_PE: u64 = 1;
pub(crate) const CR0_MP: u64 = 1 << 1;
pub(crate) const CR0_EM: u64 = 1 << 2;
pub(crate) const CR0_TS: u64 = 1 << 3;
pub(crate) const CR0_ET: u64 = 1 << 4;
pub(crate) const CR0_NE: u64 = 1 << 5;
pub(crate) const CR0_WP: u64 = 1 << 16;
pub(crate) const CR0_PG: u64 = 1 << 31;
pub(crate) const CR4_TSD: u64 = 1 << 2;
pub(crate) const CR4_DE: u64 = 1 << 3;
pub(crate) const CR4_PSE: u64 = 1 << 4;
pub(crate) const CR4_PAE: u64 = 1 << 5;
pub(crate) const CR4_PGE: u64 = 1 << 7;
pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
pub(crate) const EFER_SCE: u64 = 1;
pub(crate) const EFER_LME: u64 = 1 << 8;
pub(crate) const EFER_LMA: u64 = 1 << 10;
pub(crate) const EFER_NXE: u64 = 1 << 11;

/// What the loop must look at before it executes the next block. Bits of [`Cpu::attention`].
pub(crate) mod attention {
    /// The platform was reached: it may want a stop or assert an interrupt.
    pub(crate) const PLATFORM: u32 = 1;
    /// Decoded instructions were written to.
    pub(crate) const CODE: u32 = 2;
    /// An interrupt may be due.
    pub(crate) const INTERRUPT: u32 = 4;
    /// Each instruction traps.
    pub(crate) const TRAP: u32 = 16;
    /// The processor is halted or shut down.
    pub(crate) const HALT: u32 = 32;
}

/// An exception on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exception {
    /// Its vector.
    pub(crate) vector: u8,
    /// Its error code.
    pub(crate) error: Option<u32>,
    /// For page faults: the address.
    pub(crate) address: u64,
    /// It came of an address that is not canonical: #SS rather than #GP if it was relative to SS.
    pub(crate) canonical: bool,
}

/// How many bytes an address, an operand and the instruction pointer have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// 16-bit code.
    Bits16,
    /// 32-bit code.
    Bits32,
    /// 64-bit code.
    Bits64,
}

/// The processor.
pub(crate) struct Cpu {
    /// General registers; [`op::NONE`] and beyond stay 0.
    pub(crate) gpr: [u64; 32],
    /// Where the next instruction is, between blocks.
    pub(crate) rip: u64,
    /// RFLAGS.
    pub(crate) flags: Flags,
    /// Ticks at the start of the block that runs.
    pub(crate) tick: u64,
    /// Operations of it that have retired.
    pub(crate) retired: usize,
    /// Operations of it that may run. Lowered by whatever must be looked at soon.
    pub(crate) limit: usize,
    /// No tick beyond this one in this run.
    pub(crate) until: u64,
    /// See [`attention`].
    pub(crate) attention: u32,
    /// 64-bit mode: segments are flat.
    pub(crate) flat: bool,
    /// Size of code.
    pub(crate) mode: Mode,
    /// Current privilege level.
    pub(crate) cpl: u8,
    /// Translations.
    pub(crate) tlb: Tlb,
    /// The exception that [`Raised`] stands for.
    pub(crate) raised: Exception,
    /// Set by what shadows the next instruction.
    pub(crate) shadow: bool,
    /// An event was entered by the instruction that runs: it takes the place of a single-step trap.
    pub(crate) entered: bool,
    /// Exceptions delivered since an instruction last retired.
    pub(crate) deliveries: u32,
    /// Where unknown instructions were met, for the log.
    pub(crate) reported: BTreeSet<u64>,
    /// Everything that is seldom used. Its general registers, RIP, flags and tick are out of date while running.
    pub(crate) s: CpuState,
}

impl Cpu {
    /// A processor in `state`.
    pub(crate) fn new(state: &CpuState) -> Box<Self> {
        let mut cpu = Box::new(Self {
            gpr: [0; 32],
            rip: 0,
            flags: Flags::default(),
            tick: 0,
            retired: 0,
            limit: 0,
            until: 0,
            attention: 0,
            flat: false,
            mode: Mode::Bits16,
            cpl: 0,
            tlb: Tlb::new(),
            raised: Exception::default(),
            shadow: false,
            entered: false,
            deliveries: 0,
            reported: BTreeSet::new(),
            s: CpuState::default(),
        });
        cpu.load(state);
        cpu
    }

    /// Takes on `state`.
    pub(crate) fn load(&mut self, state: &CpuState) {
        self.s = state.clone();
        self.gpr = [0; 32];
        self.gpr[..16].copy_from_slice(&state.gpr);
        self.rip = state.rip;
        self.flags.set(state.rflags);
        self.tick = state.tick;
        self.retired = 0;
        self.shadow = state.shadow;
        self.deliveries = 0;
        self.cpl = if self.protected() { (self.segment(op::SS).attributes >> 5 & 3) as u8 } else { 0 };
        self.update_mode();
    }

    /// All of its state.
    pub(crate) fn save(&self) -> CpuState {
        let mut state = self.s.clone();
        state.gpr.copy_from_slice(&self.gpr[..16]);
        state.rip = self.rip;
        state.rflags = self.flags.get();
        state.tick = self.tick;
        state.shadow = self.shadow;
        state
    }

    /// Ticks up to now, in the middle of a block.
    pub(crate) fn now(&self) -> u64 {
        self.tick + self.retired as u64
    }

    /// Asks the loop to look at `bits` as soon as this instruction has retired.
    pub(crate) fn attend(&mut self, bits: u32) {
        self.attention |= bits;
        self.limit = 0;
    }

    pub(crate) fn protected(&self) -> bool {
        self.s.cr0 & CR0_PE != 0
    }

    pub(crate) fn long_mode(&self) -> bool {
        self.s.efer & EFER_LMA != 0
    }

    pub(crate) fn iopl(&self) -> u8 {
        (self.flags.rest() >> 12 & 3) as u8
    }

    pub(crate) fn segment(&self, number: u8) -> &Segment {
        &self.s.segments[usize::from(number % 6)]
    }

    /// Changes the privilege level.
    pub(crate) fn put_cpl(&mut self, cpl: u8) {
        self.cpl = cpl;
        self.tlb.put_user(cpl == 3);
    }

    /// Computes what derives from CS, CR0 and EFER.
    pub(crate) fn update_mode(&mut self) {
        let attributes = self.segment(op::CS).attributes;
        self.mode = if self.long_mode() && attributes & 1 << 13 != 0 {
            Mode::Bits64
        } else if attributes & 1 << 14 != 0 && self.protected() {
            Mode::Bits32
        } else {
            Mode::Bits16
        };
        self.flat = self.mode == Mode::Bits64;
        self.tlb.put_user(self.cpl == 3);
        self.limit = 0;
    }

    /// Reads a general register.
    #[inline(always)]
    pub(crate) fn reg<W: Word>(&self, register: u8) -> u64 {
        let value = self.gpr[usize::from(register & 31)];
        if W::BYTES == 1 { value >> ((register & HIGH) >> 2) & 0xff } else { W::of(value).wide() }
    }

    /// Writes a general register. Writing 32 bits clears the upper half.
    #[inline(always)]
    pub(crate) fn put_reg<W: Word>(&mut self, register: u8, value: u64) {
        let place = &mut self.gpr[usize::from(register & 31)];
        match W::BYTES {
            1 => {
                let shift = (register & HIGH) >> 2;
                *place = (*place & !(0xff << shift)) | (value & 0xff) << shift;
            }
            2 => *place = (*place & !0xffff) | (value & 0xffff),
            4 => *place = value & 0xffff_ffff,
            _ => *place = value,
        }
    }

    /// Writes a general register with an operand size in bytes.
    pub(crate) fn put_reg_sized(&mut self, bytes: u8, register: u8, value: u64) {
        super::word::by_size!(bytes, Self::put_reg)(self, register, value);
    }

    /// Reads a general register with an operand size in bytes.
    pub(crate) fn reg_sized(&self, bytes: u8, register: u8) -> u64 {
        super::word::by_size!(bytes, Self::reg)(self, register)
    }

    /// The offset of the memory operand in its segment.
    #[inline(always)]
    pub(crate) fn offset(&self, op: &Op) -> u64 {
        let base = self.gpr[usize::from(op.base & 31)];
        let index = self.gpr[usize::from(op.index & 31)];
        base.wrapping_add(index << (op.scale & 3)).wrapping_add(op.disp)
    }

    /// The linear address of the memory operand, of which `bytes` are accessed.
    #[inline(always)]
    pub(crate) fn address(&mut self, op: &Op, bytes: usize, write: bool) -> Run<u64> {
        if op.plain { Ok(self.offset(op)) } else { self.address_segmented(op, bytes, write) }
    }

    #[cold]
    #[inline(never)]
    fn address_segmented(&mut self, op: &Op, bytes: usize, write: bool) -> Run<u64> {
        let offset = self.offset(op) & mask(op.address_bytes);
        self.linear(op.seg, offset, bytes as u64, write)
    }

    /// Reads the memory operand.
    #[inline(always)]
    pub(crate) fn load_op<W: Word>(&mut self, env: &mut Env<'_>, op: &Op) -> Run<u64> {
        let address = self.address(op, W::BYTES, false)?;
        self.read::<W>(env, address)
    }

    /// Writes the memory operand.
    #[inline(always)]
    pub(crate) fn store_op<W: Word>(&mut self, env: &mut Env<'_>, op: &Op, value: u64) -> Run<()> {
        let address = self.address(op, W::BYTES, true)?;
        self.write::<W>(env, address, value)
    }

    /// Notes an exception without an error code.
    #[cold]
    pub(crate) fn raise(&mut self, vector: u8) -> Raised {
        self.raised = Exception { vector, ..Exception::default() };
        Raised
    }

    /// Notes an exception with an error code.
    #[cold]
    pub(crate) fn raise_code(&mut self, vector: u8, error: u32) -> Raised {
        self.raised = Exception { vector, error: Some(error), ..Exception::default() };
        Raised
    }

    /// Notes #GP(0).
    #[cold]
    pub(crate) fn raise_gp(&mut self) -> Raised {
        self.raise_code(vector::GP, 0)
    }

    /// Whether DF is set: strings go down.
    pub(crate) fn down(&self) -> bool {
        self.flags.rest() & flags::DF != 0
    }
}

/// All ones in `bytes` bytes.
pub(crate) fn mask(bytes: u8) -> u64 {
    if bytes >= 8 { u64::MAX } else { (1 << (u32::from(bytes) * 8)) - 1 }
}

/// Whether an address has its bits 63-47 equal.
#[inline(always)]
pub(crate) fn canonical(address: u64) -> bool {
    ((address << 16) as i64 >> 16) as u64 == address
}

/// Exception vectors.
pub(crate) mod vector {
    pub(crate) const DE: u8 = 0;
    pub(crate) const DB: u8 = 1;
    pub(crate) const BP: u8 = 3;
    pub(crate) const OF: u8 = 4;
    pub(crate) const BR: u8 = 5;
    pub(crate) const UD: u8 = 6;
    pub(crate) const NM: u8 = 7;
    pub(crate) const DF: u8 = 8;
    pub(crate) const TS: u8 = 10;
    pub(crate) const NP: u8 = 11;
    pub(crate) const SS: u8 = 12;
    pub(crate) const GP: u8 = 13;
    pub(crate) const PF: u8 = 14;
    pub(crate) const MF: u8 = 16;
    pub(crate) const XM: u8 = 19;
}
