//! `ft chaos` as a person runs it: a short one passes, one that is stopped leaves nothing, and one in which a rule is broken fails.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "demo/command.rs"]
mod command;

use command::Running;
use nix::sys::signal::{Signal, killpg};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn chaos(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ft")).arg("chaos").args(args).output().unwrap()
}

/// The history that a run left behind.
fn history(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn entries<'a>(history: &'a [Value], what: &str) -> Vec<&'a Value> {
    history.iter().filter(|entry| entry["what"] == what).collect()
}

#[test]
fn a_vm_under_load_survives_whatever_a_pair_can_survive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let output = chaos(&["--minutes", "0.4", "--seed", "1", "--json", "--dir", path]);
    let text = String::from_utf8_lossy(&output.stderr);
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    assert!(output.status.success() && verdict["passed"] == true, "{verdict:#}\n{text}");
    assert!(verdict["load"]["ops"].as_u64() > Some(100), "{verdict:#}");
    let history = history(dir.path());
    let faults = entries(&history, "fault");
    assert_eq!(verdict["faults"].as_u64(), Some(faults.len() as u64));
    // However slow the machine, the VM comes to be protected between two that can cost a copy.
    assert!(faults.len() >= 3, "{text}");
    assert!(verdict["heals"].as_u64() >= Some(1), "{verdict:#}");
    assert_eq!(entries(&history, "verdict").len(), 1);
}

/// With a fault under way, and namespaces and mounts where it may have some.
#[test]
fn a_chaos_test_that_is_interrupted_leaves_nothing() {
    let chaos = Running::start(&["chaos", "--minutes", "60", "--seed", "1"]);
    chaos.wait_for(" ! ");
    assert!(chaos.processes().len() >= 5, "itself, three agents and two copies, of which one may be dead");
    let pid = chaos.pid();
    killpg(pid, Signal::SIGINT).unwrap();
    chaos.assert_ends_cleanly();
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().filter_map(Result::ok);
    let own = format!("ftw{pid}-");
    let left: Vec<_> = namespaces.filter(|it| it.file_name().to_string_lossy().starts_with(&own)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A judge that cannot fail is none: here somebody edits what the arbiter keeps.
#[test]
fn r4_a_term_that_changes_hands_fails_the_test() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("run");
    let chaos =
        Running::start(&["chaos", "--minutes", "0.05", "--seed", "1", "--dir", dir.to_str().unwrap()]);
    chaos.wait_for("the load begins");
    let term = dir.join("shared/arbiter/store/term-000001");
    let beside = scratch.path().join("term");
    fs::write(&beside, "host 9 incarnation 1 at the wrong time\n").unwrap();
    fs::copy(&beside, &term).unwrap();
    chaos.wait_for("verdict: failed");
    let history = history(&dir);
    let violations = entries(&history, "violation");
    let is_told = |entry: &&Value| entry["text"].as_str().unwrap().contains("term 1 was");
    assert!(violations.iter().any(is_told), "{violations:#?}");
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let full = tempfile::tempdir().unwrap();
    fs::write(full.path().join("x"), "").unwrap();
    for (args, words) in [
        (&["--hosts", "1"][..], "--hosts 2 to 16"),
        (&["--minutes", "0"], "above 0"),
        (&["--minutes", "soon"], "such as 0.5"),
        (&["--dir", full.path().to_str().unwrap()], "name a new directory"),
    ] {
        let output = chaos(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{args:?}: {said}");
    }
}
