//! The built-in guest's image.
//!
//! A static ELF file for the machine of docs/guest.md, built from guest/ together with this crate. Equal sources and compilers make
//! equal images, wherever they are built: hosts compare digests of them before they form a pair.

/// The image.
pub const BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.elf"));

/// Where it is linked to.
pub const ADDRESS: u64 = 0x20_0000;
