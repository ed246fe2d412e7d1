//! What can happen to a directory.

use crate::suite::{VM, node};
use ft::arbiter::{ArbiterConfig, DirArbiter, TermStore as _};
use ft::core::arbiter::{Arbiter as _, ClaimOutcome};
use ft::core::units::Term;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

pub(crate) fn bed() -> (ArbiterConfig, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (ArbiterConfig::Dir(dir.path().into()), dir)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every state of the directory in which a claimer can leave it, made by hand.
#[test]
fn r4_what_a_dead_claimer_leaves_behind_neither_blocks_nor_misleads() {
    let (dead, living) = (node(1, 7), node(2, 8));
    let entry = "host 1 incarnation 7 at 2026-11-20T14:09:19Z\n";
    for half in ["", "host 1 incar", entry] {
        for linked in [false, true] {
            if linked && half != entry {
                continue; // A file has the term's name only once it is whole.
            }
            let dir = tempfile::tempdir().unwrap();
            let own = dir.path().join(VM);
            fs::create_dir(&own).unwrap();
            let claim = own.join(".claim-000001-AbCdEf");
            fs::write(&claim, half).unwrap();
            if linked {
                fs::hard_link(&claim, own.join("term-000001")).unwrap();
            }
            let mut arbiter = DirArbiter::open(dir.path(), VM).unwrap();
            let expected = if linked { ClaimOutcome::Lost { owner: dead } } else { ClaimOutcome::Won };
            assert_eq!(arbiter.claim(Term(1), living), expected, "{half:?}");
            let owner = if linked { dead } else { living };
            assert_eq!(arbiter.last().unwrap().unwrap().owner, owner);
            assert_eq!(arbiter.claim(Term(1), dead) == ClaimOutcome::Won, linked);
            // Once the term is settled, the left-over is of no use to anybody and goes.
            DirArbiter::open(dir.path(), VM).unwrap();
            assert_eq!(names(&own), ["term-000001"], "{half:?}");
            assert_eq!(arbiter.last().unwrap().unwrap().owner, owner);
        }
    }
}

/// A claimer's own file may be the same file as its term's: the next claim must not write to it.
#[test]
fn r4_a_left_over_that_is_the_terms_file_is_never_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut arbiter = DirArbiter::open(dir.path(), VM).unwrap();
    assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Won);
    let (own, term) = (dir.path().join(VM), dir.path().join(VM).join("term-000001"));
    fs::hard_link(&term, own.join(".claim-000001-AbCdEf")).unwrap();
    fs::hard_link(&term, own.join(".claim-1-7")).unwrap();
    let before = fs::read(&term).unwrap();
    for host in 1..5 {
        arbiter.claim(Term(1), node(host, 7));
        arbiter.claim(Term(2), node(host, 7));
        assert_eq!(fs::read(&term).unwrap(), before);
    }
}

#[test]
fn a_new_life_takes_the_claims_in_progress_of_others_from_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut arbiter = DirArbiter::open(dir.path(), VM).unwrap();
    assert_eq!(arbiter.claim(Term(3), node(1, 7)), ClaimOutcome::Won);
    let own = dir.path().join(VM);
    for name in [".claim-000002-a", ".claim-000003-a", ".claim-000004-a", ".claim-x", "notes"] {
        fs::write(own.join(name), "").unwrap();
    }
    DirArbiter::open(dir.path(), VM).unwrap();
    assert_eq!(names(&own), [".claim-000002-a", ".claim-000004-a", ".claim-x", "notes", "term-000003"]);
}

#[test]
fn r6_a_term_whose_file_is_damaged_has_no_answer_and_the_others_have() {
    let dir = tempfile::tempdir().unwrap();
    let mut arbiter = DirArbiter::open(dir.path(), VM).unwrap();
    assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Won);
    for damage in ["", "garbage\n", "host 1 incarnation 7"] {
        fs::write(dir.path().join(VM).join("term-000002"), damage).unwrap();
        assert_eq!(arbiter.claim(Term(2), node(1, 7)), ClaimOutcome::Unreachable, "nobody knows whose it is");
        let error = arbiter.last().unwrap_err().to_string();
        assert!(error.contains("term-000002") && error.contains("backup"), "{error}");
        assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Won);
    }
}

#[test]
fn r6_a_directory_that_is_away_is_no_answer_and_none_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("mount");
    let error = DirArbiter::open(&shared, VM).unwrap_err().to_string();
    assert!(error.contains("mount"), "{error}");
    assert!(!shared.exists());
    fs::write(&shared, "").unwrap();
    DirArbiter::open(&shared, VM).unwrap_err();
    fs::remove_file(&shared).unwrap();

    fs::create_dir(&shared).unwrap();
    let mut arbiter = DirArbiter::open(&shared, VM).unwrap();
    assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Won);
    let away = dir.path().join("away");
    fs::rename(&shared, &away).unwrap();
    assert_eq!(arbiter.claim(Term(1), node(1, 7)), ClaimOutcome::Unreachable);
    assert_eq!(arbiter.claim(Term(2), node(1, 7)), ClaimOutcome::Unreachable);
    // An empty directory in its place, as when a mount is missing, is not taken for it.
    fs::create_dir(&shared).unwrap();
    assert_eq!(arbiter.claim(Term(1), node(2, 8)), ClaimOutcome::Unreachable);
    assert_eq!(names(&shared), Vec::<String>::new());
    fs::remove_dir(&shared).unwrap();
    fs::rename(&away, &shared).unwrap();
    assert_eq!(arbiter.claim(Term(1), node(2, 8)), ClaimOutcome::Lost { owner: node(1, 7) });
    assert_eq!(arbiter.claim(Term(2), node(2, 8)), ClaimOutcome::Won);
}

#[test]
fn r4_no_clock_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut arbiter = DirArbiter::open(dir.path(), VM).unwrap();
    let own = dir.path().join(VM);
    let dates = ["at 1970-01-01T00:00:00Z", "at 9999-12-31T23:59:59Z", "at -5", ""];
    let times = [Duration::ZERO, Duration::from_secs(1 << 33)].map(|age| SystemTime::UNIX_EPOCH + age);
    for (term, date) in (1..).map(Term).zip(dates) {
        let path = own.join(format!("term-{:06}", term.0));
        fs::write(&path, format!("host 1 incarnation 7 {date}\n")).unwrap();
        for time in times {
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            let mut reopened = DirArbiter::open(dir.path(), VM).unwrap();
            assert_eq!(reopened.claim(term, node(2, 8)), ClaimOutcome::Lost { owner: node(1, 7) });
            assert_eq!(reopened.claim(term, node(1, 7)), ClaimOutcome::Won);
            let last = reopened.last().unwrap().unwrap();
            assert_eq!((last.term, last.owner, &last.remark[..]), (term, node(1, 7), date));
        }
    }
    assert_eq!(arbiter.claim(Term(5), node(2, 8)), ClaimOutcome::Won);
}
