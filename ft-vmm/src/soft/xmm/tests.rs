//! Every form, against the processor.

use super::native::{Image, Native, Operands};
use super::{RAISED, XmmForm, xmm_form};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, EncodingKind, Instruction, OpKind};
use std::collections::BTreeMap;

const ROUNDS: usize = 12_000;

/// Instructions of SSE and SSE2 that have no form here, with the reason.
fn is_elsewhere(code: Code) -> bool {
    use Code::*;
    match code {
        // No computation: loads, stores and hints of the engine's.
        Ldmxcsr_m32 | Stmxcsr_m32 | Movnti_m32_r32 | Movnti_m64_r64 => true,
        Clflush_m8 | Lfence | Mfence | Sfence | Pause => true,
        Lfence_E9 | Lfence_EA | Lfence_EB | Lfence_EC | Lfence_ED | Lfence_EE | Lfence_EF => true,
        Mfence_F1 | Mfence_F2 | Mfence_F3 | Mfence_F4 | Mfence_F5 | Mfence_F6 | Mfence_F7 => true,
        Sfence_F9 | Sfence_FA | Sfence_FB | Sfence_FC | Sfence_FD | Sfence_FE | Sfence_FF => true,
        Prefetchnta_m8 | Prefetcht0_m8 | Prefetcht1_m8 | Prefetcht2_m8 => true,
        _ => is_on_mmx(code),
    }
}

/// These have an [`mmx_form`](super::mmx::mmx_form).
pub(super) fn is_on_mmx(code: Code) -> bool {
    format!("{code:?}").split('_').any(|operand| matches!(operand, "mm" | "mmm64" | "mmm32"))
}

#[test]
fn every_instruction_of_sse_and_sse2_has_a_form() {
    let ours = |code: &Code| {
        let features = code.cpuid_features();
        code.encoding() == EncodingKind::Legacy
            && (features.contains(&CpuidFeature::SSE) || features.contains(&CpuidFeature::SSE2))
    };
    let missing: Vec<_> =
        Code::values().filter(ours).filter(|&code| xmm_form(code).is_none() && !is_elsewhere(code)).collect();
    assert_eq!(missing, []);
}

/// Every instruction that has a form was tried, with registers or with memory.
pub(super) fn assert_all_tried(tried: &BTreeMap<(Code, bool), Vec<u8>>, has_form: impl Fn(Code) -> bool) {
    let is_tried = |code| tried.contains_key(&(code, false)) || tried.contains_key(&(code, true));
    let never: Vec<_> = Code::values().filter(|&code| has_form(code) && !is_tried(code)).collect();
    assert_eq!(never, [], "forms that were never tried");
}

/// One encoding of every instruction that has a form, with registers and with memory.
pub(super) fn encodings(has_form: impl Fn(Code) -> bool) -> BTreeMap<(Code, bool), Vec<u8>> {
    let mut found = BTreeMap::new();
    for prefix in [None, Some(0x66), Some(0xf3), Some(0xf2)] {
        for rex in [None, Some(0x48)] {
            for opcode in 0x10..=0xffu8 {
                // Shift groups choose the instruction by the register field.
                let registers = if (0x71..=0x73).contains(&opcode) { 0..8 } else { 0..1 };
                for (modrm, memory) in
                    registers.flat_map(|reg| [(0xc1 | reg << 3, false), (0x06 | reg << 3, true)])
                {
                    let mut bytes: Vec<u8> = prefix.into_iter().chain(rex).collect();
                    bytes.extend([0x0f, opcode, modrm, 0, 0]);
                    let instruction = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                    if has_form(instruction.code()) {
                        bytes.truncate(instruction.len());
                        found.entry((instruction.code(), memory)).or_insert(bytes);
                    }
                }
            }
        }
    }
    found
}

