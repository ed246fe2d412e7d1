//! What the instructions of MMX compute: SSE2 in 64 bits, on registers that are the significands of the x87's.
//!
//! [`mmx_form`] is to MMX what [`xmm_form`](super::xmm_form) is to SSE2, the instructions of SSE and SSE2 between MMX and XMM registers included.
//! Before any of them the engine raises what it would before one of the x87 (#NM, #MF). Unless the form says otherwise it then calls
//! [`enter`]; registers are read and written with [`read`] and [`write()`].

#[cfg(test)]
mod tests;

use super::convert;
use super::host::{intrinsic, sign_bytes};
use super::moves::shuffle_words;
use crate::vcpu::Fpu;
use iced_x86::Code;

/// How an instruction on MMX registers is executed. Memory operands need no alignment unless it is said.
#[derive(Clone, Copy)]
pub(crate) enum MmxForm {
    /// MMX register from itself and a source; the destination is the first operand.
    Mmx {
        /// Bytes read if the source is memory, zero-extended.
        load: u8,
        /// What becomes of the destination.
        run: fn(dst: u64, src: u64, imm: u8) -> u64,
    },
    /// MMX register to memory or to another, 8 bytes as they are.
    Store,
    /// General register, or memory, from an MMX register.
    ToGpr {
        /// Whether the destination has 64 bits. If not, it is the low 32, and the upper half of a register is cleared.
        wide: bool,
        /// The result.
        run: fn(src: u64, imm: u8) -> u64,
    },
    /// MMX register from itself and a general register or memory.
    FromGpr {
        /// Width of the memory source. A register source can be given whole.
        bytes: u8,
        /// What becomes of the destination.
        run: fn(dst: u64, src: u64, imm: u8) -> u64,
    },
    /// MMX register from an XMM register or memory. See [`RAISED`](super::RAISED).
    FromXmm {
        /// Bytes read if the source is memory, zero-extended. 16 must be aligned.
        load: u8,
        /// The result.
        run: fn(src: u128, mxcsr: &mut u32) -> u64,
    },
    /// XMM register from itself and an MMX register or 8 bytes of memory; with memory, [`enter`] is not called. See
    /// [`RAISED`](super::RAISED).
    ToXmm {
        /// What becomes of the destination.
        run: fn(dst: u128, src: u64, mxcsr: &mut u32) -> u128,
    },
    /// MASKMOVQ: stores those bytes of the first MMX operand at RDI that the second one selects.
    MaskedStore {
        /// Bit n is set if byte n is stored.
        run: fn(mask: u64) -> u8,
    },
    /// EMMS: [`leave`], and nothing else.
    Leave,
}

const TOP: u16 = 7 << 11;
const EXPONENT: [u8; 2] = [0xff; 2];

/// What every instruction but EMMS does to the x87: no register is empty, and R0 is on top.
pub(crate) fn enter(fpu: &mut Fpu) {
    fpu.tags = 0xff;
    fpu.status &= !TOP;
}

/// EMMS: every register of the x87 is empty.
pub(crate) fn leave(fpu: &mut Fpu) {
    fpu.tags = 0;
    fpu.status &= !TOP;
}

/// MMn.
pub(crate) fn read(fpu: &Fpu, n: usize) -> u64 {
    let [significand @ .., _, _] = fpu.registers[n];
    u64::from_le_bytes(significand)
}

/// Sets MMn. As a number of the x87 it is then a NaN.
pub(crate) fn write(fpu: &mut Fpu, n: usize, value: u64) {
    fpu.registers[n][..8].copy_from_slice(&value.to_le_bytes());
    fpu.registers[n][8..].copy_from_slice(&EXPONENT);
}

/// The form of an instruction, if it is one on MMX registers.
pub(crate) fn mmx_form(code: Code) -> Option<MmxForm> {
    lanes(code)
        .or_else(|| neighbours(code))
        .or_else(|| shifts(code))
        .or_else(|| moves(code))
        .or_else(|| with_xmm(code))
}

/// A form for an expression over destination, source and immediate.
macro_rules! of {
    ($load:literal, |$dst:pat_param, $src:pat_param, $imm:pat_param| $body:expr) => {{
        fn run($dst: u64, $src: u64, $imm: u8) -> u64 {
            $body
        }
        MmxForm::Mmx { load: $load, run }
    }};
}

/// A form for an intrinsic, of which only the low half matters.
macro_rules! low {
    ($intrinsic:ident) => {
        of!(8, |dst, src, _| intrinsic!($intrinsic(dst.into(), src.into())) as u64)
    };
}

