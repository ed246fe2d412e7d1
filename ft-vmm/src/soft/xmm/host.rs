//! Floating-point instructions of the guest, run by the host's SSE2 unit under the guest's MXCSR.
//!
//! Invariant: what a function here returns, and the flags it adds to MXCSR, are those of the instruction under the MXCSR
//! that it was given, whatever flags stood in the host's before. The host's control bits are as before when it returns; its flags are not,
//! and nothing in Rust reads them.
//!
//! Loading MXCSR is slow. Almost always the guest's control bits are the host's (all masked, round to nearest), and the flags an instruction
//! raises are sticky in the guest's already. So the instruction runs under the host's MXCSR first; the result stands if the MXCSR
//! found afterwards proves that it ran under the guest's control bits and raised nothing new. Otherwise it runs again under the
//! guest's.

use super::RAISED;
use core::arch::x86_64::__m128i;
use core::mem::transmute;

const FLAGS: u32 = 0x3f;
/// Invalid, denormal, divide by zero: found before anything is computed.
const BEFORE: u32 = 0x07;
const UNDERFLOW: u32 = 0x10;
const MASKS: u32 = 0x1f80;
const MASKS_SHIFT: u32 = 7;
/// What may be loaded without #GP.
const IMPLEMENTED: u32 = 0xffff;
const FLUSH_TO_ZERO: u32 = 1 << 15;

/// MXCSR around an instruction that runs under the guest's: `[guest's, as the instruction left it, host's]`.
pub(super) type Words = [u32; 3];

/// As the host's vector register.
pub(super) fn vector(x: u128) -> __m128i {
    // SAFETY: both are 16 bytes of which every pattern is a value.
    unsafe { transmute(x) }
}

/// From the host's vector register.
pub(super) fn bits(x: __m128i) -> u128 {
    // SAFETY: both are 16 bytes of which every pattern is a value.
    unsafe { transmute(x) }
}

/// Runs an instruction: `fast` under the host's MXCSR, noting the one it leaves; `exact` under the first word, noting in the second.
#[inline(always)]
pub(super) fn settle<T>(mxcsr: &mut u32, fast: impl Fn(&mut u32) -> T, exact: impl Fn(&mut Words) -> T) -> T {
    let mut after = 0;
    let result = fast(&mut after);
    let new_flags = after & FLAGS & !*mxcsr;
    if new_flags == 0 && (after ^ *mxcsr) & !FLAGS == 0 { result } else { run_exactly(mxcsr, exact) }
}

#[cold]
fn run_exactly<T>(mxcsr: &mut u32, exact: impl Fn(&mut Words) -> T) -> T {
    // All masked: an unmasked exception must not reach the host.
    let control = (*mxcsr & IMPLEMENTED | MASKS) & !FLAGS;
    let run = |control: u32| {
        let mut words = [control, 0, 0];
        let result = exact(&mut words);
        (result, words[1] & FLAGS)
    };
    let (result, mut flags) = run(control);
    let masks = (*mxcsr & MASKS) >> MASKS_SHIFT;
    if masks & UNDERFLOW == 0 {
        // Unmasked, underflow is raised by a tiny result even if it is exact, and FTZ is ignored. Under FTZ the processor says
        // which results are tiny.
        flags = run(control & !FLUSH_TO_ZERO).1 | run(control | FLUSH_TO_ZERO).1 & UNDERFLOW;
    }
    if flags & BEFORE & !masks != 0 {
        // The result was never computed: it raised nothing.
        flags &= BEFORE;
    }
    *mxcsr |= flags;
    if flags & !masks != 0 {
        *mxcsr |= RAISED;
    }
    result
}

