//! Moves, logic on floating-point registers, and shuffles: bits travel, no number is computed.

use super::host::sign_bytes;
use super::{LOW, XmmForm, packed, partial};
use iced_x86::Code;

const LOW_32: u128 = u32::MAX as u128;

pub(super) fn form(code: Code) -> Option<XmmForm> {
    whole(code)
        .or_else(|| half(code))
        .or_else(|| scalar(code))
        .or_else(|| logic(code))
        .or_else(|| shuffle(code))
}

/// Moves of all 16 bytes.
fn whole(code: Code) -> Option<XmmForm> {
    use Code::*;
    let load = |aligned| XmmForm::Xmm { load: 16, aligned, run: |_, src, _, _| src };
    let store = |aligned| XmmForm::Store { bytes: 16, aligned, run: |src| src, merge: |_, src| src };
    Some(match code {
        Movaps_xmm_xmmm128 | Movapd_xmm_xmmm128 | Movdqa_xmm_xmmm128 => load(true),
        Movups_xmm_xmmm128 | Movupd_xmm_xmmm128 | Movdqu_xmm_xmmm128 => load(false),
        Movaps_xmmm128_xmm | Movapd_xmmm128_xmm | Movdqa_xmmm128_xmm => store(true),
        Movups_xmmm128_xmm | Movupd_xmmm128_xmm | Movdqu_xmmm128_xmm => store(false),
        Movntps_m128_xmm | Movntpd_m128_xmm | Movntdq_m128_xmm => store(true),
        Maskmovdqu_rDI_xmm_xmm => XmmForm::MaskedStore { run: sign_bytes },
        _ => return None,
    })
}

/// Moves of one half; the other stays.
fn half(code: Code) -> Option<XmmForm> {
    use Code::*;
    // Their destination is always memory: `merge` is never asked.
    let store = |run| XmmForm::Store { bytes: 8, aligned: false, run, merge: |dst, _| dst };
    Some(match code {
        Movlps_xmm_m64 | Movlpd_xmm_m64 => partial(8, |dst, src, _, _| dst & !LOW | src & LOW),
        Movhps_xmm_m64 | Movhpd_xmm_m64 | Movlhps_xmm_xmm => {
            partial(8, |dst, src, _, _| dst & LOW | src << 64)
        }
        Movhlps_xmm_xmm => partial(8, |dst, src, _, _| dst & !LOW | src >> 64),
        Movlps_m64_xmm | Movlpd_m64_xmm => store(|src| src),
        Movhps_m64_xmm | Movhpd_m64_xmm => store(|src| src >> 64),
        _ => return None,
    })
}

/// Moves of one element, to and from general registers too.
fn scalar(code: Code) -> Option<XmmForm> {
    use Code::*;
    let mask = |wide| XmmForm::ToGpr { load: 16, wide, run: |src, _, _| sign_dwords(src) };
    let mask_qwords = |wide| XmmForm::ToGpr { load: 16, wide, run: |src, _, _| sign_qwords(src) };
    Some(match code {
        Movss_xmm_xmmm32 => XmmForm::Load { load: 4, merge: merge_dword },
        Movsd_xmm_xmmm64 => XmmForm::Load { load: 8, merge: merge_qword },
        Movss_xmmm32_xmm => XmmForm::Store { bytes: 4, aligned: false, run: |src| src, merge: merge_dword },
        Movsd_xmmm64_xmm => XmmForm::Store { bytes: 8, aligned: false, run: |src| src, merge: merge_qword },
        Movq_xmm_xmmm64 => partial(8, |_, src, _, _| src & LOW),
        Movq_xmmm64_xmm => {
            XmmForm::Store { bytes: 8, aligned: false, run: |src| src, merge: |_, src| src & LOW }
        }
        Movd_xmm_rm32 => XmmForm::FromGpr { bytes: 4, run: |_, src, _, _| u128::from(src as u32) },
        Movq_xmm_rm64 => XmmForm::FromGpr { bytes: 8, run: |_, src, _, _| src.into() },
        Movd_rm32_xmm => XmmForm::ToGpr { load: 16, wide: false, run: |src, _, _| u64::from(src as u32) },
        Movq_rm64_xmm => XmmForm::ToGpr { load: 16, wide: true, run: |src, _, _| src as u64 },
        Movmskps_r32_xmm => mask(false),
        Movmskps_r64_xmm => mask(true),
        Movmskpd_r32_xmm => mask_qwords(false),
        Movmskpd_r64_xmm => mask_qwords(true),
        _ => return None,
    })
}

