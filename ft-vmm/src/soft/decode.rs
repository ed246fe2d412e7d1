//! From what `iced-x86` decodes to an [`Op`]: operands here, the handler by the family that knows the instruction.

use super::cpu::{Cpu, Mode, mask, vector};
use super::op::{CS, DS, ES, Env, FS, Flow, GS, HIGH, NONE, Op, Rep, Run, SS};
use super::{alu, atomic, bits, control, far, forms, io, mov, muldiv, shift, stack, string, system};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What the first two operands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Register, register.
    RegReg,
    /// Register, immediate.
    RegImm,
    /// Register, memory.
    RegMem,
    /// Memory, register.
    MemReg,
    /// Memory, immediate.
    MemImm,
    /// Register.
    Reg,
    /// Memory.
    Mem,
    /// Anything else.
    Other,
}

/// An instruction on its way to an operation.
pub(crate) struct Decoding<'a> {
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
    pub(crate) instruction: &'a Instruction,
    pub(crate) mode: Mode,
    pub(crate) form: Form,
    pub(crate) op: Op,
}

impl Decoding<'_> {
    /// Chooses the handler.
    pub(crate) fn run(&mut self, handler: super::op::Handler) -> Option<()> {
        self.op.run = handler;
        Some(())
    }

    /// Chooses the handler of an instruction after which the block ends.
    pub(crate) fn run_last(&mut self, handler: super::op::Handler) -> Option<()> {
        self.op.last = true;
        self.run(handler)
    }

    /// Whether the first operand is memory, for instructions with one that matters.
    pub(crate) fn to_memory(&self) -> bool {
        matches!(self.form, Form::Mem | Form::MemReg | Form::MemImm)
    }
}

/// Decodes.
pub(crate) fn op(mode: Mode, instruction: &Instruction, bytes: &[u8]) -> Op {
    let mut decoding = Decoding { bytes, instruction, mode, form: Form::Other, op: blank(mode, instruction) };
    operands(&mut decoding);
    let families = [
        mov::decode,
        alu::decode,
        control::decode,
        stack::decode,
        shift::decode,
        muldiv::decode,
        bits::decode,
        string::decode,
        atomic::decode,
        forms::decode,
        far::decode,
        io::decode,
        system::decode,
    ];
    if instruction.is_invalid() || !families.iter().any(|family| family(&mut decoding).is_some()) {
        decoding.op.run = unknown;
        decoding.op.last = true;
    }
    decoding.op
}

fn blank(mode: Mode, instruction: &Instruction) -> Op {
    let rep = match (instruction.has_repne_prefix(), instruction.has_rep_prefix()) {
        (true, _) => Rep::Until,
        (_, true) => Rep::While,
        _ => Rep::None,
    };
    Op {
        run: unknown,
        imm: 0,
        disp: 0,
        next: instruction.next_ip() & if mode == Mode::Bits64 { u64::MAX } else { 0xffff_ffff },
        dst: NONE,
        src: NONE,
        base: NONE,
        index: NONE,
        scale: 0,
        seg: DS,
        plain: mode == Mode::Bits64,
        address_bytes: 8,
        bytes: 0,
        len: instruction.len() as u8,
        rep,
        memory: false,
        last: false,
        kind: 0,
        form: None,
    }
}

/// The number of a general register in the fields of [`Op`].
pub(crate) fn general(register: Register) -> u8 {
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    let number = register.full_register().number() as u8;
    if high { number | HIGH } else { number }
}

pub(crate) fn segment(register: Register) -> u8 {
    match register {
        Register::ES => ES,
        Register::CS => CS,
        Register::SS => SS,
        Register::FS => FS,
        Register::GS => GS,
        _ => DS,
    }
}

/// The segment of a memory operand. In 64-bit mode prefixes for ES, CS, SS and DS do not count.
fn memory_segment(mode: Mode, instruction: &Instruction) -> u8 {
    let named = segment(instruction.memory_segment());
    if mode != Mode::Bits64 || matches!(named, FS | GS) {
        return named;
    }
    let stack =
        matches!(instruction.memory_base(), Register::RSP | Register::RBP | Register::ESP | Register::EBP);
    if stack { SS } else { DS }
}

/// The segment of a source string.
pub(crate) fn string_segment(mode: Mode, instruction: &Instruction) -> u8 {
    match segment(instruction.memory_segment()) {
        named @ (FS | GS) => named,
        _ if mode == Mode::Bits64 => DS,
        named => named,
    }
}

