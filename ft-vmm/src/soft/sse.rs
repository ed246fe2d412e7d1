//! Operands of the instructions on XMM registers: where they come from, where they go, and what is checked. What is computed between is in
//! [`xmm`](super::xmm).

use super::cpu::{CR4_OSXMMEXCPT, Cpu, mask, vector};
use super::decode::{Decoding, Form as Operands};
use super::flags::ARITHMETIC;
use super::forms::Form;
use super::op::{Env, Flow, NONE, Op, RDI, Run};
use super::xmm::{RAISED, XmmForm};

impl Cpu {
    #[inline(always)]
    pub(crate) fn xmm(&self, number: u8) -> u128 {
        self.s.fpu.xmm[usize::from(number & 15)]
    }

    #[inline(always)]
    pub(crate) fn put_xmm(&mut self, number: u8, value: u128) {
        self.s.fpu.xmm[usize::from(number & 15)] = value;
    }

    /// Reads 16 bytes.
    #[inline(always)]
    pub(crate) fn read_wide(&mut self, env: &mut Env<'_>, address: u64) -> Run<u128> {
        let low = self.read::<u64>(env, address)?;
        let high = self.read::<u64>(env, self.wrap(address.wrapping_add(8)))?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }

    /// Writes 16 bytes, or none.
    #[inline(always)]
    pub(crate) fn write_wide(&mut self, env: &mut Env<'_>, address: u64, value: u128) -> Run<()> {
        if address & 0xfff > 0xff0 {
            return self.write_bytes(env, address, &value.to_le_bytes());
        }
        self.write::<u64>(env, address, value as u64)?;
        self.write::<u64>(env, address.wrapping_add(8), (value >> 64) as u64)
    }

    /// Reads 4, 8 or 16 bytes, or fewer, zero-extended.
    #[inline(always)]
    pub(crate) fn read_vector(&mut self, env: &mut Env<'_>, address: u64, bytes: u8) -> Run<u128> {
        Ok(match bytes {
            16 => self.read_wide(env, address)?,
            8 => u128::from(self.read::<u64>(env, address)?),
            4 => u128::from(self.read::<u32>(env, address)?),
            2 => u128::from(self.read::<u16>(env, address)?),
            _ => u128::from(self.read::<u8>(env, address)?),
        })
    }

    /// The address of a memory operand of so many bytes.
    #[inline(always)]
    pub(crate) fn vector_address(&mut self, op: &Op, bytes: u8, aligned: bool, write: bool) -> Run<u64> {
        let address = self.address(op, usize::from(bytes), write)?;
        if aligned && address % 16 != 0 { Err(self.raise_gp()) } else { Ok(address) }
    }

    /// The source operand: a register, or so many bytes of memory.
    #[inline(always)]
    fn vector_source(&mut self, env: &mut Env<'_>, op: &Op, bytes: u8, aligned: bool) -> Run<u128> {
        if !op.memory {
            return Ok(if op.src == NONE { 0 } else { self.xmm(op.src) });
        }
        let address = self.vector_address(op, bytes, aligned, false)?;
        self.read_vector(env, address, bytes)
    }

    /// Takes over MXCSR after a computation. Raises #XM if an unmasked exception is among those that it raised.
    #[inline(always)]
    pub(crate) fn put_mxcsr(&mut self, mxcsr: u32) -> Run<()> {
        self.s.fpu.mxcsr = mxcsr & !RAISED;
        if mxcsr & RAISED == 0 {
            return Ok(());
        }
        let told = self.s.cr4 & CR4_OSXMMEXCPT != 0;
        Err(self.raise(if told { vector::XM } else { vector::UD }))
    }
}

/// Takes the form out of an operation whose handler knows which variant it has.
macro_rules! form {
    ($op:expr, $variant:ident { $($field:ident),* }) => {
        let Some(Form::Xmm(XmmForm::$variant { $($field),* })) = $op.form else {
            unreachable!("the decoder chose the handler by the form")
        };
    };
}

fn computes(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, Xmm { load, aligned, run });
    cpu.check_sse()?;
    let source = cpu.vector_source(env, op, *load, *aligned)?;
    let mut mxcsr = cpu.s.fpu.mxcsr;
    let result = run(cpu.xmm(op.dst), source, op.imm as u8, &mut mxcsr);
    cpu.put_mxcsr(mxcsr)?;
    cpu.put_xmm(op.dst, result);
    Ok(Flow::Next)
}

fn loads(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, Load { load, merge });
    cpu.check_sse()?;
    let value = if op.memory {
        let address = cpu.vector_address(op, *load, false, false)?;
        cpu.read_vector(env, address, *load)?
    } else {
        merge(cpu.xmm(op.dst), cpu.xmm(op.src))
    };
    cpu.put_xmm(op.dst, value);
    Ok(Flow::Next)
}

