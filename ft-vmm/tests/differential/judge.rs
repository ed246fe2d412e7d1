//! Runs cases on both sides and finds what differs.

use super::case::{Case, Outcome, ending};
use super::compare::differences;
use super::emulated::Emulated;
use super::generate::{self, Family};
use super::layout::Image;
use super::native::{BATCH, Native};
use super::report::{Finding, Report};
use super::shrink::shrink;
use super::undefined::{self, Undefined, Verdict};
use ft_vmm::vcpu::Vcpu;

/// Changes an outcome of the emulated side, to see that somebody notices.
pub(crate) type Sabotage = fn(&mut Outcome);

/// Mismatches that are made small and told; the others are counted.
const FINDINGS_MAX: u64 = 300;

/// Alignment checks: the software vCPU has none, and says so.
const ALIGNMENT_CHECK: u32 = 17;

/// MXCSR.MM: AMD's misaligned SSE mode, which the guest does not have.
const MISALIGNED_MASK: u32 = 1 << 17;

/// Both sides.
pub(crate) struct Judge<V> {
    native: Native,
    emulated: Emulated<V>,
    sabotage: Sabotage,
}

/// Cases that go to the native side together, and what the emulated one made of them.
struct Batch {
    image: Box<Image>,
    numbers: Vec<u64>,
    cases: Vec<Case>,
    outcomes: Vec<Box<Outcome>>,
}

impl Batch {
    fn new() -> Self {
        let outcomes = std::iter::repeat_with(Outcome::boxed).take(BATCH).collect();
        Self { image: Image::new(0), numbers: Vec::new(), cases: Vec::new(), outcomes }
    }
}

impl<V: Vcpu> Judge<V> {
    /// A judge of vCPUs that `make` makes.
    pub(crate) fn new(make: fn() -> V) -> Self {
        Self::sabotaged(make, |_| {})
    }

    /// The same with the emulated outcomes falsified.
    pub(crate) fn sabotaged(make: fn() -> V, sabotage: Sabotage) -> Self {
        Self { native: Native::start(), emulated: Emulated::new(make), sabotage }
    }

    /// Judges `count` cases from number `first` of a family. Case n of a family is always the same case.
    pub(crate) fn run(&mut self, family: Family, first: u64, count: u64) -> Report {
        let mut report = Report::default();
        let (mut now, mut next) = (Batch::new(), Batch::new());
        let end = first + count;
        let mut number = self.emulate_batch(family, first, end, &mut now, &mut report);
        while !now.numbers.is_empty() {
            self.native.begin(&now.image, &now.cases);
            // Both processors work at once.
            number = self.emulate_batch(family, number, end, &mut next, &mut report);
            self.settle(family, &now, &mut report);
            std::mem::swap(&mut now, &mut next);
        }
        report
    }

    /// Makes and emulates the cases from `number` to the end of its batch: batches begin at multiples of [`BATCH`] and have an image each.
    /// Returns the number of the case after it. The batch is empty only when there are no more.
    fn emulate_batch(
        &mut self,
        family: Family,
        mut number: u64,
        end: u64,
        batch: &mut Batch,
        report: &mut Report,
    ) -> u64 {
        batch.numbers.clear();
        batch.cases.clear();
        while number < end && (batch.cases.is_empty() || !number.is_multiple_of(BATCH as u64)) {
            if batch.cases.is_empty() {
                batch.image = Image::new(number / BATCH as u64);
            }
            let case = generate::case(family, number);
            let outcome = &mut batch.outcomes[batch.cases.len()];
            self.emulate(&batch.image, &case, outcome);
            report.cases += 1;
            if outcome.vector == ending::TOO_LONG {
                report.skip("too long");
            } else {
                batch.numbers.push(number);
                batch.cases.push(case);
            }
            number += 1;
        }
        number
    }

    fn emulate(&mut self, image: &Image, case: &Case, outcome: &mut Outcome) {
        self.emulated.run(image, case, outcome);
        (self.sabotage)(outcome);
    }

    /// Compares a batch when the native side has run it.
    fn settle(&mut self, family: Family, batch: &Batch, report: &mut Report) {
        let mut suspects = Vec::new();
        for (index, native) in self.native.outcomes().iter().enumerate() {
            *report.vectors.entry(native.vector).or_default() += 1;
            let found = differences(&batch.image, native, &batch.outcomes[index], &Undefined::default());
            if !found.is_empty() {
                suspects.push((index, Box::new(*native)));
            }
        }
        for (index, native) in suspects {
            let case = &batch.cases[index];
            match self.difference(&batch.image, case, &native, &batch.outcomes[index]) {
                Err(reason) => report.skip(reason),
                Ok(found) if found.is_empty() => {}
                Ok(_) => {
                    report.mismatches += 1;
                    if report.mismatches <= FINDINGS_MAX {
                        let finding = self.find(family, batch.numbers[index], &batch.image, case);
                        if report.findings.iter().all(|other| other.kind() != finding.kind()) {
                            report.findings.push(finding);
                        }
                    }
                }
            }
        }
    }

    /// What differs and matters, or why the case is not judged.
    fn difference(
        &mut self,
        image: &Image,
        case: &Case,
        native: &Outcome,
        emulated: &Outcome,
    ) -> Result<Vec<String>, &'static str> {
        let found = differences(image, native, emulated, &Undefined::default());
        if found.is_empty() {
            return Ok(found);
        }
        if native.vector == ALIGNMENT_CHECK {
            return Err("alignment check");
        }
        if native.fx.mxcsr() & MISALIGNED_MASK != 0 {
            return Err("MXCSR.MM");
        }
        let path = self.emulated.trace(image, case);
        match undefined::verdict(case, &path, &native.registers) {
            Verdict::Skipped(reason) => Err(reason),
            Verdict::Judged(undefined) => {
                let found = differences(image, native, emulated, &undefined);
                undefined.excuse.filter(|_| !found.is_empty()).map_or(Ok(found), Err)
            }
        }
    }

    /// Runs one case on both sides. A case that cannot be judged has no differences.
    fn both(&mut self, image: &Image, case: &Case) -> Vec<String> {
        let mut emulated = Outcome::boxed();
        self.emulate(image, case, &mut emulated);
        if emulated.vector == ending::TOO_LONG {
            return Vec::new();
        }
        let native = Box::new(*self.native.run(image, case));
        self.difference(image, case, &native, &emulated).unwrap_or_default()
    }

    fn find(&mut self, family: Family, number: u64, image: &Image, case: &Case) -> Finding {
        let small = shrink(*case, |case| !self.both(image, case).is_empty());
        let differences = self.both(image, &small);
        let complaint = self.emulated.complaint.clone();
        Finding { family, number, case: *case, small, differences, complaint }
    }
}