fn operands(decoding: &mut Decoding<'_>) {
    let instruction = decoding.instruction;
    let mut kinds = [Operand::None; 2];
    for number in 0..instruction.op_count() {
        let operand = operand(decoding, number);
        if let Some(kind) = kinds.get_mut(number as usize) {
            *kind = operand;
        }
    }
    decoding.form = match kinds {
        [Operand::Reg, Operand::Reg] => Form::RegReg,
        [Operand::Reg, Operand::Imm] => Form::RegImm,
        [Operand::Reg, Operand::Mem] => Form::RegMem,
        [Operand::Mem, Operand::Reg] => Form::MemReg,
        [Operand::Mem, Operand::Imm] => Form::MemImm,
        [Operand::Reg, Operand::None] => Form::Reg,
        [Operand::Mem, Operand::None] => Form::Mem,
        _ => Form::Other,
    };
}

#[derive(Clone, Copy)]
enum Operand {
    None,
    Reg,
    Mem,
    Imm,
    Other,
}

fn operand(decoding: &mut Decoding<'_>, number: u32) -> Operand {
    let instruction = decoding.instruction;
    let op = &mut decoding.op;
    match instruction.op_kind(number) {
        OpKind::Register => {
            let register = instruction.op_register(number);
            let place = if number == 0 { &mut op.dst } else { &mut op.src };
            if number < 2 {
                *place = if register.is_gpr() { general(register) } else { register.number() as u8 };
            }
            if number == 0 || (number == 1 && op.bytes == 0) {
                op.bytes = register.size() as u8;
            }
            Operand::Reg
        }
        OpKind::Memory => {
            if number == 0 {
                op.bytes = instruction.memory_size().size() as u8;
            }
            memory(decoding);
            Operand::Mem
        }
        kind @ (OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64) => {
            op.imm = instruction.near_branch_target();
            op.bytes = if kind == OpKind::NearBranch16 { 2 } else { 4 };
            Operand::Other
        }
        OpKind::FarBranch16 | OpKind::FarBranch32 => Operand::Other,
        OpKind::Immediate8_2nd => {
            op.disp = u64::from(instruction.immediate8_2nd());
            Operand::Imm
        }
        _ if instruction.try_immediate(number).is_ok() => {
            op.imm = instruction.immediate(number);
            Operand::Imm
        }
        _ => Operand::Other,
    }
}

fn memory(decoding: &mut Decoding<'_>) {
    let (instruction, op) = (decoding.instruction, &mut decoding.op);
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let relative = instruction.is_ip_rel_memory_operand();
    op.memory = true;
    op.address_bytes = match (base, index) {
        (Register::EIP, _) => 4,
        (Register::RIP, _) => 8,
        (Register::None, Register::None) => instruction.memory_displ_size().max(2) as u8,
        (Register::None, index) => index.size() as u8,
        (base, _) => base.size() as u8,
    };
    if base != Register::None && !relative {
        op.base = general(base);
    }
    if index != Register::None {
        op.index = general(index);
        op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    }
    op.disp = instruction.memory_displacement64();
    op.seg = memory_segment(decoding.mode, instruction);
    op.plain = decoding.mode == Mode::Bits64 && op.address_bytes == 8 && !matches!(op.seg, FS | GS);
    if op.base == NONE && op.index == NONE {
        op.disp &= mask(op.address_bytes);
    }
}

/// Instructions that exist to be undefined.
pub(crate) fn undefined(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    Err(cpu.raise(vector::UD))
}

/// An instruction of more than 15 bytes.
pub(crate) fn too_long(cpu: &mut Cpu, _: &mut Env<'_>, _: &Op) -> Run<Flow> {
    Err(cpu.raise_gp())
}

/// An instruction that this processor does not have, or an encoding that no processor has.
fn unknown(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Run<Flow> {
    cpu.rip = op.ip();
    system::report_unknown(cpu, env);
    Err(cpu.raise(vector::UD))
}

/// For families: the mnemonics that do nothing here.
pub(crate) fn is_hint(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Endbr32, Endbr64, Lfence, Mfence, Nop, Pause, Prefetch, Prefetchnta, Prefetcht0, Prefetcht1,
        Prefetcht2, Prefetchw, Prefetchwt1, Reservednop, Sfence,
    };
    matches!(
        mnemonic,
        Endbr32
            | Endbr64
            | Lfence
            | Mfence
            | Nop
            | Pause
            | Prefetch
            | Prefetchnta
            | Prefetcht0
            | Prefetcht1
            | Prefetcht2
            | Prefetchw
            | Prefetchwt1
            | Reservednop
            | Sfence
    )
}
