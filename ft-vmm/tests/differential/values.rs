//! Random values that are worth trying: small numbers, edges, pointers, floating-point specials.

use super::case::{Fx, Registers};
use super::dice::Dice;
use super::layout::{CODE, CODE_PAGES, IMAGE, IMAGE_END, PAGE, WRITABLE};

/// RFLAGS: bit 1 is always set, IF always on in ring 3.
pub(crate) const FLAGS_FIXED: u64 = 0x202;
/// CF PF AF ZF SF OF.
pub(crate) const FLAGS_ARITHMETIC: u64 = 0x8d5;
/// DF.
pub(crate) const FLAG_DIRECTION: u64 = 0x400;

const EDGES: [u64; 14] = [
    0,
    1,
    u64::MAX,
    i64::MAX as u64,
    i64::MIN as u64,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0xffff_ffff_8000_0000,
    0x7fff,
    0x8000,
    0x80,
    0x7f,
];

const F64: [u64; 16] = [
    0,
    0x8000_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbff8_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0001,
    0xfff8_0000_0000_0000,
    0x7ff0_0000_0000_0001,
    0xfff4_0000_0000_1234,
    0x0000_0000_0000_0001,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x41df_ffff_ffc0_0000,
    0xc3e0_0000_0000_0000,
];

const F32: [u32; 14] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbfc0_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0001,
    0x7f80_0001,
    0xffa0_1234,
    1,
    0x807f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0x4f00_0000,
];

/// An address in the writable pages.
pub(crate) fn writable(dice: &mut Dice) -> u64 {
    let offset = dice.below(IMAGE_END - WRITABLE - 64);
    WRITABLE + if dice.chance(70) { offset & !15 } else { offset }
}

/// An address close to where one kind of page ends.
pub(crate) fn page_end(dice: &mut Dice) -> u64 {
    let end = *dice.pick(&[IMAGE, WRITABLE, WRITABLE + PAGE as u64, IMAGE_END]);
    end.wrapping_sub(dice.below(24))
}

/// An address that some access to faults, or might.
pub(crate) fn faulting(dice: &mut Dice) -> u64 {
    match dice.weighted(&[4, 2, 2, 1, 1]) {
        0 => IMAGE + dice.below(PAGE as u64),
        1 => IMAGE_END + dice.below(0x8000),
        2 => CODE + dice.below((CODE_PAGES * PAGE) as u64),
        3 => 0x0000_8000_0000_0000 ^ dice.bits() >> 1,
        _ => 0xffff_9000_0000_0000 | dice.bits() >> 20,
    }
}

/// Any value for a register or a word of memory.
pub(crate) fn word(dice: &mut Dice) -> u64 {
    match dice.weighted(&[20, 8, 15, 20, 12, 10, 5, 3, 3]) {
        0 => dice.below(70),
        1 => dice.within(-40_000, 40_000) as u64,
        2 => *dice.pick(&EDGES),
        3 => writable(dice),
        4 => dice.bits(),
        5 => dice.bits() >> 32,
        6 => CODE + dice.below((CODE_PAGES * PAGE) as u64),
        7 => page_end(dice),
        _ => faulting(dice),
    }
}

/// A double, often a special one.
pub(crate) fn double(dice: &mut Dice) -> u64 {
    match dice.weighted(&[4, 2, 3]) {
        0 => *dice.pick(&F64),
        1 => dice.bits(),
        // Exponents close to each other: rounding, cancellation, ties.
        _ => dice.bits() & 0x800f_ffff_ffff_ffff | (0x3ff - 8 + dice.below(70)) << 52,
    }
}

/// A single, often a special one.
pub(crate) fn single(dice: &mut Dice) -> u32 {
    match dice.weighted(&[4, 2, 3]) {
        0 => *dice.pick(&F32),
        1 => dice.bits() as u32,
        _ => dice.bits() as u32 & 0x807f_ffff | (0x7f - 8 + dice.below(40) as u32) << 23,
    }
}

/// A word of the image.
pub(crate) fn memory_word(dice: &mut Dice) -> u64 {
    match dice.weighted(&[6, 3, 2]) {
        0 => word(dice),
        1 => double(dice),
        _ => u64::from(single(dice)) << 32 | u64::from(single(dice)),
    }
}

