//! `ft demo` as a person runs it, and stops it in the middle: it fails, says why, and nothing of it stays.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "demo/command.rs"]
mod command;

use command::Running;
use nix::sys::signal::{Signal, kill, killpg};
use std::process::Command;

/// `ft demo`, with more failovers ahead than any test waits for.
fn demo() -> Running {
    Running::start(&["demo", "--failovers", "1000"])
}

#[test]
fn a_demonstration_interrupted_under_load_leaves_nothing() {
    let demo = demo();
    demo.wait_for("the load begins");
    assert_eq!(demo.processes().len(), 6, "itself, three agents and two copies of the VM");
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
    demo.wait_for("is killed");
    killpg(demo.pid(), Signal::SIGINT).unwrap();
    demo.assert_ends_cleanly();
}

/// Ended by its last failover: by then a host was lost, the VM healed on another one, and the lost host came back.
#[test]
fn a_demonstration_ends_with_nothing_lost() {
    for hosts in ["2", "3"] {
        let output = Command::new(env!("CARGO_BIN_EXE_ft"))
            .args(["demo", "--hosts", hosts, "--failovers", "1", "--connections", "2", "--json"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["hosts"].to_string(), hosts);
        for (key, value) in [("failovers", 1), ("errors", 0), ("lost", 0), ("duplicated", 0)] {
            assert_eq!(summary[key], value, "{key} in {summary}");
        }
        for key in ["ops", "log_bytes", "log_mbit_s"] {
            assert!(summary[key].as_f64().unwrap() > 0.0, "{key} in {summary}");
        }
        for key in ["failover_client_ms", "failover_protocol_ms", "protected_again_ms"] {
            let times = summary[key].as_array().unwrap();
            assert!(times.len() == 1 && times[0].as_f64().unwrap() > 0.0, "{key} in {summary}");
        }
        // Not which hosts: on a busy machine a copy may be taken for dead before.
        let steps =
            ["is killed", "is live after", "protected again, on host-", "is back and takes copies again"];
        assert!(steps.iter().all(|step| said.contains(step)), "{said}");
    }
}
