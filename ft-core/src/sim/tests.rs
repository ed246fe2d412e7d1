//! The simulation itself: it finds bugs that are there, and nothing else.

use super::world::{self, Stats, Verdict};
use crate::planted::{self, Bug};

#[test]
fn worlds_pass() {
    let (mut passed, mut total) = (0, Stats::default());
    for seed in 0..300 {
        match world::run(seed) {
            Verdict::Passed(stats) => {
                passed += 1;
                total.takeovers += stats.takeovers;
                total.solos += stats.solos;
                total.repeats += stats.repeats;
                total.losers += stats.losers;
                total.renounced += stats.renounced;
                total.yielded += stats.yielded;
                total.respawns += stats.respawns;
                total.relieved += stats.relieved;
            }
            Verdict::Extinct(_) => {}
            Verdict::Failed(_, at, failure) => panic!("seed {seed} at {at}: {failure}"),
        }
    }
    // A simulation in which nothing happens proves nothing.
    assert!(passed > 200, "{passed} of 300 worlds kept their machine");
    assert!(total.respawns > 150, "{total:?}");
    assert!(total.yielded > 50 && total.relieved > 20, "{total:?}");
    assert!(total.takeovers > 30 && total.solos > 60 && total.repeats > 30 && total.losers > 10, "{total:?}");
}

#[test]
fn a_seed_is_a_world() {
    let lines = |seed| {
        let lines = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let sink = std::rc::Rc::clone(&lines);
        world::trace(seed, move |line| sink.borrow_mut().push(line));
        lines.take()
    };
    let first = lines(7);
    assert!(first.len() > 100);
    assert_eq!(first, lines(7));
    assert_ne!(first, lines(8));
}

/// The first of 10,000 seeds in which the simulation notices a bug, and what it says.
fn noticed(bug: Bug) -> Option<(u64, String)> {
    (0..10_000).find_map(|seed| match planted::with(bug, || world::run(seed)) {
        Verdict::Failed(_, _, failure) => Some((seed, failure.to_string())),
        _ => None,
    })
}

macro_rules! planted_bugs_are_found {
    ($($name:ident $bug:ident;)*) => {$(
        #[test]
        fn $name() {
            let (seed, what) = noticed(Bug::$bug).expect("the planted bug must be found within 10,000 seeds");
            println!("{:?} is noticed in seed {seed}: {what}", Bug::$bug);
        }
    )*};
}

planted_bugs_are_found! {
    r3_early_effects_are_found R3;
    r4_a_claim_that_is_not_made_is_found R4;
    r5_a_loser_that_goes_on_is_found R5;
    r7_forgotten_effects_are_found R7;
    r8_a_joining_secondary_that_is_not_waited_for_is_found R8;
    an_attempt_that_is_not_given_up_is_found Respawn;
    r4_an_heir_that_does_not_wait_for_who_yielded_is_found Heir;
    r8_a_second_secondary_that_is_not_waited_for_is_found Relief;
}
