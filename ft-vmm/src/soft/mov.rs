//! MOV between general registers, memory and immediates; MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, BSWAP, the conversions of the
//! accumulator, XLAT.

use super::cpu::{Cpu, Mode};
use super::decode::{Decoding, Form};
use super::op::{Env, Flow, HIGH, Op, RAX, RBX, RDX, Run};
use super::word::{Word, by_size};
use iced_x86::{ConditionCode, Mnemonic, OpKind};

fn mov_reg_reg<W: Word>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg::<W>(op.src);
    cpu.put_reg::<W>(op.dst, value);
    Ok(Flow::Next)
}

fn mov_reg_imm<W: Word>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.put_reg::<W>(op.dst, op.imm);
    Ok(Flow::Next)
}

fn mov_reg_mem<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.load_op::<W>(env, op)?;
    cpu.put_reg::<W>(op.dst, value);
    Ok(Flow::Next)
}

fn mov_mem_reg<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg::<W>(op.src);
    cpu.store_op::<W>(env, op, value)?;
    Ok(Flow::Next)
}

fn mov_mem_imm<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.store_op::<W>(env, op, op.imm)?;
    Ok(Flow::Next)
}

/// MOVZX and MOVSX from `S`; the destination's size is in the operation.
#[inline(always)]
fn extended<S: Word, const SIGNED: bool>(cpu: &mut Cpu, op: &Op, value: u64) -> Run<Flow> {
    let value = if SIGNED { S::signed(value) } else { value };
    match op.bytes {
        8 => cpu.put_reg::<u64>(op.dst, value),
        4 => cpu.put_reg::<u32>(op.dst, value),
        _ => cpu.put_reg::<u16>(op.dst, value),
    }
    Ok(Flow::Next)
}

fn extend_reg<S: Word, const SIGNED: bool>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg::<S>(op.src);
    extended::<S, SIGNED>(cpu, op, value)
}

fn extend_mem<S: Word, const SIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.load_op::<S>(env, op)?;
    extended::<S, SIGNED>(cpu, op, value)
}

fn lea_plain(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let offset = cpu.offset(op);
    cpu.put_reg::<u64>(op.dst, offset);
    Ok(Flow::Next)
}

fn lea(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let offset = cpu.offset(op) & super::cpu::mask(op.address_bytes);
    cpu.put_reg_sized(op.bytes, op.dst, offset);
    Ok(Flow::Next)
}

fn xchg_reg_reg<W: Word>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let (a, b) = (cpu.reg::<W>(op.dst), cpu.reg::<W>(op.src));
    cpu.put_reg::<W>(op.dst, b);
    cpu.put_reg::<W>(op.src, a);
    Ok(Flow::Next)
}

fn xchg_mem_reg<W: Word>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let address = cpu.address(op, W::BYTES, true)?;
    let old = cpu.read_to_write::<W>(env, address)?;
    let value = cpu.reg::<W>(op.src);
    cpu.write::<W>(env, address, value)?;
    cpu.put_reg::<W>(op.src, old);
    Ok(Flow::Next)
}

fn cmov_reg<W: Word, const CC: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let from = if cpu.flags.holds::<CC>() { op.src } else { op.dst };
    let value = cpu.reg::<W>(from);
    cpu.put_reg::<W>(op.dst, value);
    Ok(Flow::Next)
}

fn cmov_mem<W: Word, const CC: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let there = cpu.load_op::<W>(env, op)?;
    let value = if cpu.flags.holds::<CC>() { there } else { cpu.reg::<W>(op.dst) };
    cpu.put_reg::<W>(op.dst, value);
    Ok(Flow::Next)
}

fn set_reg<const CC: u8>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = u64::from(cpu.flags.holds::<CC>());
    cpu.put_reg::<u8>(op.dst, value);
    Ok(Flow::Next)
}

fn set_mem<const CC: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = u64::from(cpu.flags.holds::<CC>());
    cpu.store_op::<u8>(env, op, value)?;
    Ok(Flow::Next)
}

/// With 16 bits, where the manual leaves the result undefined, processors clear the register.
fn bswap<W: Word>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = cpu.reg::<W>(op.dst);
    let swapped = if W::BITS == 16 { 0 } else { value.swap_bytes() >> (64 - W::BITS) };
    cpu.put_reg::<W>(op.dst, swapped);
    Ok(Flow::Next)
}

