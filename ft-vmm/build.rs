//! Builds the built-in guest (guest/, a workspace of its own) so that `guest_image` can embed it.
//!
//! The inner cargo gets nothing of the outer one's flags and wrappers: under `cargo clippy` or with a coverage tool it would build
//! something else, and two hosts must come to the same bytes (docs/guest.md).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const NAME: &str = "ft-guest";

/// What the outer cargo or its user may have set that would change what the inner one builds, or where.
const INHERITED: [&str; 14] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_INCREMENTAL",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "RUSTDOCFLAGS",
];

fn main() {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let guest = manifest.join("../guest");
    let out = PathBuf::from(variable("OUT_DIR"));
    for input in ["src", "Cargo.toml", "Cargo.lock", "build.rs", "link.ld"] {
        println!("cargo::rerun-if-changed={}", guest.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    let image = build(&guest, &out.join("guest"));
    let copy = out.join("guest.elf");
    if let Err(error) = std::fs::copy(&image, &copy) {
        panic!("cannot copy {} to {}: {error}", image.display(), copy.display());
    }
}

/// Runs cargo; returns where the image is.
fn build(guest: &Path, target: &Path) -> PathBuf {
    let mut command = Command::new(variable("CARGO"));
    command.args([
        "build",
        "--release",
        "--locked",
        "--features",
        "metal",
        "--bin",
        NAME,
        "--target",
        TARGET,
    ]);
    command.arg("--target-dir").arg(target).current_dir(guest);
    let profile = |name: &str| name.starts_with("CARGO_PROFILE_") || name.starts_with("CARGO_TARGET_");
    let foreign = env::vars_os().map(|(name, _)| name);
    for name in foreign.filter(|name| name.to_str().is_some_and(profile)) {
        command.env_remove(name);
    }
    INHERITED.iter().for_each(|name| {
        command.env_remove(name);
    });
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(guest).join("\u{1f}"));
    match command.status() {
        Ok(status) if status.success() => target.join(TARGET).join("release").join(NAME),
        Ok(status) => panic!("building the guest in {} failed: {status}", guest.display()),
        Err(error) => panic!("cannot run cargo to build the guest: {error}"),
    }
}

/// Addresses fixed when linking, plain x86-64, and no path of this host in the image.
fn flags(guest: &Path) -> Vec<String> {
    let mut flags = vec!["-Crelocation-model=static".into(), "-Ctarget-cpu=x86-64".into()];
    let guest = guest.canonicalize().unwrap_or_else(|_| guest.into());
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let paths = [(Some(guest), "guest"), (home, "cargo")];
    for (path, name) in paths {
        if let Some(path) = path {
            flags.push(format!("--remap-path-prefix={}=/{name}", path.display()));
        }
    }
    flags
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo sets {name}: {error}"))
}
