//! What this program says it is: which build, and which machine it makes.
//!
//! Both are in a record in the program itself, so that whoever ships builds of their own can stamp them (`ft stamp`) without compiling
//! anything, and a program keeps its stamp wherever it is copied. Empty fields stand for this source's own names.

use ft_vmm::machine::MACHINE_VERSION;
use std::hint::black_box;
use thiserror::Error;

/// What the record begins with; no other place of the program has these bytes.
const MAGIC: [u8; 16] = *b"\x7fft-stamp\r\n\x1a\x00\xf1\xc7\x9e";

/// Longest name, in bytes.
pub const NAME_MAX: usize = 56;

#[derive(Clone, Copy)]
#[repr(C)]
struct Record {
    magic: [u8; MAGIC.len()],
    build: [u8; NAME_MAX],
    machine: [u8; NAME_MAX],
}

#[used]
static RECORD: Record = Record { magic: MAGIC, build: [0; NAME_MAX], machine: [0; NAME_MAX] };

/// Which build this is, for people. Copies of a VM may be of different builds.
pub fn build() -> &'static str {
    // What is in the program's file counts, not what the compiler knows of the record.
    stamped(&black_box(&RECORD).build).unwrap_or(env!("CARGO_PKG_VERSION"))
}

/// Which machine it makes: copies of a VM must be of the same (R10).
pub fn machine() -> String {
    let own = format!("ft-{MACHINE_VERSION}");
    stamped(&black_box(&RECORD).machine).map_or(own.clone(), |vendor| format!("{own}+{vendor}"))
}

fn stamped(name: &[u8]) -> Option<&str> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    std::str::from_utf8(&name[..end]).ok().filter(|name| !name.is_empty())
}

/// Why a program cannot be stamped.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StampError {
    /// The name would not be read back, or break what prints it.
    #[error("a name has 1 to {NAME_MAX} characters, out of letters, digits, and . - _ +")]
    Name,
    /// There is no record in it, or more than one.
    #[error("that is no ft program: it has {0} places for a stamp instead of one")]
    Places(usize),
}

/// Stamps a program, given as the bytes of its file. What is `None` stays as it is.
///
/// # Errors
/// [`StampError`]; nothing was changed.
pub fn stamp(program: &mut [u8], build: Option<&str>, machine: Option<&str>) -> Result<(), StampError> {
    for name in build.iter().chain(&machine) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(is_plain) {
            return Err(StampError::Name);
        }
    }
    // The bytes are taken from the record, so that the program holds them once.
    let magic = black_box(&RECORD).magic;
    let places: Vec<usize> = memchr::memmem::find_iter(program, &magic).collect();
    let [place] = places[..] else { return Err(StampError::Places(places.len())) };
    let fields = place + MAGIC.len()..place + size_of::<Record>();
    let record = program.get_mut(fields).ok_or(StampError::Places(0))?;
    let (build_field, machine_field) = record.split_at_mut(NAME_MAX);
    for (field, name) in [(build_field, build), (machine_field, machine)] {
        if let Some(name) = name {
            field.fill(0);
            field[..name.len()].copy_from_slice(name.as_bytes());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unstamped_program_has_this_sources_names() {
        assert_eq!(build(), env!("CARGO_PKG_VERSION"));
        assert_eq!(machine(), format!("ft-{MACHINE_VERSION}"));
    }

    #[test]
    fn what_cannot_be_stamped_is_refused_and_left_alone() {
        let mut foreign = b"no program".to_vec();
        assert_eq!(stamp(&mut foreign, Some("1"), None), Err(StampError::Places(0)));
        let mut twice = [&MAGIC[..], &[0; 112], &MAGIC[..], &[0; 112]].concat();
        assert_eq!(stamp(&mut twice, Some("1"), None), Err(StampError::Places(2)));
        let mut cut = [&MAGIC[..], &[0; 111]].concat();
        assert_eq!(stamp(&mut cut, Some("1"), None), Err(StampError::Places(0)));
        let mut program = [&MAGIC[..], &[0; 112]].concat();
        let before = program.clone();
        for name in ["", "two words", "ä", &"x".repeat(NAME_MAX + 1)] {
            assert_eq!(stamp(&mut program, None, Some(name)), Err(StampError::Name), "{name}");
        }
        assert_eq!(program, before);
    }
}
