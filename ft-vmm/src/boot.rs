//! Puts a guest into memory and says in which state its processor starts.
//!
//! Invariant: memory and processor after [`load`] depend on the [`BootSource`] and the size of RAM alone, so both sides of a pair, and a
//! machine that is reset, start alike.

mod flat;
mod linux;

use crate::ram::{RAM_BYTES_MAX, Ram};
use crate::vcpu::{CpuState, Segment};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;
use vm_memory::{Bytes as _, GuestAddress};

/// Longest command line, in bytes.
pub const COMMAND_LINE_BYTES_MAX: usize = 2048;

/// How a guest expects to be started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The built-in guest's: ring 3, everything set up. See docs/guest.md.
    #[default]
    Flat,
    /// Linux's 64-bit boot protocol: a bzImage, or an uncompressed kernel as ELF.
    Linux,
}

/// What is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootSource {
    /// How it is started.
    pub protocol: Protocol,
    /// The image's bytes.
    pub image: Arc<[u8]>,
    /// Initial RAM disk, for Linux.
    pub initrd: Option<Arc<[u8]>>,
    /// Command line.
    pub command_line: String,
}

/// A guest that cannot be started: the image's or the configuration's fault.
#[derive(Debug, Error)]
pub enum BootError {
    /// Not an image of the kind that was asked for.
    #[error("the image is not {expected}: {reason}")]
    Image {
        /// What it should be.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not fit.
    #[error("{what} does not fit into {ram_bytes} bytes of RAM: give the machine more")]
    Room {
        /// What does not.
        what: &'static str,
        /// How much RAM there is.
        ram_bytes: u64,
    },
    /// Too long a command line.
    #[error("a command line of {bytes} bytes; at most {COMMAND_LINE_BYTES_MAX} can be passed on")]
    CommandLine {
        /// How long it is.
        bytes: usize,
    },
}

/// Loads `source` into `ram`, which is all zero, and says how the processor starts.
///
/// # Errors
/// [`BootError`].
pub fn load(source: &BootSource, ram: &Ram) -> Result<CpuState, BootError> {
    if source.command_line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(BootError::CommandLine { bytes: source.command_line.len() });
    }
    match source.protocol {
        Protocol::Flat => flat::load(source, ram),
        Protocol::Linux => linux::load(source, ram),
    }
}

/// Loads an ELF file's segments where their physical addresses say. Returns entry point and end.
fn load_elf(image: &[u8], ram: &Ram) -> Result<(u64, u64), BootError> {
    try_elf(image, ram).map_err(|error| {
        // The loader says the same of a file that is none and of one that does not fit: one that would fit into more RAM is one.
        let fits = Ram::new(RAM_BYTES_MAX).is_ok_and(|most| try_elf(image, &most).is_ok());
        match fits {
            true => BootError::Room { what: "the guest", ram_bytes: ram.bytes() },
            false => BootError::Image { expected: "an x86-64 ELF executable", reason: error.to_string() },
        }
    })
}

fn try_elf(image: &[u8], ram: &Ram) -> linux_loader::loader::Result<(u64, u64)> {
    use linux_loader::loader::{Elf, KernelLoader as _};
    let loaded = Elf::load(ram.memory(), None, &mut std::io::Cursor::new(image), None)?;
    Ok((loaded.kernel_load.0, loaded.kernel_end))
}

fn write(ram: &Ram, at: u64, bytes: &[u8], what: &'static str) -> Result<(), BootError> {
    let room = BootError::Room { what, ram_bytes: ram.bytes() };
    ram.memory().write_slice(bytes, GuestAddress(at)).map_err(|_| room)
}

/// A GDT entry of a flat 4 GiB segment with these type and flag bits, as in [`Segment::attributes`].
fn descriptor(attributes: u16) -> u64 {
    let attributes = u64::from(attributes);
    0xffff | 0xf << 48 | (attributes & 0xff) << 40 | (attributes >> 12) << 52
}

/// A flat segment: base 0, limit 4 GiB.
fn flat_segment(selector: u16, attributes: u16) -> Segment {
    Segment { selector, base: 0, limit: 0xffff_ffff, attributes }
}

/// Type and flags of segments: the low byte is descriptor byte 5, the high nibble of the high byte G, D/B, L and AVL.
mod attributes {
    pub(super) const KERNEL_CODE: u16 = 0xa09b;
    pub(super) const KERNEL_DATA: u16 = 0xc093;
    pub(super) const USER_CODE: u16 = 0xa0fb;
    pub(super) const USER_DATA: u16 = 0xc0f3;
    pub(super) const TSS: u16 = 0x008b;
}

/// A processor in long mode as after a reset otherwise, with paging on: everything but where it runs and with which tables.
fn long_mode(cr3: u64) -> CpuState {
    CpuState {
        ldt: Segment { attributes: Segment::UNUSABLE, ..Segment::default() },
        cr0: control::CR0,
        cr3,
        cr4: control::CR4,
        efer: control::EFER,
        pat: control::PAT,
        debug: [0, 0, 0, 0, 0xffff_0ff0, 0x400],
        ..CpuState::default()
    }
}

mod control {
    /// PE MP ET NE WP PG.
    pub(super) const CR0: u64 = 0x8001_0033;
    /// PAE OSFXSR OSXMMEXCPT.
    pub(super) const CR4: u64 = 0x620;
    /// SCE LME LMA.
    pub(super) const EFER: u64 = 0x501;
    /// The architecture's value after reset.
    pub(super) const PAT: u64 = 0x0007_0406_0007_0406;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_refused() {
        let ram = Ram::new(32 << 20).unwrap();
        for protocol in [Protocol::Flat, Protocol::Linux] {
            let source =
                BootSource { protocol, image: Arc::from(&b"#!/bin/sh"[..]), ..BootSource::default() };
            assert!(matches!(load(&source, &ram), Err(BootError::Image { .. })), "{protocol:?}");
        }
        let command_line = "x".repeat(3000);
        let long = BootSource { command_line, ..BootSource::default() };
        assert!(matches!(load(&long, &ram), Err(BootError::CommandLine { bytes: 3000 })));
    }

    #[test]
    fn descriptors_are_linuxs() {
        assert_eq!(descriptor(attributes::KERNEL_CODE), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(attributes::KERNEL_DATA), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(attributes::USER_CODE), 0x00af_fb00_0000_ffff);
        assert_eq!(descriptor(attributes::USER_DATA), 0x00cf_f300_0000_ffff);
    }
}
