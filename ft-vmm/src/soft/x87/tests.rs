//! Every form, against the processor.

use super::number::{Ext, INTEGER};
use super::{X87Effect, X87Operands, x87_form};
use crate::soft::xmm::native::{Image, Native, Operands, is_amd};
use crate::vcpu::Fpu;
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, OpKind};
use std::collections::BTreeMap;

const ROUNDS: usize = 12_000;

/// One encoding of each instruction; for those on ST(i), of several i.
fn encodings(has_form: impl Fn(Code) -> bool) -> BTreeMap<(Code, u8), Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut consider = |bytes: &[u8]| {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        if has_form(instruction.code()) {
            found
                .entry((instruction.code(), st(&instruction)))
                .or_insert_with(|| bytes[..instruction.len()].to_vec());
        }
    };
    consider(&[0x9b, 0x90]);
    for opcode in 0xd8..=0xdf {
        for modrm in (0xc0..=0xff).chain((0..8).map(|reg| reg << 3 | 6)) {
            consider(&[opcode, modrm]);
            consider(&[0x66, opcode, modrm]);
        }
    }
    found
}

/// The i of ST(i).
fn st(instruction: &Instruction) -> u8 {
    (0..instruction.op_count())
        .filter(|&operand| instruction.op_kind(operand) == OpKind::Register)
        .map(|operand| instruction.op_register(operand))
        .filter(|register| register.is_st())
        .map(|register| register.number() as u8)
        .max()
        .unwrap_or(0)
}

pub(in crate::soft) fn fpu_of(image: &[u8; 512]) -> Fpu {
    let word = |at| u16::from_le_bytes([image[at], image[at + 1]]);
    let status = word(2);
    let mut fpu = Fpu { control: word(0), status, tags: image[4], ..Fpu::default() };
    for st in 0..8 {
        let n = (usize::from(status >> 11 & 7) + st) % 8;
        fpu.registers[n].copy_from_slice(&image[32 + 16 * st..][..10]);
    }
    fpu
}

pub(in crate::soft) fn put(fpu: &Fpu, image: &mut [u8; 512]) {
    image[0..2].copy_from_slice(&fpu.control.to_le_bytes());
    image[2..4].copy_from_slice(&fpu.status.to_le_bytes());
    image[4] = fpu.tags;
    for st in 0..8 {
        let n = (usize::from(fpu.status >> 11 & 7) + st) % 8;
        image[32 + 16 * st..][..10].copy_from_slice(&fpu.registers[n]);
    }
}

/// Numbers of all classes, and near one another.
fn extended(operands: &mut Operands) -> Ext {
    let negative = operands.below(2) == 1;
    let significand = match operands.below(5) {
        0 => INTEGER,
        1 => u64::MAX << operands.below(42),
        2 => operands.word() << operands.below(64),
        3 => operands.integer(),
        _ => operands.word(),
    };
    match operands.below(20) {
        0 => Ext::zero(negative),
        1 => Ext::infinity(negative),
        2 => Ext::new(negative, 0x7fff, significand | INTEGER),
        3 => Ext::new(negative, 0, significand),
        4 => Ext::new(negative, operands.below(0x8000) as u16, significand),
        5 => Ext::new(negative, operands.below(3) as u16, significand | INTEGER),
        6 => Ext::new(negative, 0x7ffe - operands.below(3) as u16, significand | INTEGER),
        7 => super::arithmetic::from_u64(negative, operands.integer()),
        8 => Ext::new(negative, 0x3fff + operands.below(3) as u16, INTEGER | u64::from(operands.below(4))),
        9 | 10 => Ext::new(negative, 0x3fff - 0x4b0 + operands.below(0x960) as u16, significand | INTEGER),
        11 => Ext::new(negative, 0x3fff - 0xa0 + operands.below(0x140) as u16, significand | INTEGER),
        12 => Ext::new(negative, operands.below(0x7fff) as u16, significand | INTEGER),
        _ => Ext::new(negative, 0x3ff0 + operands.below(0x60) as u16, significand | INTEGER),
    }
}

