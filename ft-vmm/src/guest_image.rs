//! The built-in guest's image.
//!
//! A static ELF file for the machine of docs/guest.md, built from guest/ together with this crate. Equal sources and compilers make
//! equal images, wherever they are built: hosts compare digests of them before they form a pair.

/// The image.
pub const BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// Where it is linked to.
pub const ADDRESS: u64 = 0x20_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

    fn number<const BYTES: usize>(at: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..BYTES].copy_from_slice(&BUILT_IN[at..at + BYTES]);
        u64::from_le_bytes(wide)
    }

    /// Address and content of the sections that hold instructions.
    fn sections() -> Vec<(u64, &'static [u8])> {
        const EXECUTABLE: u64 = 4;
        let (table, size, count) =
            (number::<8>(40) as usize, number::<2>(58) as usize, number::<2>(60) as usize);
        let header = |index| table + index * size;
        let executable = |at: &usize| number::<8>(at + 8) & EXECUTABLE != 0;
        let content = |at: usize| {
            let (offset, bytes) = (number::<8>(at + 24) as usize, number::<8>(at + 32) as usize);
            (number::<8>(at + 16), &BUILT_IN[offset..offset + bytes])
        };
        (0..count).map(header).filter(executable).map(content).collect()
    }

    fn instructions() -> Vec<Instruction> {
        let decode = |(address, bytes): (u64, &'static [u8])| {
            Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).into_iter()
        };
        sections().into_iter().flat_map(decode).collect()
    }

    #[test]
    fn the_image_is_static_and_linked_to_its_address() {
        const EXECUTABLE: u64 = 2;
        assert_eq!(&BUILT_IN[..4], b"\x7fELF");
        assert_eq!(number::<2>(16), EXECUTABLE);
        let (entry, headers, count) = (number::<8>(24), number::<8>(32) as usize, number::<2>(56));
        assert_eq!(count, 1, "one segment, no interpreter");
        assert_eq!((number::<4>(headers), number::<8>(headers + 24)), (1, ADDRESS));
        assert!((ADDRESS..ADDRESS + number::<8>(headers + 40)).contains(&entry));
    }

    /// What no processor lacks, so that both hosts execute the same.
    #[test]
    fn instructions_are_those_of_every_x86_64() {
        use CpuidFeature::*;
        const PLAIN: [CpuidFeature; 15] = [
            INTEL8086,
            INTEL186,
            INTEL286,
            INTEL386,
            INTEL486,
            X64,
            CMOV,
            CPUID,
            FPU,
            FXSR,
            MULTIBYTENOP,
            SSE,
            SSE2,
            CX8,
            PAUSE,
        ];
        for instruction in instructions() {
            assert!(!instruction.is_invalid(), "at {:#x}", instruction.ip());
            for feature in instruction.cpuid_features() {
                assert!(PLAIN.contains(feature), "{feature:?} at {:#x}", instruction.ip());
            }
        }
    }

    /// What one of the platforms cannot run in ring 3, and what would let something in that is not in the log.
    #[test]
    fn forbidden_instructions_are_absent() {
        use Mnemonic::*;
        const FORBIDDEN: [Mnemonic; 17] = [
            Rdtsc, Rdtscp, Rdrand, Rdseed, Cpuid, Xgetbv, Syscall, Sysenter, Int, Int1, Into, Vmcall,
            Vmmcall, Lss, Lfs, Lgs, Swapgs,
        ];
        for instruction in instructions() {
            let at = instruction.ip();
            assert!(!FORBIDDEN.contains(&instruction.mnemonic()), "{:?} at {at:#x}", instruction.mnemonic());
            let prefix = instruction.segment_prefix();
            assert!(!matches!(prefix, Register::FS | Register::GS), "{prefix:?} at {at:#x}");
            let to_segment = instruction.op0_kind() == OpKind::Register
                && instruction.op0_register().is_segment_register();
            assert!(!to_segment, "a segment register is loaded at {at:#x}");
        }
    }

    /// Sixteen lines, one fault's end and one idle stub: nothing else runs in ring 0.
    #[test]
    fn ring_0_is_stubs_only() {
        let instructions = instructions();
        let count = |wanted: &[Code]| {
            instructions.iter().filter(|instruction| wanted.contains(&instruction.code())).count()
        };
        assert_eq!(count(&[Code::Iretq]), 16 + 2);
        assert_eq!((count(&[Code::Hlt]), count(&[Code::Sti]), count(&[Code::Cli])), (1, 1, 0));
        assert_eq!(count(&[Code::Mov_r64_cr]), 1);
        assert_eq!(
            count(&[Code::Mov_cr_r64, Code::Wrmsr, Code::Rdmsr, Code::Lgdt_m1664, Code::Lidt_m1664]),
            0
        );
    }
}
