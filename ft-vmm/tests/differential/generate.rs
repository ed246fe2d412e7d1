//! Random cases: sequences of instructions laid out in the code pages, with registers and x87 and SSE state to start from.

use super::case::{CODE_BYTES_MAX, Case, Fx, INT3};
use super::codes::{self, INTEGER_POOL, Pool, SSE_POOL, X87_POOL};
use super::dice::Dice;
use super::layout::{CODE, CODE_PAGES, PAGE};
use super::operands::{self, Scene};
use super::undefined;
use super::values;
use iced_x86::{Encoder, OpKind};

/// What sequences are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Integer instructions.
    Integer,
    /// SSE and SSE2, with integer instructions between.
    Sse,
    /// x87 and MMX, with integer instructions between.
    X87,
    /// Bytes: random ones, and instructions with bytes changed, put in or taken out.
    Raw,
}

impl Family {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Integer, Self::Sse, Self::X87, Self::Raw];

    fn pool(self, dice: &mut Dice) -> &'static Pool {
        let weights = match self {
            Self::Integer => [1, 0, 0],
            Self::Sse => [1, 4, 0],
            Self::X87 => [1, 0, 4],
            Self::Raw => [4, 1, 1],
        };
        [&INTEGER_POOL, &SSE_POOL, &X87_POOL][dice.weighted(&weights)]
    }
}

/// Instructions in a sequence at most.
const INSTRUCTIONS_MAX: u64 = 12;

/// The case of a seed.
pub(crate) fn case(family: Family, seed: u64) -> Case {
    let dice = &mut Dice::new(seed);
    let pinned: Vec<usize> =
        (0..4).map(|_| *dice.pick(&[3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])).collect();
    let mut registers = values::registers(dice, &pinned);
    registers.rip = start(dice);
    let mut fx = Fx::default();
    if matches!(family, Family::Sse | Family::Raw) {
        values::fill_sse(dice, &mut fx);
    }
    // Conversions between MMX and XMM meet the x87's state.
    if matches!(family, Family::X87 | Family::Raw) || family == Family::Sse && dice.chance(20) {
        values::fill_x87(dice, &mut fx);
    }
    let mut case = Case { registers, fx, code: [INT3; CODE_BYTES_MAX], code_len: 0 };
    loop {
        let scene = Scene { gpr: &case.registers.gpr, pinned: &pinned };
        let bytes = match family {
            Family::Raw => raw(dice, &scene, registers.rip),
            _ => sequence(dice, family, &scene, registers.rip),
        };
        if !codes::is_dangerous(&bytes) {
            let room = (CODE_END - registers.rip) as usize;
            case.set_bytes(&bytes[..bytes.len().min(room)]);
            return case;
        }
    }
}

/// First address after the code pages: unmapped.
const CODE_END: u64 = CODE + (CODE_PAGES * PAGE) as u64;

/// Where the sequence begins: anywhere, now and then just before the second page, or so that it is cut off at the end of the last one.
fn start(dice: &mut Dice) -> u64 {
    match dice.weighted(&[76, 18, 6]) {
        0 => CODE + dice.below(PAGE as u64 / 2),
        1 => CODE_END - PAGE as u64 - dice.below(40),
        _ => CODE_END - 1 - dice.below(40),
    }
}

fn sequence(dice: &mut Dice, family: Family, scene: &Scene<'_>, rip: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut starts = Vec::new();
    let mut branches = Vec::new();
    for _ in 0..=dice.below(INSTRUCTIONS_MAX) {
        let at = bytes.len();
        let encoded = encoded(dice, family, scene, rip + at as u64);
        starts.push(at);
        bytes.extend(encoded.bytes);
        if let Some(width) = encoded.branch {
            branches.push((starts.len(), bytes.len(), width));
        }
        if encoded.last {
            break;
        }
    }
    starts.push(bytes.len());
    for (next, end, width) in branches {
        // Forward, to the instructions that follow or to the end.
        let reachable = starts[next..].iter().filter(|start| *start - end <= 127).count();
        let to = starts[next + dice.below(reachable as u64) as usize];
        let distance = (to - end) as u32;
        bytes[end - width..end].copy_from_slice(&distance.to_le_bytes()[..width]);
    }
    bytes
}

/// One instruction.
struct Encoded {
    bytes: Vec<u8>,
    /// Bytes of its displacement, if it is a relative branch.
    branch: Option<usize>,
    /// Nothing should follow: it writes something that is undefined, and nobody should read that.
    last: bool,
}

fn encoded(dice: &mut Dice, family: Family, scene: &Scene<'_>, rip: u64) -> Encoded {
    loop {
        let code = family.pool(dice).pick(dice);
        let Some(mut made) = operands::instruction(dice, code, scene) else { continue };
        let branch = (0..made.op_count()).any(|n| made.op_kind(n) == OpKind::NearBranch64);
        if branch {
            made.set_near_branch64(rip);
        }
        let mut encoder = Encoder::new(64);
        // High byte registers cannot go with a REX prefix, and the like: another one then.
        if encoder.encode(&made, rip).is_err() {
            continue;
        }
        let bytes = encoder.take_buffer();
        let width = branch.then(|| encoder.get_constant_offsets().immediate_size());
        let last = undefined::writes_state(&made);
        return Encoded { bytes, branch: width.filter(|width| *width > 0), last };
    }
}

/// Bytes that need not be instructions.
fn raw(dice: &mut Dice, scene: &Scene<'_>, rip: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=dice.below(3) {
        let at = rip + bytes.len() as u64;
        let mut made = encoded(dice, Family::Raw, scene, at).bytes;
        match dice.weighted(&[3, 3, 2, 2]) {
            0 => made = (0..=dice.below(14)).map(|_| dice.bits() as u8).collect(),
            1 => {
                let prefix = *dice.pick(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x40, 0x48, 0x4f, 0x0f]);
                made.insert(dice.below(made.len() as u64) as usize, prefix);
            }
            2 => {
                let at = dice.below(made.len() as u64) as usize;
                made[at] ^= 1 << dice.below(8);
            }
            _ => {
                made.remove(dice.below(made.len() as u64) as usize);
            }
        }
        bytes.extend(made);
    }
    bytes
}
