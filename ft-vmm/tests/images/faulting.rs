//! A guest that crashes at once.

/// A static ELF file whose only instruction is UD2.
pub(crate) fn image() -> Vec<u8> {
    let mut elf = vec![0u8; 4096 + 16];
    elf[..20].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0]);
    elf[20..24].copy_from_slice(&1u32.to_le_bytes());
    elf[24..32].copy_from_slice(&0x20_0000u64.to_le_bytes());
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
    let header = [1u64 | 5 << 32, 4096, 0x20_0000, 0x20_0000, 16, 16, 4096];
    for (n, word) in header.iter().enumerate() {
        elf[64 + 8 * n..72 + 8 * n].copy_from_slice(&word.to_le_bytes());
    }
    elf[4096..4098].copy_from_slice(&[0x0f, 0x0b]);
    elf
}
