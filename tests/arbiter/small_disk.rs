//! A directory on a file system of its own, which runs full, becomes read-only, and goes.

use crate::child::Child;
use crate::dir;
use crate::suite::{VM, node};
use ft::arbiter::ArbiterConfig;
use ft::core::arbiter::{Arbiter as _, ClaimOutcome};
use ft::core::units::Term;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

/// In a process with mounts of its own; where there cannot be one, that is said, and the test skipped.
#[test]
fn r6_a_full_or_read_only_disk_is_no_answer_and_what_was_decided_stays() {
    let with_own_mounts = || {
        let mut command = Command::new("unshare");
        if !nix::unistd::Uid::effective().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--mount");
        command
    };
    if !with_own_mounts().arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no process here may have mounts of its own");
        return;
    }
    let (config, _dir) = dir::bed();
    let mut command = with_own_mounts();
    command.arg(std::env::current_exe().unwrap());
    let mut child = Child::start_by(command, &config, 1, "small-disk");
    child.go();
    assert_eq!(child.claims(), []);
}

pub(crate) fn scenario(config: &ArbiterConfig) {
    let ArbiterConfig::Dir(dir) = config else { panic!("{config:?}") };
    let mount = |options: &str| {
        let mut mount = Command::new("mount");
        assert!(mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(dir).status().unwrap().success());
    };
    mount("size=64k");
    let (a, b) = (node(1, 7), node(2, 8));
    let mut arbiter = config.open(VM).unwrap();
    assert_eq!(arbiter.claim(Term(1), a), ClaimOutcome::Won);

    let filling = dir.join("filling");
    let mut file = File::create(&filling).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
    assert_eq!(arbiter.claim(Term(2), b), ClaimOutcome::Unreachable);
    assert_eq!(arbiter.claim(Term(1), b), ClaimOutcome::Lost { owner: a }, "what is settled can be read");
    assert_eq!(arbiter.last().unwrap().unwrap().term, Term(1));
    let error = config.open(VM).err().unwrap().to_string();
    assert!(error.contains(dir.to_str().unwrap()), "found out before it is needed: {error}");
    drop(file);
    fs::remove_file(&filling).unwrap();
    assert_eq!(arbiter.claim(Term(2), b), ClaimOutcome::Won, "and all is well once there is room");

    mount("remount,ro");
    assert_eq!(arbiter.claim(Term(3), a), ClaimOutcome::Unreachable);
    assert_eq!(arbiter.claim(Term(2), b), ClaimOutcome::Won);
    assert!(config.open(VM).is_err(), "a host that cannot claim");
    mount("remount,rw");
    assert_eq!(arbiter.claim(Term(3), a), ClaimOutcome::Won);

    assert!(Command::new("umount").arg("--lazy").arg(dir).status().unwrap().success());
    assert_eq!(arbiter.claim(Term(3), a), ClaimOutcome::Unreachable);
    assert!(arbiter.last().is_err());
}