fn lanes(code: Code) -> Option<MmxForm> {
    use Code::*;
    Some(match code {
        Pand_mm_mmm64 => of!(8, |dst, src, _| dst & src),
        Pandn_mm_mmm64 => of!(8, |dst, src, _| !dst & src),
        Por_mm_mmm64 => of!(8, |dst, src, _| dst | src),
        Pxor_mm_mmm64 => of!(8, |dst, src, _| dst ^ src),
        Paddb_mm_mmm64 => low!(_mm_add_epi8),
        Paddw_mm_mmm64 => low!(_mm_add_epi16),
        Paddd_mm_mmm64 => low!(_mm_add_epi32),
        Paddq_mm_mmm64 => low!(_mm_add_epi64),
        Paddsb_mm_mmm64 => low!(_mm_adds_epi8),
        Paddsw_mm_mmm64 => low!(_mm_adds_epi16),
        Paddusb_mm_mmm64 => low!(_mm_adds_epu8),
        Paddusw_mm_mmm64 => low!(_mm_adds_epu16),
        Psubb_mm_mmm64 => low!(_mm_sub_epi8),
        Psubw_mm_mmm64 => low!(_mm_sub_epi16),
        Psubd_mm_mmm64 => low!(_mm_sub_epi32),
        Psubq_mm_mmm64 => low!(_mm_sub_epi64),
        Psubsb_mm_mmm64 => low!(_mm_subs_epi8),
        Psubsw_mm_mmm64 => low!(_mm_subs_epi16),
        Psubusb_mm_mmm64 => low!(_mm_subs_epu8),
        Psubusw_mm_mmm64 => low!(_mm_subs_epu16),
        Pmullw_mm_mmm64 => low!(_mm_mullo_epi16),
        Pmulhw_mm_mmm64 => low!(_mm_mulhi_epi16),
        Pmulhuw_mm_mmm64 => low!(_mm_mulhi_epu16),
        Pmuludq_mm_mmm64 => low!(_mm_mul_epu32),
        Pmaddwd_mm_mmm64 => low!(_mm_madd_epi16),
        Psadbw_mm_mmm64 => low!(_mm_sad_epu8),
        Pavgb_mm_mmm64 => low!(_mm_avg_epu8),
        Pavgw_mm_mmm64 => low!(_mm_avg_epu16),
        Pminub_mm_mmm64 => low!(_mm_min_epu8),
        Pmaxub_mm_mmm64 => low!(_mm_max_epu8),
        Pminsw_mm_mmm64 => low!(_mm_min_epi16),
        Pmaxsw_mm_mmm64 => low!(_mm_max_epi16),
        Pcmpeqb_mm_mmm64 => low!(_mm_cmpeq_epi8),
        Pcmpeqw_mm_mmm64 => low!(_mm_cmpeq_epi16),
        Pcmpeqd_mm_mmm64 => low!(_mm_cmpeq_epi32),
        Pcmpgtb_mm_mmm64 => low!(_mm_cmpgt_epi8),
        Pcmpgtw_mm_mmm64 => low!(_mm_cmpgt_epi16),
        Pcmpgtd_mm_mmm64 => low!(_mm_cmpgt_epi32),
        _ => return None,
    })
}

/// Between neighbours: packs, unpacks, shuffles.
fn neighbours(code: Code) -> Option<MmxForm> {
    use Code::*;
    macro_rules! pack {
        ($intrinsic:ident) => {
            of!(8, |dst, src, _| {
                intrinsic!($intrinsic(u128::from(dst) | u128::from(src) << 64, 0)) as u64
            })
        };
    }
    macro_rules! upper {
        ($intrinsic:ident) => {
            of!(8, |dst, src, _| (intrinsic!($intrinsic(dst.into(), src.into())) >> 64) as u64)
        };
    }
    macro_rules! lower {
        ($intrinsic:ident) => {
            of!(4, |dst, src, _| intrinsic!($intrinsic(dst.into(), src.into())) as u64)
        };
    }
    Some(match code {
        Packsswb_mm_mmm64 => pack!(_mm_packs_epi16),
        Packssdw_mm_mmm64 => pack!(_mm_packs_epi32),
        Packuswb_mm_mmm64 => pack!(_mm_packus_epi16),
        Punpcklbw_mm_mmm32 => lower!(_mm_unpacklo_epi8),
        Punpcklwd_mm_mmm32 => lower!(_mm_unpacklo_epi16),
        Punpckldq_mm_mmm32 => lower!(_mm_unpacklo_epi32),
        Punpckhbw_mm_mmm64 => upper!(_mm_unpacklo_epi8),
        Punpckhwd_mm_mmm64 => upper!(_mm_unpacklo_epi16),
        Punpckhdq_mm_mmm64 => upper!(_mm_unpacklo_epi32),
        Pshufw_mm_mmm64_imm8 => of!(8, |_, src, imm| shuffle_words(src, imm)),
        _ => return None,
    })
}

