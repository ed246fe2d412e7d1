//! `ft sim` from the outside.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ft")).arg("sim").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_range_of_seeds_ends_with_one_line_that_counts() {
    let output = sim(&["--seeds", "0..100"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().last(), Some("100 passed, 0 failed"));
}

#[test]
fn json_holds_the_same_counts_in_every_run() {
    let run = |jobs| {
        let output = sim(&["--seeds", "0..60", "--json", "--jobs", jobs]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let (one, two) = (run("1"), run("2"));
    assert_eq!((&one["passed"], &one["failed"]), (&60.into(), &0.into()));
    assert!(one["takeovers"].as_u64().unwrap() > 0);
    assert_eq!(one, two, "worlds do not depend on each other");
}

#[test]
fn a_seed_can_be_traced() {
    let output = sim(&["--seed", "3", "--trace"]);
    assert!(output.status.success());
    let trace = text(&output.stdout);
    assert!(trace.contains("hello") && trace.contains("Live(Term(1))") && trace.contains("everything heals"));
    assert!(trace.lines().last().unwrap().starts_with("seed 3 passed"));
}

#[test]
fn wrong_arguments_are_explained() {
    for (args, hint) in [
        (&["--seeds", "9"][..], "write for instance 0..1000"),
        (&["--seeds", "5..5"], "the end is not included"),
        (&["--trace"], "--seed"),
        (&["--jobs", "0"], "--jobs"),
    ] {
        let output = sim(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(hint), "{args:?}: {}", text(&output.stderr));
    }
}