/// A stack of which seven of eight registers are in use, more or less; masks all set in half of the cases.
pub(in crate::soft) fn random_fpu(operands: &mut Operands) -> Fpu {
    // What unmasked exceptions leave undone differs a little between makers.
    let (all, some) = (operands.below(2) == 0 || !is_amd(), operands.below(64) as u16);
    let masks = if all { 0x3f } else { some };
    let precision = operands.pick(&[0x000, 0x200, 0x300, 0x300]);
    let control = masks | 0x40 | precision | (operands.below(4) as u16) << 10;
    // A pending exception would be raised before the instruction runs.
    let flags = if operands.below(2) == 0 { 0 } else { operands.below(128) as u16 & (masks | 0x40) };
    let status = flags | (operands.word() as u16 & 0x7f00);
    let tags = match operands.below(4) {
        0 => operands.word() as u8,
        1 => 0xff,
        _ => !(1 << (((status >> 11) + 7) & 7)),
    };
    let mut fpu = Fpu { control, status, tags, ..Fpu::default() };
    for register in &mut fpu.registers {
        *register = extended(operands).to_bytes();
    }
    fpu
}

fn random_memory(operands: &mut Operands, image: &mut Image) {
    let bytes: [u8; 10] = match operands.below(4) {
        0 => extended(operands).to_bytes(),
        1 => {
            operands.integer().to_le_bytes().into_iter().chain([0, 0]).collect::<Vec<_>>().try_into().unwrap()
        }
        2 => operands
            .double()
            .to_le_bytes()
            .into_iter()
            .chain([1, 0x80])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap(),
        _ => u64::from(operands.single())
            .to_le_bytes()
            .into_iter()
            .chain([0, 0])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap(),
    };
    image.memory[..10].copy_from_slice(&bytes);
    image.memory[10..].iter_mut().for_each(|byte| *byte = operands.word() as u8);
}

/// What an engine does with a form.
fn emulate(instruction: &Instruction, fpu: &mut Fpu, image: &mut Image) {
    let form = x87_form(instruction.code()).unwrap();
    let memory_in = image.memory[..form.load.into()].to_vec();
    let mut memory_out = vec![0; form.store.into()];
    let effect = (form.run)(
        fpu,
        X87Operands {
            st: st(instruction),
            memory_in: &memory_in,
            memory_out: &mut memory_out,
            rflags: image.rflags,
            instruction: 0,
            opcode: 0,
            operand: 0,
        },
    );
    match effect {
        X87Effect::Done => image.memory[..memory_out.len()].copy_from_slice(&memory_out),
        X87Effect::NoStore => {}
        X87Effect::Ax(ax) => image.rax = image.rax & !0xffff | u64::from(ax),
        X87Effect::Flags(flags) => image.rflags = image.rflags & !0x8d5 | u64::from(flags),
    }
}

fn judge(code: Code, bytes: &[u8], operands: &mut Operands, rounds: usize) {
    let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let native = Native::new(bytes);
    for _ in 0..rounds {
        let mut image = Image::new();
        let fpu = random_fpu(operands);
        put(&fpu, &mut image.before);
        random_memory(operands, &mut image);
        image.rax = operands.word();
        image.rflags = 2 | u64::from(operands.below(1 << 12)) & 0x8d5;
        let mut ours = fpu.clone();
        let mut ours_image = image.clone();
        emulate(&instruction, &mut ours, &mut ours_image);
        native.run(&mut image);
        let theirs = fpu_of(&image.after);
        let context = || {
            format!(
                "{instruction}\nbefore {}\nours   {}\ntheirs {}\nmemory {:02x?}\n",
                show(&fpu),
                show(&ours),
                show(&theirs),
                &image.memory[..28]
            )
        };
        assert_eq!((ours.control, ours.tags), (theirs.control, theirs.tags), "{}", context());
        let undefined = undefined_conditions(code);
        assert_eq!(ours.status | undefined, theirs.status | undefined, "{}", context());
        assert_eq!(ours.registers, theirs.registers, "{}", context());
        assert_eq!(ours_image.memory, image.memory, "{}", context());
        assert_eq!(ours_image.rax, image.rax, "{}", context());
        assert_eq!(ours_image.rflags & 0x8d5, image.rflags & 0x8d5, "{}", context());
    }
}

