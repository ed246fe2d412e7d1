//! The files of a copy of a disk: `PATH`, which is whole; `PATH.partial`, while it is being filled; and `PATH.term`, the last term in which
//! `PATH` was in step, and whose it was.
//!
//! Invariant: there is no `PATH` that is not whole, and no `PATH.term` that names a later term than `PATH` was in step in, or a life that
//! did not go on from it.

use crate::arbiter::OwnedTerm;
use ft_core::units::{HostId, Term};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Where a copy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFiles(PathBuf);

/// What is known of a copy: the text of `PATH.term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The last term in which it was in step; `Term(0)`: of none yet.
    pub term: Term,
    /// The incarnation that had it. If that owns a later term, it died before it could write so: there is no newer copy.
    pub life: u64,
}

impl Stamp {
    fn parse(text: &str) -> Option<Self> {
        let (term, life) = text.trim().split_once(' ')?;
        Some(Self { term: Term(term.parse().ok()?), life: u64::from_str_radix(life, 16).ok()? })
    }

    fn is_of(self, last: &OwnedTerm) -> bool {
        self.term >= last.term || self.life == last.owner.incarnation
    }
}

/// Why a VM is not started from the copy on this host.
#[derive(Debug, Error)]
pub enum CopyError {
    /// It was being filled when its host or its primary failed.
    #[error(
        "the disk {} is half a copy: {} was being filled when that ended; start the VM on a host whose copy is whole, or remove this \
         file to begin with an empty disk", .path.display(), .partial.display()
    )]
    Partial {
        /// The disk.
        path: PathBuf,
        /// What there is of it.
        partial: PathBuf,
    },
    /// There is none.
    #[error(
        "this host has no copy of the disk {}: {owner} owned the last {term}; start the VM there, or begin with an empty disk \
         (--again)", .path.display()
    )]
    Missing {
        /// The disk.
        path: PathBuf,
        /// The last term.
        term: Term,
        /// Its owner.
        owner: HostId,
    },
    /// Another host's is newer.
    #[error(
        "the disk {} is out of date: it was last in step in {}, and {owner} owned the last {term}; start the VM there, or go on from \
         this copy and lose what was written since (--again)", .path.display(),
        .stamp.map_or_else(|| "no known term".to_owned(), |stamp| stamp.term.to_string())
    )]
    Stale {
        /// The disk.
        path: PathBuf,
        /// When it was in step.
        stamp: Option<Stamp>,
        /// The last term.
        term: Term,
        /// Its owner.
        owner: HostId,
    },
    /// It cannot be looked at.
    #[error("cannot read {}", .path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl CopyFiles {
    /// The copy at this path.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// The whole copy.
    pub fn disk(&self) -> &Path {
        &self.0
    }

    /// The copy while it is being filled.
    pub fn partial(&self) -> PathBuf {
        self.beside(".partial")
    }

    fn term(&self) -> PathBuf {
        self.beside(".term")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(suffix);
        path.into()
    }

    /// When the copy was in step; `None` where nobody knows.
    ///
    /// # Errors
    /// [`CopyError::Read`].
    pub fn stamp(&self) -> Result<Option<Stamp>, CopyError> {
        let path = self.term();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Stamp::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CopyError::Read { path, source }),
        }
    }

    /// Writes down when the copy is in step.
    ///
    /// # Errors
    /// The operating system's.
    pub fn write_stamp(&self, stamp: Stamp) -> io::Result<()> {
        let new = self.beside(".term.new");
        let mut file = File::create(&new)?;
        writeln!(file, "{} {:x}", stamp.term.0, stamp.life)?;
        file.sync_all()?;
        fs::rename(&new, self.term())?;
        self.sync_dir()
    }

    /// Whether a VM whose last term is `last` may be started from this copy, or from nothing where there is none. With `again` an old
    /// copy or none will do; half a copy never does.
    ///
    /// # Errors
    /// [`CopyError`], which says where the newest copy is.
    pub fn admit(&self, last: Option<&OwnedTerm>, again: bool) -> Result<(), CopyError> {
        let (path, partial) = (self.0.clone(), self.partial());
        let exists =
            |path: &Path| path.try_exists().map_err(|source| CopyError::Read { path: path.into(), source });
        let whole = exists(&path)?;
        if !whole && exists(&partial)? {
            return Err(CopyError::Partial { path, partial });
        }
        let Some(last) = last.filter(|_| !again) else { return Ok(()) };
        let (term, owner) = (last.term, last.owner.host);
        match self.stamp()? {
            _ if !whole => Err(CopyError::Missing { path, term, owner }),
            Some(stamp) if stamp.is_of(last) => Ok(()),
            stamp => Err(CopyError::Stale { path, stamp, term, owner }),
        }
    }

    /// Begins a new copy, all zero. What there was is never trusted, and gone from here on.
    pub(super) fn begin(&self, bytes: u64) -> io::Result<File> {
        for old in [self.term(), self.0.clone(), self.partial()] {
            match fs::remove_file(old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let file = File::options().read(true).write(true).create_new(true).open(self.partial())?;
        file.set_len(bytes)?;
        Ok(file)
    }

    /// The copy is whole from here on, and `life` has it.
    pub(super) fn complete(&self, file: &File, life: u64) -> io::Result<()> {
        file.sync_all()?;
        self.write_stamp(Stamp { term: Term(0), life })?;
        fs::rename(self.partial(), &self.0)?;
        self.sync_dir()
    }

    /// The copy is not whole after all.
    pub(super) fn reopen(&self) -> io::Result<()> {
        fs::remove_file(self.term())?;
        fs::rename(&self.0, self.partial())?;
        self.sync_dir()
    }

    /// Makes what was renamed last through a loss of power.
    fn sync_dir(&self) -> io::Result<()> {
        let dir = self.0.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ft_core::units::NodeId;

    fn owned(term: u64, host: u64) -> OwnedTerm {
        let owner = NodeId { host: HostId(host), incarnation: 1 };
        OwnedTerm { term: Term(term), owner, remark: String::new() }
    }

    #[test]
    fn only_a_whole_copy_of_the_last_term_is_begun_with() {
        let dir = tempfile::tempdir().unwrap();
        let files = CopyFiles::new(&dir.path().join("disk.img"));
        let refusal = |last: Option<&OwnedTerm>, again| files.admit(last, again).unwrap_err().to_string();
        let last = owned(7, 2);
        files.admit(None, false).unwrap();
        assert!(refusal(Some(&last), false).contains("no copy of the disk"));
        files.admit(Some(&last), true).unwrap();

        let file = files.begin(1 << 20).unwrap();
        for (last, again) in [(None, false), (None, true), (Some(&last), true)] {
            assert!(refusal(last, again).contains("half a copy"));
        }
        files.complete(&file, 9).unwrap();
        files.reopen().unwrap();
        assert!(refusal(None, true).contains("half a copy"));
        files.complete(&file, 9).unwrap();
        assert_eq!(files.disk().metadata().unwrap().len(), 1 << 20);
        assert!(!files.partial().exists());
        assert!(refusal(Some(&last), false).contains("in step in term 0"));
        files.write_stamp(Stamp { term: Term(6), life: 9 }).unwrap();
        let text = refusal(Some(&last), false);
        assert!(text.contains("host 2") && text.contains("term 7") && text.contains("term 6"), "{text}");
        files.admit(Some(&last), true).unwrap();
        files.write_stamp(Stamp { term: Term(7), life: 9 }).unwrap();
        files.admit(Some(&last), false).unwrap();
        // Whoever owns the last term was killed before it wrote so.
        files.write_stamp(Stamp { term: Term(6), life: last.owner.incarnation }).unwrap();
        files.admit(Some(&last), false).unwrap();
        fs::write(files.term(), "a disk").unwrap();
        assert!(refusal(Some(&last), false).contains("no known term"));
    }

    /// What an earlier life left is not what the primary has now.
    #[test]
    fn a_copy_that_is_begun_again_has_nothing_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let files = CopyFiles::new(&dir.path().join("disk.img"));
        fs::write(files.disk(), [7; 4096]).unwrap();
        fs::write(files.partial(), [8; 9000]).unwrap();
        files.write_stamp(Stamp { term: Term(3), life: 9 }).unwrap();
        let file = files.begin(8192).unwrap();
        assert!(!files.disk().exists());
        assert_eq!(files.stamp().unwrap(), None);
        files.complete(&file, 9).unwrap();
        assert_eq!(fs::read(files.disk()).unwrap(), [0; 8192]);
    }
}
