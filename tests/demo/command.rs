//! An `ft` that runs until it is stopped, and what it leaves behind.

use crossbeam::channel::{Receiver, unbounded};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What takes longer until it is shown has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What takes longer to end has failed: less than a client waits for a reply that never comes.
const END: Duration = Duration::from_secs(30);

/// An `ft` with a directory of its own for temporary files.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    /// Where it makes its directory. All of its processes have it in their environment, whoever started them.
    scratch: TempDir,
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ft"))
            .args(args)
            .env("TMPDIR", scratch.path())
            // A shell does the same: the terminal's Ctrl-C is for this group.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (say, lines) = unbounded();
        let out = BufReader::new(child.stdout.take().unwrap());
        // To the end, so that what it says is never in its way.
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).for_each(|line| drop(say.send(line)));
        });
        Self { child, lines, scratch }
    }

    /// Waits until it shows a line with `words`.
    pub(crate) fn wait_for(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut shown = String::new();
        while let Ok(line) = self.lines.recv_deadline(deadline) {
            if line.contains(words) {
                return;
            }
            shown += &line;
            shown += "\n";
        }
        panic!("{words:?} was never shown, but:\n{shown}");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The ids of all processes that belong to it, its own too.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mark = format!("TMPDIR={}", self.scratch.path().display());
        let is_ours = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        ids.filter(is_ours).collect()
    }

    fn end(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < END, "it is still there: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// It ends at once, says that it was interrupted, and leaves neither a process nor a file.
    pub(crate) fn assert_ends_cleanly(mut self) {
        let status = self.end();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(1), "{status}: {said}");
        assert!(said.starts_with("ft: interrupted") && said.lines().count() == 1, "{said}");
        assert_eq!(self.processes(), [0; 0], "processes are left behind");
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}