/// CBW, CWDE, CDQE: from `S` to the size in the operation.
fn widen<S: Word>(cpu: &mut Cpu, _: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let value = S::signed(cpu.reg::<S>(RAX));
    cpu.put_reg_sized(op.bytes, RAX, value);
    Ok(Flow::Next)
}

/// CWD, CDQ, CQO.
fn spread<W: Word>(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let sign = if W::negative(cpu.reg::<W>(RAX)) { u64::MAX } else { 0 };
    cpu.put_reg::<W>(RDX, sign);
    Ok(Flow::Next)
}

fn xlat(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    let offset = cpu.gpr[usize::from(RBX)].wrapping_add(cpu.reg::<u8>(RAX));
    let address = cpu.linear(op.seg, offset & super::cpu::mask(op.address_bytes), 1, false)?;
    let value = cpu.read::<u8>(env, address)?;
    cpu.put_reg::<u8>(RAX, value);
    Ok(Flow::Next)
}

/// Picks the instance of a handler for a condition.
macro_rules! by_condition {
    ($condition:expr, $one:ident) => {
        match $condition {
            0 => $one!(0),
            1 => $one!(1),
            2 => $one!(2),
            3 => $one!(3),
            4 => $one!(4),
            5 => $one!(5),
            6 => $one!(6),
            7 => $one!(7),
            8 => $one!(8),
            9 => $one!(9),
            10 => $one!(10),
            11 => $one!(11),
            12 => $one!(12),
            13 => $one!(13),
            14 => $one!(14),
            _ => $one!(15),
        }
    };
}
pub(crate) use by_condition;

/// The number of the condition in its opcode, if there is one.
pub(crate) fn condition(decoding: &Decoding<'_>) -> Option<u8> {
    match decoding.instruction.condition_code() {
        ConditionCode::None => None,
        code => Some(code as u8 - 1),
    }
}

fn decode_mov(decoding: &mut Decoding<'_>) -> Option<()> {
    let instruction = decoding.instruction;
    let special = (0..instruction.op_count())
        .any(|n| instruction.op_kind(n) == OpKind::Register && !instruction.op_register(n).is_gpr());
    if special {
        return None;
    }
    let bytes = decoding.op.bytes;
    let handler = match decoding.form {
        Form::RegReg => by_size!(bytes, mov_reg_reg),
        Form::RegImm => by_size!(bytes, mov_reg_imm),
        Form::RegMem => by_size!(bytes, mov_reg_mem),
        Form::MemReg => by_size!(bytes, mov_mem_reg),
        Form::MemImm => by_size!(bytes, mov_mem_imm),
        _ => return None,
    };
    decoding.run(handler)
}

fn decode_extend(decoding: &mut Decoding<'_>, signed: bool) -> Option<()> {
    let instruction = decoding.instruction;
    let from_memory = decoding.form == Form::RegMem;
    let source =
        if from_memory { instruction.memory_size().size() } else { instruction.op1_register().size() };
    let handler = match (signed, from_memory) {
        (false, false) => by_size!(source, extend_reg, false),
        (false, true) => by_size!(source, extend_mem, false),
        (true, false) => by_size!(source, extend_reg, true),
        (true, true) => by_size!(source, extend_mem, true),
    };
    decoding.run(handler)
}

fn decode_cmov(decoding: &mut Decoding<'_>, condition: u8) -> Option<()> {
    let (bytes, form) = (decoding.op.bytes, decoding.form);
    macro_rules! one {
        ($cc:literal) => {
            if form == Form::RegReg { by_size!(bytes, cmov_reg, $cc) } else { by_size!(bytes, cmov_mem, $cc) }
        };
    }
    decoding.run(by_condition!(condition, one))
}

fn decode_set(decoding: &mut Decoding<'_>, condition: u8) -> Option<()> {
    let form = decoding.form;
    macro_rules! one {
        ($cc:literal) => {
            if form == Form::Reg { set_reg::<$cc> } else { set_mem::<$cc> }
        };
    }
    decoding.run(by_condition!(condition, one))
}

