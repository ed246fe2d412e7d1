//! State as named, versioned, checked sections: what snapshots and state transfers are made of.
//!
//! ```text
//! magic     8 bytes "\x89FTSNAP\n"
//! version   u32, of this layout
//! sections  name (u8 length, ASCII), version u32, length u64, XXH3-64 of the content, content
//! end       a section with an empty name, whose check is the XXH3-64 of all checks before it
//! ```
//!
//! Invariant: nothing is taken from a section before its check has been found right, and no length is trusted beyond what is there.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use twox_hash::XxHash3_64;

const MAGIC: &[u8; 8] = b"\x89FTSNAP\n";

/// Version of the layout.
pub const LAYOUT_VERSION: u32 = 1;

/// Bytes of a section before its content, without the name.
const HEAD_BYTES: usize = 1 + 4 + 8 + 8;

/// State that cannot be taken: the file's or the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SectionError {
    /// Something else altogether.
    #[error("not a snapshot: it does not begin as one")]
    Magic,
    /// Written by a build whose layout this one does not know.
    #[error("layout version {found}; this build reads {LAYOUT_VERSION}: use the build that wrote it")]
    Layout {
        /// What it says.
        found: u32,
    },
    /// It ends too early.
    #[error("cut off at byte {offset}: copy it again from where it came")]
    Truncated {
        /// Where something is missing.
        offset: usize,
    },
    /// A section does not match its check.
    #[error("section {name} is damaged (it begins at byte {offset}): copy it again from where it came")]
    Damaged {
        /// Which.
        name: String,
        /// Where its content begins.
        offset: usize,
    },
    /// A section of another version.
    #[error("section {name} has version {found}; this build reads {expected}: use the build that wrote it")]
    Version {
        /// Which.
        name: String,
        /// What it says.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// A section that must be there is not.
    #[error("section {name} is missing")]
    Missing {
        /// Which.
        name: String,
    },
    /// A section's content is not what its version promises.
    #[error("section {name} does not decode: {reason}")]
    Content {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// There is something after the end.
    #[error("{bytes} bytes after the end")]
    Excess {
        /// How many.
        bytes: usize,
    },
}

/// Writes sections, one after the other.
pub struct SectionWriter {
    bytes: Vec<u8>,
    checks: Vec<u8>,
}

impl SectionWriter {
    /// Begins.
    pub fn new() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
        Self { bytes, checks: Vec::new() }
    }

    /// Appends a section of plain data.
    ///
    /// # Panics
    /// When `state` is no plain data: every state type of this crate is.
    pub fn state(&mut self, name: &str, version: u32, state: &impl Serialize) -> &mut Self {
        let content = postcard::to_allocvec(state).expect("plain data is always encoded");
        self.raw(name, version, &content)
    }

    /// Appends a section of bytes.
    pub fn raw(&mut self, name: &str, version: u32, content: &[u8]) -> &mut Self {
        assert!((1..256).contains(&name.len()), "a section has a short name");
        let check = XxHash3_64::oneshot(content).to_le_bytes();
        self.checks.extend_from_slice(&check);
        self.head(name, version, content.len(), check);
        self.bytes.extend_from_slice(content);
        self
    }

    /// Ends, and returns all of it.
    pub fn finish(mut self) -> Vec<u8> {
        let check = XxHash3_64::oneshot(&self.checks).to_le_bytes();
        self.head("", 0, 0, check);
        self.bytes
    }

    fn head(&mut self, name: &str, version: u32, len: usize, check: [u8; 8]) {
        self.bytes.push(name.len() as u8);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(&version.to_le_bytes());
        self.bytes.extend_from_slice(&(len as u64).to_le_bytes());
        self.bytes.extend_from_slice(&check);
    }
}

impl Default for SectionWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// Sections that have been found whole.
#[derive(Debug)]
pub struct Sections<'a> {
    sections: Vec<Section<'a>>,
}

#[derive(Debug)]
struct Section<'a> {
    name: String,
    version: u32,
    content: &'a [u8],
}