fn show(fpu: &Fpu) -> String {
    let top = fpu.status >> 11 & 7;
    let registers: Vec<_> = (0..8)
        .map(|st| (usize::from(top) + st) % 8)
        .map(|n| {
            let x = Ext::from_bytes(fpu.registers[n]);
            format!(
                "{}{:04x}:{:016x}",
                if fpu.tags >> n & 1 == 0 { "~" } else { "" },
                x.sign_exponent,
                x.significand
            )
        })
        .collect();
    format!(
        "control {:04x} status {:04x} tags {:08b} {}",
        fpu.control,
        fpu.status,
        fpu.tags,
        registers.join(" ")
    )
}

/// Condition codes that are not judged: none where the forms were written, elsewhere those that the architecture leaves open.
fn undefined_conditions(code: Code) -> u16 {
    use super::env::{C0, C1, C2, C3};
    let defines = format!("{code:?}").to_lowercase();
    if is_amd()
        || ["fcom", "fucom", "ficom", "ftst", "fxam", "fprem"].iter().any(|name| defines.starts_with(name))
    {
        0
    } else {
        C0 | C1 | C2 | C3
    }
}

fn is_transcendental(code: Code) -> bool {
    use Code::*;
    matches!(code, F2xm1 | Fyl2x | Fyl2xp1 | Fpatan | Fptan | Fsin | Fcos | Fsincos)
}