/// The two closures for [`settle`], from the instruction's text, what it starts from, and its operands.
macro_rules! under_mxcsr {
    ($mxcsr:expr, [$($op:expr),+], $result:ident = $init:expr, { $($operands:tt)* }) => {
        $crate::soft::xmm::host::settle(
            $mxcsr,
            |word: &mut u32| {
                let mut $result = $init;
                // SAFETY: computes between registers, and writes MXCSR, without changing it but for its flags, to `word`, which
                // is valid for four bytes.
                unsafe {
                    core::arch::asm!($($op,)+ "stmxcsr [{word}]", word = in(reg) word, $($operands)*);
                }
                $result
            },
            |words: &mut $crate::soft::xmm::host::Words| {
                let mut $result = $init;
                // SAFETY: computes between registers. The MXCSR it runs under has every exception masked and no reserved bit set; the
                // host's is put back in the same block. `words` is valid for twelve bytes.
                unsafe {
                    core::arch::asm!(
                        "stmxcsr [{words} + 8]",
                        "ldmxcsr [{words}]",
                        $($op,)+
                        "stmxcsr [{words} + 4]",
                        "ldmxcsr [{words} + 8]",
                        words = in(reg) words,
                        $($operands)*
                    );
                }
                $result
            },
        )
    };
}

/// The value of an SSE2 intrinsic on two vectors.
macro_rules! intrinsic {
    ($name:ident($dst:expr, $src:expr)) => {{
        let (dst, src) = ($crate::soft::xmm::host::vector($dst), $crate::soft::xmm::host::vector($src));
        // SAFETY: every x86-64 processor has SSE2; the intrinsic asks for nothing else.
        $crate::soft::xmm::host::bits(unsafe { core::arch::x86_64::$name(dst, src) })
    }};
}

/// The top bit of each byte.
pub(super) fn sign_bytes(src: u128) -> u16 {
    // SAFETY: every x86-64 processor has SSE2; the intrinsic asks for nothing else.
    unsafe { core::arch::x86_64::_mm_movemask_epi8(vector(src)) as u16 }
}

/// A function for an instruction `op {dst}, {src}`, possibly with an immediate in its text.
macro_rules! binary {
    ($op:expr) => {{
        fn run(dst: u128, src: u128, _imm: u8, mxcsr: &mut u32) -> u128 {
            use $crate::soft::xmm::host::{bits, under_mxcsr, vector};
            let (dst, src) = (vector(dst), vector(src));
            bits(under_mxcsr!(mxcsr, [$op], result = dst, {
                dst = inout(xmm_reg) result,
                src = in(xmm_reg) src,
            }))
        }
        run as fn(u128, u128, u8, &mut u32) -> u128
    }};
}

/// A function for a comparison `op {dst}, {src}` that sets RFLAGS.
macro_rules! compare {
    ($op:expr) => {{
        fn run(dst: u128, src: u128, mxcsr: &mut u32) -> u32 {
            use $crate::soft::xmm::host::{under_mxcsr, vector};
            let (dst, src) = (vector(dst), vector(src));
            let flags: u64 = under_mxcsr!(mxcsr, [$op, "pushfq", "pop {flags}"], result = 0u64, {
                flags = inout(reg) result,
                dst = in(xmm_reg) dst,
                src = in(xmm_reg) src,
            });
            flags as u32 & 0x45
        }
        run as fn(u128, u128, &mut u32) -> u32
    }};
}

/// A function for a conversion `op {dst}, {src}` to a general register: 32 bits as `{dst:e}`.
macro_rules! to_gpr {
    ($op:expr) => {{
        fn run(src: u128, _imm: u8, mxcsr: &mut u32) -> u64 {
            use $crate::soft::xmm::host::{under_mxcsr, vector};
            let src = vector(src);
            under_mxcsr!(mxcsr, [$op], result = 0u64, {
                dst = inout(reg) result,
                src = in(xmm_reg) src,
            })
        }
        run as fn(u128, u8, &mut u32) -> u64
    }};
}

/// A function for a conversion `op {dst}, {src}` from a general register: 32 bits as `{src:e}`.
macro_rules! from_gpr {
    ($op:expr) => {{
        fn run(dst: u128, src: u64, _imm: u8, mxcsr: &mut u32) -> u128 {
            use $crate::soft::xmm::host::{bits, under_mxcsr, vector};
            let dst = vector(dst);
            bits(under_mxcsr!(mxcsr, [$op], result = dst, {
                dst = inout(xmm_reg) result,
                src = in(reg) src,
            }))
        }
        run as fn(u128, u64, u8, &mut u32) -> u128
    }};
}

pub(super) use {binary, compare, from_gpr, intrinsic, to_gpr, under_mxcsr};
