//! Control, debug and segment registers: MOV, PUSH, POP, LDS and its kin, LMSW, SMSW, CLTS, INVLPG.
//!
//! Every change of what translates addresses empties the TLBs. Breakpoints in debug registers are kept and have no effect.

use super::cpu::{
    CR0_EM, CR0_ET, CR0_MP, CR0_NE, CR0_PE, CR0_PG, CR0_TS, CR0_WP, CR4_DE, CR4_OSFXSR, CR4_OSXMMEXCPT,
    CR4_PAE, CR4_PGE, CR4_PSE, CR4_TSD, Cpu, EFER_LMA, EFER_LME, Mode, vector,
};
use super::decode::{Decoding, Form};
use super::op::{CS, Env, Flow, NONE, Op, Run, SS};
use super::paging::PHYSICAL_BITS;
use super::segments::LONG;
use super::system::special;
use super::word::{Word, by_size};
use iced_x86::{Mnemonic, Register};

const CR0_AM: u64 = 1 << 18;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_ALL: u64 =
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
const CR4_ALL: u64 = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | 1 << 6 | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
/// Bits of CR4 that translate.
const CR4_PAGING: u64 = CR4_PSE | CR4_PAE | CR4_PGE;
/// What always reads as ones in DR6 and DR7.
const DR6_ONES: u64 = 0xffff_0ff0;
const DR7_ONES: u64 = 0x400;
/// GD of DR7: any access to debug registers traps.
const DR7_GD: u64 = 1 << 13;
const DR6_BD: u64 = 1 << 13;

impl Cpu {
    /// Writes CR0.
    pub(crate) fn put_cr0(&mut self, value: u64) -> Run<()> {
        let value = value | CR0_ET;
        let old = self.s.cr0;
        let paging_without_protection = value & CR0_PG != 0 && value & CR0_PE == 0;
        let odd_caching = value & CR0_NW != 0 && value & CR0_CD == 0;
        if value >> 32 != 0 || paging_without_protection || odd_caching {
            return Err(self.raise_gp());
        }
        if value & !old & CR0_PG != 0 && self.s.efer & EFER_LME != 0 {
            if self.s.cr4 & CR4_PAE == 0 || self.segment(CS).attributes & LONG != 0 {
                return Err(self.raise_gp());
            }
            self.s.efer |= EFER_LMA;
        }
        if old & !value & CR0_PG != 0 {
            if self.mode == Mode::Bits64 {
                return Err(self.raise_gp());
            }
            self.s.efer &= !EFER_LMA;
        }
        self.s.cr0 = value & CR0_ALL;
        self.flush_translations();
        if (old ^ value) & CR0_PE != 0 {
            self.put_cpl(0);
        }
        self.update_mode();
        Ok(())
    }

    fn put_cr3(&mut self, value: u64) -> Run<()> {
        if self.long_mode() && value >> PHYSICAL_BITS != 0 {
            return Err(self.raise_gp());
        }
        self.s.cr3 = value;
        self.flush_translations();
        Ok(())
    }

    fn put_cr4(&mut self, value: u64) -> Run<()> {
        let leaves_pae = self.long_mode() && value & CR4_PAE == 0;
        if value & !CR4_ALL != 0 || leaves_pae {
            return Err(self.raise_gp());
        }
        let changed = self.s.cr4 ^ value;
        self.s.cr4 = value;
        if changed & CR4_PAGING != 0 {
            self.flush_translations();
        }
        Ok(())
    }
}

/// MOV from a control register, whose number is `src`.
fn from_control(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.privileged()?;
    let value = match op.src {
        0 => cpu.s.cr0,
        2 => cpu.s.cr2,
        3 => cpu.s.cr3,
        4 => cpu.s.cr4,
        8 => cpu.s.cr8,
        _ => return Err(cpu.raise(vector::UD)),
    };
    cpu.put_reg_sized(op.bytes, op.dst, value);
    Ok(Flow::Next)
}

/// MOV to a control register, whose number is `dst`.
fn to_control(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.privileged()?;
    let value = cpu.reg_sized(op.bytes, op.src);
    match op.dst {
        0 => cpu.put_cr0(value)?,
        2 => cpu.s.cr2 = value,
        3 => cpu.put_cr3(value)?,
        4 => cpu.put_cr4(value)?,
        8 if value < 16 => cpu.s.cr8 = value,
        8 => return Err(cpu.raise_gp()),
        _ => return Err(cpu.raise(vector::UD)),
    }
    Ok(Flow::Next)
}

/// The place of a debug register in the state: DR4 and DR5 are DR6 and DR7 unless CR4.DE is set.
fn debug_place(cpu: &mut Cpu, number: u8) -> Run<usize> {
    cpu.privileged()?;
    if number > 7 || (matches!(number, 4 | 5) && cpu.s.cr4 & CR4_DE != 0) {
        return Err(cpu.raise(vector::UD));
    }
    if cpu.s.debug[5] & DR7_GD != 0 {
        cpu.s.debug[4] |= DR6_BD;
        cpu.s.debug[5] &= !DR7_GD;
        return Err(cpu.raise(vector::DB));
    }
    Ok(usize::from(if number > 5 { number - 2 } else { number }))
}

fn from_debug(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let place = debug_place(cpu, op.src)?;
    let value = cpu.s.debug[place];
    cpu.put_reg_sized(op.bytes, op.dst, value);
    Ok(Flow::Next)
}