fn merge_dword(dst: u128, src: u128) -> u128 {
    dst & !LOW_32 | src & LOW_32
}

fn merge_qword(dst: u128, src: u128) -> u128 {
    dst & !LOW | src & LOW
}

fn sign_dwords(src: u128) -> u64 {
    (0..4).fold(0, |all, lane| all | (src >> (32 * lane + 31) & 1) << lane) as u64
}

fn sign_qwords(src: u128) -> u64 {
    (src >> 63) as u64 & 1 | (src >> 126) as u64 & 2
}

fn logic(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Andps_xmm_xmmm128 | Andpd_xmm_xmmm128 | Pand_xmm_xmmm128 => packed(|dst, src, _, _| dst & src),
        Andnps_xmm_xmmm128 | Andnpd_xmm_xmmm128 | Pandn_xmm_xmmm128 => packed(|dst, src, _, _| !dst & src),
        Orps_xmm_xmmm128 | Orpd_xmm_xmmm128 | Por_xmm_xmmm128 => packed(|dst, src, _, _| dst | src),
        Xorps_xmm_xmmm128 | Xorpd_xmm_xmmm128 | Pxor_xmm_xmmm128 => packed(|dst, src, _, _| dst ^ src),
        _ => return None,
    })
}

fn shuffle(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Unpcklps_xmm_xmmm128 | Punpckldq_xmm_xmmm128 => packed(|dst, src, _, _| {
            let (dst, src) = (dwords(dst), dwords(src));
            from_dwords([dst[0], src[0], dst[1], src[1]])
        }),
        Unpckhps_xmm_xmmm128 | Punpckhdq_xmm_xmmm128 => packed(|dst, src, _, _| {
            let (dst, src) = (dwords(dst), dwords(src));
            from_dwords([dst[2], src[2], dst[3], src[3]])
        }),
        Unpcklpd_xmm_xmmm128 | Punpcklqdq_xmm_xmmm128 => packed(|dst, src, _, _| dst & LOW | src << 64),
        Unpckhpd_xmm_xmmm128 | Punpckhqdq_xmm_xmmm128 => packed(|dst, src, _, _| dst >> 64 | src & !LOW),
        Shufps_xmm_xmmm128_imm8 => packed(|dst, src, imm, _| {
            let (dst, src) = (dwords(dst), dwords(src));
            from_dwords([dst[pick(imm, 0)], dst[pick(imm, 1)], src[pick(imm, 2)], src[pick(imm, 3)]])
        }),
        Shufpd_xmm_xmmm128_imm8 => packed(|dst, src, imm, _| {
            let low = if imm & 1 == 0 { dst } else { dst >> 64 };
            let high = if imm & 2 == 0 { src << 64 } else { src & !LOW };
            low & LOW | high
        }),
        Pshufd_xmm_xmmm128_imm8 => packed(|_, src, imm, _| {
            let src = dwords(src);
            from_dwords([src[pick(imm, 0)], src[pick(imm, 1)], src[pick(imm, 2)], src[pick(imm, 3)]])
        }),
        Pshuflw_xmm_xmmm128_imm8 => {
            packed(|_, src, imm, _| src & !LOW | u128::from(shuffle_words(src as u64, imm)))
        }
        Pshufhw_xmm_xmmm128_imm8 => {
            packed(|_, src, imm, _| src & LOW | u128::from(shuffle_words((src >> 64) as u64, imm)) << 64)
        }
        _ => return None,
    })
}

/// Which element the immediate picks for `place`.
fn pick(imm: u8, place: u8) -> usize {
    usize::from(imm >> (2 * place) & 3)
}

/// The four words of `src` in the order that the immediate says.
pub(super) fn shuffle_words(src: u64, imm: u8) -> u64 {
    (0..4).fold(0, |all, place| all | (src >> (16 * pick(imm, place)) & 0xffff) << (16 * place))
}

fn dwords(x: u128) -> [u32; 4] {
    [x as u32, (x >> 32) as u32, (x >> 64) as u32, (x >> 96) as u32]
}

fn from_dwords(x: [u32; 4]) -> u128 {
    u128::from(x[0]) | u128::from(x[1]) << 32 | u128::from(x[2]) << 64 | u128::from(x[3]) << 96
}
