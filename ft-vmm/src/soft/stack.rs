//! The stack: PUSH, POP and their kin, ENTER, LEAVE, and the pushes and pops of all other families.
//!
//! Invariant: RSP changes only when nothing can fault any more.

use super::cpu::{Cpu, Exception, mask, vector};
use super::decode::{Decoding, Form};
use super::flags::{self, IF, VM};
use super::op::{Env, Flow, Op, RBP, RSP, Raised, Run, SS};
use super::word::{Word, by_size};
use iced_x86::{Mnemonic, OpKind};

/// A stack pointer that moves ahead of RSP, until [`Stack::commit`].
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    /// The offset of its top in SS.
    pub(crate) pointer: u64,
    mask: u64,
    flat: bool,
}

impl Stack {
    /// The present stack.
    pub(crate) fn new(cpu: &Cpu) -> Self {
        Self { pointer: cpu.gpr[usize::from(RSP)], mask: cpu.stack_mask(), flat: cpu.flat }
    }

    /// A stack of 64-bit mode.
    pub(crate) fn flat(pointer: u64) -> Self {
        Self { pointer, mask: u64::MAX, flat: true }
    }

    fn address(&self, cpu: &mut Cpu, pointer: u64, bytes: u64, write: bool) -> Run<u64> {
        let offset = pointer & self.mask;
        if self.flat { Ok(offset) } else { cpu.linear(SS, offset, bytes, write) }
    }

    /// Raises what pushing `count` values of `bytes` bytes would.
    pub(crate) fn probe(&self, cpu: &mut Cpu, env: &mut Env<'_>, count: u64, bytes: u8) -> Run<()> {
        for number in 1..=count {
            let pointer = self.pointer.wrapping_sub(number * u64::from(bytes));
            let address = self.address(cpu, pointer, u64::from(bytes), true)?;
            cpu.probe_write(env, address, u64::from(bytes)).map_err(|raised| on_stack(cpu, raised))?;
        }
        Ok(())
    }

    /// Pushes.
    pub(crate) fn push(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, bytes: u8, value: u64) -> Run<()> {
        let pointer = self.pointer.wrapping_sub(u64::from(bytes));
        let address = self.address(cpu, pointer, u64::from(bytes), true)?;
        by_size!(bytes, Cpu::write)(cpu, env, address, value).map_err(|raised| on_stack(cpu, raised))?;
        self.pointer = pointer;
        Ok(())
    }

    /// Pops.
    pub(crate) fn pop(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, bytes: u8) -> Run<u64> {
        let address = self.address(cpu, self.pointer, u64::from(bytes), false)?;
        let value = by_size!(bytes, Cpu::read)(cpu, env, address).map_err(|raised| on_stack(cpu, raised))?;
        self.pointer = self.pointer.wrapping_add(u64::from(bytes));
        Ok(value)
    }

    /// Moves RSP here. Where the stack has 16 bits, the upper ones of the register stay.
    pub(crate) fn commit(&self, cpu: &mut Cpu) {
        let register = &mut cpu.gpr[usize::from(RSP)];
        *register = match self.mask {
            u64::MAX => self.pointer,
            0xffff_ffff => self.pointer & self.mask,
            mask => (*register & !mask) | (self.pointer & mask),
        };
    }
}

/// On the stack, an address that is not canonical raises #SS.
#[cold]
fn on_stack(cpu: &mut Cpu, raised: Raised) -> Raised {
    if cpu.raised.canonical {
        cpu.raised = Exception { vector: vector::SS, canonical: false, ..cpu.raised };
    }
    raised
}

impl Cpu {
    /// The bits of RSP in use.
    pub(crate) fn stack_mask(&self) -> u64 {
        if self.flat {
            u64::MAX
        } else if self.segment(SS).attributes & 1 << 14 != 0 {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Pushes one value.
    #[inline(always)]
    pub(crate) fn push<W: Word>(&mut self, env: &mut Env<'_>, value: u64) -> Run<()> {
        if self.flat {
            let pointer = self.gpr[usize::from(RSP)].wrapping_sub(W::BYTES as u64);
            self.write::<W>(env, pointer, value).map_err(|raised| on_stack(self, raised))?;
            self.gpr[usize::from(RSP)] = pointer;
            return Ok(());
        }
        let mut stack = Stack::new(self);
        stack.push(self, env, W::BYTES as u8, value)?;
        stack.commit(self);
        Ok(())
    }

    /// Pops one value.
    #[inline(always)]
    pub(crate) fn pop<W: Word>(&mut self, env: &mut Env<'_>) -> Run<u64> {
        if self.flat {
            let pointer = self.gpr[usize::from(RSP)];
            let value = self.read::<W>(env, pointer).map_err(|raised| on_stack(self, raised))?;
            self.gpr[usize::from(RSP)] = pointer.wrapping_add(W::BYTES as u64);
            return Ok(value);
        }
        let mut stack = Stack::new(self);
        let value = stack.pop(self, env, W::BYTES as u8)?;
        stack.commit(self);
        Ok(value)
    }
}

fn push_reg<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg::<W>(op.dst);
    cpu.push::<W>(env, value)?;
    Ok(Flow::Next)
}

fn push_imm<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.push::<W>(env, op.imm)?;
    Ok(Flow::Next)
}

fn push_mem<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.load_op::<W>(env, op)?;
    cpu.push::<W>(env, value)?;
    Ok(Flow::Next)
}

fn pop_reg<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.pop::<W>(env)?;
    cpu.put_reg::<W>(op.dst, value);
    Ok(Flow::Next)
}

