//! Conversions between number formats, and to and from general registers.

use super::host::{binary, from_gpr, to_gpr};
use super::{LOW, XmmForm, packed, partial};
use iced_x86::Code;

pub(super) fn form(code: Code) -> Option<XmmForm> {
    within(code).or_else(|| outwards(code)).or_else(|| inwards(code))
}

fn within(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Cvtdq2ps_xmm_xmmm128 => packed(binary!("cvtdq2ps {dst}, {src}")),
        Cvtdq2pd_xmm_xmmm64 => partial(8, binary!("cvtdq2pd {dst}, {src}")),
        Cvtps2dq_xmm_xmmm128 => packed(binary!("cvtps2dq {dst}, {src}")),
        Cvttps2dq_xmm_xmmm128 => packed(binary!("cvttps2dq {dst}, {src}")),
        Cvtpd2dq_xmm_xmmm128 => packed(binary!("cvtpd2dq {dst}, {src}")),
        Cvttpd2dq_xmm_xmmm128 => packed(binary!("cvttpd2dq {dst}, {src}")),
        Cvtps2pd_xmm_xmmm64 => partial(8, binary!("cvtps2pd {dst}, {src}")),
        Cvtpd2ps_xmm_xmmm128 => packed(binary!("cvtpd2ps {dst}, {src}")),
        Cvtss2sd_xmm_xmmm32 => partial(4, binary!("cvtss2sd {dst}, {src}")),
        Cvtsd2ss_xmm_xmmm64 => partial(8, binary!("cvtsd2ss {dst}, {src}")),
        _ => return None,
    })
}

fn outwards(code: Code) -> Option<XmmForm> {
    use Code::*;
    let single = |wide, run| XmmForm::ToGpr { load: 4, wide, run };
    let double = |wide, run| XmmForm::ToGpr { load: 8, wide, run };
    Some(match code {
        Cvtss2si_r32_xmmm32 => single(false, to_gpr!("cvtss2si {dst:e}, {src}")),
        Cvtss2si_r64_xmmm32 => single(true, to_gpr!("cvtss2si {dst}, {src}")),
        Cvttss2si_r32_xmmm32 => single(false, to_gpr!("cvttss2si {dst:e}, {src}")),
        Cvttss2si_r64_xmmm32 => single(true, to_gpr!("cvttss2si {dst}, {src}")),
        Cvtsd2si_r32_xmmm64 => double(false, to_gpr!("cvtsd2si {dst:e}, {src}")),
        Cvtsd2si_r64_xmmm64 => double(true, to_gpr!("cvtsd2si {dst}, {src}")),
        Cvttsd2si_r32_xmmm64 => double(false, to_gpr!("cvttsd2si {dst:e}, {src}")),
        Cvttsd2si_r64_xmmm64 => double(true, to_gpr!("cvttsd2si {dst}, {src}")),
        _ => return None,
    })
}

fn inwards(code: Code) -> Option<XmmForm> {
    use Code::*;
    let from = |bytes, run| XmmForm::FromGpr { bytes, run };
    Some(match code {
        Cvtsi2ss_xmm_rm32 => from(4, from_gpr!("cvtsi2ss {dst}, {src:e}")),
        Cvtsi2ss_xmm_rm64 => from(8, from_gpr!("cvtsi2ss {dst}, {src}")),
        Cvtsi2sd_xmm_rm32 => from(4, from_gpr!("cvtsi2sd {dst}, {src:e}")),
        Cvtsi2sd_xmm_rm64 => from(8, from_gpr!("cvtsi2sd {dst}, {src}")),
        _ => return None,
    })
}

/// CVTPS2PI: two singles.
pub(super) fn singles_to_dwords(src: u128, mxcsr: &mut u32) -> u64 {
    binary!("cvtps2dq {dst}, {src}")(0, src & LOW, 0, mxcsr) as u64
}

/// CVTTPS2PI.
pub(super) fn singles_to_dwords_truncated(src: u128, mxcsr: &mut u32) -> u64 {
    binary!("cvttps2dq {dst}, {src}")(0, src & LOW, 0, mxcsr) as u64
}

/// CVTPD2PI.
pub(super) fn doubles_to_dwords(src: u128, mxcsr: &mut u32) -> u64 {
    binary!("cvtpd2dq {dst}, {src}")(0, src, 0, mxcsr) as u64
}

/// CVTTPD2PI.
pub(super) fn doubles_to_dwords_truncated(src: u128, mxcsr: &mut u32) -> u64 {
    binary!("cvttpd2dq {dst}, {src}")(0, src, 0, mxcsr) as u64
}

/// CVTPI2PS: into the low half.
pub(super) fn dwords_to_singles(dst: u128, src: u64, mxcsr: &mut u32) -> u128 {
    dst & !LOW | binary!("cvtdq2ps {dst}, {src}")(0, src.into(), 0, mxcsr) & LOW
}

/// CVTPI2PD.
pub(super) fn dwords_to_doubles(_: u128, src: u64, mxcsr: &mut u32) -> u128 {
    binary!("cvtdq2pd {dst}, {src}")(0, src.into(), 0, mxcsr)
}
