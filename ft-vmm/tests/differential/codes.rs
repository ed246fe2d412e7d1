//! Which instructions are tried, and what is not judged of them.
//!
//! The native side must not run these, wherever a jump may enter them ([`is_dangerous`]):
//!
//! | what | why |
//! |---|---|
//! | SYSCALL, SYSENTER, INT 0x80 | would ask this host's kernel for something |
//! | 0F 01: VMCALL, VMMCALL, SWAPGS, SGDT, SMSW, INVLPG, XGETBV and their neighbours | would ask its hypervisor, or tell about the host |
//!
//! A case that executes one of these is skipped if its sides differ ([`refusal`]); whether it does is seen by stepping the emulated side:
//!
//! | what | why |
//! |---|---|
//! | RDTSC, RDTSCP, RDPMC, RDPID, RDPRU, RDRAND, RDSEED, CPUID | answers are the host's |
//! | SLDT, STR, LAR, LSL, VERR, VERW, loads of segment registers, far branches, IRET | the host's descriptor tables |
//! | RDFSBASE, WRFSBASE, XSAVE, XRSTOR | CR4 is the host's |
//! | VEX, EVEX, 3DNow!, and any extension that the guest's CPUID does not report | present on the host only |
//! | FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1, RCPPS, RSQRTPS and scalar forms | approximations: they differ between CPU models |
//! | INT1 | virtualised AMD hosts report it before the instruction, not after |
//! | 0F 0D with a register operand | undefined on AMD, NOP on Intel |
//! | MOVSXD from memory to 16 bits | AMD reads four bytes, Intel two |
//! | near branches with prefix 66 | AMD truncates RIP to 16 bits, Intel ignores the prefix |
//! | LOOPE and LOOPNE with prefix F2 or F3 | AMD takes the prefix for the condition |
//! | MASKMOVQ and MASKMOVDQU that fault on the native side | with a mask of zero, CPUs may fault or not |
//! | CMPS whose operands both fault | AMD's REPE CMPSB touches RSI first, its other forms RDI |
//! | what is invalid and runs off the code pages | which of #UD and #PF comes first |
//! | what sets MXCSR.MM | AMD's misaligned SSE mode; the guest has none |
//! | whatever uses a flag or result that is undefined | see [`undefined`](super::undefined) |
//! | alignment checks (#AC) | the software vCPU has none |
//! | sequences of more than 40,000 ticks | loops |
//!
//! These parts of an outcome are not compared:
//!
//! | what | why |
//! |---|---|
//! | flags that are undefined where the case ends | see [`undefined`](super::undefined) |
//! | the x87's last instruction and operand, in registers and as FXSAVE, FNSAVE and FNSTENV write them | AMD keeps them for each instruction, the software vCPU for exceptions that are not masked |
//! | which byte a page fault names in FXSAVE, FNSAVE and the like | AMD touches the last one first |
//! | MXCSR_MASK as FXSAVE writes it | MXCSR.MM again |
//! | MXCSR.PE beside an overflow or underflow that is not masked | see [`compare`](super::compare) |
//! | RF in the flags that an exception pushes | only matters to breakpoints |
//! | the P bit of a page fault's error code at the kernel's addresses | Linux always sets it |

use super::dice::Dice;
use iced_x86::{
    Code, CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic, OpCodeOperandKind, OpKind,
};
use std::sync::LazyLock;

/// Extensions whose instructions only touch general registers.
const INTEGER: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::POPCNT,
];

const SSE: &[CpuidFeature] =
    &[CpuidFeature::SSE, CpuidFeature::SSE2, CpuidFeature::FXSR, CpuidFeature::CLFSH];

const X87: &[CpuidFeature] =
    &[CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387, CpuidFeature::MMX];