impl<'a> Sections<'a> {
    /// Checks everything.
    ///
    /// # Errors
    /// [`SectionError`] at the first thing that is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SectionError> {
        let mut cursor = Cursor { bytes, offset: 0 };
        if cursor.take(MAGIC.len()).map_err(|_| SectionError::Magic)? != MAGIC {
            return Err(SectionError::Magic);
        }
        let found = u32::from_le_bytes(cursor.array()?);
        if found != LAYOUT_VERSION {
            return Err(SectionError::Layout { found });
        }
        let (mut sections, mut checks) = (Vec::new(), Vec::new());
        loop {
            let section_at = cursor.offset;
            let [name_len] = cursor.array()?;
            let name = String::from_utf8_lossy(cursor.take(usize::from(name_len))?).into_owned();
            let version = u32::from_le_bytes(cursor.array()?);
            let len = u64::from_le_bytes(cursor.array()?);
            let check: [u8; 8] = cursor.array()?;
            let damaged = |offset| SectionError::Damaged { name: name.clone(), offset };
            if name_len == 0 {
                if XxHash3_64::oneshot(&checks).to_le_bytes() != check || len != 0 || version != 0 {
                    return Err(SectionError::Damaged { name: "end".into(), offset: section_at });
                }
                let excess = bytes.len() - cursor.offset;
                return if excess == 0 {
                    Ok(Self { sections })
                } else {
                    Err(SectionError::Excess { bytes: excess })
                };
            }
            let offset = cursor.offset;
            let len = usize::try_from(len).map_err(|_| damaged(offset))?;
            let content = cursor.take(len)?;
            if XxHash3_64::oneshot(content).to_le_bytes() != check {
                return Err(damaged(offset));
            }
            checks.extend_from_slice(&check);
            sections.push(Section { name, version, content });
        }
    }

    /// The plain data of a section.
    ///
    /// # Errors
    /// When it is missing, of another version, or does not decode.
    pub fn state<T: DeserializeOwned>(&self, name: &str, version: u32) -> Result<T, SectionError> {
        let content = self.raw(name, version)?;
        let wrong = |reason: String| SectionError::Content { name: name.to_owned(), reason };
        match postcard::take_from_bytes(content) {
            Ok((state, [])) => Ok(state),
            Ok((_, rest)) => Err(wrong(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// The bytes of a section.
    ///
    /// # Errors
    /// When it is missing or of another version.
    pub fn raw(&self, name: &str, expected: u32) -> Result<&'a [u8], SectionError> {
        let section = self.sections.iter().find(|section| section.name == name);
        let section = section.ok_or_else(|| SectionError::Missing { name: name.to_owned() })?;
        if section.version != expected {
            let (name, found) = (name.to_owned(), section.version);
            return Err(SectionError::Version { name, found, expected });
        }
        Ok(section.content)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], SectionError> {
        let end = self.offset.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(SectionError::Truncated { offset: self.bytes.len() })?;
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SectionError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take returns as many bytes as it was asked for"))
    }
}

// A section's head is as long as the constant says: what a reader of the layout above counts on.
const _: () = assert!(HEAD_BYTES == 21);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut writer = SectionWriter::new();
        writer.state("cpu", 3, &(7u64, vec![1u8, 2, 3])).raw("ram", 1, &[9; 5000]);
        writer.finish()
    }

    #[test]
    fn sections_come_back() {
        let bytes = sample();
        let sections = Sections::parse(&bytes).unwrap();
        assert_eq!(sections.state::<(u64, Vec<u8>)>("cpu", 3), Ok((7, vec![1, 2, 3])));
        assert_eq!(sections.raw("ram", 1), Ok(&[9; 5000][..]));
        let version = SectionError::Version { name: "cpu".into(), found: 3, expected: 4 };
        assert_eq!(sections.state::<(u64, Vec<u8>)>("cpu", 4), Err(version));
        assert_eq!(sections.raw("disk", 1), Err(SectionError::Missing { name: "disk".into() }));
        assert!(matches!(sections.state::<u8>("cpu", 3), Err(SectionError::Content { .. })));
    }

    #[test]
    fn another_layout_and_other_files_are_named() {
        let mut bytes = sample();
        assert_eq!(Sections::parse(b"\x7fELF and so on").unwrap_err(), SectionError::Magic);
        bytes[8] = 9;
        assert_eq!(Sections::parse(&bytes).unwrap_err(), SectionError::Layout { found: 9 });
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_is_refused(at: proptest::sample::Index) {
            let bytes = sample();
            prop_assert!(Sections::parse(&bytes[..at.index(bytes.len())]).is_err());
        }

        /// A changed name makes its section missing; everything else is found by a check.
        #[test]
        fn a_changed_byte_anywhere_is_refused(at: proptest::sample::Index, flip in 1u8..) {
            let mut bytes = sample();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let taken = Sections::parse(&bytes).and_then(|sections| {
                sections.raw("ram", 1)?;
                sections.state::<(u64, Vec<u8>)>("cpu", 3)
            });
            prop_assert!(taken.is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&MAGIC[..], &1u32.to_le_bytes(), &tail].concat();
            let _ = Sections::parse(&bytes);
        }
    }
}
