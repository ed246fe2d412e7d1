//! What is told of cases whose outcomes differ.

use super::case::{Case, Fx, ending};
use super::generate::Family;
use iced_x86::{Decoder, DecoderOptions, Formatter as _, NasmFormatter};
use std::collections::BTreeMap;
use std::fmt;

/// What came of many cases.
#[derive(Default)]
pub(crate) struct Report {
    /// Cases made.
    pub(crate) cases: u64,
    /// Cases that were not judged, by reason.
    pub(crate) skipped: BTreeMap<&'static str, u64>,
    /// What ended the native side's cases.
    pub(crate) vectors: BTreeMap<u32, u64>,
    /// Cases whose outcomes differ.
    pub(crate) mismatches: u64,
    /// Some of them, one of each kind.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Notes a case that was not judged.
    pub(crate) fn skip(&mut self, reason: &'static str) {
        *self.skipped.entry(reason).or_default() += 1;
    }
}

/// A case whose outcomes differ.
pub(crate) struct Finding {
    /// Where it came from.
    pub(crate) family: Family,
    /// Its number there.
    pub(crate) number: u64,
    /// As it was generated.
    pub(crate) case: Case,
    /// Made small.
    pub(crate) small: Case,
    /// What differs after the small one.
    pub(crate) differences: Vec<String>,
    /// What the vCPU said, if it gave up.
    pub(crate) complaint: String,
}

impl Finding {
    /// Mnemonics and names of what differs: alike for cases with one cause.
    pub(crate) fn kind(&self) -> String {
        let first = |line: &str, end: char| line.split(end).next().unwrap_or_default().to_owned();
        let mnemonics: Vec<_> = disassembly(&self.small).iter().map(|line| first(line, ' ')).collect();
        let names: Vec<_> = self.differences.iter().map(|line| first(line, ':')).collect();
        format!("{} / {}", mnemonics.join(" "), names.join(" "))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, number, small, .. } = self;
        writeln!(f, "FT_FUZZ_FAMILY={family:?} FT_FUZZ_FIRST={number} FT_FUZZ_CASES=1")?;
        writeln!(f, "  bytes {} = {}", hex(small.bytes()), disassembly(small).join("; "))?;
        for difference in &self.differences {
            writeln!(f, "  {difference}")?;
        }
        if self.differences.iter().any(|line| line.ends_with(&format!("emulated {:#x}", ending::UNABLE))) {
            writeln!(f, "  the vCPU says: {}", self.complaint)?;
        }
        let registers = &small.registers;
        write!(f, "  before: rip {:#x} rflags {:#x}", registers.rip, registers.rflags)?;
        writeln!(f, " gpr {:x?}", registers.gpr)?;
        describe_fx(f, &small.fx)?;
        if small.bytes() != self.case.bytes() {
            writeln!(f, "  generated as {}", hex(self.case.bytes()))?;
        }
        Ok(())
    }
}

fn describe_fx(f: &mut fmt::Formatter<'_>, fx: &Fx) -> fmt::Result {
    if *fx == Fx::default() {
        return Ok(());
    }
    let (control, status, tags) = (fx.u16(Fx::CONTROL), fx.u16(Fx::STATUS), fx.0[Fx::TAGS]);
    write!(f, "  before: mxcsr {:#x} fcw {control:#x} fsw {status:#x} ftw {tags:#x} st", fx.mxcsr())?;
    for index in 0..8 {
        let mut value = fx.st(index);
        value.reverse();
        write!(f, " {}", hex(&value))?;
    }
    for index in (0..16).filter(|index| fx.xmm(*index) != 0) {
        write!(f, " xmm{index} {:#x}", fx.xmm(index))?;
    }
    writeln!(f)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn disassembly(case: &Case) -> Vec<String> {
    let mut formatter = NasmFormatter::new();
    let decoder = Decoder::with_ip(64, case.bytes(), case.registers.rip, DecoderOptions::NONE);
    decoder
        .into_iter()
        .map(|instruction| {
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            line
        })
        .collect()
}
