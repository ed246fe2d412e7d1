//! Small file systems for what is to run full: the arbiter's directory, and the agents' state.
//!
//! Invariant: what was mounted is unmounted however the run ends, short of SIGKILL.

use super::config::ChaosError;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Bytes of each: the log of a VM is at most 8 MiB.
const SIZE: &str = "size=24m,mode=700";

/// The file that takes all room.
const FILLING: &str = "filling";

/// The file systems. Dropping it unmounts them; whoever uses them must have ended.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    mounted: Vec<PathBuf>,
}

impl Rooms {
    /// Makes and mounts these directories, or says why that cannot be done.
    pub(super) fn make(dirs: &[PathBuf]) -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("mounts need root".into());
        }
        let mut rooms = Self::default();
        for dir in dirs {
            fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
            run(Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "ft-chaos"]).arg(dir))?;
            rooms.mounted.push(dir.clone());
        }
        Ok(rooms)
    }
}

impl Drop for Rooms {
    fn drop(&mut self) {
        for dir in &self.mounted {
            // What was ended a moment ago may still have files open.
            if let Err(error) = run(Command::new("umount").arg("--lazy").arg(dir)) {
                eprintln!("ft: {0} stays mounted ({error}); `umount {0}` removes it", dir.display());
            }
        }
    }
}

/// Runs it out of reach of Ctrl-C: cleaning up must not be cut short.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).process_group(0).output();
    let output = output.map_err(|error| format!("cannot run {program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(said.trim().to_owned()) }
}

/// Takes all room in a directory.
pub(super) fn fill(dir: &Path) -> Result<(), ChaosError> {
    let path = dir.join(FILLING);
    let fill = || {
        let mut file = File::create(&path)?;
        // In smaller and smaller pieces, down to the last byte.
        for bytes in [1 << 20, 4096, 1] {
            loop {
                match file.write_all(&vec![0; bytes]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    };
    fill().map_err(ChaosError::io(format!("fill {}", dir.display())))
}

/// Gives it back.
pub(super) fn empty(dir: &Path) -> Result<(), ChaosError> {
    fs::remove_file(dir.join(FILLING)).map_err(ChaosError::io(format!("make room in {}", dir.display())))
}