/// Instructions whose results belong to the host or that leave this process; see the module.
const HOST: &[Mnemonic] = &[
    Mnemonic::Int1,
    Mnemonic::Swapgs,
    Mnemonic::Syscall,
    Mnemonic::Sysenter,
    Mnemonic::Sysexit,
    Mnemonic::Sysret,
    Mnemonic::Cpuid,
    Mnemonic::Rdtsc,
    Mnemonic::Rdpmc,
    Mnemonic::Sldt,
    Mnemonic::Str,
    Mnemonic::Smsw,
    Mnemonic::Sgdt,
    Mnemonic::Sidt,
    Mnemonic::Lmsw,
    Mnemonic::Lldt,
    Mnemonic::Ltr,
    Mnemonic::Lgdt,
    Mnemonic::Lidt,
    Mnemonic::Invlpg,
    Mnemonic::Lar,
    Mnemonic::Lsl,
    Mnemonic::Verr,
    Mnemonic::Verw,
    Mnemonic::Lss,
    Mnemonic::Lfs,
    Mnemonic::Lgs,
    Mnemonic::Lds,
    Mnemonic::Les,
    Mnemonic::Iret,
    Mnemonic::Iretd,
    Mnemonic::Iretq,
    Mnemonic::Retf,
];

const APPROXIMATE: &[Mnemonic] = &[
    Mnemonic::Fsin,
    Mnemonic::Fcos,
    Mnemonic::Fsincos,
    Mnemonic::Fptan,
    Mnemonic::Fpatan,
    Mnemonic::F2xm1,
    Mnemonic::Fyl2x,
    Mnemonic::Fyl2xp1,
    Mnemonic::Rcpps,
    Mnemonic::Rcpss,
    Mnemonic::Rsqrtps,
    Mnemonic::Rsqrtss,
];

/// Instructions of one kind, and how to draw from them.
pub(crate) struct Pool {
    mnemonics: Vec<Vec<Code>>,
    all: Vec<Code>,
}

impl Pool {
    fn new(features: &[CpuidFeature]) -> Self {
        let mut pool = Self { mnemonics: Vec::new(), all: Vec::new() };
        for code in Code::values().filter(|code| belongs(*code, features)) {
            pool.all.push(code);
            match pool.mnemonics.iter_mut().find(|codes| codes[0].mnemonic() == code.mnemonic()) {
                Some(codes) => codes.push(code),
                None => pool.mnemonics.push(vec![code]),
            }
        }
        pool
    }

    /// All of them.
    pub(crate) fn codes(&self) -> &[Code] {
        &self.all
    }

    /// Any of them: half of the time each mnemonic is as likely as the next, else each encoding. Those that can only fault are rare.
    pub(crate) fn pick(&self, dice: &mut Dice) -> Code {
        loop {
            let code = if dice.chance(50) {
                let codes = dice.pick(&self.mnemonics);
                *dice.pick(codes)
            } else {
                *dice.pick(&self.all)
            };
            if !ends_the_case(code) || dice.chance(6) {
                return code;
            }
        }
    }
}

/// The integer instructions.
pub(crate) static INTEGER_POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(INTEGER));
/// SSE and SSE2.
pub(crate) static SSE_POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(SSE));
/// x87 and MMX.
pub(crate) static X87_POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(X87));

/// The list that decides about instructions of these extensions: FCMOVcc is one of the x87, CVTPI2PS one of SSE.
fn kind(own: &[CpuidFeature]) -> &'static [CpuidFeature] {
    let any = |features: &[CpuidFeature]| own.iter().any(|feature| features.contains(feature));
    if any(SSE) {
        SSE
    } else if any(X87) {
        X87
    } else {
        INTEGER
    }
}

/// Whether ring 3 gets no further than this.
pub(crate) fn ends_the_case(code: Code) -> bool {
    let info = code.op_code();
    let traps = matches!(
        code.mnemonic(),
        Mnemonic::Int | Mnemonic::Int3 | Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2
    );
    traps || !info.cpl3() || info.is_privileged() || info.is_input_output() || info.may_require_cpl0()
}

/// UD0 as decoders of old took it, without a ModRM byte.
const OLD_UD0: Code = Code::Ud0;

