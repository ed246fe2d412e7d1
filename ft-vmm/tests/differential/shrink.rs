//! Makes a failing case small: instructions become NOPs, registers become plain, as long as it still fails.

use super::case::{Case, Fx};
use super::layout::WRITABLE;
use super::values::FLAGS_FIXED;
use iced_x86::{Decoder, DecoderOptions};

const NOP: u8 = 0x90;

/// The smallest case found that still fails.
pub(crate) fn shrink(mut case: Case, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut attempt = |case: &mut Case, change: &dyn Fn(&mut Case)| {
        let mut smaller = *case;
        change(&mut smaller);
        if fails(&smaller) {
            *case = smaller;
        }
    };
    for _ in 0..2 {
        attempt(&mut case, &cut_nops);
        for (start, length) in instructions(&case) {
            attempt(&mut case, &|case| case.code[start..start + length].fill(NOP));
        }
        attempt(&mut case, &trim_nops);
        attempt(&mut case, &cut_nops);
    }
    attempt(&mut case, &|case| case.registers.rflags = FLAGS_FIXED);
    attempt(&mut case, &|case| case.fx = Fx::default());
    for index in 0..16 {
        attempt(&mut case, &|case| case.registers.gpr[index] = 0);
        if case.registers.gpr[index] != 0 {
            attempt(&mut case, &|case| case.registers.gpr[index] = WRITABLE + 0x100);
            attempt(&mut case, &|case| case.registers.gpr[index] = 1);
        }
        attempt(&mut case, &|case| case.fx.set_xmm(index, 0));
    }
    case
}

/// Start and length of each instruction, read from the beginning.
fn instructions(case: &Case) -> Vec<(usize, usize)> {
    let mut decoder = Decoder::new(64, case.bytes(), DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let start = decoder.position();
        let length = decoder.decode().len();
        found.push((start, length));
    }
    found
}

/// Leaves out NOPs. Those in front go with RIP moved on, so that operands relative to it stay where they are; where others cannot go, the
/// case no longer fails and stays as it was.
fn cut_nops(case: &mut Case) {
    let leading = case.bytes().iter().take_while(|byte| **byte == NOP).count();
    case.registers.rip += leading as u64;
    let nop = |(start, length): &(usize, usize)| *length == 1 && case.code[*start] == NOP;
    let kept: Vec<u8> = instructions(case)
        .iter()
        .filter(|instruction| !nop(instruction))
        .flat_map(|(start, length)| case.code[*start..start + length].to_vec())
        .collect();
    case.set_bytes(&kept);
}

/// The same for NOPs at the ends only.
fn trim_nops(case: &mut Case) {
    let leading = case.bytes().iter().take_while(|byte| **byte == NOP).count();
    let trailing = case.bytes().iter().rev().take_while(|byte| **byte == NOP).count();
    let end = (case.bytes().len() - trailing).max(leading);
    let kept = case.bytes()[leading..end].to_vec();
    case.registers.rip += leading as u64;
    case.set_bytes(&kept);
}