#[test]
fn every_instruction_of_the_x87_has_a_form() {
    let all = encodings(|code| {
        code.cpuid_features().iter().any(|feature| {
            use CpuidFeature::*;
            matches!(feature, FPU | FPU287 | FPU387 | FPU287XL_ONLY | FPU387SL_ONLY | SSE3)
                && format!("{code:?}").starts_with('F')
        })
    });
    let missing: Vec<_> = all.keys().filter(|(code, _)| x87_form(*code).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let never: Vec<_> = Code::values()
        .filter(|&code| x87_form(code).is_some() && code != Code::Wait)
        .filter(|&code| !all.keys().any(|(tried, _)| *tried == code))
        .collect();
    assert_eq!(never, [], "forms that are never tried");
}

#[test]
fn forms_do_what_the_processor_does() {
    let encodings = encodings(|code| x87_form(code).is_some() && !is_transcendental(code));
    let mut operands = Operands::new(2);
    for ((code, _), bytes) in &encodings {
        let variants = encodings.keys().filter(|(other, _)| other == code).count();
        judge(*code, bytes, &mut operands, ROUNDS.div_ceil(variants));
    }
}

/// Places between two extended numbers of one sign.
fn distance(a: [u8; 10], b: [u8; 10]) -> u128 {
    let place = |bytes| {
        let x = Ext::from_bytes(bytes);
        let size = u128::from(x.exponent()) << 63 | u128::from(x.significand & !INTEGER);
        if x.negative() { (1 << 79) - size } else { (1 << 79) + size }
    };
    place(a).abs_diff(place(b))
}

/// Where the architecture defines no result: F2XM1 beyond 1 in size, FYL2XP1 of what is not close to 0.
fn is_defined(code: Code, fpu: &Fpu) -> bool {
    let top = Ext::from_bytes(fpu.registers[usize::from(fpu.status >> 11 & 7)]);
    let exponent = top.exponent();
    match code {
        Code::F2xm1 => exponent < 0x3fff || exponent == 0x7fff,
        Code::Fyl2xp1 => exponent < 0x3ffd || exponent == 0x7fff && !top.negative(),
        _ => true,
    }
}

#[test]
fn transcendental_forms_do_nearly_what_the_processor_does() {
    use super::env::{BUSY, C1, PRECISION, SUMMARY, UNDERFLOW};
    let mut operands = Operands::new(3);
    for ((code, _), bytes) in &encodings(is_transcendental) {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        let native = Native::new(bytes);
        let mut tried = 0;
        while tried < ROUNDS {
            let mut image = Image::new();
            let mut fpu = random_fpu(&mut operands);
            fpu.status &= 0x7f00;
            if !is_defined(*code, &fpu) {
                continue;
            }
            tried += 1;
            put(&fpu, &mut image.before);
            let mut ours = fpu.clone();
            emulate(&instruction, &mut ours, &mut image.clone());
            native.run(&mut image);
            let theirs = fpu_of(&image.after);
            let context = || {
                format!(
                    "{instruction}\nbefore {}\nours   {}\ntheirs {}",
                    show(&fpu),
                    show(&ours),
                    show(&theirs)
                )
            };
            let far = (0..8).map(|n| distance(ours.registers[n], theirs.registers[n])).max();
            assert!(far <= Some(1), "{}", context());
            assert_eq!((ours.control, ours.tags), (theirs.control, theirs.tags), "{}", context());
            // Processors call exact results inexact.
            let exact = ours.status & PRECISION == 0;
            let either = if exact { C1 | PRECISION | UNDERFLOW | SUMMARY | BUSY } else { C1 };
            assert_eq!(ours.status | either, theirs.status | either, "{}", context());
        }
    }
}

fn io<'a>(memory_in: &'a [u8], memory_out: &'a mut [u8]) -> X87Operands<'a> {
    let (instruction, opcode, operand) = (0x1234_5678, 0x1f1, 0x8765_4321);
    X87Operands { st: 0, memory_in, memory_out, rflags: 2, instruction, opcode, operand }
}

fn run(fpu: &mut Fpu, code: Code, io: X87Operands<'_>) -> X87Effect {
    (x87_form(code).unwrap().run)(fpu, io)
}

#[test]
fn an_unmasked_exception_is_pending_and_says_where_it_came_from() {
    let pointers = |fpu: &Fpu| (fpu.instruction, fpu.opcode, fpu.operand);
    let mut fpu = Fpu::default();
    run(&mut fpu, Code::Fchs, io(&[], &mut []));
    assert!(!super::is_pending(&fpu), "masked");
    assert_eq!(pointers(&fpu), (0, 0, 0));

    let mut fpu = Fpu { control: 0x37e, ..Fpu::default() };
    assert_eq!(run(&mut fpu, Code::Fchs, io(&[], &mut [])), X87Effect::NoStore);
    assert!(super::is_pending(&fpu));
    assert_eq!(pointers(&fpu), (0x1234_5678, 0x1f1, 0x8765_4321));
    run(&mut fpu, Code::Fnclex, io(&[], &mut []));
    assert!(!super::is_pending(&fpu));
    assert_eq!(pointers(&fpu), (0x1234_5678, 0x1f1, 0x8765_4321));
}

#[test]
fn an_environment_is_loaded_as_it_was_stored() {
    let stored =
        [(Code::Fnstenv_m14byte, Code::Fldenv_m14byte, 14), (Code::Fnsave_m94byte, Code::Frstor_m94byte, 94)];
    let stored_wide = [
        (Code::Fnstenv_m28byte, Code::Fldenv_m28byte, 28),
        (Code::Fnsave_m108byte, Code::Frstor_m108byte, 108),
    ];
    let mut operands = Operands::new(6);
    for (store, load, bytes) in stored.into_iter().chain(stored_wide) {
        let mut fpu = random_fpu(&mut operands);
        (fpu.control, fpu.status) = (fpu.control & !1, fpu.status & !1);
        let wide = bytes == 28 || bytes == 108;
        fpu.instruction = if wide { 0x8765_4321 } else { 0x4321 };
        fpu.operand = if wide { 0x1234_5678 } else { 0x5678 };
        fpu.opcode = if wide { 0x7ab } else { 0 };
        let before = fpu.clone();
        let mut memory = vec![0; bytes];
        run(&mut fpu, store, io(&[], &mut memory));
        assert_ne!(fpu, before, "masked, or initialised");
        run(&mut fpu, load, io(&memory, &mut []));
        assert_eq!(fpu, before, "{store:?}");
    }
}

/// Results that the architecture leaves open are the same on every host, and for ever: secondaries depend on it.
#[test]
fn transcendental_results_are_fixed() {
    let mut operands = Operands::new(7);
    let mut digest = Vec::new();
    for (code, _) in encodings(is_transcendental).keys() {
        for _ in 0..1000 {
            let mut fpu = random_fpu(&mut operands);
            (fpu.control, fpu.status) = (fpu.control | 0x3f, fpu.status & 0x7f00);
            run(&mut fpu, *code, io(&[], &mut []));
            digest.extend(fpu.registers.iter().flatten());
            digest.extend(fpu.status.to_le_bytes());
        }
    }
    assert_eq!(twox_hash::XxHash3_64::oneshot(&digest), 0xdc64_7515_2dad_bba4);
}
