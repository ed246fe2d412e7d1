//! An instruction of a given code with random operands.

use super::dice::Dice;
use super::layout::{FS_BASE, GS_BASE, IMAGE_END};
use super::values;
use iced_x86::{Code, Instruction, OpCodeOperandKind as Kind, OpKind, Register};

/// What operands are chosen for: the registers before the sequence, and which of them it should leave alone.
pub(crate) struct Scene<'a> {
    /// General registers.
    pub(crate) gpr: &'a [u64; 16],
    /// Registers that are seldom written, so that they still point into memory further on.
    pub(crate) pinned: &'a [usize],
}

const HIGH_BYTES: [Register; 4] = [Register::AH, Register::CH, Register::DH, Register::BH];

const SEGMENTS: [Register; 6] =
    [Register::ES, Register::CS, Register::SS, Register::DS, Register::FS, Register::GS];

/// The instruction, or nothing when this code has an operand that is not tried.
pub(crate) fn instruction(dice: &mut Dice, code: Code, scene: &Scene<'_>) -> Option<Instruction> {
    let mut made = Instruction::default();
    made.set_code(code);
    let info = code.op_code();
    for (n, kind) in info.op_kinds().iter().enumerate() {
        operand(dice, &mut made, n as u32, *kind, scene)?;
    }
    let writes_memory = info.op_count() > 0 && made.op0_kind() == OpKind::Memory;
    if info.can_use_lock_prefix() && dice.chance(if writes_memory { 25 } else { 1 }) {
        made.set_has_lock_prefix(true);
    }
    if info.can_use_rep_prefix() && dice.chance(60) {
        made.set_has_rep_prefix(true);
    } else if info.can_use_repne_prefix() && dice.chance(50) {
        made.set_has_repne_prefix(true);
    }
    Some(made)
}

fn operand(dice: &mut Dice, made: &mut Instruction, n: u32, kind: Kind, scene: &Scene<'_>) -> Option<()> {
    let first = n == 0;
    match kind {
        Kind::r8_or_mem
        | Kind::r16_or_mem
        | Kind::r32_or_mem
        | Kind::r64_or_mem
        | Kind::xmm_or_mem
        | Kind::mm_or_mem
            if dice.chance(50) =>
        {
            memory(dice, made, n, scene);
        }
        Kind::mem => memory(dice, made, n, scene),
        Kind::mem_offs => offset(dice, made, n),
        Kind::r8_or_mem | Kind::r8_reg | Kind::r8_opcode => {
            let register = if dice.chance(20) {
                *dice.pick(&HIGH_BYTES)
            } else {
                Register::AL + byte_index(general(dice, scene, first))
            };
            set_register(made, n, register);
        }
        Kind::r16_or_mem | Kind::r16_reg | Kind::r16_rm | Kind::r16_opcode | Kind::r16_reg_mem => {
            set_register(made, n, Register::AX + general(dice, scene, first));
        }
        Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm | Kind::r32_opcode | Kind::r32_reg_mem => {
            set_register(made, n, Register::EAX + general(dice, scene, first));
        }
        Kind::r64_or_mem | Kind::r64_reg | Kind::r64_rm | Kind::r64_opcode | Kind::r64_reg_mem => {
            set_register(made, n, Register::RAX + general(dice, scene, first));
        }
        Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => {
            set_register(made, n, Register::XMM0 + dice.below(16) as u32);
        }
        Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => {
            set_register(made, n, Register::MM0 + dice.below(8) as u32);
        }
        Kind::sti_opcode => set_register(made, n, Register::ST0 + dice.below(8) as u32),
        Kind::seg_reg => set_register(made, n, *dice.pick(&SEGMENTS)),
        Kind::cr_reg => set_register(made, n, *dice.pick(&[Register::CR0, Register::CR2, Register::CR3])),
        Kind::dr_reg => set_register(made, n, Register::DR0 + dice.below(4) as u32),
        Kind::br64_1 | Kind::br64_4 => {
            // To itself; whoever lays out the sequence knows where to.
            made.set_op_kind(n, OpKind::NearBranch64);
        }
        _ => {
            return fixed(made, n, kind)
                .or_else(|| implied(dice, made, n, kind))
                .or_else(|| immediate(dice, made, n, kind));
        }
    }
    Some(())
}

