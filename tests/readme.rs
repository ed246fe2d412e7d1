//! Keeps the README true.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

#[test]
fn every_ft_command_in_the_readme_exists() {
    let readme = readme();
    let commands: Vec<&str> = readme
        .match_indices("cargo run --release -- ")
        .map(|(at, found)| readme[at + found.len()..].split(['`', '\n']).next().unwrap())
        .collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in commands {
        // The command as it stands, with its flags, and --help at its end: parsed, not carried out.
        let words = command.split_whitespace();
        let output = Command::new(env!("CARGO_BIN_EXE_ft")).args(words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_file_that_the_readme_links_to_exists() {
    let readme = readme();
    let targets: Vec<&str> =
        readme.match_indices("](").map(|(at, _)| readme[at + 2..].split(')').next().unwrap()).collect();
    assert!(targets.len() >= 4);
    for target in targets {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(), "{target}");
    }
}

#[test]
fn the_readme_names_the_minimum_rust_version_of_the_manifest() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let version = manifest.split("rust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(readme().contains(&format!("({version} or later)")), "{version}");
}
