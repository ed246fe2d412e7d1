//! The arbiter that needs nothing but a directory that all hosts can write to: on NFS, or on one machine.
//!
//! A claim writes who claims into a file of its own and links that file to the term's name. Linking is atomic on local file systems and on
//! NFS, and fails when the name exists: the first claimer wins, for ever. Whoever owns a term can be read with `cat`.
//!
//! ```text
//! DIR/VM/term-000001     "host 1 incarnation 17293..."   linked once, never changed
//! DIR/VM/.claim-1-17293  the claimer's own file, removed when it is answered
//! ```
//!
//! Invariant: a term's file is complete from the moment it has its name.

use ft_core::arbiter::{Arbiter, ClaimOutcome};
use ft_core::units::{HostId, NodeId, Term};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Terms of one VM in a shared directory.
#[derive(Debug)]
pub struct DirArbiter {
    dir: PathBuf,
}

impl DirArbiter {
    /// The terms of VM `vm` under `dir`, which must exist: a directory that is made where a mount is missing would be an arbiter of its
    /// own.
    ///
    /// # Errors
    /// When `dir` is no directory, or the VM's cannot be made in it.
    pub fn open(dir: &Path, vm: &str) -> io::Result<Self> {
        if !fs::metadata(dir)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        let dir = dir.join(vm);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { dir }),
        }
    }

    /// The last term that anybody owns, and its owner; `None` before the first.
    ///
    /// # Errors
    /// When the directory cannot be read, or holds something that is none of ours.
    pub fn last(&self) -> io::Result<Option<(Term, NodeId)>> {
        let mut last = None;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("term-")).map(str::parse::<u64>);
            if let Some(Ok(number)) = number {
                last = last.max(Some(Term(number)));
            }
        }
        last.map(|term| Ok((term, self.owner(term)?))).transpose()
    }

    fn path(&self, term: Term) -> PathBuf {
        self.dir.join(format!("term-{:06}", term.0))
    }

    fn try_claim(&self, term: Term, node: NodeId) -> io::Result<NodeId> {
        match self.owner(term) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            settled => return settled,
        }
        let mine = self.dir.join(format!(".claim-{}-{}", node.host.0, node.incarnation));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&mine)?;
        writeln!(file, "host {} incarnation {}", node.host.0, node.incarnation)?;
        file.sync_all()?;
        // Over NFS a link may have been made although the answer says otherwise: the term's file decides, not the answer.
        let linked = fs::hard_link(&mine, self.path(term));
        File::open(&self.dir)?.sync_all()?;
        let owner = self.owner(term).map_err(|error| linked.err().unwrap_or(error));
        // Left behind, it does no harm.
        let _ = fs::remove_file(&mine);
        owner
    }

    fn owner(&self, term: Term) -> io::Result<NodeId> {
        let path = self.path(term);
        let text = fs::read_to_string(&path)?;
        let malformed = || io::Error::other(format!("{} does not say who owns the term", path.display()));
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["host", host, "incarnation", incarnation] = words[..] else { return Err(malformed()) };
        let host = HostId(host.parse().map_err(|_| malformed())?);
        Ok(NodeId { host, incarnation: incarnation.parse().map_err(|_| malformed())? })
    }
}

impl Arbiter for DirArbiter {
    fn claim(&mut self, term: Term, node: NodeId) -> ClaimOutcome {
        match self.try_claim(term, node) {
            Ok(owner) if owner == node => ClaimOutcome::Won,
            Ok(owner) => ClaimOutcome::Lost { owner },
            Err(error) => {
                tracing::warn!(%term, dir = %self.dir.display(), %error, "the arbiter cannot be reached");
                ClaimOutcome::Unreachable
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(host: u64) -> NodeId {
        NodeId { host: HostId(host), incarnation: 7 + host }
    }

    #[test]
    fn r4_of_many_claimers_one_wins_each_term_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        for term in (1..50).map(Term) {
            let wins: Vec<u64> = std::thread::scope(|scope| {
                let claim = |host| {
                    let dir = dir.path();
                    move || {
                        let mut arbiter = DirArbiter::open(dir, "vm").unwrap();
                        (host, arbiter.claim(term, node(host)))
                    }
                };
                let claims: Vec<_> = (0..4).map(|host| scope.spawn(claim(host))).collect();
                let outcomes = claims.into_iter().map(|claim| claim.join().unwrap());
                outcomes.filter(|(_, outcome)| *outcome == ClaimOutcome::Won).map(|(host, _)| host).collect()
            });
            assert_eq!(wins.len(), 1, "{term}");
            let mut arbiter = DirArbiter::open(dir.path(), "vm").unwrap();
            assert_eq!(arbiter.claim(term, node(wins[0])), ClaimOutcome::Won, "its owner wins again");
            assert_eq!(arbiter.claim(term, node(9)), ClaimOutcome::Lost { owner: node(wins[0]) });
            assert_eq!(arbiter.last().unwrap(), Some((term, node(wins[0]))));
        }
    }

    #[test]
    fn r6_a_directory_that_is_away_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DirArbiter::open(&dir.path().join("not-mounted"), "vm").is_err());
        let mut arbiter = DirArbiter::open(dir.path(), "vm").unwrap();
        assert_eq!(arbiter.last().unwrap(), None);
        fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(arbiter.claim(Term(1), node(1)), ClaimOutcome::Unreachable);
        fs::create_dir_all(dir.path().join("vm")).unwrap();
        fs::write(dir.path().join("vm/term-000001"), "garbage").unwrap();
        assert_eq!(arbiter.claim(Term(1), node(1)), ClaimOutcome::Unreachable, "nobody knows whose it is");
    }
}
