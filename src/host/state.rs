//! An agent's state directory: what outlives the agent.
//!
//! ```text
//! STATE/lock                    held by the agent that uses the directory
//! STATE/agent.sock              where people reach it (`ft list` and its kin)
//! STATE/events, events.1        what has happened
//! STATE/draining                there while the host takes no further copies
//! STATE/vms/NAME/vm.toml        the file that the copy was started with
//!                meta.json      which process it is, and how it ended
//!                control.sock   where its process is told what to do
//!                log, log.1     what it said; stderr: its panics, and why it could not start
//! ```
//!
//! Invariant: a file that is there is whole: it is written beside its place, synced, and renamed.

use super::message::Ended;
use super::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// An agent's state directory, which nobody else uses.
pub struct StateDir {
    dir: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

/// What is known of a copy beyond its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// When it was started, in seconds since 1970.
    pub began: u64,
    /// Its process, until that has ended.
    pub process: Option<ProcessId>,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Whether it is not to be made redundant.
    pub retired: bool,
}

/// The files of one copy.
#[derive(Clone, Debug)]
pub struct VmDir(PathBuf);

/// Where the socket of an agent is.
pub fn agent_socket(state: &Path) -> PathBuf {
    state.join("agent.sock")
}

impl StateDir {
    /// Takes the directory, and makes it where there is none.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let failed = |doing: &str, path: &Path, error: io::Error| {
            format!("cannot {doing} {}: {error}", path.display())
        };
        let vms = dir.join("vms");
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700).create(&vms).map_err(|error| failed("make", &vms, error))?;
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&path);
        let lock = lock.map_err(|error| failed("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.into(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(format!(
                "another agent uses {}: stop it first, or give this one a state directory of its own",
                dir.display()
            )),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
        }
    }

    /// Where people reach the agent.
    pub fn socket(&self) -> PathBuf {
        agent_socket(&self.dir)
    }

    /// Where events are kept.
    pub fn events(&self) -> PathBuf {
        self.dir.join("events")
    }

    /// Whether somebody has said that this host takes no further copies.
    pub fn is_draining(&self) -> bool {
        self.draining().exists()
    }

    /// Keeps that this host takes no further copies, or that it takes them again.
    ///
    /// # Errors
    /// The operating system's.
    pub fn set_draining(&self, draining: bool) -> io::Result<()> {
        if draining {
            return write(&self.draining(), b"");
        }
        match fs::remove_file(self.draining()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(&self.dir)?.sync_all()
    }

    fn draining(&self) -> PathBuf {
        self.dir.join("draining")
    }

    /// The copies that have files here, by name.
    ///
    /// # Errors
    /// The operating system's.
    pub fn vms(&self) -> io::Result<Vec<(String, VmDir)>> {
        let mut vms = Vec::new();
        for entry in fs::read_dir(self.dir.join("vms"))? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                vms.push((name, VmDir(entry.path())));
            }
        }
        vms.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(vms)
    }

    /// The files of VM `name`.
    ///
    /// # Errors
    /// When its socket could not be reached there.
    pub fn vm(&self, name: &str) -> Result<VmDir, String> {
        let vm = VmDir(self.dir.join("vms").join(name));
        let socket = vm.socket();
        match socket.as_os_str().len() {
            0..=SOCKET_PATH_MAX => Ok(vm),
            len => Err(format!(
                "the path {} has {len} bytes, and a socket's may have {SOCKET_PATH_MAX}: choose a shorter state directory \
                 or VM name",
                socket.display()
            )),
        }
    }
}

impl VmDir {
    /// The file that the copy is started with.
    pub fn file(&self) -> PathBuf {
        self.0.join("vm.toml")
    }

    /// Where its process is told what to do.
    pub fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// What it said.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// What its process could not say in any other way.
    pub fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }

    fn meta(&self) -> PathBuf {
        self.0.join("meta.json")
    }

    /// Begins a copy: in place of the files of an earlier one, whose log is kept.
    ///
    /// # Errors
    /// The operating system's.
    pub fn begin(&self, file: &str, meta: &Meta) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        write(&self.file(), file.as_bytes())?;
        self.save(meta)
    }

    /// Keeps what is known of the copy.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save(&self, meta: &Meta) -> io::Result<()> {
        let text = serde_json::to_vec(meta).map_err(io::Error::other)?;
        write(&self.meta(), &text)
    }

    /// What was kept of the copy.
    ///
    /// # Errors
    /// The operating system's, or that it is not what an agent writes.
    pub fn load(&self) -> io::Result<Meta> {
        serde_json::from_slice(&fs::read(self.meta())?).map_err(io::Error::other)
    }

    /// Removes all of it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.0)
    }
}

/// Puts `bytes` at `path`, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (dir, name) = (path.parent().unwrap_or(Path::new(".")), path.file_name().unwrap_or_default());
    let beside = dir.join(format!(".{}.new", name.to_string_lossy()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_agent_has_a_directory_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("ft")).unwrap();
        let error = StateDir::open(&dir.path().join("ft")).err().unwrap();
        assert!(error.contains("another agent"), "{error}");
        drop(state);
        StateDir::open(&dir.path().join("ft")).unwrap();
    }

    #[test]
    fn that_a_host_is_draining_outlives_its_agent_until_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        for draining in [false, true, true, false, false] {
            StateDir::open(dir.path()).unwrap().set_draining(draining).unwrap();
            assert_eq!(StateDir::open(dir.path()).unwrap().is_draining(), draining);
        }
    }

    #[test]
    fn what_is_kept_of_a_copy_comes_back_and_halves_of_it_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let vm = state.vm("exchange").unwrap();
        let mut meta = Meta { began: 7, process: None, ended: None, retired: false };
        vm.begin("name = \"exchange\"", &meta).unwrap();
        meta.retired = true;
        vm.save(&meta).unwrap();
        assert!(vm.load().unwrap().retired);
        let names: Vec<String> = state.vms().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["exchange"]);
        fs::write(vm.meta(), "{\"began\":7,").unwrap();
        assert!(vm.load().is_err());
        vm.remove().unwrap();
        assert!(state.vms().unwrap().is_empty());
        assert!(state.vm(&"x".repeat(SOCKET_PATH_MAX)).unwrap_err().contains("shorter"));
    }
}