fn set_register(made: &mut Instruction, n: u32, register: Register) {
    made.set_op_kind(n, OpKind::Register);
    made.set_op_register(n, register);
}

/// AL CL DL BL, then AH CH DH BH in iced's order, which are not what is meant here, then SPL and so on.
fn byte_index(general: u32) -> u32 {
    if general < 4 { general } else { general + 4 }
}

/// The index of a general register. A destination is seldom a pinned one.
fn general(dice: &mut Dice, scene: &Scene<'_>, destination: bool) -> u32 {
    loop {
        let index = dice.below(16) as usize;
        let keep = destination && (index == 4 || scene.pinned.contains(&index));
        if !keep || dice.chance(8) {
            return index as u32;
        }
    }
}

/// Operands that the code itself names.
fn fixed(made: &mut Instruction, n: u32, kind: Kind) -> Option<()> {
    let register = match kind {
        Kind::es => Register::ES,
        Kind::cs => Register::CS,
        Kind::ss => Register::SS,
        Kind::ds => Register::DS,
        Kind::fs => Register::FS,
        Kind::gs => Register::GS,
        Kind::al => Register::AL,
        Kind::cl => Register::CL,
        Kind::ax => Register::AX,
        Kind::dx => Register::DX,
        Kind::eax => Register::EAX,
        Kind::rax => Register::RAX,
        Kind::st0 => Register::ST0,
        _ => return None,
    };
    set_register(made, n, register);
    Some(())
}

/// Memory at RSI, RDI or RBX + AL.
fn implied(dice: &mut Dice, made: &mut Instruction, n: u32, kind: Kind) -> Option<()> {
    // Both operands of a string instruction have the same address size.
    let earlier = n > 0 && matches!(made.op_kind(0), OpKind::MemorySegESI | OpKind::MemoryESEDI);
    let short = earlier || !(n > 0 && made.op_kind(0) != OpKind::Register) && dice.chance(12);
    let prefix = dice.chance(10).then(|| *dice.pick(&SEGMENTS));
    match kind {
        Kind::seg_rSI => {
            made.set_op_kind(n, if short { OpKind::MemorySegESI } else { OpKind::MemorySegRSI });
            made.set_segment_prefix(prefix.unwrap_or(Register::None));
        }
        Kind::seg_rDI => made.set_op_kind(n, if short { OpKind::MemorySegEDI } else { OpKind::MemorySegRDI }),
        Kind::es_rDI => made.set_op_kind(n, if short { OpKind::MemoryESEDI } else { OpKind::MemoryESRDI }),
        Kind::seg_rBX_al => {
            made.set_op_kind(n, OpKind::Memory);
            made.set_memory_base(if short { Register::EBX } else { Register::RBX });
            made.set_memory_index(Register::AL);
            made.set_segment_prefix(prefix.unwrap_or(Register::None));
        }
        _ => return None,
    }
    Some(())
}

fn immediate(dice: &mut Dice, made: &mut Instruction, n: u32, kind: Kind) -> Option<()> {
    let value = if dice.chance(50) { dice.below(70) } else { values::word(dice) };
    match kind {
        Kind::imm8 if n == 1 && made.op0_kind() == OpKind::Immediate16 => {
            // ENTER's nesting level.
            made.set_op_kind(n, OpKind::Immediate8_2nd);
            made.set_immediate8_2nd(if dice.chance(70) { 0 } else { value as u8 });
        }
        Kind::imm8 => {
            made.set_op_kind(n, OpKind::Immediate8);
            made.set_immediate8(value as u8);
        }
        Kind::imm8_const_1 => {
            made.set_op_kind(n, OpKind::Immediate8);
            made.set_immediate8(1);
        }
        Kind::imm8sex16 => {
            made.set_op_kind(n, OpKind::Immediate8to16);
            made.set_immediate8to16(value as i8 as i16);
        }
        Kind::imm8sex32 => {
            made.set_op_kind(n, OpKind::Immediate8to32);
            made.set_immediate8to32(value as i8 as i32);
        }
        Kind::imm8sex64 => {
            made.set_op_kind(n, OpKind::Immediate8to64);
            made.set_immediate8to64(value as i8 as i64);
        }
        Kind::imm16 => {
            made.set_op_kind(n, OpKind::Immediate16);
            made.set_immediate16(value as u16);
        }
        Kind::imm32 => {
            made.set_op_kind(n, OpKind::Immediate32);
            made.set_immediate32(value as u32);
        }
        Kind::imm32sex64 => {
            made.set_op_kind(n, OpKind::Immediate32to64);
            made.set_immediate32to64(value as i32 as i64);
        }
        Kind::imm64 => {
            made.set_op_kind(n, OpKind::Immediate64);
            made.set_immediate64(value);
        }
        _ => return None,
    }
    Some(())
}

