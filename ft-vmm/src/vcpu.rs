//! What a vCPU is to the rest of the VMM, whichever way it executes.
//!
//! Invariant: a vCPU is a deterministic function of its [`CpuState`], the guest's memory and what [`Platform`] answers (R1). The tick
//! counts what the backend can name exactly: retired instructions in software, synchronous exits on KVM.

use crate::ram::Ram;
use ft_core::Point;
use ft_core::error::Fault;
use ft_core::units::Tick;
use serde::{Deserialize, Serialize};

/// Everything a vCPU reaches outside its RAM: ports, memory-mapped devices, the clock and the interrupt controller.
///
/// `at` is the tick of the access: the machine's clock runs with it.
pub trait Platform {
    /// IN: fills `data`, 1, 2 or 4 bytes. Ports where nothing is read as ones.
    fn pio_read(&mut self, at: Tick, port: u16, data: &mut [u8]);

    /// OUT.
    fn pio_write(&mut self, at: Tick, port: u16, data: &[u8]);

    /// A read at a guest physical address without RAM; 1, 2, 4 or 8 bytes. Addresses where nothing is read as ones.
    fn mmio_read(&mut self, at: Tick, gpa: u64, data: &mut [u8]);

    /// A write at a guest physical address without RAM.
    fn mmio_write(&mut self, at: Tick, gpa: u64, data: &[u8]);

    /// What RDTSC reads.
    fn tsc(&mut self, at: Tick) -> u64;

    /// Whether the interrupt controller asserts INTR.
    fn interrupt(&self) -> bool;

    /// INTA: the vCPU takes the interrupt now. Returns its vector.
    fn acknowledge(&mut self) -> u8;

    /// Whether the vCPU must return before its next instruction: an effect was emitted, a timer was set, a reset was asked for.
    fn wants_stop(&self) -> bool;
}

/// Why a vCPU returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuStop {
    /// It stands at the tick that was asked for.
    Reached,
    /// The platform wanted it to.
    Platform,
    /// It executed HLT and no interrupt that it accepts is asserted. [`Vcpu::run`] goes on once there is one.
    Halted,
    /// A fault while handling a double fault: the processor is shut down, and only a reset helps.
    TripleFault,
}

/// One virtual processor.
pub trait Vcpu: Sized {
    /// Runs to tick `until` and not beyond, or until something else stops it. Each retired instruction and each iteration of a repeated
    /// string instruction takes a tick on the software vCPU; delivering an interrupt takes none of its own.
    ///
    /// # Errors
    /// What no guest should be able to cause: a host error, or an instruction that this backend cannot run at all.
    fn run(&mut self, ram: &Ram, platform: &mut impl Platform, until: Tick) -> Result<VcpuStop, Fault>;

    /// Names what the guest can see of the processor: copies and snapshots go from one vCPU to another of the same name only (R10).
    fn model() -> String;

    /// Ticks since the machine was made.
    fn tick(&self) -> Tick;

    /// Where it stands: tick, RIP and a digest of the general registers and flags.
    fn point(&self) -> Point;

    /// All of its state, with lazily kept values computed: equal states have equal [`CpuState`]s.
    fn state(&self) -> CpuState;

    /// Takes on a state. Forgets whatever it had cached of memory.
    ///
    /// # Errors
    /// When the state is not one that this backend can take on; it says why.
    fn set_state(&mut self, state: &CpuState) -> Result<(), Fault>;

    /// From now on it marks again the pages that it writes: called before [`Ram::take_dirty`].
    fn forget_writes(&mut self);
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Visible selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, inclusive, granularity applied.
    pub limit: u32,
    /// Type, S, DPL, P, AVL, L, D/B, G as in bits 8-23 of a descriptor's second word, shifted down by 8 (the limit bits 16-19 zero).
    /// 0 with [`Segment::UNUSABLE`] set: a null segment.
    pub attributes: u16,
}

impl Segment {
    /// Set in `attributes` (a bit that descriptors do not use) when the segment must not be used.
    pub const UNUSABLE: u16 = 1 << 8;
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Base address.
    pub base: u64,
    /// Limit in bytes, inclusive.
    pub limit: u16,
}

/// x87, MMX and SSE registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fpu {
    /// Control word.
    pub control: u16,
    /// Status word, with TOP in bits 11-13.
    pub status: u16,
    /// Abridged tag word as FXSAVE has it: bit n set when physical register n is not empty.
    pub tags: u8,
    /// Last opcode, instruction and operand pointers.
    pub opcode: u16,
    /// See `opcode`.
    pub instruction: u64,
    /// See `opcode`.
    pub operand: u64,
    /// Physical registers R0-R7, 80 bits each, little-endian.
    pub registers: [[u8; 10]; 8],
    /// SSE control and status.
    pub mxcsr: u32,
    /// XMM0-XMM15.
    pub xmm: [u128; 16],
}

impl Default for Fpu {
    /// After reset or FNINIT.
    fn default() -> Self {
        Self {
            control: 0x37f,
            status: 0,
            tags: 0,
            opcode: 0,
            instruction: 0,
            operand: 0,
            registers: [[0; 10]; 8],
            mxcsr: 0x1f80,
            xmm: [0; 16],
        }
    }
}

/// Everything that determines a vCPU's future. Plain data: what snapshots hold and both backends take on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuState {
    /// Ticks since the machine was made.
    pub tick: u64,
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8-R15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags, bit 1 always set.
    pub rflags: u64,
    /// ES CS SS DS FS GS, in the order of their encoding.
    pub segments: [Segment; 6],
    /// Local descriptor table.
    pub ldt: Segment,
    /// Task register.
    pub task: Segment,
    /// GDTR.
    pub gdt: Table,
    /// IDTR.
    pub idt: Table,
    /// Control registers.
    pub cr0: u64,
    /// Page-fault address.
    pub cr2: u64,
    /// Page-table base.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Task priority.
    pub cr8: u64,
    /// DR0-DR3, DR6, DR7.
    pub debug: [u64; 6],
    /// IA32_EFER.
    pub efer: u64,
    /// IA32_STAR, LSTAR, CSTAR, FMASK.
    pub syscall: [u64; 4],
    /// IA32_SYSENTER_CS, ESP, EIP.
    pub sysenter: [u64; 3],
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_TSC minus the machine's clock, modulo 2^64.
    pub tsc_offset: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// Memory type range registers: default type, then eight pairs of base and mask, then the eleven fixed ones. Kept, without effect.
    pub mtrr: Vec<u64>,
    /// x87 and SSE.
    pub fpu: Fpu,
    /// It has executed HLT and waits.
    pub halted: bool,
    /// The instruction before was STI or a load of SS: no interrupt before the next one.
    pub shadow: bool,
    /// Triple fault.
    pub shutdown: bool,
}
