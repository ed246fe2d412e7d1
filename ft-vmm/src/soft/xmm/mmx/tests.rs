//! Every form, against the processor.

use super::*;
use crate::soft::x87::tests::{fpu_of, put, random_fpu};
use crate::soft::xmm::native::{Image, Native, Operands, is_amd};
use crate::soft::xmm::tests::{assert_all_tried, encodings, is_on_mmx};
use crate::soft::xmm::xmm_form;
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, EncodingKind, Instruction, OpKind};

const ROUNDS: usize = 12_000;

/// What an engine does with a form.
fn emulate(form: MmxForm, instruction: &Instruction, fpu: &mut Fpu, image: &mut Image) {
    let memory: [u8; 16] = image.memory[..16].try_into().unwrap();
    let is_memory = |operand| instruction.op_kind(operand) == OpKind::Memory;
    let number = |operand| instruction.op_register(operand).number();
    let loaded = |bytes: u8| {
        let mut value = [0; 16];
        value[..bytes.into()].copy_from_slice(&memory[..bytes.into()]);
        u128::from_le_bytes(value)
    };
    let last = instruction.op_count().saturating_sub(1);
    let imm = if instruction.op_count() > 0 && instruction.op_kind(last) == OpKind::Immediate8 {
        instruction.immediate8()
    } else {
        0
    };
    let enters = match form {
        MmxForm::Leave => return leave(fpu),
        MmxForm::ToXmm { .. } => !is_memory(1),
        _ => true,
    };
    if enters {
        enter(fpu);
    }
    match form {
        MmxForm::Mmx { load, run } => {
            let src = match instruction.op_kind(1) {
                OpKind::Memory => loaded(load) as u64,
                OpKind::Register => read(fpu, number(1)),
                _ => 0,
            };
            let value = run(read(fpu, number(0)), src, imm);
            write(fpu, number(0), value);
        }
        MmxForm::Store if is_memory(0) => {
            image.memory[..8].copy_from_slice(&read(fpu, number(1)).to_le_bytes());
        }
        MmxForm::Store => write(fpu, number(0), read(fpu, number(1))),
        MmxForm::ToGpr { wide, run } => {
            let value = run(read(fpu, number(1)), imm);
            let value = if wide { value } else { u64::from(value as u32) };
            let bytes = if wide { 8 } else { 4 };
            match instruction.op_kind(0) {
                OpKind::Memory => image.memory[..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]),
                _ if number(0) == 0 => image.rax = value,
                _ => image.rcx = value,
            }
        }
        MmxForm::FromGpr { bytes, run } => {
            let src = if is_memory(1) { loaded(bytes) as u64 } else { image.rcx };
            let value = run(read(fpu, number(0)), src, imm);
            write(fpu, number(0), value);
        }
        MmxForm::FromXmm { load, run } => {
            let src = if is_memory(1) { loaded(load) } else { fpu.xmm[number(1)] };
            let value = run(src, &mut fpu.mxcsr);
            write(fpu, number(0), value);
        }
        MmxForm::ToXmm { run, .. } => {
            let src = if is_memory(1) { loaded(8) as u64 } else { read(fpu, number(1)) };
            fpu.xmm[number(0)] = run(fpu.xmm[number(0)], src, &mut fpu.mxcsr);
        }
        MmxForm::MaskedStore { run } => {
            let (data, mask) = (read(fpu, number(1)).to_le_bytes(), run(read(fpu, number(2))));
            (0..8).filter(|n| mask >> n & 1 != 0).for_each(|n| image.memory[n] = data[n]);
        }
        MmxForm::Leave => {}
    }
}

fn judge(code: Code, bytes: &[u8], operands: &mut Operands) {
    let form = mmx_form(code).unwrap();
    let has_immediate = Decoder::new(64, bytes, 0).decode().op_kinds().any(|kind| kind == OpKind::Immediate8);
    let immediates: Vec<u8> = if has_immediate {
        (0..16).chain([0x1b, 0x1f, 0x20, 0x27, 0x3f, 0x40, 0x4e, 0xb1, 0xe4, 0xff]).collect()
    } else {
        bytes[bytes.len() - 1..].to_vec()
    };
    for &last in &immediates {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() = last;
        let instruction = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        let native = Native::new(&bytes);
        for _ in 0..ROUNDS.div_ceil(immediates.len()) {
            let mut image = Image::new();
            let mut fpu = random_fpu(operands);
            fpu.mxcsr = operands.mxcsr();
            image.set_mxcsr(fpu.mxcsr);
            for n in 0..2 {
                write(&mut fpu, n, operands.xmm() as u64);
                fpu.xmm[n] = operands.xmm();
                image.set_xmm(n, fpu.xmm[n]);
            }
            put(&fpu, &mut image.before);
            image.rax = operands.integer();
            image.rcx = operands.integer();
            image.memory[..16].copy_from_slice(&operands.xmm().to_le_bytes());
            let (mut ours, mut ours_image) = (fpu.clone(), image.clone());
            emulate(form, &instruction, &mut ours, &mut ours_image);
            native.run(&mut image);
            let mut theirs = fpu_of(&image.after);
            theirs.mxcsr = image.mxcsr();
            theirs.xmm[..2].copy_from_slice(&[image.xmm(0), image.xmm(1)]);
            assert_eq!(ours, theirs, "{instruction} on {fpu:x?}");
            let outside = |image: &Image| (image.memory, image.rax, image.rcx);
            assert_eq!(outside(&ours_image), outside(&image), "{instruction} on {fpu:x?}");
        }
    }
}

#[test]
fn forms_do_what_the_processor_does() {
    let encodings = encodings(|code| mmx_form(code).is_some());
    let mut operands = Operands::new(4);
    for ((code, memory), bytes) in &encodings {
        // Intel's enters for memory too.
        if *code == Code::Cvtpi2ps_xmm_mmm64 && *memory && !is_amd() {
            continue;
        }
        judge(*code, bytes, &mut operands);
    }
    assert_all_tried(&encodings, |code| mmx_form(code).is_some());
}

#[test]
fn every_instruction_on_mmx_registers_has_a_form() {
    let ours = |code: &Code| {
        let features = code.cpuid_features();
        let is = |feature| features.contains(&feature);
        let feature = is(CpuidFeature::MMX) || is(CpuidFeature::SSE) || is(CpuidFeature::SSE2);
        code.encoding() == EncodingKind::Legacy && feature && (is_on_mmx(*code) || *code == Code::Emms)
    };
    let missing: Vec<_> = Code::values().filter(ours).filter(|&code| mmx_form(code).is_none()).collect();
    assert_eq!(missing, []);
    assert!(Code::values().all(|code| xmm_form(code).is_none() || mmx_form(code).is_none()));
}
