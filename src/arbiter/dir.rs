//! The arbiter that needs nothing but a directory that all hosts can write to: on NFS, or on one machine.
//!
//! A claim writes who claims into a file of its own and links that file to the term's name. Linking is atomic on local file systems and on
//! NFS, and fails when the name exists: the first claimer wins, for ever. Whoever owns a term can be read with `cat`.
//!
//! ```text
//! DIR/VM/term-000001            "host 1 incarnation 17293... at ...", linked once, never changed
//! DIR/VM/.claim-000001-AbCdEf   a claimer's own file, removed when it is answered
//! ```
//!
//! Invariants: a term's file is complete and on disk from the moment it has its name. A claimer's file is made for one claim and never
//! written to again: it may be the same file as the term's. No answer is given before the term's name is on disk.
//!
//! A claimer may die at any step. It leaves at most a file of its own behind, which nobody reads; it is removed once its term is settled.

use super::entry::Entry;
use super::{ArbiterError, OwnedTerm, TermStore, outcome};
use ft_core::arbiter::{Arbiter, ClaimOutcome};
use ft_core::units::{NodeId, Term};
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Terms of one VM in a shared directory.
#[derive(Debug)]
pub struct DirArbiter {
    dir: PathBuf,
}

impl DirArbiter {
    /// The terms of VM `vm` under `dir`, which must exist: a directory that is made where a mount is missing would be an arbiter of its
    /// own. Tries out all that a claim needs, so that a directory that cannot serve is found out now and not when a host is lost.
    ///
    /// # Errors
    /// When `dir` is no directory, or claims cannot be made in it.
    pub fn open(dir: &Path, vm: &str) -> Result<Self, ArbiterError> {
        let unusable = |source| ArbiterError::Dir { path: dir.into(), source };
        if !fs::metadata(dir).map_err(unusable)?.is_dir() {
            return Err(unusable(io::ErrorKind::NotADirectory.into()));
        }
        let own = dir.join(vm);
        match fs::create_dir(&own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make in the arbiter's directory", &own)(error));
            }
            // Whoever made it may have died before this.
            _ => sync(dir)?,
        }
        let arbiter = Self { dir: own };
        arbiter.try_out()?;
        arbiter.sweep()?;
        Ok(arbiter)
    }

    /// All that a claim does, under names that mean nothing.
    fn try_out(&self) -> Result<(), ArbiterError> {
        let file = self.write(".probe-", "left behind by a copy that died while it started\n")?;
        let link = file.path().with_extension("link");
        fs::hard_link(file.path(), &link)
            .map_err(failed("make a hard link in the arbiter's directory", &link))?;
        fs::remove_file(&link).map_err(failed("remove from the arbiter's directory", &link))?;
        sync(&self.dir)
    }

    /// Removes what claimers left behind who died. A claimer that still lives and loses its file this way is told who owns the term.
    fn sweep(&self) -> Result<(), ArbiterError> {
        let settled = self.terms()?;
        for name in self.names()? {
            let term = name.strip_prefix(".claim-").and_then(|rest| rest.split('-').next()?.parse().ok());
            if term.is_some_and(|term| settled.binary_search(&Term(term)).is_ok()) {
                // Another may have been faster; and left behind, it does no harm.
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
        Ok(())
    }

    fn try_claim(&self, term: Term, node: NodeId) -> Result<NodeId, ArbiterError> {
        let owner = match self.entry(term)? {
            Some(entry) => entry.owner,
            None => self.link(term, node)?,
        };
        // Also when another's claim is found: it may not have come this far yet.
        sync(&self.dir)?;
        Ok(owner)
    }

    /// Puts the claim under the term's name, unless there is one. The owner is whoever is found there then: over NFS a link may have been
    /// made although the answer says otherwise.
    fn link(&self, term: Term, node: NodeId) -> Result<NodeId, ArbiterError> {
        let claim = self.write(&format!(".claim-{:06}-", term.0), &Entry::now(node).to_string())?;
        let path = self.path(term);
        let linked = fs::hard_link(claim.path(), &path);
        match (self.entry(term)?, linked) {
            (Some(entry), _) => Ok(entry.owner),
            (None, Err(error)) => Err(failed("link a claim to", &path)(error)),
            (None, Ok(())) => Err(failed("find again", &path)(io::ErrorKind::NotFound.into())),
        }
    }

    /// A new file, on disk before it is returned, which is removed when it is dropped.
    fn write(&self, prefix: &str, text: &str) -> Result<NamedTempFile, ArbiterError> {
        let make = || {
            let readable = Permissions::from_mode(0o644);
            let mut file =
                tempfile::Builder::new().prefix(prefix).permissions(readable).tempfile_in(&self.dir)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        make().map_err(failed("write a claim in", &self.dir))
    }

    fn entry(&self, term: Term) -> Result<Option<Entry>, ArbiterError> {
        let path = self.path(term);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(failed("read", &path))?,
        };
        let entry = str::from_utf8(&text).ok().and_then(Entry::parse);
        let damaged = || ArbiterError::Damaged { place: path.display().to_string(), term };
        entry.map(Some).ok_or_else(damaged)
    }

    fn owned(&self, term: Term) -> Result<OwnedTerm, ArbiterError> {
        let gone = || failed("read", &self.path(term))(io::ErrorKind::NotFound.into());
        let Entry { owner, remark } = self.entry(term)?.ok_or_else(gone)?;
        Ok(OwnedTerm { term, owner, remark })
    }

    /// The terms that are owned, in order.
    fn terms(&self) -> Result<Vec<Term>, ArbiterError> {
        let number = |name: &String| name.strip_prefix("term-")?.parse().ok().map(Term);
        let mut terms: Vec<Term> = self.names()?.iter().filter_map(number).collect();
        // A copy of a term's file under a name that only looks like one, `term-1`, is none.
        terms.retain(|term| self.path(*term).is_file());
        terms.sort_unstable();
        terms.dedup();
        Ok(terms)
    }

    fn names(&self) -> Result<Vec<String>, ArbiterError> {
        let entries = fs::read_dir(&self.dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(failed("list", &self.dir))?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn path(&self, term: Term) -> PathBuf {
        self.dir.join(format!("term-{:06}", term.0))
    }
}

impl Arbiter for DirArbiter {
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome {
        outcome(self.try_claim(term, node), node, term, &self.dir.display())
    }
}

impl TermStore for DirArbiter {
    fn last(&mut self) -> Result<Option<OwnedTerm>, ArbiterError> {
        self.terms()?.last().map(|term| self.owned(*term)).transpose()
    }

    fn history(&mut self) -> Result<Vec<OwnedTerm>, ArbiterError> {
        self.terms()?.into_iter().map(|term| self.owned(term)).collect()
    }
}

/// Puts a directory's names on disk.
fn sync(dir: &Path) -> Result<(), ArbiterError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("put on disk", dir))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArbiterError {
    move |source| ArbiterError::File { doing, path: path.into(), source }
}
