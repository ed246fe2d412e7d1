//! The processor that CPUID describes: a plain 64-bit one of its own model, the same on every host.
//!
//! What is not here on purpose: APIC, x2APIC, TSC deadline, MONITOR, performance counters, RDRAND, RDSEED, XSAVE and all that needs
//! it, SYSCALL's big brothers. Linux takes the processor for a plain x86-64.

use super::paging::PHYSICAL_BITS;
use ft_core::digest::digest64;

/// Frequency of the TSC in Hz, as leaf 0x15 gives it: crystal clock times one.
const TSC_HZ: u32 = 1_000_000_000;

const VENDOR: [u32; 3] =
    [u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ineI"), u32::from_le_bytes(*b"ntel")];
const BRAND: &[u8; 48] = b"ft software processor\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Family 6, model 15, stepping 1.
const SIGNATURE: u32 = 0x0006_0f01;
/// Leaf 1 EBX: CLFLUSH line of 8 quadwords, one logical processor.
const LINE: u32 = 8 << 8 | 1 << 16;
/// Leaf 1 ECX: CX16, POPCNT, "runs under a hypervisor".
const FEATURES_C: u32 = 1 << 13 | 1 << 23 | 1 << 31;
/// Leaf 1 EDX: FPU DE PSE TSC MSR PAE CX8 SEP MTRR PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2.
const FEATURES_D: u32 = 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 11
    | 1 << 12
    | 1 << 13
    | 1 << 15
    | 1 << 16
    | 1 << 17
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// Leaf 7 EBX: the x87 notes its pointers only with an exception, and no selectors in them.
const POINTERS: u32 = 1 << 6 | 1 << 13;
/// Leaf 0x8000_0001 ECX: LAHF in 64-bit mode.
const EXTENDED_C: u32 = 1;
/// Leaf 0x8000_0001 EDX: SYSCALL, NX, 1 GiB pages, RDTSCP, long mode.
const EXTENDED_D: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29;
/// Leaf 0x8000_0007 EDX: the TSC runs at one rate, always.
const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 0x8000_0008 EAX: physical and linear address bits.
const ADDRESS_BITS: u32 = PHYSICAL_BITS | 48 << 8;

/// Every leaf: EAX EBX ECX EDX. Those that are not here are zero.
const LEAVES: [(u32, [u32; 4]); 12] = [
    (0x0, [0x15, VENDOR[0], VENDOR[2], VENDOR[1]]),
    (0x1, [SIGNATURE, LINE, FEATURES_C, FEATURES_D]),
    (0x2, [0x01, 0, 0, 0]),
    (0x7, [0, POINTERS, 0, 0]),
    (0x15, [1, 1, TSC_HZ, 0]),
    (0x8000_0000, [0x8000_0008, 0, 0, 0]),
    (0x8000_0001, [0, 0, EXTENDED_C, EXTENDED_D]),
    (0x8000_0002, brand(0)),
    (0x8000_0003, brand(16)),
    (0x8000_0004, brand(32)),
    (0x8000_0007, [0, 0, 0, INVARIANT_TSC]),
    (0x8000_0008, [ADDRESS_BITS, 0, 0, 0]),
];

const fn brand(from: usize) -> [u32; 4] {
    let mut registers = [0; 4];
    let mut index = 0;
    while index < 4 {
        let at = from + index * 4;
        registers[index] = u32::from_le_bytes([BRAND[at], BRAND[at + 1], BRAND[at + 2], BRAND[at + 3]]);
        index += 1;
    }
    registers
}

/// The one leaf with subleaves, of which only the first is not zero.
const WITH_SUBLEAVES: u32 = 0x7;

/// What CPUID answers: EAX EBX ECX EDX.
pub(crate) fn answer(leaf: u32, subleaf: u32) -> [u32; 4] {
    if leaf == WITH_SUBLEAVES && subleaf > 0 {
        return [0; 4];
    }
    LEAVES.iter().find(|(number, _)| *number == leaf).map_or([0; 4], |(_, registers)| *registers)
}

/// Identifies the model: a pair must have the same.
pub(crate) fn model() -> u64 {
    let bytes: Vec<u8> = LEAVES
        .iter()
        .flat_map(|(leaf, registers)| std::iter::once(leaf).chain(registers))
        .flat_map(|word| word.to_le_bytes())
        .collect();
    digest64(0, &bytes)
}
