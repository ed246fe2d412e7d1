//! A guest that crashes at once.

#[path = "elf.rs"]
mod elf;

pub(crate) use elf::image_of;

/// A static ELF file whose only instruction is UD2.
pub(crate) fn image() -> Vec<u8> {
    image_of(&[0x0f, 0x0b])
}
