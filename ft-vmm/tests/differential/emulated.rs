//! The software vCPU in ring 3 of a machine that holds the same pages, with gates for all vectors that lead to HLT in ring 0: what an
//! exception pushed is what the native side's signal frame says.

use super::case::{Case, Fx, INT3, Outcome, Registers, ending};
use super::layout::{CODE, CODE_PAGES, FS_BASE, GS_BASE, IMAGE, IMAGE_PAGES, Image, PAGE};
use ft_core::error::Fault;
use ft_core::units::Tick;
use ft_vmm::ram::Ram;
use ft_vmm::vcpu::{CpuState, Fpu, Platform, Segment, Table, Vcpu, VcpuStop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use vm_memory::{Bytes as _, GuestAddress};

/// More ticks than the longest repeated instruction that stays within the image.
const TICKS_MAX: u64 = 40_000;

/// Instructions of a case that are looked at one by one.
const STEPS_MAX: usize = 2_000;

const RAM_BYTES: u64 = 0x10_0000;

/// Page tables, at their physical addresses.
const PML4: u64 = 0x8_0000;
const LOW_TABLES: [u64; 3] = [0x8_1000, 0x8_2000, 0x8_3000];
const HIGH_TABLES: [u64; 3] = [0x8_4000, 0x8_5000, 0x8_6000];

/// What the machine needs for itself: IDT, GDT, TSS, handlers, stack, one page each.
const SYSTEM: u64 = 0x9_0000;
const SYSTEM_PAGES: u64 = 6;
/// Where that is mapped, for ring 0.
const SYSTEM_MAPPED: u64 = 0xffff_8000_0000_0000;
const IDT: u64 = SYSTEM_MAPPED;
const GDT: u64 = SYSTEM_MAPPED + 0x1000;
const TSS: u64 = SYSTEM_MAPPED + 0x2000;
const HANDLERS: u64 = SYSTEM_MAPPED + 0x3000;
const STACK_TOP: u64 = SYSTEM_MAPPED + 0x6000;

/// Present, writable, accessed, dirty.
const SYSTEM_PAGE: u64 = 0x63;
const USER: u64 = 4;
const WRITABLE: u64 = 2;
const NO_EXECUTE: u64 = 1 << 63;

const HLT: u8 = 0xf4;
const CS: usize = 1;

/// Vectors that INT3 and INTO may use from ring 3, as Linux has it.
const OPEN_VECTORS: [u64; 2] = [3, 4];

/// Vectors that push an error code.
const WITH_ERROR: [u32; 8] = [8, 10, 11, 12, 13, 14, 17, 21];

/// A platform without devices.
struct Nothing;

impl Platform for Nothing {
    fn pio_read(&mut self, _at: Tick, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn pio_write(&mut self, _at: Tick, _port: u16, _data: &[u8]) {}
    fn mmio_read(&mut self, _at: Tick, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&mut self, _at: Tick, _gpa: u64, _data: &[u8]) {}
    fn tsc(&mut self, at: Tick) -> u64 {
        at.0
    }
    fn interrupt(&self) -> bool {
        false
    }
    fn acknowledge(&mut self) -> u8 {
        unreachable!("no interrupt is ever asserted")
    }
    fn wants_stop(&self) -> bool {
        false
    }
}

/// A machine that runs one case after the other.
pub(crate) struct Emulated<V> {
    ram: Ram,
    make: fn() -> V,
    cpu: V,
    start: CpuState,
    image: Box<Image>,
    /// What the vCPU said when it ended a case with [`ending::UNABLE`].
    pub(crate) complaint: String,
}

impl<V: Vcpu> Emulated<V> {
    /// A machine with a vCPU made by `make`.
    pub(crate) fn new(make: fn() -> V) -> Self {
        let ram = Ram::new(RAM_BYTES).expect("a megabyte");
        let mut machine = Self {
            ram,
            make,
            cpu: make(),
            start: start_state(),
            image: Box::new(Image([[0; PAGE]; IMAGE_PAGES])),
            complaint: String::new(),
        };
        machine.build();
        machine
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.ram.memory().write_slice(bytes, GuestAddress(at)).expect("within RAM");
    }

    fn write_word(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes());
    }

    /// Page tables, descriptor tables and handlers.
    fn build(&mut self) {
        self.write_word(PML4, LOW_TABLES[0] | SYSTEM_PAGE | USER);
        self.write_word(PML4 + 256 * 8, HIGH_TABLES[0] | SYSTEM_PAGE);
        for level in 0..2 {
            self.write_word(LOW_TABLES[level], LOW_TABLES[level + 1] | SYSTEM_PAGE | USER);
            self.write_word(HIGH_TABLES[level], HIGH_TABLES[level + 1] | SYSTEM_PAGE);
        }
        for page in 0..SYSTEM_PAGES {
            self.write_word(HIGH_TABLES[2] + page * 8, (SYSTEM + page * 0x1000) | SYSTEM_PAGE);
        }
        for page in 0..CODE_PAGES as u64 {
            self.map(CODE + page * 0x1000, (SYSTEM_PAGE | USER) & !WRITABLE);
        }
        self.map(IMAGE, (SYSTEM_PAGE | USER | NO_EXECUTE) & !WRITABLE);
        for page in 1..IMAGE_PAGES as u64 {
            self.map(IMAGE + page * 0x1000, SYSTEM_PAGE | USER | NO_EXECUTE);
        }
        for vector in 0..256 {
            self.gate(vector);
        }
        // Linux's: kernel code and data, user data and code, all 64-bit and flat, and the TSS.
        for (selector, descriptor) in [
            (0x10, 0x00af_9b00_0000_ffff),
            (0x18, 0x00cf_9300_0000_ffff),
            (0x28, 0x00cf_f300_0000_ffff),
            (0x30, 0x00af_fb00_0000_ffff),
        ] {
            self.write_word(SYSTEM + 0x1000 + selector, descriptor);
        }
        self.write_word(SYSTEM + 0x2004, STACK_TOP);
        // No I/O bitmap: it would begin at the TSS's end.
        self.write(SYSTEM + 0x2066, &0x68u16.to_le_bytes());
        self.write(SYSTEM + 0x3000, &[HLT; 256]);
        self.write(CODE, &[INT3; CODE_PAGES * PAGE]);
    }

    fn map(&self, at: u64, flags: u64) {
        self.write_word(LOW_TABLES[2] + at / 0x1000 * 8, at | flags);
    }

    fn gate(&self, vector: u64) {
        let handler = HANDLERS + vector;
        let privilege = if OPEN_VECTORS.contains(&vector) { 3 } else { 0 };
        let low =
            handler & 0xffff | 0x10 << 16 | (0x8e | privilege << 5) << 40 | (handler >> 16 & 0xffff) << 48;
        self.write_word(SYSTEM + vector * 16, low);
        self.write_word(SYSTEM + vector * 16 + 8, handler >> 32);
    }

    /// Puts a case in place.
    fn load(&mut self, image: &Image, case: &Case) -> CpuState {
        if *self.image != *image {
            for (page, content) in image.0.iter().enumerate() {
                self.write(IMAGE + (page * PAGE) as u64, content);
            }
            self.image.clone_from(&Box::new(image.clone()));
        }
        self.write(case.registers.rip, case.bytes());
        let mut state = self.start.clone();
        state.gpr = case.registers.gpr;
        state.rip = case.registers.rip;
        state.rflags = case.registers.rflags;
        state.fpu = fpu_of(&case.fx);
        state
    }

    /// Takes it away again.
    fn unload(&mut self, case: &Case, outcome: &mut Outcome) {
        self.write(case.registers.rip, &[INT3; 256][..case.bytes().len()]);
        outcome.pages_changed = 0;
        for page in 0..IMAGE_PAGES {
            let at = IMAGE + (page * PAGE) as u64;
            let content = &mut outcome.pages[page];
            self.ram.memory().read_slice(content, GuestAddress(at)).expect("within RAM");
            if *content != self.image.0[page] {
                outcome.pages_changed |= 1 << page;
                let image = self.image.0[page];
                self.write(at, &image);
            }
        }
    }

    /// Runs one case.
    pub(crate) fn run(&mut self, image: &Image, case: &Case, outcome: &mut Outcome) {
        self.run_in_steps(image, case, TICKS_MAX, outcome);
    }

    /// Runs one case so many ticks at a time.
    pub(crate) fn run_in_steps(&mut self, image: &Image, case: &Case, step: u64, outcome: &mut Outcome) {
        let state = self.load(image, case);
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.cpu.set_state(&state)?;
            let mut until = 0;
            loop {
                until += step;
                let stop = self.cpu.run(&self.ram, &mut Nothing, Tick(until))?;
                if stop != VcpuStop::Reached || until >= TICKS_MAX {
                    return Ok::<_, Fault>(stop);
                }
            }
        }));
        outcome.error = 0;
        outcome.vector = match result {
            Ok(Ok(VcpuStop::Halted)) => self.keep(outcome),
            Ok(Ok(VcpuStop::TripleFault)) => ending::SHUTDOWN,
            Ok(Ok(VcpuStop::Reached | VcpuStop::Platform)) => ending::TOO_LONG,
            Ok(Err(fault)) => {
                self.complaint = fault.0;
                ending::UNABLE
            }
            Err(_) => {
                self.complaint = "it panicked".to_owned();
                self.cpu = (self.make)();
                ending::UNABLE
            }
        };
        self.unload(case, outcome);
    }

    /// Keeps what the handler finds. Returns the vector.
    fn keep(&mut self, outcome: &mut Outcome) -> u32 {
        let state = self.cpu.state();
        let vector = state.rip.wrapping_sub(HANDLERS + 1) as u32;
        let mut frame = state.gpr[4].wrapping_sub(SYSTEM_MAPPED).wrapping_add(SYSTEM);
        let mut pop = || {
            let value: u64 = self.ram.memory().read_obj(GuestAddress(frame)).unwrap_or(0);
            frame = frame.wrapping_add(8);
            value
        };
        if WITH_ERROR.contains(&vector) {
            outcome.error = pop();
        }
        outcome.registers = Registers { gpr: state.gpr, rip: pop(), rflags: 0 };
        let _selector = pop();
        outcome.registers.rflags = pop();
        outcome.registers.gpr[4] = pop();
        outcome.cr2 = state.cr2;
        outcome.fx = fx_of(&state.fpu);
        vector
    }

    /// The registers before each instruction of ring 3 that the case reaches; repetitions of one appear once.
    pub(crate) fn trace(&mut self, image: &Image, case: &Case) -> Vec<Registers> {
        let state = self.load(image, case);
        let mut steps = vec![case.registers];
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.cpu.set_state(&state).ok()?;
            for tick in 1..TICKS_MAX {
                let stop = self.cpu.run(&self.ram, &mut Nothing, Tick(tick)).ok()?;
                let state = self.cpu.state();
                if stop != VcpuStop::Reached
                    || state.segments[CS].selector & 3 == 0
                    || steps.len() == STEPS_MAX
                {
                    return None;
                }
                if steps.last().is_none_or(|last| last.rip != state.rip) {
                    steps.push(Registers { gpr: state.gpr, rip: state.rip, rflags: state.rflags });
                }
            }
            None::<()>
        }));
        if result.is_err() {
            self.cpu = (self.make)();
        }
        self.unload(case, &mut Outcome::boxed());
        steps
    }
}

