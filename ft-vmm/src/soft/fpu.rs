//! Operands of the instructions of the x87. What is computed between is in [`x87`](super::x87).

use super::cpu::{Cpu, mask};
use super::decode::Decoding;
use super::flags::ARITHMETIC;
use super::forms::Form;
use super::op::{Env, Flow, Op, RAX, Run};
use super::x87::{X87Effect, X87Operands};
use iced_x86::OpKind;

/// The largest memory operand, of FNSAVE.
const OPERAND_BYTES_MAX: usize = 108;

/// `src` is the i of ST(i), `imm` the opcode.
fn computes(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let Some(Form::X87(form)) = op.form else { unreachable!("the decoder chose the handler by the form") };
    cpu.check_fpu()?;
    if form.waits {
        cpu.check_pending()?;
    }
    let (load, store) = (usize::from(form.load), usize::from(form.store));
    let mut data_in = [0; OPERAND_BYTES_MAX];
    let mut data_out = [0; OPERAND_BYTES_MAX];
    let mut address = 0;
    if op.memory {
        address = cpu.address(op, load.max(store), store > 0)?;
        if load > 0 {
            cpu.read_bytes(env, address, &mut data_in[..load])?;
        }
        if store > 0 {
            cpu.probe_write(env, address, store as u64)?;
        }
    }
    let operands = X87Operands {
        st: op.src,
        memory_in: &data_in[..load],
        memory_out: &mut data_out[..store],
        rflags: cpu.flags.get(),
        instruction: op.ip(),
        opcode: op.imm as u16,
        operand: if op.memory { cpu.offset(op) & mask(op.address_bytes) } else { 0 },
    };
    match (form.run)(&mut cpu.s.fpu, operands) {
        X87Effect::Done if store > 0 => cpu.write_bytes(env, address, &data_out[..store])?,
        X87Effect::Done | X87Effect::NoStore => {}
        X87Effect::Ax(value) => cpu.put_reg::<u16>(RAX, u64::from(value)),
        X87Effect::Flags(flags) => cpu.flags.put_arithmetic(u64::from(flags) & ARITHMETIC),
    }
    Ok(Flow::Next)
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let instruction = decoding.instruction;
    // One of two registers is always ST(0).
    let st = (0..instruction.op_count())
        .filter(|number| instruction.op_kind(*number) == OpKind::Register)
        .map(|number| instruction.op_register(number))
        .filter(|register| register.is_st())
        .map(|register| register.number() as u8)
        .max();
    let escape = decoding.bytes.iter().position(|byte| byte & 0xf8 == 0xd8)?;
    let (first, second) = (decoding.bytes[escape], *decoding.bytes.get(escape + 1)?);
    decoding.op.src = st.unwrap_or(0);
    decoding.op.imm = u64::from(first & 7) << 8 | u64::from(second);
    decoding.run(computes)
}
