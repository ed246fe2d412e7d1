//! Who is well, as an operator would see it.
//!
//! Invariant: a pair is one only while both copies have said so within [`FRESH`]. A copy that is stopped, or dead, says nothing.

use super::witness::{Heard, Said};
use crate::vm::control::{Role, Snapshot};
use crate::vm::report::Report;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Copies say ten times a second how they stand.
const FRESH: Duration = Duration::from_millis(400);

/// A pair is settled when it has been one for so long: several times the silence after which a copy claims a term, so that none is being
/// claimed.
const SETTLED: Duration = Duration::from_secs(1);

/// A copy, as far as it is known.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Its process.
    pub pid: u32,
    /// How it stands.
    pub stands: Snapshot,
    /// When it last said how it stands.
    heard: Option<Instant>,
}

impl Copy {
    /// One that has just been seen.
    pub fn new(pid: u32, stands: Snapshot) -> Self {
        Self { pid, stands, heard: None }
    }
}

/// The picture: what was heard is taken in, and from time to time somebody looks.
#[derive(Default)]
pub struct Picture {
    copies: BTreeMap<u64, Copy>,
    pair_since: Option<((u64, u64), Instant)>,
    /// How often two copies came into step.
    pub pairs: u64,
    /// How often another copy went live since.
    pub failovers: u64,
}

impl Picture {
    /// Takes in what was heard.
    pub fn take_in(&mut self, heard: &Heard) {
        let &Heard { at, host, pid, ref what } = heard;
        match what {
            Said::Stands(stands) => {
                self.copies.insert(host, Copy::new(pid, (**stands).clone()));
            }
            Said::Reports(report) => {
                let goes_live = matches!(report, Report::Live { .. });
                self.failovers += u64::from(goes_live && self.pairs > 0);
                if let Some(copy) = self.copies.get_mut(&host).filter(|copy| copy.pid == pid) {
                    copy.stands.take_in(report);
                    if matches!(report, Report::Status { .. }) {
                        copy.heard = Some(at);
                    }
                }
            }
            Said::Gone => {
                if self.copies.get(&host).is_some_and(|copy| copy.pid == pid) {
                    self.copies.remove(&host);
                }
            }
        }
    }

    /// Brings up to date since when there has been a pair.
    pub fn look(&mut self, now: Instant) {
        let pair = self.find_pair(now);
        if pair != self.pair_since.map(|(pair, _)| pair) {
            self.pairs += u64::from(pair.is_some());
            self.pair_since = pair.map(|pair| (pair, now));
        }
    }

    fn find_pair(&self, now: Instant) -> Option<(u64, u64)> {
        let in_step = |copy: &Copy| {
            let is_fresh = copy.heard.is_some_and(|heard| now.saturating_duration_since(heard) < FRESH);
            is_fresh && copy.stands.protected
        };
        let (live_host, _) = self.live()?;
        let live = self.copies.get(&live_host)?;
        let other_host = live.stands.peer?;
        let other = self.copies.get(&other_host)?;
        let is_pair = in_step(live)
            && in_step(other)
            && other.stands.role == Role::Following
            && other.stands.peer == Some(live_host)
            && other.stands.term == live.stands.term;
        is_pair.then_some((live_host, other_host))
    }

    /// The hosts of the live copy and of the other, if they are in step.
    pub fn pair(&self) -> Option<(u64, u64)> {
        self.pair_since.map(|(pair, _)| pair)
    }

    /// Whether they have been in step for a while, and since `quiet` at the latest.
    pub fn is_settled(&self, quiet: Option<Instant>, now: Instant) -> bool {
        let since = self.pair_since.map(|(_, since)| quiet.map_or(since, |quiet| quiet.max(since)));
        since.is_some_and(|since| now.saturating_duration_since(since) >= SETTLED)
    }

    /// The copy on a host, if there is one.
    pub fn copy(&self, host: u64) -> Option<&Copy> {
        self.copies.get(&host)
    }

    /// Whether nobody says anything any more.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// The only live copy's host and process; `None` if there is none, or more than one.
    pub fn live(&self) -> Option<(u64, u32)> {
        let mut live = self.copies.iter().filter(|(_, copy)| copy.stands.role == Role::Live);
        let (host, copy) = live.next()?;
        live.next().is_none().then_some((*host, copy.pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Status;
    use crate::vm::transfers::Transfers;
    use ft_core::units::Term;

    fn status(host: u64, at: Instant, live: bool, protected: bool) -> Heard {
        let status = Status { term: Term(3), live, protected, ..Status::default() };
        let report = Report::status(&status, &Transfers::default());
        Heard { at, host, pid: host as u32, what: Said::Reports(report) }
    }

    fn stands(host: u64, role: Role, peer: u64, at: Instant) -> Heard {
        let stands = Snapshot { role, peer: Some(peer), term: 3, ..Snapshot::default() };
        Heard { at, host, pid: host as u32, what: Said::Stands(Box::new(stands)) }
    }

    #[test]
    fn a_pair_is_one_while_both_say_so_and_settled_after_a_while() {
        let (mut picture, t0) = (Picture::default(), Instant::now());
        let at = |ms| t0 + Duration::from_millis(ms);
        picture.take_in(&stands(2, Role::Live, 1, t0));
        picture.take_in(&stands(1, Role::Following, 2, t0));
        let mut say = |ms: u64, protected: [bool; 2]| {
            picture.take_in(&status(2, at(ms), true, protected[0]));
            picture.take_in(&status(1, at(ms), false, protected[1]));
            picture.look(at(ms));
            (picture.pair(), picture.is_settled(None, at(ms)), picture.is_settled(Some(at(600)), at(ms)))
        };
        assert_eq!(say(0, [true, false]), (None, false, false));
        for ms in (100..1100).step_by(100) {
            assert_eq!(say(ms, [true, true]), (Some((2, 1)), false, false), "{ms}");
        }
        assert_eq!(say(1100, [true, true]), (Some((2, 1)), true, false));
        assert_eq!(say(1600, [true, true]), (Some((2, 1)), true, true));
        // Old news are no news.
        picture.look(at(2100));
        assert_eq!(picture.pair(), None);
        assert_eq!(picture.pairs, 1);
    }

    #[test]
    fn a_copy_that_is_gone_is_none() {
        let (mut picture, t0) = (Picture::default(), Instant::now());
        picture.take_in(&stands(2, Role::Live, 1, t0));
        assert_eq!(picture.live(), Some((2, 2)));
        // The end of an earlier process is not that of this one.
        picture.take_in(&Heard { at: t0, host: 2, pid: 99, what: Said::Gone });
        assert_eq!(picture.live(), Some((2, 2)));
        picture.take_in(&Heard { at: t0, host: 2, pid: 2, what: Said::Gone });
        assert_eq!(picture.live(), None);
    }
}