/// Ring 3 of 64-bit mode, as Linux has it.
fn start_state() -> CpuState {
    let null = Segment { attributes: Segment::UNUSABLE, ..Segment::default() };
    let flat = |selector, attributes| Segment { selector, base: 0, limit: u32::MAX, attributes };
    CpuState {
        segments: [
            null,
            flat(0x33, 0xa0fb),
            flat(0x2b, 0xc0f3),
            null,
            Segment { base: FS_BASE, ..null },
            Segment { base: GS_BASE, ..null },
        ],
        ldt: null,
        task: Segment { selector: 0x40, base: TSS, limit: 0x67, attributes: 0x8b },
        gdt: Table { base: GDT, limit: 0x4f },
        idt: Table { base: IDT, limit: 0xfff },
        cr0: 0x8005_0033,
        cr3: PML4,
        cr4: 0x620,
        efer: 0xd01,
        debug: [0, 0, 0, 0, 0xffff_0ff0, 0x400],
        pat: 0x0007_0406_0007_0406,
        mtrr: vec![0; 28],
        ..CpuState::default()
    }
}

fn fpu_of(fx: &Fx) -> Fpu {
    let mut fpu = Fpu {
        control: fx.u16(Fx::CONTROL),
        status: fx.u16(Fx::STATUS),
        tags: fx.0[Fx::TAGS],
        opcode: fx.u16(Fx::OPCODE),
        instruction: fx.u64(Fx::INSTRUCTION),
        operand: fx.u64(Fx::OPERAND),
        mxcsr: fx.mxcsr(),
        ..Fpu::default()
    };
    for index in 0..8 {
        fpu.registers[(fx.top() + index) % 8] = fx.st(index);
    }
    for (index, register) in fpu.xmm.iter_mut().enumerate() {
        *register = fx.xmm(index);
    }
    fpu
}

fn fx_of(fpu: &Fpu) -> Fx {
    let mut fx = Fx([0; 512]);
    fx.set_u16(Fx::CONTROL, fpu.control);
    fx.set_u16(Fx::STATUS, fpu.status);
    fx.0[Fx::TAGS] = fpu.tags;
    fx.set_u16(Fx::OPCODE, fpu.opcode);
    fx.set_u64(Fx::INSTRUCTION, fpu.instruction);
    fx.set_u64(Fx::OPERAND, fpu.operand);
    fx.set_mxcsr(fpu.mxcsr);
    for index in 0..8 {
        fx.set_st(index, fpu.registers[(fx.top() + index) % 8]);
    }
    for (index, register) in fpu.xmm.iter().enumerate() {
        fx.set_xmm(index, *register);
    }
    fx
}
