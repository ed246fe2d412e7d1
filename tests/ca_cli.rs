//! `ft ca` as a person meets it: the real binary, its output, its files, its exit status.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A directory to work in.
struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `ft ca` with these words in the room.
    fn ca(&self, words: &str) -> Output {
        let ft = env!("CARGO_BIN_EXE_ft");
        Command::new(ft).arg("ca").args(words.split_whitespace()).current_dir(&self.0).output().unwrap()
    }

    /// Runs `ft ca`, which must do well; what it printed.
    fn ok(&self, words: &str) -> String {
        let output = self.ca(words);
        let errors = text(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{words}: {errors}");
        text(&output.stdout)
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --json"))).unwrap()
    }

    /// Runs `ft ca`, which must fail with status 1; the one line it said.
    fn fails(&self, words: &str) -> String {
        let output = self.ca(words);
        let errors = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""), "{words}: {errors}");
        assert!(errors.starts_with("ft: ") && errors.lines().count() == 1, "{words}: {errors}");
        errors
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// How many whole days are left of `days` a moment later: as many in the same second, else one less.
fn days_after_a_moment(days: u64) -> impl Iterator<Item = u64> {
    days - 1..=days
}

#[test]
fn a_cluster_is_set_up_with_defaults() {
    let room = Room::new();
    let said = room.ok("init");
    assert!(said.starts_with("made the CA `ft`, valid until 20"), "{said}");
    assert!(said.contains("next, once for each host: ft ca issue HOST --ca ./ft-ca"), "{said}");
    let said = room.ok("issue host-a");
    assert!(said.starts_with("issued a certificate for host-a, valid until 20"), "{said}");
    assert!(said.contains("copy the directory ./host-a to host-a"), "{said}");
    for (name, mode) in
        [("ft-ca", 0o700), ("ft-ca/ca.key", 0o600), ("host-a", 0o700), ("host-a/host.key", 0o600)]
    {
        assert_eq!(room.mode(name), mode, "{name}");
    }
    let identity = ft::net::identity::Identity::load(&room.path("host-a")).unwrap();
    assert_eq!(identity.host().as_str(), "host-a");
}

#[test]
fn json_says_the_same() {
    let room = Room::new();
    let made = room.json("init --dir my-ca --name prod --days 100");
    assert_eq!((&made["name"], &made["dir"]), (&"prod".into(), &"my-ca".into()));
    assert_eq!(made["files"], serde_json::json!(["my-ca/ca.crt", "my-ca/ca.key"]));
    let issued = room.json("issue host-a --ca my-ca --out a/b --days 50");
    assert_eq!(issued["files"], serde_json::json!(["a/b/ca.crt", "a/b/host.crt", "a/b/host.key"]));
    assert!(room.path("a/b/host.key").exists());

    let shown = room.json("show a/b");
    let [ca, host] = shown.as_array().unwrap().as_slice() else { panic!("{shown}") };
    assert_eq!(
        (&ca["subject"], &ca["is_ca"], &ca["hosts"]),
        (&"prod".into(), &true.into(), &serde_json::json!([]))
    );
    assert_eq!((&host["issuer"], &host["is_ca"]), (&"prod".into(), &false.into()));
    assert_eq!(host["hosts"], serde_json::json!(["host-a"]));
    assert_eq!(host["status"], "valid");
    assert!(days_after_a_moment(50).any(|days| host["days_left"] == days), "{host}");
    assert_eq!(host["issuer_key_id"], ca["key_id"]);
    assert_eq!((&ca["not_after"], &host["not_after"]), (&made["not_after"], &issued["not_after"]));
}

#[test]
fn show_warns_before_the_end() {
    let room = Room::new();
    room.ok("init --days 100");
    room.ok("issue host-a --days 20");
    room.ok("issue host-b --days 40");
    let quiet = room.ok("show host-b/host.crt");
    assert!(quiet.contains("subject  host-b, key ") && quiet.contains("hosts    host-b\n"), "{quiet}");

    let output = room.ca("show host-a");
    let warning = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(warning.lines().count(), 1, "the CA has long enough: {warning}");
    let said = |days| warning.starts_with(&format!("ft: warning: host-a/host.crt expires in {days} days ("));
    assert!(days_after_a_moment(20).any(said), "{warning}");
    assert!(warning.contains("`ft ca issue host-a`"), "{warning}");
    assert_eq!(room.json("show host-a/host.crt")[0]["status"], "expires-soon");
}

#[test]
fn nothing_is_overwritten() {
    let room = Room::new();
    room.ok("init --name prod");
    room.ok("issue host-a");
    let files =
        || ["ft-ca/ca.crt", "ft-ca/ca.key", "host-a/host.key"].map(|name| fs::read(room.path(name)).unwrap());
    let before = files();
    assert!(
        room.fails("init")
            .contains("./ft-ca already holds the CA `prod`, which is left as it is; use that CA")
    );
    assert!(room.fails("issue host-a").contains("./host-a already holds a host's certificate"));
    assert_eq!(files(), before);
}

#[test]
fn bad_input_gets_one_line_that_says_what_to_do() {
    let room = Room::new();
    assert!(room.fails("issue host-a").contains("`ft ca init --dir ./ft-ca`"));
    assert!(room.fails("init --days 0").contains("at least 1"));
    assert!(room.fails("init --days 4294967295").contains("at most 36500"));
    assert!(room.fails("init --name a,b").contains("use 1 to 64 letters"));
    assert!(!room.path("ft-ca").exists(), "nothing was made");

    room.ok("init --days 100");
    assert!(room.fails("issue Host-A").contains("uppercase"));
    assert!(room.fails("issue ../host-a").contains("host name"));
    let error = room.fails("issue host-a --days 200");
    assert!(
        days_after_a_moment(100).any(|days| error.contains(&format!("ask for at most {days} days"))),
        "{error}"
    );
    assert!(room.fails("issue host-a").contains("would outlive the CA"));
    assert!(room.fails("show nowhere").contains("nowhere does not exist; name a PEM file"));
    assert!(room.fails("show ft-ca/ca.key").contains("holds no PEM certificate"));
    assert!(room.fails("show .").contains("holds neither ca.crt nor host.crt"));

    fs::set_permissions(room.path("ft-ca/ca.key"), Permissions::from_mode(0o644)).unwrap();
    let error = room.fails("issue host-a --days 10");
    assert!(error.contains("has mode 0644") && error.contains("`chmod 600 ./ft-ca/ca.key`"), "{error}");
    assert!(!room.path("host-a").exists(), "nothing was made");
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_failure() {
    let room = Room::new();
    for words in ["", "issue", "init --days many", "steal host-a"] {
        assert_eq!(room.ca(words).status.code(), Some(2), "{words}");
    }
}
