//! VM processes: started so that they outlive the agent, found again, ended.
//!
//! Invariant: no process is signalled unless it is the one that was started: its number alone proves nothing, for the kernel gives
//! numbers again.

use super::message::Ended;
use super::state::VmDir;
use crate::vm::log::previous;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of what a process wrote last: so many bytes are looked at, and so many lines kept.
const WORDS_BYTES: u64 = 4096;
const WORDS_LINES: usize = 5;

/// A process, such that no other one is ever taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in the kernel's ticks since boot (proc_pid_stat(5), field 22).
    pub started: u64,
    /// Which boot of the host.
    pub boot: String,
}

impl ProcessId {
    /// The process that has this number now.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, started: Stat::read(pid)?.started, boot: boot()? })
    }

    /// Whether it still runs.
    pub(super) fn is_running(&self) -> bool {
        let is_same = |stat: &Stat| stat.started == self.started && !stat.is_over;
        Stat::read(self.pid).as_ref().is_ok_and(is_same) && boot().is_ok_and(|boot| boot == self.boot)
    }
}

/// What the kernel says of a process.
struct Stat {
    started: u64,
    /// It has ended and waits for its parent to ask how.
    is_over: bool,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let malformed = || io::Error::other(format!("/proc/{pid}/stat is not as proc_pid_stat(5) has it"));
        // The name, in parentheses, may hold anything: what follows the last of them is the third field.
        let (_, rest) = text.rsplit_once(')').ok_or_else(malformed)?;
        let mut fields = rest.split_ascii_whitespace();
        let is_over = matches!(fields.next(), Some("Z" | "X"));
        let started = fields.nth(18).and_then(|field| field.parse().ok()).ok_or_else(malformed)?;
        Ok(Self { started, is_over })
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A VM's process.
pub(super) struct Process {
    pub(super) id: ProcessId,
    /// `None` for one that an earlier agent started.
    child: Option<Child>,
}

/// What a process begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The first copy; from an old copy of a mirrored disk, or none, where that is said.
    Primary {
        /// It is.
        again: bool,
    },
    /// A further copy, of the one on this host.
    Secondary(u64),
}

impl Process {
    /// Starts `program` on the copy in `dir`.
    pub(super) fn start(program: &Path, dir: &VmDir, host: u64, begin: Begin) -> io::Result<Self> {
        let mut command = Command::new(program);
        match begin {
            Begin::Primary { again } => {
                command.arg("primary").arg(dir.file()).args(again.then_some("--again"))
            }
            Begin::Secondary(primary) => {
                command.arg("secondary").arg(dir.file()).args(["--primary", &primary.to_string()])
            }
        };
        // It leaves the agent's session by itself: see `vm::process::detach`.
        let mut child = command
            .args(["--host", &host.to_string()])
            .arg("--control")
            .arg(dir.socket())
            .arg("--log")
            .arg(dir.log())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.stderr())?)
            .spawn()?;
        match ProcessId::of(child.id()) {
            Ok(id) => Ok(Self { id, child: Some(child) }),
            Err(error) => {
                // Not to be found again: rather none at all.
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// One that an earlier agent started, if it still runs.
    pub(super) fn find(id: &ProcessId) -> Option<Self> {
        id.is_running().then(|| Self { id: id.clone(), child: None })
    }

    /// How it ended, once it has.
    pub(super) fn ended(&mut self, dir: &VmDir) -> Option<Ended> {
        let how = match &mut self.child {
            Some(child) => describe(child.try_wait().ok()??),
            None if self.id.is_running() => return None,
            None => "ended; how is not known, for another agent started it".into(),
        };
        Some(Ended { at: now(), how, words: last_words(dir) })
    }

    /// Signals it.
    pub(super) fn signal(&self, signal: Signal) {
        if self.id.is_running() {
            // It may have ended in between: that is what was wanted.
            let _ = kill(Pid::from_raw(self.id.pid.cast_signed()), signal);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended in peace".into(),
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// The last lines that the process of a copy wrote: why it could not go on if it said so, otherwise its log's.
pub(super) fn last_words(dir: &VmDir) -> Vec<String> {
    let files: [PathBuf; 3] = [dir.stderr(), dir.log(), previous(&dir.log())];
    let mut words = files.iter().filter_map(|path| tail(path).ok()).filter(|lines| !lines.is_empty());
    words.next().unwrap_or_default()
}

fn tail(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(WORDS_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(WORDS_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(WORDS_LINES);
    Ok(lines[first..].iter().map(|line| (*line).to_owned()).collect())
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::host::state::StateDir;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_running());
        for other in [
            ProcessId { started: me.started + 1, ..me.clone() },
            ProcessId { boot: "another".into(), ..me.clone() },
            ProcessId { pid: u32::MAX, ..me.clone() },
        ] {
            assert!(!other.is_running() && Process::find(&other).is_none());
        }
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_over_all_the_same() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let found = Process::find(&ProcessId::of(child.id()).unwrap()).unwrap();
        found.signal(Signal::SIGKILL);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while found.id.is_running() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn how_a_process_ended_is_said_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let vm = state.vm("x").unwrap();
        fs::create_dir(dir.path().join("vms/x")).unwrap();
        // Refuses all of its arguments but the first.
        let mut process =
            Process::start(Path::new("/bin/ls"), &vm, 1, Begin::Primary { again: false }).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let ended = loop {
            if let Some(ended) = process.ended(&vm) {
                break ended;
            }
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        };
        assert_eq!(ended.how, "ended with status 2");
        assert!(ended.words.iter().any(|line| line.contains("--host")), "{:?}", ended.words);
    }
}
