//! Integer instructions of SSE2.
//!
//! They are the host's: every x86-64 processor has SSE2, and these have no state but their operands.

use super::host::{intrinsic, sign_bytes};
use super::{Run, XmmForm, packed};
use iced_x86::Code;

pub(super) fn form(code: Code) -> Option<XmmForm> {
    lanes(code)
        .map(packed)
        .or_else(|| shifts(code).map(packed))
        .or_else(|| immediate_shifts(code))
        .or_else(|| words(code))
}

/// A function for an intrinsic on two vectors.
macro_rules! of {
    ($intrinsic:ident) => {{
        fn run(dst: u128, src: u128, _imm: u8, _mxcsr: &mut u32) -> u128 {
            intrinsic!($intrinsic(dst, src))
        }
        run
    }};
}

/// A function for a shift by the immediate: the same as by a vector that holds it.
macro_rules! by_immediate {
    ($intrinsic:ident) => {{
        fn run(dst: u128, _src: u128, imm: u8, _mxcsr: &mut u32) -> u128 {
            intrinsic!($intrinsic(dst, imm.into()))
        }
        XmmForm::Xmm { load: 16, aligned: true, run }
    }};
}

/// Instructions on two vectors, lane by lane or between neighbours.
fn lanes(code: Code) -> Option<Run> {
    use Code::*;
    Some(match code {
        Paddb_xmm_xmmm128 => of!(_mm_add_epi8),
        Paddw_xmm_xmmm128 => of!(_mm_add_epi16),
        Paddd_xmm_xmmm128 => of!(_mm_add_epi32),
        Paddq_xmm_xmmm128 => of!(_mm_add_epi64),
        Paddsb_xmm_xmmm128 => of!(_mm_adds_epi8),
        Paddsw_xmm_xmmm128 => of!(_mm_adds_epi16),
        Paddusb_xmm_xmmm128 => of!(_mm_adds_epu8),
        Paddusw_xmm_xmmm128 => of!(_mm_adds_epu16),
        Psubb_xmm_xmmm128 => of!(_mm_sub_epi8),
        Psubw_xmm_xmmm128 => of!(_mm_sub_epi16),
        Psubd_xmm_xmmm128 => of!(_mm_sub_epi32),
        Psubq_xmm_xmmm128 => of!(_mm_sub_epi64),
        Psubsb_xmm_xmmm128 => of!(_mm_subs_epi8),
        Psubsw_xmm_xmmm128 => of!(_mm_subs_epi16),
        Psubusb_xmm_xmmm128 => of!(_mm_subs_epu8),
        Psubusw_xmm_xmmm128 => of!(_mm_subs_epu16),
        Pmullw_xmm_xmmm128 => of!(_mm_mullo_epi16),
        Pmulhw_xmm_xmmm128 => of!(_mm_mulhi_epi16),
        Pmulhuw_xmm_xmmm128 => of!(_mm_mulhi_epu16),
        Pmuludq_xmm_xmmm128 => of!(_mm_mul_epu32),
        Pmaddwd_xmm_xmmm128 => of!(_mm_madd_epi16),
        Psadbw_xmm_xmmm128 => of!(_mm_sad_epu8),
        Pavgb_xmm_xmmm128 => of!(_mm_avg_epu8),
        Pavgw_xmm_xmmm128 => of!(_mm_avg_epu16),
        Pminub_xmm_xmmm128 => of!(_mm_min_epu8),
        Pmaxub_xmm_xmmm128 => of!(_mm_max_epu8),
        Pminsw_xmm_xmmm128 => of!(_mm_min_epi16),
        Pmaxsw_xmm_xmmm128 => of!(_mm_max_epi16),
        Pcmpeqb_xmm_xmmm128 => of!(_mm_cmpeq_epi8),
        Pcmpeqw_xmm_xmmm128 => of!(_mm_cmpeq_epi16),
        Pcmpeqd_xmm_xmmm128 => of!(_mm_cmpeq_epi32),
        Pcmpgtb_xmm_xmmm128 => of!(_mm_cmpgt_epi8),
        Pcmpgtw_xmm_xmmm128 => of!(_mm_cmpgt_epi16),
        Pcmpgtd_xmm_xmmm128 => of!(_mm_cmpgt_epi32),
        Packsswb_xmm_xmmm128 => of!(_mm_packs_epi16),
        Packssdw_xmm_xmmm128 => of!(_mm_packs_epi32),
        Packuswb_xmm_xmmm128 => of!(_mm_packus_epi16),
        Punpcklbw_xmm_xmmm128 => of!(_mm_unpacklo_epi8),
        Punpcklwd_xmm_xmmm128 => of!(_mm_unpacklo_epi16),
        Punpckhbw_xmm_xmmm128 => of!(_mm_unpackhi_epi8),
        Punpckhwd_xmm_xmmm128 => of!(_mm_unpackhi_epi16),
        _ => return None,
    })
}

