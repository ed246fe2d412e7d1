//! Floating-point arithmetic and comparisons.

use super::host::{binary, compare};
use super::{XmmForm, estimate, packed, partial};
use iced_x86::Code;

pub(super) fn form(code: Code) -> Option<XmmForm> {
    single(code).or_else(|| double(code)).or_else(|| comparison(code))
}

fn single(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Addps_xmm_xmmm128 => packed(binary!("addps {dst}, {src}")),
        Subps_xmm_xmmm128 => packed(binary!("subps {dst}, {src}")),
        Mulps_xmm_xmmm128 => packed(binary!("mulps {dst}, {src}")),
        Divps_xmm_xmmm128 => packed(binary!("divps {dst}, {src}")),
        Minps_xmm_xmmm128 => packed(binary!("minps {dst}, {src}")),
        Maxps_xmm_xmmm128 => packed(binary!("maxps {dst}, {src}")),
        Sqrtps_xmm_xmmm128 => packed(binary!("sqrtps {dst}, {src}")),
        Rcpps_xmm_xmmm128 => packed(estimate::rcpps),
        Rsqrtps_xmm_xmmm128 => packed(estimate::rsqrtps),
        Addss_xmm_xmmm32 => partial(4, binary!("addss {dst}, {src}")),
        Subss_xmm_xmmm32 => partial(4, binary!("subss {dst}, {src}")),
        Mulss_xmm_xmmm32 => partial(4, binary!("mulss {dst}, {src}")),
        Divss_xmm_xmmm32 => partial(4, binary!("divss {dst}, {src}")),
        Minss_xmm_xmmm32 => partial(4, binary!("minss {dst}, {src}")),
        Maxss_xmm_xmmm32 => partial(4, binary!("maxss {dst}, {src}")),
        Sqrtss_xmm_xmmm32 => partial(4, binary!("sqrtss {dst}, {src}")),
        Rcpss_xmm_xmmm32 => partial(4, estimate::rcpss),
        Rsqrtss_xmm_xmmm32 => partial(4, estimate::rsqrtss),
        _ => return None,
    })
}

fn double(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Addpd_xmm_xmmm128 => packed(binary!("addpd {dst}, {src}")),
        Subpd_xmm_xmmm128 => packed(binary!("subpd {dst}, {src}")),
        Mulpd_xmm_xmmm128 => packed(binary!("mulpd {dst}, {src}")),
        Divpd_xmm_xmmm128 => packed(binary!("divpd {dst}, {src}")),
        Minpd_xmm_xmmm128 => packed(binary!("minpd {dst}, {src}")),
        Maxpd_xmm_xmmm128 => packed(binary!("maxpd {dst}, {src}")),
        Sqrtpd_xmm_xmmm128 => packed(binary!("sqrtpd {dst}, {src}")),
        Addsd_xmm_xmmm64 => partial(8, binary!("addsd {dst}, {src}")),
        Subsd_xmm_xmmm64 => partial(8, binary!("subsd {dst}, {src}")),
        Mulsd_xmm_xmmm64 => partial(8, binary!("mulsd {dst}, {src}")),
        Divsd_xmm_xmmm64 => partial(8, binary!("divsd {dst}, {src}")),
        Minsd_xmm_xmmm64 => partial(8, binary!("minsd {dst}, {src}")),
        Maxsd_xmm_xmmm64 => partial(8, binary!("maxsd {dst}, {src}")),
        Sqrtsd_xmm_xmmm64 => partial(8, binary!("sqrtsd {dst}, {src}")),
        _ => return None,
    })
}

/// A function that picks the instruction for the predicate: the low three bits of the immediate, as on every processor without AVX.
macro_rules! predicated {
    ($op:literal) => {{
        fn run(dst: u128, src: u128, imm: u8, mxcsr: &mut u32) -> u128 {
            let run = match imm & 7 {
                0 => binary!(concat!($op, " {dst}, {src}, 0")),
                1 => binary!(concat!($op, " {dst}, {src}, 1")),
                2 => binary!(concat!($op, " {dst}, {src}, 2")),
                3 => binary!(concat!($op, " {dst}, {src}, 3")),
                4 => binary!(concat!($op, " {dst}, {src}, 4")),
                5 => binary!(concat!($op, " {dst}, {src}, 5")),
                6 => binary!(concat!($op, " {dst}, {src}, 6")),
                _ => binary!(concat!($op, " {dst}, {src}, 7")),
            };
            run(dst, src, imm, mxcsr)
        }
        run
    }};
}

fn comparison(code: Code) -> Option<XmmForm> {
    use Code::*;
    Some(match code {
        Cmpps_xmm_xmmm128_imm8 => packed(predicated!("cmpps")),
        Cmppd_xmm_xmmm128_imm8 => packed(predicated!("cmppd")),
        Cmpss_xmm_xmmm32_imm8 => partial(4, predicated!("cmpss")),
        Cmpsd_xmm_xmmm64_imm8 => partial(8, predicated!("cmpsd")),
        Comiss_xmm_xmmm32 => XmmForm::Compare { load: 4, run: compare!("comiss {dst}, {src}") },
        Ucomiss_xmm_xmmm32 => XmmForm::Compare { load: 4, run: compare!("ucomiss {dst}, {src}") },
        Comisd_xmm_xmmm64 => XmmForm::Compare { load: 8, run: compare!("comisd {dst}, {src}") },
        Ucomisd_xmm_xmmm64 => XmmForm::Compare { load: 8, run: compare!("ucomisd {dst}, {src}") },
        _ => return None,
    })
}
