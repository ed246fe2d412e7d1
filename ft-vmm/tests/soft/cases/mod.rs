//! The cases by family.

mod alu;
mod bits;
mod control;
mod mov;
mod muldiv;
mod shift;
mod string;

/// Instruction, bytes, before, after.
pub(crate) type Case = (&'static str, &'static str, &'static str, &'static str);

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [alu::CASES, bits::CASES, control::CASES, mov::CASES, muldiv::CASES, shift::CASES, string::CASES]
        .into_iter()
        .flatten()
}
