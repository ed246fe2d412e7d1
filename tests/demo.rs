//! `ft demo` as a person runs it, and stops it in the middle: it fails, says why, and nothing of it stays.
#![allow(clippy::unwrap_used, missing_docs)]

use crossbeam::channel::{Receiver, unbounded};
use nix::sys::signal::{Signal, kill, killpg};
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

/// `ft demo`, with more failovers ahead than any test waits for.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    /// Where it makes its directory. All of its processes have it in their environment, whoever started them.
    scratch: TempDir,
}

impl Demo {
    fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_ft"))
            .args(["demo", "--failovers", "1000"])
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
    fn wait_for(&self, words: &str) {
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

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The ids of all processes that belong to it, its own too.
    fn processes(&self) -> Vec<i32> {
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
    fn assert_ends_cleanly(mut self) {
        let status = self.end();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(1), "{status}: {said}");
        assert!(said.starts_with("ft: interrupted") && said.lines().count() == 1, "{said}");
        assert_eq!(self.processes(), [], "processes are left behind");
        let left: Vec<_> = std::fs::read_dir(self.scratch.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

#[test]
fn a_demonstration_interrupted_under_load_leaves_nothing() {
    let demo = Demo::start();
    demo.wait_for("the load begins");
    assert_eq!(demo.processes().len(), 3, "itself and two hosts");
    kill(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}

/// The hosts get the signal too, and are gone before the clients have their replies.
#[test]
fn ctrl_c_at_a_terminal_leaves_nothing() {
    let demo = Demo::start();
    demo.wait_for("the load begins");
    killpg(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}

/// One host is dead by then, and the other is not live yet.
#[test]
fn a_demonstration_interrupted_in_a_failover_leaves_nothing() {
    let demo = Demo::start();
    demo.wait_for("the primary, is killed");
    killpg(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}