fn to_debug(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg_sized(op.bytes, op.src);
    let place = debug_place(cpu, op.dst)?;
    if place >= 4 && value >> 32 != 0 {
        return Err(cpu.raise_gp());
    }
    cpu.s.debug[place] = match place {
        4 => value & 0xe00f | DR6_ONES,
        5 => value & 0xffff_2bff | DR7_ONES,
        _ => value,
    };
    Ok(Flow::Next)
}

/// After a load of SS interrupts are held off, so that the stack pointer can be loaded too.
fn loaded(cpu: &mut Cpu, number: u8) {
    if number == SS {
        cpu.shadow = true;
        cpu.attend(super::cpu::attention::INTERRUPT);
    }
}

/// MOV to a segment register, whose number is `dst`.
fn to_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let selector = if op.memory { cpu.load_op::<u16>(env, op)? } else { cpu.reg::<u16>(op.src) };
    cpu.load_segment(env, op.dst, selector as u16)?;
    loaded(cpu, op.dst);
    Ok(Flow::Next)
}

/// MOV from a segment register, whose number is `src`. To memory it has 16 bits whatever the operand size.
fn from_segment(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let selector = u64::from(cpu.segment(op.src).selector);
    if op.memory {
        cpu.store_op::<u16>(env, op, selector)?;
    } else {
        cpu.put_reg_sized(op.bytes, op.dst, selector);
    }
    Ok(Flow::Next)
}

fn push_segment<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let selector = u64::from(cpu.segment(op.src).selector);
    cpu.push::<W>(env, selector)?;
    Ok(Flow::Next)
}

fn pop_segment<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let mut stack = super::stack::Stack::new(cpu);
    let selector = stack.pop(cpu, env, W::BYTES as u8)?;
    cpu.load_segment(env, op.dst, selector as u16)?;
    stack.commit(cpu);
    loaded(cpu, op.dst);
    Ok(Flow::Next)
}

/// LDS and its kin: the segment register's number is `kind`.
fn load_pointer<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = cpu.address(op, W::BYTES + 2, false)?;
    let offset = cpu.read::<W>(env, address)?;
    let selector = cpu.read::<u16>(env, address.wrapping_add(W::BYTES as u64))?;
    cpu.load_segment(env, op.kind as u8, selector as u16)?;
    cpu.put_reg::<W>(op.dst, offset);
    loaded(cpu, op.kind as u8);
    Ok(Flow::Next)
}

fn smsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.s.cr0;
    if op.memory {
        cpu.store_op::<u16>(env, op, value)?;
    } else {
        cpu.put_reg_sized(op.bytes, op.dst, value);
    }
    Ok(Flow::Next)
}

/// LMSW can set PE but not clear it.
fn lmsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.privileged()?;
    let value = if op.memory { cpu.load_op::<u16>(env, op)? } else { cpu.reg::<u16>(op.dst) };
    let changed = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    let kept = cpu.s.cr0 & (!changed | CR0_PE);
    cpu.put_cr0(kept | (value & changed))?;
    Ok(Flow::Next)
}

fn clts(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.privileged()?;
    cpu.s.cr0 &= !CR0_TS;
    Ok(Flow::Next)
}

fn invlpg(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    // The TLBs never hold what the tables do not say.
    cpu.privileged()?;
    Ok(Flow::Next)
}

fn decode_pointer(decoding: &mut Decoding<'_>, segment: u8) -> Option<()> {
    if decoding.form != Form::RegMem {
        return None;
    }
    decoding.op.kind = u16::from(segment);
    let bytes = decoding.op.bytes;
    decoding.run_last(by_size!(bytes, load_pointer))
}

fn decode_mov(decoding: &mut Decoding<'_>) -> Option<()> {
    if let Some((number, _)) = special(decoding, Register::is_cr) {
        return if number == 0 { decoding.run_last(to_control) } else { decoding.run(from_control) };
    }
    if let Some((number, _)) = special(decoding, Register::is_dr) {
        return if number == 0 { decoding.run_last(to_debug) } else { decoding.run(from_debug) };
    }
    let (number, register) = special(decoding, Register::is_segment_register)?;
    if number == 1 {
        return decoding.run(from_segment);
    }
    if register == Register::CS {
        return decoding.run_last(super::decode::undefined);
    }
    decoding.run_last(to_segment)
}

fn decode_stack(decoding: &mut Decoding<'_>) -> Option<()> {
    let bytes = decoding.instruction.stack_pointer_increment().unsigned_abs();
    special(decoding, Register::is_segment_register)?;
    if decoding.instruction.mnemonic() == Mnemonic::Pop {
        return decoding.run_last(by_size!(bytes, pop_segment));
    }
    decoding.op.src = decoding.op.dst;
    decoding.op.dst = NONE;
    decoding.run(by_size!(bytes, push_segment))
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    use super::op::{DS, ES, FS, GS};
    match decoding.instruction.mnemonic() {
        Mnemonic::Mov => decode_mov(decoding),
        Mnemonic::Push | Mnemonic::Pop => decode_stack(decoding),
        Mnemonic::Lds => decode_pointer(decoding, DS),
        Mnemonic::Les => decode_pointer(decoding, ES),
        Mnemonic::Lfs => decode_pointer(decoding, FS),
        Mnemonic::Lgs => decode_pointer(decoding, GS),
        Mnemonic::Lss => decode_pointer(decoding, SS),
        Mnemonic::Smsw => decoding.run(smsw),
        Mnemonic::Lmsw => decoding.run_last(lmsw),
        Mnemonic::Clts => decoding.run(clts),
        Mnemonic::Invlpg => decoding.run(invlpg),
        _ => None,
    }
}
