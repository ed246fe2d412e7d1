//! `ft demo` as a person runs it, and stops it in the middle: it fails, says why, and nothing of it stays.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "demo/command.rs"]
mod command;

use command::Running;
use nix::sys::signal::{Signal, kill, killpg};

/// `ft demo`, with more failovers ahead than any test waits for.
fn demo() -> Running {
    Running::start(&["demo", "--failovers", "1000"])
}

#[test]
fn a_demonstration_interrupted_under_load_leaves_nothing() {
    let demo = demo();
    demo.wait_for("the load begins");
    assert_eq!(demo.processes().len(), 3, "itself and two hosts");
    kill(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}

/// The hosts get the signal too, and are gone before the clients have their replies.
#[test]
fn ctrl_c_at_a_terminal_leaves_nothing() {
    let demo = demo();
    demo.wait_for("the load begins");
    killpg(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}

/// One host is dead by then, and the other is not live yet.
#[test]
fn a_demonstration_interrupted_in_a_failover_leaves_nothing() {
    let demo = demo();
    demo.wait_for("the primary, is killed");
    killpg(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}
