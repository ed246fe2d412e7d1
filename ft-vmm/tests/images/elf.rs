//! The smallest program that a loader takes.

/// A static ELF file of a few instructions at 0x200000, where they begin.
pub(crate) fn image_of(code: &[u8]) -> Vec<u8> {
    let mut elf = vec![0u8; 4096];
    elf[..20].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0]);
    elf[20..24].copy_from_slice(&1u32.to_le_bytes());
    elf[24..32].copy_from_slice(&0x20_0000u64.to_le_bytes());
    elf[32..40].copy_from_slice(&64u64.to_le_bytes());
    elf[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
    let len = code.len() as u64;
    let header = [1u64 | 5 << 32, 4096, 0x20_0000, 0x20_0000, len, len, 4096];
    for (n, word) in header.iter().enumerate() {
        elf[64 + 8 * n..72 + 8 * n].copy_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(code);
    elf
}
