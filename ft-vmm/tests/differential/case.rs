//! What is run and what came of it: plain data that both sides take and give.
//!
//! Invariant: every bit pattern of these types is a value of them, because one side of the comparison writes them from a signal handler
//! in another process.

use super::layout::{IMAGE_PAGES, PAGE};

/// Room for the bytes of a sequence.
pub(crate) const CODE_BYTES_MAX: usize = 224;

/// General registers, RIP and flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Registers {
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8-R15.
    pub(crate) gpr: [u64; 16],
    /// Instruction pointer.
    pub(crate) rip: u64,
    /// Flags.
    pub(crate) rflags: u64,
}

/// x87 and SSE state as FXSAVE64 lays it out.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(16))]
pub(crate) struct Fx(pub(crate) [u8; 512]);

impl Default for Fx {
    /// As after FNINIT, with all SSE exceptions masked.
    fn default() -> Self {
        let mut fx = Self([0; 512]);
        fx.set_u16(Self::CONTROL, 0x37f);
        fx.set_mxcsr(0x1f80);
        fx
    }
}

impl Fx {
    /// Offset of the control word.
    pub(crate) const CONTROL: usize = 0;
    /// Offset of the status word.
    pub(crate) const STATUS: usize = 2;
    /// Offset of the abridged tag word, one byte.
    pub(crate) const TAGS: usize = 4;
    /// Offset of the last opcode.
    pub(crate) const OPCODE: usize = 6;
    /// Offset of the last instruction's address.
    pub(crate) const INSTRUCTION: usize = 8;
    /// Offset of the last operand's address.
    pub(crate) const OPERAND: usize = 16;
    /// Offset of MXCSR.
    pub(crate) const MXCSR: usize = 24;
    /// Offset of ST(0); the others follow, 16 bytes each.
    pub(crate) const ST: usize = 32;
    /// Offset of XMM0.
    pub(crate) const XMM: usize = 160;
    /// Where what the kernel keeps for itself in a signal frame begins.
    pub(crate) const KERNEL: usize = 464;

    /// A 16-bit field.
    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    /// Sets a 16-bit field.
    pub(crate) fn set_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// A 64-bit field.
    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Sets a 64-bit field.
    pub(crate) fn set_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// MXCSR.
    pub(crate) fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.0[Self::MXCSR..Self::MXCSR + 4].try_into().expect("four bytes"))
    }

    /// Sets MXCSR.
    pub(crate) fn set_mxcsr(&mut self, value: u32) {
        self.0[Self::MXCSR..Self::MXCSR + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// ST(`index`).
    pub(crate) fn st(&self, index: usize) -> [u8; 10] {
        let at = Self::ST + 16 * index;
        self.0[at..at + 10].try_into().expect("ten bytes")
    }

    /// Sets ST(`index`).
    pub(crate) fn set_st(&mut self, index: usize, value: [u8; 10]) {
        let at = Self::ST + 16 * index;
        self.0[at..at + 10].copy_from_slice(&value);
    }

    /// XMM`index`.
    pub(crate) fn xmm(&self, index: usize) -> u128 {
        let at = Self::XMM + 16 * index;
        u128::from_le_bytes(self.0[at..at + 16].try_into().expect("sixteen bytes"))
    }

    /// Sets XMM`index`.
    pub(crate) fn set_xmm(&mut self, index: usize, value: u128) {
        let at = Self::XMM + 16 * index;
        self.0[at..at + 16].copy_from_slice(&value.to_le_bytes());
    }

    /// TOP of the x87 stack.
    pub(crate) fn top(&self) -> usize {
        usize::from(self.u16(Self::STATUS) >> 11 & 7)
    }
}

/// One sequence, and the state it starts in.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Case {
    /// Where everything stands before the first instruction.
    pub(crate) registers: Registers,
    /// x87 and SSE before it.
    pub(crate) fx: Fx,
    /// The instructions; they start at RIP, and INT3 follows.
    pub(crate) code: [u8; CODE_BYTES_MAX],
    /// How many bytes of `code` count.
    pub(crate) code_len: u32,
}

impl Case {
    /// The bytes of the sequence.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.code[..self.code_len as usize]
    }

    /// Takes on a sequence that fits.
    pub(crate) fn set_bytes(&mut self, bytes: &[u8]) {
        self.code = [INT3; CODE_BYTES_MAX];
        self.code[..bytes.len()].copy_from_slice(bytes);
        self.code_len = bytes.len() as u32;
    }
}

/// What fills the code pages around a sequence, and so ends it.
pub(crate) const INT3: u8 = 0xcc;

/// What ended a case, where it is not an exception's vector.
pub(crate) mod ending {
    /// It was still running when its time or its ticks were over.
    pub(crate) const TOO_LONG: u32 = 0x100;
    /// The vCPU returned an error or panicked.
    pub(crate) const UNABLE: u32 = 0x101;
    /// The vCPU shut down.
    pub(crate) const SHUTDOWN: u32 = 0x102;
}

/// Where everything stands after a case.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Outcome {
    /// As the exception's handler finds them.
    pub(crate) registers: Registers,
    /// x87 and SSE.
    pub(crate) fx: Fx,
    /// The exception's vector, or one of [`ending`].
    pub(crate) vector: u32,
    /// Bit n: page n of the image differs from the image, and is in `pages`.
    pub(crate) pages_changed: u32,
    /// The exception's error code, 0 if it has none.
    pub(crate) error: u64,
    /// CR2; meaningful after a page fault only.
    pub(crate) cr2: u64,
    /// Pages that changed. Those that did not hold what an earlier case left here.
    pub(crate) pages: [[u8; PAGE]; IMAGE_PAGES],
}

impl Outcome {
    /// One for a side to write into.
    pub(crate) fn boxed() -> Box<Self> {
        Box::new(Self {
            registers: Registers::default(),
            fx: Fx::default(),
            vector: 0,
            pages_changed: 0,
            error: 0,
            cr2: 0,
            pages: [[0; PAGE]; IMAGE_PAGES],
        })
    }
}
