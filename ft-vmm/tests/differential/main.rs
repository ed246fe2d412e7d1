//! The second judge of the software vCPU: random instructions in ring 3, on it and on the CPU that this test runs on. Registers, flags,
//! memory, x87 and SSE state and faults must be equal.
//!
//! Case n of a family is always the same case. More of them, or one that was reported:
//!
//! ```text
//! FT_FUZZ_CASES=1000000 cargo test --release -p ft-vmm --test differential -- --ignored --nocapture
//! FT_FUZZ_FAMILY=Sse FT_FUZZ_FIRST=4711 FT_FUZZ_CASES=1 cargo test ... -- --ignored --nocapture
//! ```
//!
//! What is not judged is listed in [`codes`]; what manuals leave undefined is masked by [`undefined`], along the path that a case really
//! took. Both were made on an AMD EPYC (family 19h). Where manuals are silent, above all about the order of faults, the software vCPU does
//! what that one does; on CPUs of other vendors a few mismatches are tolerated.
//!
//! ```text
//! generate (codes, operands, values, dice)  a number -> a case
//! native, emulated (layout)                 a case -> its outcome
//! judge (compare, undefined)                two outcomes -> what differs and matters
//! report (shrink)                           that, for people
//! ```
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod case;
mod codes;
mod compare;
mod dice;
mod emulated;
mod generate;
mod judge;
mod layout;
mod native;
mod operands;
mod report;
mod shrink;
mod undefined;
mod values;

use case::Outcome;
use codes::{INTEGER_POOL, SSE_POOL, X87_POOL};
use emulated::Emulated;
use ft_vmm::soft::SoftVcpu;
use generate::Family;
use iced_x86::{Code, Decoder, DecoderOptions};
use judge::{Judge, Sabotage};
use native::{BATCH, Native};
use report::Report;
use std::collections::BTreeSet;
use std::env;
use undefined::Undefined;

/// Cases of each family in every test run.
const CASES: u64 = 8_000;

fn print(family: Family, report: &Report) {
    let Report { cases, skipped, vectors, mismatches, findings } = report;
    println!("{family:?}: {cases} cases, {mismatches} mismatches, skipped {skipped:?}, ended by {vectors:?}");
    for finding in findings {
        println!("{finding}");
    }
}

/// Whether the real CPU is of the kind that the list of what is not judged was made on.
fn is_familiar() -> bool {
    const AUTHENTIC_AMD: [u32; 3] =
        [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"enti"), u32::from_le_bytes(*b"cAMD")];
    let vendor = std::arch::x86_64::__cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx] == AUTHENTIC_AMD
}

/// Other vendors' CPUs may differ in a few more cases.
fn mismatches_max(cases: u64) -> u64 {
    if is_familiar() { 0 } else { cases / 100 }
}

fn expect_agreement(family: Family) {
    let report = Judge::new(SoftVcpu::new).run(family, 0, CASES);
    print(family, &report);
    assert!(report.mismatches <= mismatches_max(CASES), "the software vCPU is not what this CPU is");
    let skipped: u64 = report.skipped.values().sum();
    assert!(skipped * 2 < CASES, "{skipped} of {CASES} cases were not judged");
}

#[test]
fn integer_instructions_agree_with_this_cpu() {
    expect_agreement(Family::Integer);
}

#[test]
fn sse_instructions_agree_with_this_cpu() {
    expect_agreement(Family::Sse);
}

#[test]
fn x87_instructions_agree_with_this_cpu() {
    expect_agreement(Family::X87);
}

#[test]
fn raw_bytes_agree_with_this_cpu() {
    expect_agreement(Family::Raw);
}

/// A million of them, or as many as FT_FUZZ_CASES says.
#[test]
#[ignore = "takes minutes"]
fn many_cases_agree_with_this_cpu() {
    let number =
        |name: &str| -> Option<u64> { env::var(name).ok().map(|value| value.parse().expect("a number")) };
    let only = env::var("FT_FUZZ_FAMILY").ok();
    let families: Vec<_> = Family::ALL
        .into_iter()
        .filter(|family| only.as_ref().is_none_or(|only| *only == format!("{family:?}")))
        .collect();
    assert!(!families.is_empty(), "FT_FUZZ_FAMILY is one of {:?}", Family::ALL);
    let count = number("FT_FUZZ_CASES").unwrap_or(1_000_000).div_ceil(families.len() as u64);
    let mut mismatches = 0;
    let mut cases = 0;
    for family in families {
        let report = Judge::new(SoftVcpu::new).run(family, number("FT_FUZZ_FIRST").unwrap_or(0), count);
        print(family, &report);
        mismatches += report.mismatches;
        cases += report.cases;
    }
    assert!(mismatches <= mismatches_max(cases), "{mismatches} of {cases} cases differ");
}

