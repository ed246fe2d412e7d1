//! Operands of the instructions on MMX registers. What is computed between is in [`xmm::mmx`](super::xmm::mmx).

use super::cpu::{CR0_EM, Cpu, vector};
use super::decode::{Decoding, Form as Operands};
use super::forms::Form;
use super::op::{Env, Flow, NONE, Op, Run};
use super::sse::masked_operands;
use super::xmm::mmx::{self, MmxForm};

impl Cpu {
    /// Raises what any instruction of MMX may.
    fn check_mmx(&mut self) -> Run<()> {
        if self.s.cr0 & CR0_EM != 0 {
            return Err(self.raise(vector::UD));
        }
        self.check_fpu()?;
        self.check_pending()
    }

    /// A register; 0 for none.
    fn mm(&self, number: u8) -> u64 {
        if number == NONE { 0 } else { mmx::read(&self.s.fpu, usize::from(number & 7)) }
    }

    /// Enters MMX and writes a register.
    fn put_mm(&mut self, number: u8, value: u64) {
        mmx::enter(&mut self.s.fpu);
        mmx::write(&mut self.s.fpu, usize::from(number & 7), value);
    }
}

/// Takes the form out of an operation whose handler knows which variant it has.
macro_rules! form {
    ($op:expr, $variant:ident { $($field:ident),* }) => {
        let Some(Form::Mmx(MmxForm::$variant { $($field),* })) = $op.form else {
            unreachable!("the decoder chose the handler by the form")
        };
    };
}

/// Reads the memory operand, of so many bytes.
fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, bytes: u8) -> Run<u128> {
    let address = cpu.vector_address(op, bytes, bytes == 16, false)?;
    cpu.read_vector(env, address, bytes)
}

fn computes(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, Mmx { load, run });
    cpu.check_mmx()?;
    let source = if op.memory { read(cpu, env, op, *load)? as u64 } else { cpu.mm(op.src) };
    let result = run(cpu.mm(op.dst), source, op.imm as u8);
    cpu.put_mm(op.dst, result);
    Ok(Flow::Next)
}

fn stores(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.check_mmx()?;
    let value = cpu.mm(op.src);
    if op.memory {
        cpu.store_op::<u64>(env, op, value)?;
        mmx::enter(&mut cpu.s.fpu);
    } else {
        cpu.put_mm(op.dst, value);
    }
    Ok(Flow::Next)
}

/// With `kind` 1 the destination is memory.
fn to_general(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, ToGpr { wide, run });
    cpu.check_mmx()?;
    let value = run(cpu.mm(op.src), op.imm as u8);
    match (op.kind == 1, wide) {
        (true, true) => cpu.store_op::<u64>(env, op, value)?,
        (true, false) => cpu.store_op::<u32>(env, op, value)?,
        (false, true) => cpu.put_reg::<u64>(op.dst, value),
        (false, false) => cpu.put_reg::<u32>(op.dst, value),
    }
    mmx::enter(&mut cpu.s.fpu);
    Ok(Flow::Next)
}

fn from_general(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, FromGpr { bytes, run });
    cpu.check_mmx()?;
    let source =
        if op.memory { read(cpu, env, op, *bytes)? as u64 } else { cpu.gpr[usize::from(op.src & 31)] };
    let result = run(cpu.mm(op.dst), source, op.imm as u8);
    cpu.put_mm(op.dst, result);
    Ok(Flow::Next)
}

fn from_xmm(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, FromXmm { load, run });
    cpu.check_sse()?;
    cpu.check_mmx()?;
    let source = if op.memory { read(cpu, env, op, *load)? } else { cpu.xmm(op.src) };
    let mut mxcsr = cpu.s.fpu.mxcsr;
    let result = run(source, &mut mxcsr);
    // Even if an exception keeps the result away.
    mmx::enter(&mut cpu.s.fpu);
    cpu.put_mxcsr(mxcsr)?;
    cpu.put_mm(op.dst, result);
    Ok(Flow::Next)
}

fn to_xmm(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, ToXmm { run });
    cpu.check_sse()?;
    if !op.memory {
        // From memory the x87's registers are not involved.
        cpu.check_mmx()?;
    }
    let source = if op.memory { read(cpu, env, op, 8)? as u64 } else { cpu.mm(op.src) };
    let mut mxcsr = cpu.s.fpu.mxcsr;
    let result = run(cpu.xmm(op.dst), source, &mut mxcsr);
    if !op.memory {
        mmx::enter(&mut cpu.s.fpu);
    }
    cpu.put_mxcsr(mxcsr)?;
    cpu.put_xmm(op.dst, result);
    Ok(Flow::Next)
}

fn masked_store(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    form!(op, MaskedStore { run });
    cpu.check_mmx()?;
    let (value, selected) = (cpu.mm(op.dst).to_le_bytes(), run(cpu.mm(op.src)));
    cpu.store_selected(env, op, &value, u32::from(selected))?;
    mmx::enter(&mut cpu.s.fpu);
    Ok(Flow::Next)
}

fn emms(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    cpu.check_mmx()?;
    mmx::leave(&mut cpu.s.fpu);
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>, form: &MmxForm) -> Option<()> {
    decoding.op.kind = u16::from(matches!(decoding.form, Operands::MemReg | Operands::MemImm));
    match form {
        MmxForm::Mmx { .. } => decoding.run(computes),
        MmxForm::Store => decoding.run(stores),
        MmxForm::ToGpr { .. } => decoding.run(to_general),
        MmxForm::FromGpr { .. } => decoding.run(from_general),
        MmxForm::FromXmm { .. } => decoding.run(from_xmm),
        MmxForm::ToXmm { .. } => decoding.run(to_xmm),
        MmxForm::MaskedStore { .. } => {
            masked_operands(decoding);
            decoding.run(masked_store)
        }
        MmxForm::Leave => decoding.run(emms),
    }
}