/// Whether the code is of 64-bit mode, of these extensions, and judged.
fn belongs(code: Code, features: &[CpuidFeature]) -> bool {
    let info = code.op_code();
    let known: Vec<_> = [INTEGER, SSE, X87].concat();
    let own = code.cpuid_features();
    info.is_instruction()
        && info.mode64()
        && code != OLD_UD0
        && info.encoding() == EncodingKind::Legacy
        && !info.fwait()
        && own.iter().all(|feature| known.contains(feature))
        && kind(own) == features
        && refusal_of_code(code).is_none()
}

/// Why what this code does is not judged.
fn refusal_of_code(code: Code) -> Option<&'static str> {
    let info = code.op_code();
    let mnemonic = code.mnemonic();
    if HOST.contains(&mnemonic) {
        return Some("the host's own");
    }
    if APPROXIMATE.contains(&mnemonic) {
        return Some("approximate");
    }
    if info.encoding() != EncodingKind::Legacy {
        return Some("extension");
    }
    let far =
        code.is_jmp_far_indirect() || code.is_call_far_indirect() || code.is_jmp_far() || code.is_call_far();
    let loads_segment = mnemonic == Mnemonic::Mov && info.op0_kind() == OpCodeOperandKind::seg_reg
        || matches!(code, Code::Popw_FS | Code::Popq_FS | Code::Popw_GS | Code::Popq_GS);
    if far || loads_segment {
        return Some("segments");
    }
    if code.flow_control() != FlowControl::Next && info.operand_size() == 16 {
        return Some("differs between vendors");
    }
    None
}

/// A prefetch of a register, or MOVSXD from memory to 16 bits.
fn is_of_a_vendor(instruction: &Instruction) -> bool {
    use Code::{Reservednop_rm16_r16_0F0D, Reservednop_rm32_r32_0F0D, Reservednop_rm64_r64_0F0D};
    match instruction.code() {
        Reservednop_rm16_r16_0F0D | Reservednop_rm32_r32_0F0D | Reservednop_rm64_r64_0F0D => {
            instruction.op0_kind() == OpKind::Register
        }
        Code::Movsxd_r16_rm16 => instruction.op1_kind() == OpKind::Memory,
        _ => false,
    }
}

/// A near branch with an operand-size prefix, which decoders of Intel's kind leave out of the code, or LOOPcc with a repeat prefix.
fn has_odd_prefix(instruction: &Instruction, bytes: &[u8]) -> bool {
    let has = |prefix| bytes.iter().take_while(is_prefix).any(|byte| *byte == prefix);
    let loops = matches!(instruction.mnemonic(), Mnemonic::Loope | Mnemonic::Loopne);
    instruction.flow_control() != FlowControl::Next && has(0x66) || loops && (has(0xf2) || has(0xf3))
}

fn is_prefix(byte: &&u8) -> bool {
    PREFIXES.contains(byte) || **byte & 0xf0 == REX
}

/// VEX and EVEX.
const VECTOR_PREFIXES: [u8; 3] = [0xc4, 0xc5, 0x62];
const PREFIXES: [u8; 11] = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
const REX: u8 = 0x40;

/// Why an execution of this instruction, which has these bytes, is not judged, if it is not.
pub(crate) fn refusal(instruction: &Instruction, bytes: &[u8]) -> Option<&'static str> {
    let code = instruction.code();
    if code == Code::INVALID {
        let lead = bytes.iter().find(|byte| !is_prefix(byte));
        return lead.is_some_and(|lead| VECTOR_PREFIXES.contains(lead)).then_some("extension");
    }
    let known = |feature| [INTEGER, SSE, X87].iter().any(|features| features.contains(feature));
    if !code.cpuid_features().iter().all(known) {
        return Some("extension");
    }
    if is_of_a_vendor(instruction) || has_odd_prefix(instruction, bytes) {
        return Some("differs between vendors");
    }
    refusal_of_code(code)
}

/// Whether the native side must not even see these bytes, at whichever offset a jump might enter them.
pub(crate) fn is_dangerous(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [0x0f, 0x05 | 0x34 | 0x01] | [0xcd, 0x80]))
}