/// The address that an access should have: mostly in the writable pages.
fn target(dice: &mut Dice) -> u64 {
    match dice.weighted(&[80, 9, 7]) {
        0 => values::writable(dice),
        1 => values::page_end(dice),
        _ => values::faulting(dice),
    }
}

/// MOV with an absolute address.
fn offset(dice: &mut Dice, made: &mut Instruction, n: u32) {
    made.set_op_kind(n, OpKind::Memory);
    made.set_memory_displ_size(if dice.chance(12) { 4 } else { 8 });
    made.set_memory_displacement64(target(dice) & 0xffff_ffff);
}

/// A memory operand in any form, whose displacement makes up the address that is meant, as far as it can.
fn memory(dice: &mut Dice, made: &mut Instruction, n: u32, scene: &Scene<'_>) {
    made.set_op_kind(n, OpKind::Memory);
    let mut address = target(dice);
    if made.memory_size().size() == 16 && dice.chance(92) {
        // Most accesses of 16 bytes must be aligned.
        address &= !15;
    }
    if dice.chance(8) {
        let segment = *dice.pick(&SEGMENTS);
        made.set_segment_prefix(segment);
        match segment {
            Register::FS => address = address.wrapping_sub(FS_BASE),
            Register::GS => address = address.wrapping_sub(GS_BASE),
            _ => {}
        }
    }
    let short = dice.chance(10);
    if dice.chance(12) && address < IMAGE_END {
        made.set_memory_base(if short { Register::EIP } else { Register::RIP });
        made.set_memory_displ_size(if short { 4 } else { 8 });
        made.set_memory_displacement64(address);
        return;
    }
    let (with_base, with_index) =
        *dice.pick(&[(true, false), (true, false), (true, true), (false, true), (false, false)]);
    let mut sum = 0u64;
    let family = if short { Register::EAX } else { Register::RAX };
    if with_base {
        let index = if dice.chance(70) { *dice.pick(scene.pinned) } else { dice.below(16) as usize };
        made.set_memory_base(family + index as u32);
        sum = scene.gpr[index];
    }
    if with_index {
        let index = *dice.pick(&[0usize, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        let scale = 1 << dice.below(4);
        made.set_memory_index(family + index as u32);
        made.set_memory_index_scale(scale);
        sum = sum.wrapping_add(scene.gpr[index].wrapping_mul(u64::from(scale)));
    }
    displacement(dice, made, address.wrapping_sub(sum), short, with_base);
}

fn displacement(dice: &mut Dice, made: &mut Instruction, wanted: u64, short: bool, with_base: bool) {
    let wide = if short { 4 } else { 8 };
    let value = if short || i32::try_from(wanted as i64).is_ok() {
        wanted as i32
    } else if dice.chance(50) {
        0
    } else {
        dice.within(-0x100, 0x100) as i32
    };
    let size = match value {
        0 if with_base => 0,
        -128..=127 if with_base && dice.chance(80) => 1,
        _ => wide,
    };
    made.set_memory_displ_size(size);
    let value = if short { u64::from(value as u32) } else { value as u64 };
    made.set_memory_displacement64(value);
}
