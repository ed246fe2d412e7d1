//! The image that FXSAVE writes and FXRSTOR reads: x87 or MMX, and SSE.
//!
//! Invariant: what was saved and restored is as it was, but for the pointers to last instruction and operand, of which an image without
//! REX.W holds the low 32 bits, and bits that are always 0 or 1.

use super::control::set_control;
use super::unit::physical;
use crate::vcpu::Fpu;

/// Bytes that are written. The rest of the 512, up to the end, stays as it is.
pub(crate) const SAVED_BYTES: usize = 416;

/// Bits of MXCSR that may be set. To load another one is #GP.
pub(crate) const MXCSR_MASK: u32 = 0xffff;

const STACK: usize = 32;
const XMM: usize = 160;
const REGISTER_BYTES: usize = 16;

/// FXSAVE; with REX.W if `wide`.
pub(crate) fn save(fpu: &Fpu, wide: bool) -> [u8; SAVED_BYTES] {
    let mut image = [0; SAVED_BYTES];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &fpu.control.to_le_bytes());
    put(2, &fpu.status.to_le_bytes());
    put(4, &[fpu.tags]);
    put(6, &fpu.opcode.to_le_bytes());
    // Above the low 32 bits stand CS and DS, which are 0, without REX.W.
    let pointer_bytes = if wide { 8 } else { 4 };
    put(8, &fpu.instruction.to_le_bytes()[..pointer_bytes]);
    put(16, &fpu.operand.to_le_bytes()[..pointer_bytes]);
    put(24, &fpu.mxcsr.to_le_bytes());
    put(28, &MXCSR_MASK.to_le_bytes());
    for st in 0..8 {
        put(STACK + REGISTER_BYTES * st, &fpu.registers[physical(fpu, st as u8)]);
    }
    for (n, register) in fpu.xmm.iter().enumerate() {
        put(XMM + REGISTER_BYTES * n, &register.to_le_bytes());
    }
    image
}

/// FXRSTOR; with REX.W if `wide`. Returns false, and changes nothing, if MXCSR would be one that is [not allowed](MXCSR_MASK): #GP.
#[must_use]
pub(crate) fn restore(fpu: &mut Fpu, image: &[u8; SAVED_BYTES], wide: bool) -> bool {
    let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let long = |at: usize| u32::from(word(at + 2)) << 16 | u32::from(word(at));
    let pointer = |at: usize| {
        let high = if wide { long(at + 4) } else { 0 };
        u64::from(high) << 32 | u64::from(long(at))
    };
    let mxcsr = long(24);
    if mxcsr & !MXCSR_MASK != 0 {
        return false;
    }
    fpu.mxcsr = mxcsr;
    fpu.status = word(2);
    fpu.tags = image[4];
    fpu.opcode = word(6) & 0x7ff;
    fpu.instruction = pointer(8);
    fpu.operand = pointer(16);
    set_control(fpu, word(0));
    for st in 0..8 {
        let n = physical(fpu, st as u8);
        fpu.registers[n].copy_from_slice(&image[STACK + REGISTER_BYTES * st..][..10]);
    }
    for (n, register) in fpu.xmm.iter_mut().enumerate() {
        let mut bytes = [0; REGISTER_BYTES];
        bytes.copy_from_slice(&image[XMM + REGISTER_BYTES * n..][..REGISTER_BYTES]);
        *register = u128::from_le_bytes(bytes);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soft::xmm::native::{Image, Native, Operands};

    #[test]
    fn an_image_is_restored_and_saved_as_by_the_processor() {
        const NOP: &[u8] = &[0x90];
        let native = Native::new(NOP);
        let mut operands = Operands::new(5);
        for _ in 0..10_000 {
            let mut image = Image::new();
            image.before.iter_mut().for_each(|byte| *byte = operands.word() as u8);
            // Processors differ in when they restore the pointers.
            image.before[5..24].fill(0);
            image.set_mxcsr(operands.mxcsr());
            let mut fpu = Fpu::default();
            assert!(restore(&mut fpu, image.before.first_chunk().unwrap(), true));
            native.run(&mut image);
            // What the host has as its mask is not the guest's.
            image.after[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
            assert_eq!(save(&fpu, true)[..], image.after[..SAVED_BYTES]);
        }
    }

    #[test]
    fn pointers_are_kept_as_wide_as_the_image_has_them() {
        let fpu =
            Fpu { opcode: 0x123, instruction: 0x1234_5678_9abc, operand: 0xcba9_8765_4321, ..Fpu::default() };
        for (wide, mask) in [(true, u64::MAX), (false, u64::from(u32::MAX))] {
            let mut restored = Fpu::default();
            assert!(restore(&mut restored, &save(&fpu, wide), wide));
            let (instruction, operand) = (fpu.instruction & mask, fpu.operand & mask);
            assert_eq!(restored, Fpu { instruction, operand, ..fpu.clone() });
        }
    }

    #[test]
    fn reserved_bits_of_mxcsr_are_refused() {
        let mut fpu = Fpu::default();
        let mut image = save(&Fpu { control: 0x40, mxcsr: 0x1_1f80, ..Fpu::default() }, true);
        assert!(!restore(&mut fpu, &image, true));
        assert_eq!(fpu, Fpu::default());
        image[26] = 0;
        assert!(restore(&mut fpu, &image, true));
        assert_eq!(fpu.control, 0x40);
    }
}