fn stores(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, Store { bytes, aligned, run, merge });
    cpu.check_sse()?;
    let source = cpu.xmm(op.src);
    if !op.memory {
        let value = merge(cpu.xmm(op.dst), source);
        cpu.put_xmm(op.dst, value);
        return Ok(Flow::Next);
    }
    let address = cpu.vector_address(op, *bytes, *aligned, true)?;
    let value = run(source);
    match bytes {
        16 => cpu.write_wide(env, address, value)?,
        8 => cpu.write::<u64>(env, address, value as u64)?,
        _ => cpu.write::<u32>(env, address, value as u64)?,
    }
    Ok(Flow::Next)
}

/// With `kind` 1 the destination is memory.
fn to_general(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, ToGpr { load, wide, run });
    cpu.check_sse()?;
    let into_memory = op.kind == 1;
    let source = if into_memory { cpu.xmm(op.src) } else { cpu.vector_source(env, op, *load, false)? };
    let mut mxcsr = cpu.s.fpu.mxcsr;
    let value = run(source, op.imm as u8, &mut mxcsr);
    cpu.put_mxcsr(mxcsr)?;
    match (into_memory, wide) {
        (true, true) => cpu.store_op::<u64>(env, op, value)?,
        (true, false) => cpu.store_op::<u32>(env, op, value)?,
        (false, true) => cpu.put_reg::<u64>(op.dst, value),
        (false, false) => cpu.put_reg::<u32>(op.dst, value),
    }
    Ok(Flow::Next)
}

fn from_general(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, FromGpr { bytes, run });
    cpu.check_sse()?;
    let source = if op.memory {
        let address = cpu.vector_address(op, *bytes, false, false)?;
        cpu.read_vector(env, address, *bytes)? as u64
    } else {
        cpu.gpr[usize::from(op.src & 31)]
    };
    let mut mxcsr = cpu.s.fpu.mxcsr;
    let result = run(cpu.xmm(op.dst), source, op.imm as u8, &mut mxcsr);
    cpu.put_mxcsr(mxcsr)?;
    cpu.put_xmm(op.dst, result);
    Ok(Flow::Next)
}

fn compares(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, Compare { load, run });
    cpu.check_sse()?;
    let source = cpu.vector_source(env, op, *load, false)?;
    let mut mxcsr = cpu.s.fpu.mxcsr;
    let flags = run(cpu.xmm(op.dst), source, &mut mxcsr);
    cpu.put_mxcsr(mxcsr)?;
    cpu.flags.put_arithmetic(u64::from(flags) & ARITHMETIC);
    Ok(Flow::Next)
}

fn masked_store(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, MaskedStore { run });
    cpu.check_sse()?;
    let (value, selected) = (cpu.xmm(op.dst).to_le_bytes(), run(cpu.xmm(op.src)));
    cpu.store_selected(env, op, &value, u32::from(selected))?;
    Ok(Flow::Next)
}

impl Cpu {
    /// Stores the selected bytes at the destination string's pointer, with the operation's segment. All can be written, or none is.
    pub(crate) fn store_selected(
        &mut self,
        env: &mut Env<'_>,
        op: &Op,
        value: &[u8],
        selected: u32,
    ) -> Run<()> {
        let start = self.gpr[usize::from(RDI)];
        let chosen = |index: &usize| selected >> index & 1 != 0;
        let mut addresses = [0; 16];
        for index in (0..value.len()).filter(chosen) {
            let offset = start.wrapping_add(index as u64) & mask(op.address_bytes);
            addresses[index] = self.linear(op.seg, offset, 1, true)?;
            self.probe_write(env, addresses[index], 1)?;
        }
        for index in (0..value.len()).filter(chosen) {
            self.write::<u8>(env, addresses[index], u64::from(value[index]))?;
        }
        Ok(())
    }
}

/// The registers of MASKMOVDQU and MASKMOVQ are its second and third operand; the first is memory at RDI.
pub(crate) fn masked_operands(decoding: &mut Decoding<'_>) {
    let instruction = decoding.instruction;
    super::string::operands(decoding, 1);
    decoding.op.last = false;
    decoding.op.dst = instruction.op1_register().number() as u8;
    decoding.op.src = instruction.op2_register().number() as u8;
}

pub(crate) fn decode(decoding: &mut Decoding<'_>, form: &XmmForm) -> Option<()> {
    decoding.op.kind = u16::from(matches!(decoding.form, Operands::MemReg | Operands::MemImm));
    match form {
        XmmForm::Xmm { .. } => decoding.run(computes),
        XmmForm::Load { .. } => decoding.run(loads),
        XmmForm::Store { .. } => decoding.run(stores),
        XmmForm::ToGpr { .. } => decoding.run(to_general),
        XmmForm::FromGpr { .. } => decoding.run(from_general),
        XmmForm::Compare { .. } => decoding.run(compares),
        XmmForm::MaskedStore { .. } => {
            masked_operands(decoding);
            decoding.run(masked_store)
        }
    }
}
