//! How a copy of a VM opens its disk when it begins.
//!
//! Invariant: a mirrored disk is written only after it was made sure that this host's copy is the one to start from, and after it was written
//! down whose it is from then on.

use super::{Begin, RunError};
use crate::arbiter::OwnedTerm;
use crate::vm::config::DiskFile;
use crate::vm::disk::Disk;
use crate::vm::ends::DiskEnd;
use crate::vm::mirror::files::{CopyFiles, Stamp};
use crate::vm::mirror::store::Store;
use crossbeam::channel::Sender;
use ft_core::Event;
use ft_core::units::Term;

/// What decides how a disk is opened.
pub(super) struct Start<'a> {
    pub(super) begin: Begin,
    /// The host's name, if it runs on one of a cluster.
    pub(super) host: Option<&'a str>,
    pub(super) life: u64,
    /// The last term of the VM, and whose it was.
    pub(super) last: Option<&'a OwnedTerm>,
    pub(super) events: &'a Sender<Event>,
}

impl Start<'_> {
    /// Opens it, and makes it where there is none.
    ///
    /// # Errors
    /// [`RunError::Copy`] where a newer copy of it is elsewhere; [`RunError::NoHost`], [`RunError::File`].
    pub(super) fn open(&self, disk: &DiskFile) -> Result<DiskEnd, RunError> {
        let path = disk.path_on(self.host).ok_or_else(|| RunError::NoHost { path: disk.path.clone() })?;
        let failed = |source| RunError::File { doing: "use the disk", path: path.clone(), source };
        let (files, bytes) = (CopyFiles::new(&path), disk.mib << 20);
        let again = match self.begin {
            Begin::Secondary { .. } if disk.mirror => {
                let store = Store::awaited(files, bytes, self.life, self.events.clone());
                return Ok(DiskEnd::Mirrored(store.map_err(failed)?.into()));
            }
            // Nobody counts the terms of a VM that is run alone.
            Begin::Alone => true,
            Begin::Primary { again, .. } => again,
            Begin::Secondary { .. } => false,
        };
        if disk.mirror {
            files.admit(self.last, again)?;
        }
        Disk::create(&path, disk.mib << 11).map_err(failed)?;
        if !disk.mirror || self.begin == Begin::Alone {
            return Ok(DiskEnd::Shared(path));
        }
        // From here on it is this life's: should it die right after its claim, nobody has a newer one.
        let term = files.stamp()?.map_or(Term(0), |stamp| stamp.term);
        files.write_stamp(Stamp { term, life: self.life }).map_err(failed)?;
        let store = Store::open(files, bytes, self.life, self.events.clone()).map_err(failed)?;
        Ok(DiskEnd::Mirrored(store.into()))
    }
}