/// What an engine does with a form: the reference for how they are to be used.
fn emulate(form: XmmForm, instruction: &Instruction, image: &Image, mxcsr: &mut u32) -> Image {
    let register = |n: usize| u128::from_le_bytes(image.before[160 + 16 * n..][..16].try_into().unwrap());
    let is_memory = |operand| instruction.op_kind(operand) == OpKind::Memory;
    let loaded = |bytes: u8| {
        let mut value = [0; 16];
        value[..bytes.into()].copy_from_slice(&image.memory[..bytes.into()]);
        u128::from_le_bytes(value)
    };
    let imm = if instruction.op_kind(instruction.op_count() - 1) == OpKind::Immediate8 {
        instruction.immediate8()
    } else {
        0
    };
    let mut result = image.clone();
    result.after = image.before;
    let mut set =
        |n: usize, value: u128| result.after[160 + 16 * n..][..16].copy_from_slice(&value.to_le_bytes());
    // The number of an operand's register: the first is 0 and the second 1, or 1 if it is the only one.
    let number = |operand| instruction.op_register(operand).number();
    match form {
        XmmForm::Xmm { load, run, .. } => {
            let src = match instruction.op_kind(1) {
                OpKind::Memory => loaded(load),
                OpKind::Register => register(number(1)),
                _ => 0,
            };
            set(number(0), run(register(number(0)), src, imm, mxcsr));
        }
        XmmForm::Load { load, .. } if is_memory(1) => set(0, loaded(load)),
        XmmForm::Load { merge, .. } => set(number(0), merge(register(number(0)), register(number(1)))),
        XmmForm::Store { bytes, run, .. } if is_memory(0) => {
            let value = run(register(number(1))).to_le_bytes();
            result.memory[..bytes.into()].copy_from_slice(&value[..bytes.into()]);
        }
        XmmForm::Store { merge, .. } => set(number(0), merge(register(number(0)), register(number(1)))),
        XmmForm::ToGpr { load, wide, run } => {
            let src = if is_memory(1) { loaded(load) } else { register(number(1)) };
            let value = run(src, imm, mxcsr);
            if is_memory(0) {
                let bytes = if wide { 8 } else { 4 };
                result.memory[..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
            } else {
                let value = if wide { value } else { u64::from(value as u32) };
                if number(0) == 0 { result.rax = value } else { result.rcx = value }
            }
        }
        XmmForm::FromGpr { bytes, run } => {
            let src = if is_memory(1) { loaded(bytes) as u64 } else { image.rcx };
            set(number(0), run(register(number(0)), src, imm, mxcsr));
        }
        XmmForm::Compare { load, run } => {
            let src = if is_memory(1) { loaded(load) } else { register(number(1)) };
            result.rflags = image.rflags & !0x8d5 | u64::from(run(register(number(0)), src, mxcsr));
        }
        XmmForm::MaskedStore { run } => {
            let (data, mask) = (register(number(1)).to_le_bytes(), run(register(number(2))));
            (0..16).filter(|n| mask >> n & 1 != 0).for_each(|n| result.memory[n] = data[n]);
        }
    }
    result
}

fn is_estimate(code: Code) -> bool {
    matches!(
        code,
        Code::Rcpps_xmm_xmmm128
            | Code::Rcpss_xmm_xmmm32
            | Code::Rsqrtps_xmm_xmmm128
            | Code::Rsqrtss_xmm_xmmm32
    )
}

/// Equal, or both within the error that the architecture allows.
fn is_close(ours: u128, theirs: u128) -> bool {
    (0..4).all(|lane| {
        let (ours, theirs) = ((ours >> (32 * lane)) as u32, (theirs >> (32 * lane)) as u32);
        let (a, b) = (f64::from(f32::from_bits(ours)), f64::from(f32::from_bits(theirs)));
        ours == theirs || ((a - b) / b).abs() < 2.0 * 1.5 / 4096.0
    })
}

fn judge(code: Code, bytes: &[u8], memory: bool, operands: &mut Operands) {
    let form = xmm_form(code).unwrap();
    // The immediate is the last byte: a page of code for each value that matters.
    let immediates: Vec<u8> =
        if Decoder::new(64, bytes, 0).decode().op_kinds().any(|kind| kind == OpKind::Immediate8) {
            (0..16).chain([0x1b, 0x27, 0x39, 0x3f, 0x40, 0x4e, 0x87, 0xb1, 0xe4, 0xff]).collect()
        } else {
            vec![*bytes.last().unwrap()]
        };
    for &last in &immediates {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().unwrap() = last;
        let instruction = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
        let native = Native::new(&bytes);
        for _ in 0..ROUNDS.div_ceil(immediates.len()) {
            let mut image = Image::new();
            let mut mxcsr = operands.mxcsr();
            let (dst, src) = (operands.xmm(), operands.xmm());
            image.set_mxcsr(mxcsr);
            image.set_xmm(0, dst);
            image.set_xmm(1, src);
            image.set_xmm(2, operands.xmm());
            image.rax = operands.integer();
            image.rcx = operands.integer();
            image.rflags = 2 | u64::from(operands.below(1 << 12)) & 0x8d5;
            image.memory[..16].copy_from_slice(&operands.xmm().to_le_bytes());
            let mut ours = emulate(form, &instruction, &image, &mut mxcsr);
            ours.after[24..28].copy_from_slice(&mxcsr.to_le_bytes());
            let mut theirs = image.clone();
            native.run(&mut theirs);
            let context = || {
                format!(
                    "{instruction} {dst:x} {src:x} memory {:x?} mxcsr {:x?}",
                    &image.memory[..16],
                    &image.before[24..28]
                )
            };
            assert_eq!(mxcsr, theirs.mxcsr(), "MXCSR of {}", context());
            let same = if is_estimate(code) {
                is_close(ours.xmm(0), theirs.xmm(0))
            } else {
                ours.xmm(0) == theirs.xmm(0)
            };
            assert!(same, "{}: {:x} is not {:x}", context(), ours.xmm(0), theirs.xmm(0));
            assert_eq!(ours.xmm(1), theirs.xmm(1), "{}", context());
            assert_eq!((ours.rax, ours.rcx), (theirs.rax, theirs.rcx), "{}", context());
            assert_eq!(ours.rflags & 0x8d5, theirs.rflags & 0x8d5, "{}", context());
            assert_eq!(ours.memory, theirs.memory, "{} {memory}", context());
        }
    }
}

#[test]
fn forms_do_what_the_processor_does() {
    let encodings = encodings(|code| xmm_form(code).is_some());
    let mut operands = Operands::new(1);
    for ((code, memory), bytes) in &encodings {
        judge(*code, bytes, *memory, &mut operands);
    }
    assert_all_tried(&encodings, |code| xmm_form(code).is_some());
}

#[test]
fn memory_of_16_bytes_is_aligned_but_for_three_moves() {
    use Code::*;
    for code in Code::values() {
        let (bytes, aligned) = match xmm_form(code) {
            Some(XmmForm::Xmm { load, aligned, .. }) => (load, aligned),
            Some(XmmForm::Store { bytes, aligned, .. }) => (bytes, aligned),
            _ => continue,
        };
        let unaligned_move = matches!(
            code,
            Movups_xmm_xmmm128
                | Movupd_xmm_xmmm128
                | Movdqu_xmm_xmmm128
                | Movups_xmmm128_xmm
                | Movupd_xmmm128_xmm
                | Movdqu_xmmm128_xmm
        );
        assert_eq!(aligned, bytes == 16 && !unaligned_move, "{code:?}");
    }
}

/// MXCSR after an instruction on single-precision numbers.
fn mxcsr_after(code: Code, dst: [u32; 2], src: [u32; 2], mxcsr: u32) -> u32 {
    let Some(XmmForm::Xmm { run, .. }) = xmm_form(code) else { panic!("{code:?}") };
    let mut after = mxcsr;
    let vector = |[first, second]: [u32; 2]| u128::from(second) << 32 | u128::from(first);
    run(vector(dst), vector(src), 0, &mut after);
    after
}

const ONE: u32 = 0x3f80_0000;
const TWO: u32 = 0x4000_0000;
const HUGE: u32 = 0x7f00_0000;
const SMALLEST_NORMAL: u32 = 0x0080_0000;
const SIGNALLING: u32 = 0x7f80_0001;

#[test]
fn an_unmasked_exception_is_told_even_if_its_flag_was_set() {
    let unmasked = 0x1d80;
    for flags in [0, 0x04] {
        let after = mxcsr_after(Code::Divps_xmm_xmmm128, [ONE, ONE], [0, ONE], unmasked | flags);
        assert_eq!(after & 0x3f, 0x05, "1 / 0, and 0 / 0 in the other lanes");
        assert_ne!(after & RAISED, 0);
    }
    assert_eq!(mxcsr_after(Code::Divss_xmm_xmmm32, [ONE, 0], [TWO, 0], unmasked | 4), unmasked | 4);
    assert_eq!(mxcsr_after(Code::Mulss_xmm_xmmm32, [HUGE, 0], [HUGE, 0], 0x1b80), 0x1b80 | 0x28 | RAISED);
}

#[test]
fn an_unmasked_exception_of_an_operand_leaves_no_flags_of_results() {
    let after = |mxcsr| mxcsr_after(Code::Mulps_xmm_xmmm128, [SIGNALLING, HUGE], [ONE, HUGE], mxcsr);
    assert_eq!(after(0x1f80), 0x1f80 | 0x29);
    assert_eq!(after(0x1f00), 0x1f00 | 0x01 | RAISED);
}

#[test]
fn unmasked_underflow_is_raised_by_an_exact_tiny_result() {
    let after = |mxcsr| mxcsr_after(Code::Divss_xmm_xmmm32, [SMALLEST_NORMAL, 0], [TWO, 0], mxcsr);
    assert_eq!(after(0x1f80), 0x1f80);
    assert_eq!(after(0x9f80), 0x9f80 | 0x30, "flushed to zero");
    for flush in [0, 1 << 15] {
        assert_eq!(after(0x1780 | flush), 0x1780 | flush | 0x10 | RAISED);
    }
}

/// Results that the architecture leaves open are the same on every host, and for ever: secondaries depend on it.
#[test]
fn estimates_are_fixed() {
    let mut operands = Operands::new(8);
    let mut results = Vec::new();
    for code in Code::values().filter(|&code| is_estimate(code)) {
        let Some(XmmForm::Xmm { run, .. }) = xmm_form(code) else { panic!("{code:?}") };
        for _ in 0..10_000 {
            results.extend(run(operands.xmm(), operands.xmm(), 0, &mut 0x1f80).to_le_bytes());
        }
    }
    assert_eq!(twox_hash::XxHash3_64::oneshot(&results), 0x1a8c_571e_6317_1ed1);
}