/// Caches and blocks of the software vCPU must not show: stopped after each instruction it does the same.
#[test]
fn r1_stops_on_the_way_change_nothing() {
    let mut machine = Emulated::new(SoftVcpu::new);
    let image = layout::Image::new(1);
    let (mut whole, mut stepped) = (Outcome::boxed(), Outcome::boxed());
    for (family, number) in Family::ALL.into_iter().flat_map(|family| (0..500).map(move |n| (family, n))) {
        let case = generate::case(family, number);
        machine.run(&image, &case, &mut whole);
        for step in [1, 2, 3] {
            machine.run_in_steps(&image, &case, step, &mut stepped);
            assert_eq!(whole.vector, stepped.vector, "{family:?} case {number} in steps of {step}");
            if whole.vector != case::ending::TOO_LONG {
                let found = compare::differences(&image, &whole, &stepped, &Undefined::default());
                assert_eq!(found, Vec::<String>::new(), "{family:?} case {number} in steps of {step}");
            }
        }
    }
}

/// An instruction that is never tried is never judged.
#[test]
fn every_instruction_is_tried() {
    let mut machine = Emulated::new(SoftVcpu::new);
    let image = layout::Image::new(1);
    let families = [(Family::Integer, &INTEGER_POOL), (Family::Sse, &SSE_POOL), (Family::X87, &X87_POOL)];
    for (family, pool) in families {
        let mut completed = BTreeSet::new();
        for number in 0..2 * CASES {
            let case = generate::case(family, number);
            let path = machine.trace(&image, &case);
            let done = path[..path.len() - 1].iter().filter_map(|step| undefined::decode(&case, step.rip));
            completed.extend(done.map(|(instruction, _)| instruction.code() as usize));
        }
        let is_missing =
            |code: &&Code| !completed.contains(&(**code as usize)) && !codes::ends_the_case(**code);
        let missing: Vec<_> = pool.codes().iter().filter(is_missing).collect();
        assert!(missing.is_empty(), "{family:?}: never completed: {missing:?}");
    }
}

/// A judge that cannot find anything is worth nothing.
#[test]
fn falsified_outcomes_are_found() {
    let sabotages: [(&str, Sabotage); 7] = [
        ("rflags", |outcome| outcome.registers.rflags ^= 1 << 10),
        ("rbx", |outcome| outcome.registers.gpr[3] ^= 1 << 63),
        ("rip", |outcome| outcome.registers.rip ^= 1),
        ("vector", |outcome| outcome.vector ^= 1),
        ("mxcsr", |outcome| outcome.fx.0[case::Fx::MXCSR] ^= 1),
        ("xmm15", |outcome| outcome.fx.0[case::Fx::XMM + 255] ^= 1),
        ("memory", |outcome| {
            outcome.pages_changed |= 1 << 4;
            outcome.pages[4][4095] ^= 1;
        }),
    ];
    for (what, sabotage) in sabotages {
        let mut judge = Judge::sabotaged(SoftVcpu::new, sabotage);
        let report = judge.run(Family::Integer, 0, 40);
        assert!(
            report.mismatches > 20,
            "{what} was falsified in 40 cases, and noticed in {}",
            report.mismatches
        );
        assert!(report.findings.iter().any(|finding| finding.kind().contains(what)), "nobody names {what}");
    }
}

/// What the real CPU does must depend on the case alone.
#[test]
fn the_native_side_repeats_itself() {
    let (mut one, mut other) = (Native::start(), Native::start());
    let image = layout::Image::new(1);
    for family in Family::ALL {
        let cases: Vec<_> = (0..BATCH as u64).map(|number| generate::case(family, number)).collect();
        one.begin(&image, &cases);
        let first: Vec<Outcome> = one.outcomes().to_vec();
        // The other one sees them in another order.
        let reversed: Vec<_> = cases.iter().rev().copied().collect();
        other.begin(&image, &reversed);
        for (number, (a, b)) in first.iter().zip(other.outcomes().iter().rev()).enumerate() {
            if a.vector != case::ending::TOO_LONG && !asks_the_host(&cases[number]) {
                let found = compare::differences(&image, a, b, &Undefined::default());
                assert_eq!(found, Vec::<String>::new(), "{family:?} case {number}");
            }
        }
    }
}

/// Whether an instruction of the case, read from its beginning, is one whose answers change.
fn asks_the_host(case: &case::Case) -> bool {
    let mut decoder = Decoder::new(64, case.bytes(), DecoderOptions::NONE);
    let mut asks = false;
    while decoder.can_decode() {
        let start = decoder.position();
        asks |= codes::refusal(&decoder.decode(), &case.bytes()[start..]).is_some();
    }
    asks
}
