//! One-line cases: instruction, bytes, what goes in, what comes out. Their outcomes were taken from a real processor. Flags that the manual leaves
//! undefined are not judged here.
//!
//! What goes in: registers as `rax=1f` (hexadecimal; RSP stands at 0x8FF80 and the others at 0 unless said otherwise), bytes at 0x80000 as
//! `m=0102`, and the names of flags that are set. What comes out: registers that changed, memory if it changed, and the flags.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "soft/cases/mod.rs"]
mod cases;

#[path = "soft/bed.rs"]
mod bed;

use bed::{Bed, CODE, DATA, STACK};
use cases::Case;
use ft_core::units::Tick;
use ft_vmm::ram::Ram;
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::{CpuState, Vcpu as _};
use iced_x86::{Decoder, DecoderOptions, RflagsBits};
use vm_memory::{Bytes as _, GuestAddress};

/// Bytes of memory that are compared.
const WINDOW: usize = 0x80;
/// Instructions that a case may take.
const STEPS_MAX: usize = 200;

const REGISTERS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];
const FLAGS: [(&str, u64); 7] =
    [("CF", 1), ("PF", 4), ("AF", 0x10), ("ZF", 0x40), ("SF", 0x80), ("DF", 0x400), ("OF", 0x800)];

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
}

/// What a case says of registers, flags and memory.
struct Side {
    gpr: [u64; 16],
    flags: u64,
    memory: Vec<u8>,
}

impl Side {
    /// Reads a side; what it does not name is as in `before`.
    fn parse(text: &str, before: &Self) -> Self {
        let mut side = Self { gpr: before.gpr, flags: 0, memory: before.memory.clone() };
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("m", hex)) => {
                    side.memory = bytes_of(hex);
                    side.memory.resize(WINDOW, 0);
                }
                Some((name, value)) => {
                    let number = REGISTERS.iter().position(|register| *register == name).unwrap();
                    side.gpr[number] = u64::from_str_radix(value, 16).unwrap();
                }
                None => side.flags |= FLAGS.iter().find(|(name, _)| *name == word).unwrap().1,
            }
        }
        side
    }
}

/// Flags that any instruction of the code leaves undefined.
fn undefined(code: &[u8]) -> u64 {
    let bits = Decoder::new(64, code, DecoderOptions::NONE)
        .iter()
        .fold(0, |bits, instruction| bits | instruction.rflags_undefined());
    [RflagsBits::CF, RflagsBits::PF, RflagsBits::AF, RflagsBits::ZF, RflagsBits::SF, RflagsBits::OF]
        .into_iter()
        .zip([1, 4, 0x10, 0x40, 0x80, 0x800])
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, flag)| flag)
        .sum()
}

fn run(ram: &Ram, start: &CpuState, end: u64) -> CpuState {
    let mut vcpu = SoftVcpu::new();
    vcpu.set_state(start).unwrap();
    for step in 1..=STEPS_MAX as u64 {
        vcpu.run(ram, &mut Bed::default(), Tick(step)).unwrap();
        if vcpu.state().rip == end {
            break;
        }
    }
    vcpu.state()
}

/// What differs, or nothing.
fn judge(ram: &Ram, case: &Case) -> Option<String> {
    let (name, code, before, after) = case;
    let code = bytes_of(code);
    let mut none = Side { gpr: [0; 16], flags: 0, memory: vec![0; WINDOW] };
    none.gpr[4] = STACK - 0x80;
    let before = Side::parse(before, &none);
    let expected = Side::parse(after, &before);
    let memory = ram.memory();
    memory.write_slice(&[0; 0x300], GuestAddress(DATA - 0x100)).unwrap();
    memory.write_slice(&before.memory, GuestAddress(DATA)).unwrap();
    memory.write_slice(&[0; 0x100], GuestAddress(STACK - 0x100)).unwrap();
    memory.write_slice(&[0x90; 0x100], GuestAddress(CODE)).unwrap();
    bed::load(ram, &code);
    let start = CpuState { gpr: before.gpr, rflags: 0x202 | before.flags, ..bed::long_state(3) };
    let state = run(ram, &start, CODE + code.len() as u64);
    let mut wrong = Vec::new();
    for (register, (found, wanted)) in REGISTERS.iter().zip(state.gpr.iter().zip(expected.gpr)) {
        if *found != wanted {
            wrong.push(format!("{register}={found:x}, not {wanted:x}"));
        }
    }
    let judged = FLAGS.iter().map(|(_, flag)| flag).sum::<u64>() & !undefined(&code);
    for (flag, bit) in FLAGS {
        if (state.rflags ^ expected.flags) & judged & bit != 0 {
            wrong.push(format!("{flag}={}", u8::from(state.rflags & bit != 0)));
        }
    }
    let mut found = vec![0; WINDOW];
    memory.read_slice(&mut found, GuestAddress(DATA)).unwrap();
    if found != expected.memory {
        wrong.push(format!("m={found:x?}"));
    }
    if state.rip != CODE + code.len() as u64 {
        wrong.push(format!("rip={:x}", state.rip));
    }
    (!wrong.is_empty()).then(|| format!("{name} | {}: {}", case.2, wrong.join(", ")))
}

#[test]
fn cases_come_out_as_on_a_real_processor() {
    let ram = bed::ram();
    let wrong: Vec<_> = cases::all().filter_map(|case| judge(&ram, case)).collect();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
