//! HLT, CLI, STI, hints, CPUID, RDTSC, and what is not known. The other instructions of operating systems are in
//! [`registers`](super::registers), [`tables`](super::tables), [`msr`](super::msr) and [`syscall`](super::syscall).

use super::cpu::{CR4_TSD, Cpu, attention};
use super::cpuid;
use super::decode::{self, Decoding, is_hint};
use super::fetch;
use super::flags::IF;
use super::op::{Env, Flow, Op, RAX, RBX, RCX, RDX, Run};
use super::tlb::Access;
use super::{fxstate, legacy, msr, registers, syscall, tables};
use ft_core::units::Tick;
use iced_x86::{Mnemonic, OpKind, Register};

/// Unknown instructions that are told of, at most.
const REPORTS_MAX: usize = 256;

impl Cpu {
    /// Raises #GP outside ring 0.
    pub(crate) fn privileged(&mut self) -> Run<()> {
        if self.cpl == 0 { Ok(()) } else { Err(self.raise_gp()) }
    }

    /// What RDTSC reads.
    pub(crate) fn time_stamp(&mut self, env: &mut Env<'_>) -> u64 {
        let clock = env.platform.tsc(Tick(self.now()));
        self.reached_platform(env);
        clock.wrapping_add(self.s.tsc_offset)
    }
}

/// Tells once of each address at which an instruction was met that this processor does not have.
pub(crate) fn report_unknown(cpu: &mut Cpu, env: &mut Env<'_>) {
    if cpu.reported.len() >= REPORTS_MAX || !cpu.reported.insert(cpu.rip) {
        return;
    }
    if let Some((bytes, instruction)) = fetch::describe(cpu, env) {
        let rip = format_args!("{:#x}", cpu.rip);
        tracing::warn!(%rip, ?bytes, code = ?instruction.code(), "unknown instruction: the guest gets #UD");
    }
}

fn nop(_: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    Ok(Flow::Next)
}

/// Does nothing but raise what a read would.
fn clflush(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = cpu.address(op, 1, false)?;
    cpu.translate(env, address, Access::Read)?;
    Ok(Flow::Next)
}

fn hlt(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.privileged()?;
    cpu.s.halted = true;
    cpu.attend(attention::HALT);
    Ok(Flow::Next)
}

/// Raises #GP unless IF may be changed.
fn check_if(cpu: &mut Cpu) -> Run<()> {
    if cpu.protected() && cpu.cpl > cpu.iopl() { Err(cpu.raise_gp()) } else { Ok(()) }
}

fn cli(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    check_if(cpu)?;
    cpu.flags.put_rest(IF, false);
    Ok(Flow::Next)
}

/// Holds interrupts off until the next instruction has retired, if they were off before.
fn sti(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    check_if(cpu)?;
    if cpu.flags.rest() & IF == 0 {
        cpu.flags.put_rest(IF, true);
        cpu.shadow = true;
        cpu.attend(attention::INTERRUPT);
    }
    Ok(Flow::Next)
}

fn run_cpuid(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let answer = cpuid::answer(cpu.reg::<u32>(RAX) as u32, cpu.reg::<u32>(RCX) as u32);
    for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(answer) {
        cpu.put_reg::<u32>(register, u64::from(value));
    }
    Ok(Flow::Next)
}

fn rdtsc(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    if cpu.protected() && cpu.cpl > 0 && cpu.s.cr4 & CR4_TSD != 0 {
        return Err(cpu.raise_gp());
    }
    let value = cpu.time_stamp(env);
    cpu.put_reg::<u32>(RAX, value);
    cpu.put_reg::<u32>(RDX, value >> 32);
    Ok(Flow::Next)
}

fn rdtscp(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let flow = rdtsc(cpu, env, op)?;
    let aux = cpu.s.tsc_aux;
    cpu.put_reg::<u32>(RCX, aux);
    Ok(flow)
}

/// RDPMC: there are no counters.
fn rdpmc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    Err(cpu.raise_gp())
}

fn wbinvd(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.privileged()?;
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    match decoding.instruction.mnemonic() {
        mnemonic if is_hint(mnemonic) => decoding.run(nop),
        Mnemonic::Wait => decoding.run(fxstate::wait),
        Mnemonic::Clflush => decoding.run(clflush),
        Mnemonic::Hlt => decoding.run_last(hlt),
        Mnemonic::Cli => decoding.run(cli),
        Mnemonic::Sti => decoding.run_last(sti),
        Mnemonic::Cpuid => decoding.run(run_cpuid),
        Mnemonic::Rdtsc => decoding.run(rdtsc),
        Mnemonic::Rdtscp => decoding.run(rdtscp),
        Mnemonic::Rdpmc => decoding.run(rdpmc),
        Mnemonic::Wbinvd | Mnemonic::Invd => decoding.run(wbinvd),
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => decoding.run_last(decode::undefined),
        _ => {
            [registers::decode, tables::decode, msr::decode, syscall::decode, fxstate::decode, legacy::decode]
                .iter()
                .find_map(|family| family(decoding))
        }
    }
}

/// The first operand that is a register of `class`, and which operand it is.
pub(crate) fn special(decoding: &Decoding<'_>, class: fn(Register) -> bool) -> Option<(u32, Register)> {
    let instruction = decoding.instruction;
    (0..instruction.op_count())
        .filter(|number| instruction.op_kind(*number) == OpKind::Register)
        .map(|number| (number, instruction.op_register(number)))
        .find(|(_, register)| class(*register))
}
