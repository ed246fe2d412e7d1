//! The judge of the floating-point units: machine code run on the host's processor with all of x87, MMX, SSE and a few general
//! registers given and taken.
//!
//! Instructions are tried with fixed operands: register operands are number 0 and 1 of their kind, memory is at `[rsi]`.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use vm_memory::mmap::MmapRegion;
use vm_memory::mmap::MmapRegionBuilder;

/// What is loaded before, and what is there after. In the layout of FXSAVE64 where it has one.
#[repr(C, align(64))]
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) before: [u8; 512],
    pub(crate) after: [u8; 512],
    host: [u8; 512],
    pub(crate) rax: u64,
    pub(crate) rcx: u64,
    pub(crate) rflags: u64,
    _reserved: [u64; 5],
    pub(crate) memory: [u8; 128],
}

impl Image {
    /// Everything zero, but for control words as after reset.
    pub(crate) fn new() -> Self {
        let mut image = Self {
            before: [0; 512],
            after: [0; 512],
            host: [0; 512],
            rax: 0,
            rcx: 0,
            rflags: 2,
            _reserved: [0; 5],
            memory: [0; 128],
        };
        image.before[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        image.set_mxcsr(0x1f80);
        image
    }

    pub(crate) fn set_mxcsr(&mut self, mxcsr: u32) {
        self.before[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    }

    pub(crate) fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.after[24..28].try_into().unwrap())
    }

    pub(crate) fn set_xmm(&mut self, n: usize, value: u128) {
        self.before[160 + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn xmm(&self, n: usize) -> u128 {
        u128::from_le_bytes(self.after[160 + 16 * n..][..16].try_into().unwrap())
    }
}

/// Whether the host's processor is AMD's, as the one was on which the forms were written. Where the architecture leaves something open
/// the forms do as AMD's processors do; judges on others leave it out.
pub(crate) fn is_amd() -> bool {
    // Nobody else has it.
    std::is_x86_feature_detected!("sse4a")
}

/// One instruction, ready to run.
pub(crate) struct Native {
    code: MmapRegion,
}

impl Native {
    pub(crate) fn new(instruction: &[u8]) -> Self {
        const READ_WRITE_EXECUTE: i32 = 7;
        const PRIVATE_ANONYMOUS: i32 = 0x22;
        const RET: u8 = 0xc3;
        let code = MmapRegionBuilder::new(4096)
            .with_mmap_prot(READ_WRITE_EXECUTE)
            .with_mmap_flags(PRIVATE_ANONYMOUS)
            .build()
            .unwrap();
        for (at, byte) in instruction.iter().chain(&[RET]).enumerate() {
            // SAFETY: the mapping has 4096 bytes, is writable, and is ours alone.
            unsafe { code.as_ptr().add(at).write(*byte) };
        }
        Self { code }
    }

    pub(crate) fn run(&self, image: &mut Image) {
        // SAFETY: `image` is aligned for FXSAVE. The code is one instruction that accesses memory at RSI or RDI only, at most 128
        // bytes, and RET; its exceptions are masked. The host's x87 and SSE state is saved and restored around it.
        unsafe {
            core::arch::asm!(
                "fxsave64 [r12 + 1024]",
                "fxrstor64 [r12]",
                "mov rax, [r12 + 1536]",
                "mov rcx, [r12 + 1544]",
                "push qword ptr [r12 + 1552]",
                "lea rsi, [r12 + 1600]",
                "mov rdi, rsi",
                "popfq",
                "call r13",
                "pushfq",
                "pop qword ptr [r12 + 1552]",
                "cld",
                "mov [r12 + 1536], rax",
                "mov [r12 + 1544], rcx",
                "fxsave64 [r12 + 512]",
                "fxrstor64 [r12 + 1024]",
                in("r12") std::ptr::from_mut(image),
                in("r13") self.code.as_ptr(),
                clobber_abi("C"),
            );
        }
    }
}

/// Operands: random bits, and the values at which instructions change their mind.
pub(crate) struct Operands(pub(crate) ChaCha8Rng);

impl Operands {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0.next_u32() % bound
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// One bit, a run of bits, a small number, or anything.
    pub(crate) fn integer(&mut self) -> u64 {
        match self.below(6) {
            0 => 1 << self.below(64),
            1 => u64::MAX >> self.below(64),
            2 => self.word() >> self.below(64),
            3 => (self.below(300) as u64).wrapping_sub(100),
            4 => 0x8000_7fff_8000_7fff,
            _ => self.word(),
        }
    }

    pub(crate) fn single(&mut self) -> u32 {
        const SPECIAL: [u32; 14] = [
            0,
            1,
            0x007f_ffff,
            0x0080_0000,
            0x3f80_0000,
            0x3f80_0001,
            0x4b00_0000,
            0x4f00_0000,
            0x5f00_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0001,
            0x7fff_ffff,
        ];
        let bits = match self.below(8) {
            0 | 1 => self.pick(&SPECIAL),
            2 => self.word() as u32,
            3 => self.word() as u32 & 0x007f_ffff,
            4 => 0x7f80_0000 | self.word() as u32 & 0x007f_ffff,
            // Near one another, so that they cancel, and are integers with a fraction.
            5 => 0x3f80_0000 + (self.below(4) << 23) + self.below(16),
            6 => (self.integer() as i32 as f32).to_bits(),
            _ => 0x3000_0000 + (self.word() as u32 & 0x1fff_ffff),
        };
        bits ^ self.below(2) << 31
    }

    pub(crate) fn double(&mut self) -> u64 {
        const SPECIAL: [u64; 16] = [
            0,
            1,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0x3ff0_0000_0000_0001,
            0x41df_ffff_ffe0_0000,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0x47ef_ffff_e000_0000,
            0x47ef_ffff_f000_0000,
            0x3690_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7ff8_0000_0000_0001,
        ];
        let bits = match self.below(8) {
            0 | 1 => self.pick(&SPECIAL),
            2 => self.word(),
            3 => self.word() & 0x000f_ffff_ffff_ffff,
            // Around the range of single precision, where conversions overflow and underflow.
            4 => u64::from(0x360 + self.below(0x130)) << 52 | self.word() & 0x000f_ffff_ffff_ffff,
            5 => 0x3ff0_0000_0000_0000 + (u64::from(self.below(4)) << 52) + u64::from(self.below(16)),
            6 => (self.integer() as i64 as f64).to_bits(),
            _ => 0x3c00_0000_0000_0000 + (self.word() & 0x07ff_ffff_ffff_ffff),
        };
        bits ^ u64::from(self.below(2)) << 63
    }

    pub(crate) fn xmm(&mut self) -> u128 {
        match self.below(3) {
            0 => (0..4).fold(0, |all, _| all << 32 | u128::from(self.single())),
            1 => (0..2).fold(0, |all, _| all << 64 | u128::from(self.double())),
            _ => (0..2).fold(0, |all, _| all << 64 | u128::from(self.integer())),
        }
    }

    /// Rounding mode, DAZ, FTZ and flags vary; all exceptions are masked.
    pub(crate) fn mxcsr(&mut self) -> u32 {
        let flags = if self.below(2) == 0 { 0 } else { self.below(64) };
        let control = if self.below(4) == 0 { 0 } else { self.below(8) << 13 | self.below(2) << 6 };
        0x1f80 | flags | control
    }
}