/// The address is computed with RSP as it is after the pop.
fn pop_mem<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let before = cpu.gpr[usize::from(RSP)];
    let value = cpu.pop::<W>(env)?;
    if let Err(raised) = cpu.store_op::<W>(env, op, value) {
        cpu.gpr[usize::from(RSP)] = before;
        return Err(raised);
    }
    Ok(Flow::Next)
}

/// PUSHA: the stack pointer among them is the one from before.
fn push_all<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let mut stack = Stack::new(cpu);
    stack.probe(cpu, env, 8, W::BYTES as u8)?;
    for register in 0..8 {
        let value = cpu.reg::<W>(register);
        stack.push(cpu, env, W::BYTES as u8, value)?;
    }
    stack.commit(cpu);
    Ok(Flow::Next)
}

fn pop_all<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let mut stack = Stack::new(cpu);
    let mut values = [0; 8];
    for value in values.iter_mut().rev() {
        *value = stack.pop(cpu, env, W::BYTES as u8)?;
    }
    stack.commit(cpu);
    for (register, value) in (0..8).zip(values) {
        if register != RSP {
            cpu.put_reg::<W>(register, value);
        }
    }
    Ok(Flow::Next)
}

fn pushf<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let value = cpu.flags.get() & !(flags::RF | VM);
    cpu.push::<W>(env, value)?;
    Ok(Flow::Next)
}

fn popf<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let value = cpu.pop::<W>(env)?;
    let size = if W::BITS == 16 { 0xffff } else { u64::MAX };
    cpu.load_flags(value, size & !(flags::RF | VM | flags::VIF | flags::VIP));
    Ok(Flow::Next)
}

impl Cpu {
    /// Replaces the flags in `mask` by those of `value`, as far as the privilege level allows. RF is cleared unless in `mask`.
    pub(crate) fn load_flags(&mut self, value: u64, mask: u64) {
        let mut mask = mask & flags::ALL;
        if self.protected() {
            if self.cpl > 0 {
                mask &= !flags::IOPL;
            }
            if self.cpl > self.iopl() {
                mask &= !IF;
            }
        }
        let old = self.flags.get() & !flags::RF;
        self.flags.set((old & !mask) | (value & mask));
        self.flags_changed();
    }

    /// To be called when IF or TF may have been set.
    pub(crate) fn flags_changed(&mut self) {
        if self.flags.rest() & (IF | flags::TF) != 0 {
            self.attend(super::cpu::attention::INTERRUPT);
        }
    }
}

fn leave<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let mut stack = Stack { pointer: cpu.gpr[usize::from(RBP)], ..Stack::new(cpu) };
    let value = stack.pop(cpu, env, W::BYTES as u8)?;
    stack.commit(cpu);
    cpu.put_reg::<W>(RBP, value);
    Ok(Flow::Next)
}

/// ENTER: `imm` bytes of locals, `disp` levels of display.
fn enter<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let bytes = W::BYTES as u8;
    let mut stack = Stack::new(cpu);
    let old = cpu.reg::<W>(RBP);
    stack.push(cpu, env, bytes, old)?;
    let frame = stack.pointer;
    let levels = op.disp & 31;
    if levels > 0 {
        let mut display = Stack { pointer: cpu.gpr[usize::from(RBP)], ..stack };
        for _ in 1..levels {
            display.pointer = display.pointer.wrapping_sub(u64::from(bytes));
            let value = { display }.pop(cpu, env, bytes)?;
            stack.push(cpu, env, bytes, value)?;
        }
        stack.push(cpu, env, bytes, frame)?;
    }
    stack.pointer = stack.pointer.wrapping_sub(op.imm & 0xffff);
    // The new top must be writable, though nothing is written.
    let last = stack.pointer & stack.mask;
    let address = stack.address(cpu, last, 1, true)?;
    cpu.probe_write(env, address, 1).map_err(|raised| on_stack(cpu, raised))?;
    stack.commit(cpu);
    let kept = if stack.mask == u64::MAX { frame } else { frame & mask(bytes) };
    cpu.put_reg::<W>(RBP, kept);
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let instruction = decoding.instruction;
    let step = instruction.stack_pointer_increment().unsigned_abs();
    let is_segment = instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && !instruction.op0_register().is_gpr();
    match instruction.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop if is_segment => None,
        Mnemonic::Push => decoding.run(match decoding.form {
            Form::Reg => by_size!(step, push_reg),
            Form::Mem => by_size!(step, push_mem),
            _ => by_size!(step, push_imm),
        }),
        Mnemonic::Pop => decoding.run(match decoding.form {
            Form::Reg => by_size!(step, pop_reg),
            _ => by_size!(step, pop_mem),
        }),
        Mnemonic::Pusha => decoding.run(push_all::<u16>),
        Mnemonic::Pushad => decoding.run(push_all::<u32>),
        Mnemonic::Popa => decoding.run(pop_all::<u16>),
        Mnemonic::Popad => decoding.run(pop_all::<u32>),
        Mnemonic::Pushf | Mnemonic::Pushfd | Mnemonic::Pushfq => decoding.run(by_size!(step, pushf)),
        Mnemonic::Popf | Mnemonic::Popfd | Mnemonic::Popfq => decoding.run_last(by_size!(step, popf)),
        Mnemonic::Enter | Mnemonic::Leave => decode_frame(decoding),
        _ => None,
    }
}

fn decode_frame(decoding: &mut Decoding<'_>) -> Option<()> {
    use iced_x86::Code;
    let handler = match decoding.instruction.code() {
        Code::Enterw_imm16_imm8 => enter::<u16>,
        Code::Enterd_imm16_imm8 => enter::<u32>,
        Code::Enterq_imm16_imm8 => enter::<u64>,
        Code::Leavew => leave::<u16>,
        Code::Leaved => leave::<u32>,
        Code::Leaveq => leave::<u64>,
        _ => return None,
    };
    decoding.run(handler)
}
