//! Which instructions are tried, and which are not judged.
//!
//! Not judged, because the two sides rightly differ or the native one must not run them:
//!
//! | what | why |
//! |---|---|
//! | SYSCALL, SYSENTER, INT 0x80 | would ask this host's kernel for something |
//! | VMCALL, VMMCALL | would ask its hypervisor |
//! | INVLPGB and others of 0F 01 with a register operand | the same bytes' neighbours; all of group 7 stays away |
//! | RDTSC, RDTSCP, RDPMC, RDPID, RDPRU, RDRAND, RDSEED, CPUID | answers are the host's |
//! | SLDT, STR, SMSW, SGDT, SIDT, LAR, LSL, VERR, VERW | the host's descriptor tables |
//! | loads of segment registers, far branches, IRET | the host's descriptor tables |
//! | RDFSBASE, WRFSBASE, XSAVE, XRSTOR, XGETBV | CR4 is the host's |
//! | VEX, EVEX, XOP, 3DNow!, and any extension that the guest's CPUID does not report | present on the host only |
//! | near branches with prefix 66 | AMD truncates RIP to 16 bits, Intel ignores the prefix |
//! | FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1, RCPPS, RSQRTPS and scalar forms | approximations: they differ between CPU models |
//! | flags after an instruction that leaves them undefined | see [`undefined`](super::undefined) |
//!
//! A sequence that executes one of them is counted as skipped; whether it does is seen by stepping the emulated side.

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic};
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
];

const SSE: &[CpuidFeature] = &[CpuidFeature::SSE, CpuidFeature::SSE2, CpuidFeature::FXSR];

const X87: &[CpuidFeature] =
    &[CpuidFeature::FPU, CpuidFeature::FPU287, CpuidFeature::FPU387, CpuidFeature::MMX];

/// Instructions whose results belong to the host or that leave this process; see the module.
const HOST: &[Mnemonic] = &[
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
pub struct Pool {
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

    /// Any of them: half of the time each mnemonic is as likely as the next, else each encoding.
    pub fn pick(&self, dice: &mut super::dice::Dice) -> Code {
        if dice.chance(50) {
            let codes = dice.pick(&self.mnemonics);
            *dice.pick(codes)
        } else {
            *dice.pick(&self.all)
        }
    }

    /// How many encodings there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }
}

/// The integer instructions.
pub static INTEGER_POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(INTEGER));
/// SSE and SSE2.
pub static SSE_POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(SSE));
/// x87 and MMX.
pub static X87_POOL: LazyLock<Pool> = LazyLock::new(|| Pool::new(X87));

/// Whether the code is of 64-bit mode, of these extensions, and judged.
fn belongs(code: Code, features: &[CpuidFeature]) -> bool {
    let info = code.op_code();
    let known: Vec<_> = [INTEGER, SSE, X87].concat();
    let own = code.cpuid_features();
    info.is_instruction()
        && info.mode64()
        && info.encoding() == EncodingKind::Legacy
        && !info.fwait()
        && own.iter().all(|feature| known.contains(feature))
        && own.iter().any(|feature| features.contains(feature))
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
    let far = matches!(mnemonic, Mnemonic::Jmp | Mnemonic::Call) && !code.is_near();
    let loads_segment = mnemonic == Mnemonic::Mov && code.op_code().op_kinds()[0] == iced_x86::OpCodeOperandKind::seg_reg
        || matches!(code, Code::Popw_FS | Code::Popq_FS | Code::Popw_GS | Code::Popq_GS);
    if far || loads_segment {
        return Some("segments");
    }
    let branch = code.flow_control() != FlowControl::Next;
    if branch && info.operand_size() == 16 {
        return Some("16-bit branch");
    }
    None
}

trait Near {
    fn is_near(self) -> bool;
}

impl Near for Code {
    fn is_near(self) -> bool {
        self.is_jmp_near_indirect()
            || self.is_call_near_indirect()
            || self.is_jmp_short_or_near()
            || self.is_call_near()
    }
}

/// Why an execution of this instruction is not judged, if it is not.
pub fn refusal(instruction: &Instruction) -> Option<&'static str> {
    let code = instruction.code();
    if code == Code::INVALID {
        return None;
    }
    let known = |feature| [INTEGER, SSE, X87].iter().any(|features| features.contains(feature));
    if !code.cpuid_features().iter().all(known) {
        return Some("extension");
    }
    refusal_of_code(code)
}

/// Whether the native side must not even see these bytes, at whichever offset a jump might enter them.
pub fn is_dangerous(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [0x0f, 0x05 | 0x34 | 0x01] | [0xcd, 0x80]))
}
