//! RCPPS, RCPSS, RSQRTPS, RSQRTSS.
//!
//! The architecture asks for a relative error below 1.5 * 2^-12 and lets every model choose its own bits. Ours are
//! fixed: the reciprocal is 1/x correctly rounded to single precision; the reciprocal square root is 1/sqrt(x) computed in double
//! precision (two correctly rounded operations) and rounded to single, an error below 2^-23. As on every model, MXCSR plays no part, no exception
//! is raised, and subnormal operands and results are zeros of their sign.

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const QUIET: u32 = 1 << 22;
const INDEFINITE: u32 = 0xffc0_0000;
const SMALLEST_NORMAL: u32 = 0x0080_0000;

fn reciprocal(x: u32) -> u32 {
    let (sign, size) = (x & SIGN, x & !SIGN);
    match size {
        ..SMALLEST_NORMAL => sign | INFINITY,
        INFINITY => sign,
        size if size > INFINITY => x | QUIET,
        _ => {
            let result = (1.0 / f32::from_bits(x)).to_bits();
            if result & !SIGN < SMALLEST_NORMAL { sign } else { result }
        }
    }
}

fn reciprocal_root(x: u32) -> u32 {
    let (sign, size) = (x & SIGN, x & !SIGN);
    match size {
        ..SMALLEST_NORMAL => sign | INFINITY,
        size if size > INFINITY => x | QUIET,
        _ if sign != 0 => INDEFINITE,
        INFINITY => 0,
        _ => ((1.0 / f64::from(f32::from_bits(x)).sqrt()) as f32).to_bits(),
    }
}

pub(super) fn rcpps(_: u128, src: u128, _: u8, _: &mut u32) -> u128 {
    each(src, reciprocal)
}

pub(super) fn rcpss(dst: u128, src: u128, _: u8, _: &mut u32) -> u128 {
    first(dst, src, reciprocal)
}

pub(super) fn rsqrtps(_: u128, src: u128, _: u8, _: &mut u32) -> u128 {
    each(src, reciprocal_root)
}

pub(super) fn rsqrtss(dst: u128, src: u128, _: u8, _: &mut u32) -> u128 {
    first(dst, src, reciprocal_root)
}

fn each(src: u128, of: fn(u32) -> u32) -> u128 {
    (0..4).fold(0, |all, lane| all | u128::from(of((src >> (32 * lane)) as u32)) << (32 * lane))
}

fn first(dst: u128, src: u128, of: fn(u32) -> u32) -> u128 {
    dst >> 32 << 32 | u128::from(of(src as u32))
}