/// Shifts of each lane by the low 64 bits of a vector.
fn shifts(code: Code) -> Option<Run> {
    use Code::*;
    Some(match code {
        Psllw_xmm_xmmm128 => of!(_mm_sll_epi16),
        Pslld_xmm_xmmm128 => of!(_mm_sll_epi32),
        Psllq_xmm_xmmm128 => of!(_mm_sll_epi64),
        Psrlw_xmm_xmmm128 => of!(_mm_srl_epi16),
        Psrld_xmm_xmmm128 => of!(_mm_srl_epi32),
        Psrlq_xmm_xmmm128 => of!(_mm_srl_epi64),
        Psraw_xmm_xmmm128 => of!(_mm_sra_epi16),
        Psrad_xmm_xmmm128 => of!(_mm_sra_epi32),
        _ => return None,
    })
}

fn immediate_shifts(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Psllw_xmm_imm8 => by_immediate!(_mm_sll_epi16),
        Pslld_xmm_imm8 => by_immediate!(_mm_sll_epi32),
        Psllq_xmm_imm8 => by_immediate!(_mm_sll_epi64),
        Psrlw_xmm_imm8 => by_immediate!(_mm_srl_epi16),
        Psrld_xmm_imm8 => by_immediate!(_mm_srl_epi32),
        Psrlq_xmm_imm8 => by_immediate!(_mm_srl_epi64),
        Psraw_xmm_imm8 => by_immediate!(_mm_sra_epi16),
        Psrad_xmm_imm8 => by_immediate!(_mm_sra_epi32),
        Pslldq_xmm_imm8 => packed(|dst, _, imm, _| dst.checked_shl(8 * u32::from(imm)).unwrap_or(0)),
        Psrldq_xmm_imm8 => packed(|dst, _, imm, _| dst.checked_shr(8 * u32::from(imm)).unwrap_or(0)),
        _ => return None,
    })
}

/// Between words or bytes and general registers.
fn words(code: Code) -> Option<XmmForm> {
    use Code::*;
    let mask = |wide| XmmForm::ToGpr { load: 16, wide, run: |src, _, _| sign_bytes(src).into() };
    let extract =
        |wide| XmmForm::ToGpr { load: 16, wide, run: |src, imm, _| u64::from((src >> place(imm)) as u16) };
    Some(match code {
        Pmovmskb_r32_xmm => mask(false),
        Pmovmskb_r64_xmm => mask(true),
        Pextrw_r32_xmm_imm8 => extract(false),
        Pextrw_r64_xmm_imm8 => extract(true),
        Pinsrw_xmm_r32m16_imm8 | Pinsrw_xmm_r64m16_imm8 => {
            XmmForm::FromGpr { bytes: 2, run: |dst, src, imm, _| insert_word(dst, src, place(imm)) }
        }
        _ => return None,
    })
}

/// Where the word that the immediate names begins.
fn place(imm: u8) -> u32 {
    u32::from(imm & 7) * 16
}

fn insert_word(dst: u128, src: u64, place: u32) -> u128 {
    dst & !(0xffff << place) | u128::from(src as u16) << place
}
