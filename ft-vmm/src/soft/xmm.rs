//! What the instructions of SSE and SSE2 compute, apart from how their operands are fetched and stored.
//!
//! [`xmm_form`] says for each instruction which bytes go in, which come out and what function is between. The execution engine moves
//! bytes; nothing here sees memory or registers. The source of an instruction that has none beside an immediate is 0; the immediate
//! of one without is 0.
//!
//! # MXCSR
//! A function that can raise SIMD floating-point exceptions takes MXCSR, computes under its rounding mode, DAZ and FTZ, and adds
//! the flags it raises. If one of them is unmasked it also sets [`RAISED`], which no guest can set: the engine then clears
//! the bit, leaves the destination as it was, keeps the flags and raises #XM (or #UD, as CR4.OSXMMEXCPT says).
//!
//! Invariant: results and flags depend on the arguments alone, and are the same on every x86-64 host. The arithmetic is done by the
//! host's own SSE2 unit under the guest's MXCSR ([`host`]), which IEEE 754 and the architecture define to the last bit; only the estimates
//! RCPPS, RCPSS, RSQRTPS and RSQRTSS, which differ between models, are our own ([`estimate`]).

mod convert;
mod estimate;
mod float;
mod host;
mod integer;
pub(crate) mod mmx;
mod moves;
#[cfg(test)]
pub(super) mod native;
#[cfg(test)]
mod tests;

use iced_x86::Code;

/// Set in MXCSR, beside the flags, when an exception that was raised is unmasked.
pub(crate) const RAISED: u32 = 1 << 31;

/// A new destination from the old one and a source.
pub(crate) type Run = fn(dst: u128, src: u128, imm: u8, mxcsr: &mut u32) -> u128;

/// How an instruction on XMM registers is executed.
#[derive(Clone, Copy)]
pub(crate) enum XmmForm {
    /// XMM register from itself and a source; the destination is the first operand.
    Xmm {
        /// Bytes read if the source is memory, zero-extended. A register source is given whole.
        load: u8,
        /// #GP unless a memory source stands at a multiple of 16.
        aligned: bool,
        /// What becomes of the destination.
        run: Run,
    },
    /// MOVSS, MOVSD to an XMM register. From memory the destination is what was read, zero-extended.
    Load {
        /// Bytes read if the source is memory.
        load: u8,
        /// What becomes of the destination if the source is a register.
        merge: fn(dst: u128, src: u128) -> u128,
    },
    /// XMM register to memory, or to an XMM register where the encoding allows it.
    Store {
        /// Bytes written to memory.
        bytes: u8,
        /// #GP unless the memory stands at a multiple of 16.
        aligned: bool,
        /// What is written: the low `bytes` bytes of this.
        run: fn(src: u128) -> u128,
        /// What becomes of the destination if it is a register.
        merge: fn(dst: u128, src: u128) -> u128,
    },
    /// General register from an XMM register or memory. MOVD and MOVQ can also have a memory destination: 8 bytes if `wide`, 4 if not.
    ToGpr {
        /// Bytes read if the source is memory, zero-extended.
        load: u8,
        /// Whether the destination has 64 bits. If not, it is the low 32, and the upper half of the register is cleared.
        wide: bool,
        /// The result.
        run: fn(src: u128, imm: u8, mxcsr: &mut u32) -> u64,
    },
    /// XMM register from itself and a general register or memory.
    FromGpr {
        /// Width of the memory source. A register source can be given whole.
        bytes: u8,
        /// What becomes of the destination.
        run: fn(dst: u128, src: u64, imm: u8, mxcsr: &mut u32) -> u128,
    },
    /// Compares two XMM registers, or one and memory, into RFLAGS.
    Compare {
        /// Bytes read if the source is memory, zero-extended.
        load: u8,
        /// CF, PF and ZF at their places in RFLAGS. The engine clears OF, SF and AF.
        run: fn(dst: u128, src: u128, mxcsr: &mut u32) -> u32,
    },
    /// MASKMOVDQU: stores those bytes of the first XMM operand at RDI (or EDI, and with the segment of the prefix) that the second
    /// one selects. With none selected nothing is accessed.
    MaskedStore {
        /// Bit n is set if byte n is stored.
        run: fn(mask: u128) -> u16,
    },
}

/// The form of an instruction, if it is one of SSE or SSE2 on XMM registers.
///
/// LDMXCSR, STMXCSR, fences, prefetches and MOVNTI compute nothing and are the engine's; what touches MMX registers is
/// in [`mmx_form`](mmx::mmx_form).
pub(crate) fn xmm_form(code: Code) -> Option<XmmForm> {
    moves::form(code)
        .or_else(|| float::form(code))
        .or_else(|| convert::form(code))
        .or_else(|| integer::form(code))
}

/// An [`XmmForm::Xmm`] with a 16-byte memory source, which must be aligned.
fn packed(run: Run) -> XmmForm {
    XmmForm::Xmm { load: 16, aligned: true, run }
}

/// An [`XmmForm::Xmm`] with a shorter memory source, which need not be aligned.
fn partial(load: u8, run: Run) -> XmmForm {
    XmmForm::Xmm { load, aligned: false, run }
}

/// The low 64 bits.
const LOW: u128 = u64::MAX as u128;