/// An 80-bit number: specials, denormals, pseudo-denormals, unnormals, small integers, anything.
fn extended(dice: &mut Dice) -> [u8; 10] {
    const EXPONENTS: [u16; 9] = [0, 1, 0x7fff, 0x7ffe, 0x3fff, 0x3ffe, 0x4000, 0x403e, 0x4005];
    const SIGNIFICANDS: [u64; 7] =
        [0, 1 << 63, 3 << 62, 1 << 62, u64::MAX, (1 << 63) + 1, 0x7fff_ffff_ffff_ffff];
    let exponent = match dice.weighted(&[5, 4, 1]) {
        0 => *dice.pick(&EXPONENTS),
        1 => 0x3fff - 10 + dice.below(80) as u16,
        _ => dice.bits() as u16 & 0x7fff,
    };
    let significand = match dice.weighted(&[4, 5, 1]) {
        0 => *dice.pick(&SIGNIFICANDS),
        1 => dice.bits() | 1 << 63,
        _ => dice.bits(),
    };
    let sign = (dice.bits() as u16 & 1) << 15;
    let mut value = [0; 10];
    value[..8].copy_from_slice(&significand.to_le_bytes());
    value[8..].copy_from_slice(&(exponent | sign).to_le_bytes());
    value
}

/// SSE registers and MXCSR: all exceptions masked three times out of four.
pub(crate) fn fill_sse(dice: &mut Dice, fx: &mut Fx) {
    for index in 0..16 {
        let lanes = match dice.weighted(&[3, 3, 2]) {
            0 => [double(dice), double(dice)],
            1 => [memory_word(dice), u64::from(single(dice)) << 32 | u64::from(single(dice))],
            _ => [dice.bits(), word(dice)],
        };
        fx.set_xmm(index, u128::from(lanes[0]) | u128::from(lanes[1]) << 64);
    }
    let masks = if dice.chance(75) { 0x1f80 } else { dice.bits() as u32 & 0x1f80 };
    let modes = if dice.chance(50) { dice.bits() as u32 & 0xe040 } else { 0 };
    let sticky = if dice.chance(30) { dice.bits() as u32 & 0x3f & masks >> 7 } else { 0 };
    fx.set_mxcsr(masks | modes | sticky);
}

/// x87 registers and control word: all exceptions masked four times out of five, and seldom one pending.
pub(crate) fn fill_x87(dice: &mut Dice, fx: &mut Fx) {
    for index in 0..8 {
        fx.set_st(index, extended(dice));
    }
    let masks = if dice.chance(80) { 0x3f } else { dice.bits() as u16 & 0x3f };
    let modes =
        if dice.chance(50) { dice.bits() as u16 & 0xc00 | *dice.pick(&[0, 0x200, 0x300]) } else { 0x300 };
    fx.set_u16(Fx::CONTROL, masks | modes | 0x40);
    let sticky = match dice.weighted(&[64, 30, 6]) {
        0 => 0,
        1 => dice.bits() as u16 & 0x3f & masks,
        _ => dice.bits() as u16 & 0x3f,
    };
    let pending = if sticky & !masks != 0 { 0x8080 } else { 0 };
    let top = (dice.below(8) as u16) << 11;
    fx.set_u16(Fx::STATUS, top | sticky | pending | dice.bits() as u16 & 0x4700);
    fx.0[Fx::TAGS] = match dice.weighted(&[4, 3, 1]) {
        0 => 0xff,
        1 => dice.bits() as u8 | dice.bits() as u8,
        _ => 0,
    };
}

/// General registers: the ones in `pointers` point into writable memory.
pub(crate) fn registers(dice: &mut Dice, pointers: &[usize]) -> Registers {
    let mut registers = Registers::default();
    for (index, value) in registers.gpr.iter_mut().enumerate() {
        let pointer = pointers.contains(&index) || (index == 6 || index == 7) && dice.chance(70);
        *value = match index {
            1 if dice.chance(55) => dice.below(40),
            4 if dice.chance(90) => writable(dice) & !7,
            4 if dice.chance(50) => page_end(dice),
            _ if pointer => writable(dice),
            _ => word(dice),
        };
    }
    let direction = if dice.chance(25) { FLAG_DIRECTION } else { 0 };
    registers.rflags = FLAGS_FIXED | dice.bits() & FLAGS_ARITHMETIC | direction;
    registers
}
