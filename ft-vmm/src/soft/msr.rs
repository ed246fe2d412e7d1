//! RDMSR and WRMSR.
//!
//! Known registers are in [`CpuState`](crate::vcpu::CpuState) or in the table of harmless ones, which read as a constant and lose what
//! is written. All others raise #GP, as processors do.

use super::cpu::{CR0_PG, Cpu, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, canonical};
use super::decode::Decoding;
use super::op::{Env, FS, Flow, GS, Op, RAX, RCX, RDX, Run};
use ft_core::units::Tick;
use iced_x86::Mnemonic;

const TSC: u32 = 0x10;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_PAIRS: u32 = 0x200;
const MTRR_PAIRS_END: u32 = 0x20f;
const PAT: u32 = 0x277;
const MTRR_DEFAULT: u32 = 0x2ff;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const FMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// The fixed range registers, in the order of the state.
const MTRR_FIXED: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/// Where they are in the state: after the default type and eight pairs.
const MTRR_FIXED_PLACE: usize = 17;
/// Registers of [`CpuState::mtrr`](crate::vcpu::CpuState::mtrr).
pub(crate) const MTRR_COUNT: usize = MTRR_FIXED_PLACE + MTRR_FIXED.len();

/// Registers that systems read, and some write, without asking CPUID: number, value.
const HARMLESS: [(u32, u64); 14] = [
    (0x17, 0),        // IA32_PLATFORM_ID
    (0x2a, 0),        // EBL_CR_POWERON
    (0x34, 0),        // SMI count
    (0x3a, 1),        // IA32_FEATURE_CONTROL: locked, nothing enabled
    (0x79, 0),        // IA32_BIOS_UPDT_TRIG
    (0x8b, 0),        // IA32_BIOS_SIGN_ID
    (0xce, 0),        // MSR_PLATFORM_INFO
    (0xfe, 0x508),    // IA32_MTRRCAP: eight pairs, fixed ranges, write combining
    (0x179, 0),       // IA32_MCG_CAP: no banks
    (0x17a, 0),       // IA32_MCG_STATUS
    (0x1d9, 0),       // IA32_DEBUGCTL
    (0x140, 0),       // MISC_FEATURES_ENABLES
    (0xc001_0015, 0), // HWCR of AMD processors, which Linux probes
    (0xc001_1029, 0), // DE_CFG of AMD processors
];

/// The place of a memory type range register in the state.
fn mtrr(number: u32) -> Option<usize> {
    match number {
        MTRR_DEFAULT => Some(0),
        MTRR_PAIRS..=MTRR_PAIRS_END => Some(1 + (number - MTRR_PAIRS) as usize),
        _ => MTRR_FIXED.iter().position(|fixed| *fixed == number).map(|place| MTRR_FIXED_PLACE + place),
    }
}

impl Cpu {
    fn read_msr(&mut self, env: &mut Env<'_>, number: u32) -> Option<u64> {
        Some(match number {
            TSC => self.time_stamp(env),
            SYSENTER_CS..=SYSENTER_EIP => self.s.sysenter[(number - SYSENTER_CS) as usize],
            MISC_ENABLE => self.s.misc_enable,
            PAT => self.s.pat,
            EFER => self.s.efer,
            STAR..=FMASK => self.s.syscall[(number - STAR) as usize],
            FS_BASE => self.segment(FS).base,
            GS_BASE => self.segment(GS).base,
            KERNEL_GS_BASE => self.s.kernel_gs_base,
            TSC_AUX => self.s.tsc_aux,
            _ => match mtrr(number) {
                Some(place) => self.s.mtrr.get(place).copied().unwrap_or(0),
                None => HARMLESS.iter().find(|(known, _)| *known == number)?.1,
            },
        })
    }

    /// Nothing if there is no such register or it does not take the value.
    fn write_msr(&mut self, env: &mut Env<'_>, number: u32, value: u64) -> Option<()> {
        let address = |value: u64| canonical(value).then_some(value);
        match number {
            TSC => {
                let clock = env.platform.tsc(Tick(self.now()));
                self.reached_platform(env);
                self.s.tsc_offset = value.wrapping_sub(clock);
            }
            SYSENTER_CS => self.s.sysenter[0] = value,
            SYSENTER_ESP..=SYSENTER_EIP => {
                self.s.sysenter[(number - SYSENTER_CS) as usize] = address(value)?;
            }
            MISC_ENABLE => self.s.misc_enable = value,
            PAT => {
                let valid = value.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4..=7));
                self.s.pat = valid.then_some(value)?;
            }
            EFER => self.put_efer(value)?,
            STAR => self.s.syscall[0] = value,
            FMASK => self.s.syscall[3] = value & 0xffff_ffff,
            LSTAR..FMASK => self.s.syscall[(number - STAR) as usize] = address(value)?,
            FS_BASE => self.s.segments[usize::from(FS)].base = address(value)?,
            GS_BASE => self.s.segments[usize::from(GS)].base = address(value)?,
            KERNEL_GS_BASE => self.s.kernel_gs_base = address(value)?,
            TSC_AUX => self.s.tsc_aux = (value >> 32 == 0).then_some(value)?,
            _ => match mtrr(number) {
                Some(place) => *self.s.mtrr.get_mut(place)? = value,
                None => {
                    HARMLESS.iter().find(|(known, _)| *known == number)?;
                }
            },
        }
        Some(())
    }

    fn put_efer(&mut self, value: u64) -> Option<()> {
        let known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
        let changes_mode = self.s.cr0 & CR0_PG != 0 && (value ^ self.s.efer) & EFER_LME != 0;
        if value & !known != 0 || changes_mode {
            return None;
        }
        self.s.efer = (value & !EFER_LMA) | (self.s.efer & EFER_LMA);
        self.flush_translations();
        Some(())
    }
}

fn rdmsr(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.privileged()?;
    let number = cpu.reg::<u32>(RCX) as u32;
    let Some(value) = cpu.read_msr(env, number) else { return Err(cpu.raise_gp()) };
    cpu.put_reg::<u32>(RAX, value);
    cpu.put_reg::<u32>(RDX, value >> 32);
    Ok(Flow::Next)
}

fn wrmsr(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.privileged()?;
    let number = cpu.reg::<u32>(RCX) as u32;
    let value = cpu.reg::<u32>(RDX) << 32 | cpu.reg::<u32>(RAX);
    match cpu.write_msr(env, number, value) {
        Some(()) => Ok(Flow::Next),
        None => Err(cpu.raise_gp()),
    }
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    match decoding.instruction.mnemonic() {
        Mnemonic::Rdmsr => decoding.run(rdmsr),
        Mnemonic::Wrmsr => decoding.run_last(wrmsr),
        _ => None,
    }
}