/// Whether the mnemonic is SETcc, as opposed to Jcc and CMOVcc.
fn is_set(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Seta, Setae, Setb, Setbe, Sete, Setg, Setge, Setl, Setle, Setne, Setno, Setnp, Setns, Seto, Setp,
        Sets,
    };
    matches!(
        mnemonic,
        Seta | Setae
            | Setb
            | Setbe
            | Sete
            | Setg
            | Setge
            | Setl
            | Setle
            | Setne
            | Setno
            | Setnp
            | Setns
            | Seto
            | Setp
            | Sets
    )
}

fn is_cmov(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Cmova, Cmovae, Cmovb, Cmovbe, Cmove, Cmovg, Cmovge, Cmovl, Cmovle, Cmovne, Cmovno, Cmovnp, Cmovns,
        Cmovo, Cmovp, Cmovs,
    };
    matches!(
        mnemonic,
        Cmova
            | Cmovae
            | Cmovb
            | Cmovbe
            | Cmove
            | Cmovg
            | Cmovge
            | Cmovl
            | Cmovle
            | Cmovne
            | Cmovno
            | Cmovnp
            | Cmovns
            | Cmovo
            | Cmovp
            | Cmovs
    )
}

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let mnemonic = decoding.instruction.mnemonic();
    let bytes = decoding.op.bytes;
    match mnemonic {
        Mnemonic::Mov => decode_mov(decoding),
        Mnemonic::Movnti => decoding.run(by_size!(bytes, mov_mem_reg)),
        Mnemonic::Movzx => decode_extend(decoding, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => decode_extend(decoding, true),
        Mnemonic::Lea => {
            let plain = decoding.op.bytes == 8 && decoding.op.address_bytes == 8;
            decoding.run(if plain { lea_plain } else { lea })
        }
        Mnemonic::Xchg => match decoding.form {
            Form::RegReg => decoding.run(by_size!(bytes, xchg_reg_reg)),
            Form::MemReg => decoding.run(by_size!(bytes, xchg_mem_reg)),
            Form::RegMem => {
                decoding.op.src = decoding.op.dst;
                decoding.run(by_size!(bytes, xchg_mem_reg))
            }
            _ => None,
        },
        Mnemonic::Pause => decode_pause(decoding),
        Mnemonic::Bswap => decoding.run(by_size!(bytes, bswap)),
        Mnemonic::Cbw => decode_widen(decoding, 2, widen::<u8>),
        Mnemonic::Cwde => decode_widen(decoding, 4, widen::<u16>),
        Mnemonic::Cdqe => decode_widen(decoding, 8, widen::<u32>),
        Mnemonic::Cwd => decoding.run(spread::<u16>),
        Mnemonic::Cdq => decoding.run(spread::<u32>),
        Mnemonic::Cqo => decoding.run(spread::<u64>),
        Mnemonic::Xlatb => decode_xlat(decoding),
        Mnemonic::Salc => decoding.run(salc),
        _ if is_set(mnemonic) => decode_set(decoding, condition(decoding)?),
        _ if is_cmov(mnemonic) => decode_cmov(decoding, condition(decoding)?),
        _ => None,
    }
}

/// F3 90 is PAUSE, but with REX.B it is XCHG R8, RAX: the repetition prefix means nothing then.
fn decode_pause(decoding: &mut Decoding<'_>) -> Option<()> {
    let (_, prefixes) = decoding.bytes.split_last()?;
    let rex = prefixes.last().filter(|byte| decoding.mode == Mode::Bits64 && **byte & 0xf1 == 0x41)?;
    let bytes = match (rex & 8 != 0, prefixes.contains(&0x66)) {
        (true, _) => 8,
        (_, true) => 2,
        _ => 4,
    };
    (decoding.op.dst, decoding.op.src) = (8, RAX);
    decoding.run(by_size!(bytes, xchg_reg_reg))
}

fn salc(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    let value = if cpu.flags.cf() { 0xff } else { 0 };
    cpu.put_reg::<u8>(RAX & !HIGH, value);
    Ok(Flow::Next)
}

fn decode_widen(decoding: &mut Decoding<'_>, bytes: u8, handler: super::op::Handler) -> Option<()> {
    decoding.op.bytes = bytes;
    decoding.run(handler)
}

fn decode_xlat(decoding: &mut Decoding<'_>) -> Option<()> {
    decoding.op.address_bytes = decoding.instruction.memory_base().size() as u8;
    decoding.op.seg = super::decode::string_segment(decoding.mode, decoding.instruction);
    decoding.run(xlat)
}
