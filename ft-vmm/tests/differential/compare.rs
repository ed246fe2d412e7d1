//! What differs between two outcomes.

use super::case::{Fx, Outcome, ending};
use super::layout::{IMAGE, IMAGE_PAGES, Image, PAGE};
use super::undefined::Undefined;
use std::fmt::{Debug, LowerHex};

const PAGE_FAULT: u32 = 14;
const RF: u64 = 1 << 16;

/// Bytes of memory that are named at most.
const BYTES_NAMED_MAX: usize = 24;

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// A list of what differs, empty when nothing does.
struct Differences(Vec<String>);

impl Differences {
    fn number<T: LowerHex + PartialEq>(&mut self, name: impl Into<String>, native: T, emulated: T) {
        if native != emulated {
            self.0.push(format!("{}: native {native:#x}, emulated {emulated:#x}", name.into()));
        }
    }

    fn bytes<T: Debug + PartialEq>(&mut self, name: impl Into<String>, native: T, emulated: T) {
        if native != emulated {
            self.0.push(format!("{}: native {native:02x?}, emulated {emulated:02x?}", name.into()));
        }
    }
}

/// Everything in which the emulated outcome differs from the native one, apart from bits that are undefined.
pub(crate) fn differences(
    image: &Image,
    native: &Outcome,
    emulated: &Outcome,
    undefined: &Undefined,
) -> Vec<String> {
    let mut found = Differences(Vec::new());
    found.number("vector", native.vector, emulated.vector);
    if emulated.vector >= ending::TOO_LONG {
        // It left no registers to compare.
        return found.0;
    }
    let page_faults = native.vector == PAGE_FAULT && emulated.vector == PAGE_FAULT;
    if page_faults && !undefined.fault_address {
        found.number("cr2", native.cr2, emulated.cr2);
    }
    if native.vector == emulated.vector && !(page_faults && undefined.fault_address) {
        found.number("error code", error(native), error(emulated));
    }
    found.number("rip", native.registers.rip, emulated.registers.rip);
    let flags = !(undefined.rflags | RF);
    found.number("rflags", native.registers.rflags & flags, emulated.registers.rflags & flags);
    for (index, name) in NAMES.iter().enumerate() {
        found.number(*name, native.registers.gpr[index], emulated.registers.gpr[index]);
    }
    fx(&mut found, &native.fx, &emulated.fx, undefined);
    memory(&mut found, image, native, emulated, undefined);
    found.0
}

/// Linux's TASK_SIZE_MAX: programs have nothing from here on.
const KERNEL: u64 = (1 << 47) - PAGE as u64;

/// The error code, without what Linux changes: a fault at one of the kernel's addresses always says that the page is present.
fn error(outcome: &Outcome) -> u64 {
    if outcome.vector == PAGE_FAULT && outcome.cr2 >= KERNEL { outcome.error | 1 } else { outcome.error }
}

fn fx(found: &mut Differences, native: &Fx, emulated: &Fx, undefined: &Undefined) {
    if native.0[..Fx::KERNEL] == emulated.0[..Fx::KERNEL] {
        return;
    }
    found.number("fcw", native.u16(Fx::CONTROL), emulated.u16(Fx::CONTROL));
    let status = !undefined.status;
    found.number("fsw", native.u16(Fx::STATUS) & status, emulated.u16(Fx::STATUS) & status);
    found.number("ftw", native.0[Fx::TAGS], emulated.0[Fx::TAGS]);
    let precise = !unsettled_precision(native);
    found.number("mxcsr", native.mxcsr() & precise, emulated.mxcsr() & precise);
    for index in 0..8 {
        found.bytes(format!("st{index}"), native.st(index), emulated.st(index));
    }
    for index in 0..16 {
        found.number(format!("xmm{index}"), native.xmm(index), emulated.xmm(index));
    }
}

/// MXCSR.PE beside an overflow or underflow that is not masked: whether the result was exact is then asked as if exponents had no
/// bounds, which the software vCPU does not do.
fn unsettled_precision(native: &Fx) -> u32 {
    const BOUNDS: u32 = 1 << 3 | 1 << 4;
    const MASKS_SHIFT: u32 = 7;
    const PRECISION: u32 = 1 << 5;
    let raised = native.mxcsr() & !(native.mxcsr() >> MASKS_SHIFT) & BOUNDS;
    if raised != 0 { PRECISION } else { 0 }
}

fn memory(
    found: &mut Differences,
    image: &Image,
    native: &Outcome,
    emulated: &Outcome,
    undefined: &Undefined,
) {
    for page in 0..IMAGE_PAGES {
        let content = |outcome: &Outcome| {
            let changed = outcome.pages_changed >> page & 1 != 0;
            if changed { outcome.pages[page] } else { image.0[page] }
        };
        if (native.pages_changed | emulated.pages_changed) >> page & 1 == 0 {
            continue;
        }
        let (native, emulated) = (content(native), content(emulated));
        let start = IMAGE + (page * PAGE) as u64;
        let is_defined = |at: usize| {
            undefined.memory.iter().all(|(first, end)| !(*first..*end).contains(&(start + at as u64)))
        };
        let differing: Vec<_> =
            (0..PAGE).filter(|at| native[*at] != emulated[*at] && is_defined(*at)).collect();
        let (Some(first), Some(last)) = (differing.first(), differing.last()) else { continue };
        let last = *last.min(&(first + BYTES_NAMED_MAX));
        let at = start + *first as u64;
        found.bytes(format!("memory at {at:#x}"), &native[*first..=last], &emulated[*first..=last]);
    }
}