fn shifts(code: Code) -> Option<MmxForm> {
    use Code::*;
    macro_rules! by_immediate {
        ($intrinsic:ident) => {
            of!(8, |dst, _, imm| intrinsic!($intrinsic(dst.into(), imm.into())) as u64)
        };
    }
    Some(match code {
        Psllw_mm_mmm64 => low!(_mm_sll_epi16),
        Pslld_mm_mmm64 => low!(_mm_sll_epi32),
        Psllq_mm_mmm64 => low!(_mm_sll_epi64),
        Psrlw_mm_mmm64 => low!(_mm_srl_epi16),
        Psrld_mm_mmm64 => low!(_mm_srl_epi32),
        Psrlq_mm_mmm64 => low!(_mm_srl_epi64),
        Psraw_mm_mmm64 => low!(_mm_sra_epi16),
        Psrad_mm_mmm64 => low!(_mm_sra_epi32),
        Psllw_mm_imm8 => by_immediate!(_mm_sll_epi16),
        Pslld_mm_imm8 => by_immediate!(_mm_sll_epi32),
        Psllq_mm_imm8 => by_immediate!(_mm_sll_epi64),
        Psrlw_mm_imm8 => by_immediate!(_mm_srl_epi16),
        Psrld_mm_imm8 => by_immediate!(_mm_srl_epi32),
        Psrlq_mm_imm8 => by_immediate!(_mm_srl_epi64),
        Psraw_mm_imm8 => by_immediate!(_mm_sra_epi16),
        Psrad_mm_imm8 => by_immediate!(_mm_sra_epi32),
        _ => return None,
    })
}

fn moves(code: Code) -> Option<MmxForm> {
    use Code::*;
    let to_gpr = |wide, run| MmxForm::ToGpr { wide, run };
    let from_gpr = |bytes, run| MmxForm::FromGpr { bytes, run };
    let mask: fn(u64, u8) -> u64 = |src, _| u64::from(sign_bytes(src.into()));
    let extract: fn(u64, u8) -> u64 = |src, imm| src >> place(imm) & 0xffff;
    Some(match code {
        Movq_mm_mmm64 => of!(8, |_, src, _| src),
        Movq_mmm64_mm | Movntq_m64_mm => MmxForm::Store,
        Movd_mm_rm32 => from_gpr(4, |_, src, _| u64::from(src as u32)),
        Movq_mm_rm64 => from_gpr(8, |_, src, _| src),
        Movd_rm32_mm => to_gpr(false, |src, _| src),
        Movq_rm64_mm => to_gpr(true, |src, _| src),
        Pmovmskb_r32_mm => to_gpr(false, mask),
        Pmovmskb_r64_mm => to_gpr(true, mask),
        Pextrw_r32_mm_imm8 => to_gpr(false, extract),
        Pextrw_r64_mm_imm8 => to_gpr(true, extract),
        Pinsrw_mm_r32m16_imm8 | Pinsrw_mm_r64m16_imm8 => {
            from_gpr(2, |dst, src, imm| dst & !(0xffff << place(imm)) | (src & 0xffff) << place(imm))
        }
        Maskmovq_rDI_mm_mm => MmxForm::MaskedStore { run: |mask| sign_bytes(mask.into()) as u8 },
        Emms => MmxForm::Leave,
        _ => return None,
    })
}

/// Where the word that the immediate names begins.
fn place(imm: u8) -> u32 {
    u32::from(imm & 3) * 16
}

fn with_xmm(code: Code) -> Option<MmxForm> {
    use Code::*;
    Some(match code {
        Movdq2q_mm_xmm => MmxForm::FromXmm { load: 16, run: |src, _| src as u64 },
        Cvtps2pi_mm_xmmm64 => MmxForm::FromXmm { load: 8, run: convert::singles_to_dwords },
        Cvttps2pi_mm_xmmm64 => MmxForm::FromXmm { load: 8, run: convert::singles_to_dwords_truncated },
        Cvtpd2pi_mm_xmmm128 => MmxForm::FromXmm { load: 16, run: convert::doubles_to_dwords },
        Cvttpd2pi_mm_xmmm128 => MmxForm::FromXmm { load: 16, run: convert::doubles_to_dwords_truncated },
        Movq2dq_xmm_mm => MmxForm::ToXmm { run: |_, src, _| src.into() },
        Cvtpi2ps_xmm_mmm64 => MmxForm::ToXmm { run: convert::dwords_to_singles },
        Cvtpi2pd_xmm_mmm64 => MmxForm::ToXmm { run: convert::dwords_to_doubles },
        _ => return None,
    })
}
