//! What `ft run` and its kin say when something is wrong: what was being done, to what, and what to do; and nothing half-started stays.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../ft-vmm/tests/images/faulting.rs"]
mod faulting;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

fn ft(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ft")).args(args).current_dir(dir).output().unwrap()
}

/// Runs `ft`, which must fail, and returns its one sentence.
fn refused(dir: &Path, args: &[&str]) -> String {
    let output = ft(dir, args);
    assert!(!output.status.success(), "{args:?} worked");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().any(|line| line.starts_with("ft: ") || line.starts_with("error: ")), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn write(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "unknown.toml", "name = \"x\"\nmemory = 4\n");
    write(dir, "noimage.toml", "name = \"x\"\n[guest]\nkind = \"flat\"\nimage = \"nowhere.elf\"\n");
    write(dir, "script.sh", "#!/bin/sh\n");
    write(dir, "script.toml", "name = \"x\"\n[guest]\nkind = \"flat\"\nimage = \"script.sh\"\n");
    write(dir, "small.toml", "name = \"x\"\nram_mib = 1\n");
    write(dir, "alone.toml", "name = \"x\"\n");
    for (args, words) in [
        (&["run", "nowhere.toml"][..], &["nowhere.toml", "No such file"][..]),
        (&["run", "unknown.toml"], &["unknown.toml", "memory"]),
        (&["run", "noimage.toml"], &["nowhere.elf", "No such file"]),
        (&["run", "script.toml"], &["ELF"]),
        (&["run", "small.toml"], &["RAM", "more"]),
        (&["primary", "alone.toml", "--host", "1"], &["[cluster]", "ft run"]),
        (&["replay", "script.sh"], &["script.sh"]),
        (&["inspect", "nowhere"], &["nowhere", "No such file"]),
        (&["run", "alone.toml", "--heartbeat-ms", "1"], &["10..=1000"]),
    ] {
        let said = refused(dir, args);
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
}

#[test]
fn clusters_that_cannot_be_used_are_named_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let cluster = |arbiter: &str, credentials: &str, port: u16| {
        format!(
            "name = \"x\"\n[cluster]\narbiter = \"{arbiter}\"\ncredentials = \"{credentials}\"\nhosts = [\
             {{ id = 1, name = \"a\", address = \"127.0.0.1:{port}\" }}, {{ id = 2, name = \"b\", address = \"127.0.0.1:1\" }}]\n"
        )
    };
    assert!(ft(dir, &["ca", "init"]).status.success());
    assert!(ft(dir, &["ca", "issue", "a"]).status.success());
    fs::create_dir(dir.join("shared")).unwrap();
    write(dir, "nocredentials.toml", &cluster("shared", "nowhere", 0));
    write(dir, "noarbiter.toml", &cluster("not-mounted", "a", 0));
    write(dir, "taken.toml", &cluster("shared", "a", port));
    write(dir, "fresh.toml", &cluster("shared", "a", 0));
    for (args, words) in [
        (&["primary", "nocredentials.toml", "--host", "1"][..], &["nowhere"][..]),
        (&["primary", "noarbiter.toml", "--host", "1"], &["not-mounted", "arbiter"]),
        (&["primary", "taken.toml", "--host", "1"], &[&port.to_string(), "in use"]),
        (&["primary", "fresh.toml", "--host", "7"], &["host 7", "1, 2"]),
        (&["secondary", "fresh.toml", "--host", "1"], &["--primary"]),
    ] {
        let said = refused(dir, args);
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
}

#[test]
fn a_guest_that_crashes_is_told_from_one_that_turns_itself_off() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("crash.elf"), faulting::image()).unwrap();
    let crashes = "name = \"x\"\n[guest]\nkind = \"flat\"\nimage = \"crash.elf\"\non_crash = \"stop\"\n";
    write(dir, "crash.toml", crashes);
    let said = refused(dir, &["run", "crash.toml"]);
    assert!(said.contains("triple fault at 0x200000") && said.contains("ft record"), "{said}");
    write(dir, "off.toml", "name = \"x\"\n[guest]\ncommand_line = \"mode=compute rounds=1\"\n");
    let output = ft(dir, &["record", "log", "off.toml"]);
    assert!(output.status.success(), "{output:?}");
    let console = String::from_utf8(output.stdout).unwrap();
    assert!(console.contains("checksum"), "{console}");
    let replayed = ft(dir, &["replay", "log", "--console"]);
    assert!(replayed.status.success(), "{replayed:?}");
    assert!(String::from_utf8(replayed.stdout).unwrap().contains(console.trim()), "the replay says the same");
    let said = refused(dir, &["record", "log", "off.toml"]);
    assert!(said.contains("never overwritten"), "{said}");
}

/// A command that does not end by itself.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Background {
    /// A mask of signals, as /proc/PID/status has it.
    fn mask(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As `nohup` has it: who starts a command with SIGHUP ignored wants it to outlive the terminal.
#[test]
fn a_terminal_that_goes_away_ends_a_command_unless_it_is_told_to_ignore_that() {
    let hangup = 1 << (Signal::SIGHUP as u64 - 1);
    for (disposition, end) in
        [("--default-signal=HUP", Signal::SIGHUP), ("--ignore-signal=HUP", Signal::SIGTERM)]
    {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lan.sock");
        let mut command = Command::new("env");
        command.args([disposition, env!("CARGO_BIN_EXE_ft"), "switch", "--socket"]).arg(&socket);
        let mut switch = Background(command.spawn().unwrap());
        wait_for("its socket", || socket.exists().then_some(()));
        let is_caught = switch.mask("SigCgt:") & hangup != 0;
        let is_ignored = switch.mask("SigIgn:") & hangup != 0;
        assert_eq!((is_caught, is_ignored), (end == Signal::SIGHUP, end != Signal::SIGHUP));
        kill(Pid::from_raw(switch.0.id().cast_signed()), end).unwrap();
        let status = wait_for("its end", || switch.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
        assert!(!socket.exists(), "the socket is left behind");
    }
}
