//! Whether there were ever two machines: what copies said, what the arbiter keeps and what the LAN saw, held against each other.
//!
//! - A term has one owner, for ever (R4).
//! - Who says that it is live, solo or takes over in a term owns it. A primary may also count a term as its own that its secondary has
//!   won too late and renounced.
//! - A life of a copy at the arbiter (an incarnation) is one process, and the other way round.
//! - Nobody goes live, or solo, after another did in a later term.
//! - Once the guest's address has moved away from a port of the LAN, nothing comes from there any more (R5). A process that is stopped
//!   between the check of its lease and the system call that sends may say a last word when it goes on (docs/protocol.md): for a moment after a
//!   SIGCONT this is counted and not blamed.
//! - Copies do not diverge (R11).

use crate::arbiter::OwnedTerm;
use crate::demo::watch::{Heard, Said};
use crate::lan::{Mac, PortId};
use crate::vm::control::Role;
use crate::vm::report::Report;
use ft_core::replica::Notice;
use ft_core::units::{NodeId, Term};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long after a SIGCONT a last word may be on the LAN.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Violations that are told; further ones are counted with the last.
const VIOLATIONS_MAX: usize = 20;

/// A copy: its host and process.
type Who = (u64, u32);

/// The judge.
#[derive(Default)]
pub(super) struct Judge {
    /// Who said in a term that it is live there or about to be.
    entitled: BTreeMap<u64, BTreeSet<Who>>,
    /// Who was seen live in a term.
    seen_live: BTreeMap<u64, BTreeSet<Who>>,
    renounced: BTreeMap<u64, Who>,
    /// The latest term in which anybody went live or solo.
    latest: Option<(u64, Who)>,
    owners: BTreeMap<u64, NodeId>,
    lan: BTreeMap<Mac, BTreeSet<PortId>>,
    thawed: Option<Instant>,
    /// Frames of a copy that was stopped, after another took over.
    pub(super) last_words: u64,
    violations: Vec<String>,
    more: u64,
}

impl Judge {
    /// Takes in what a copy said.
    pub(super) fn hear(&mut self, heard: &Heard) {
        let who = (heard.host, heard.pid);
        let report = match &heard.what {
            Said::Reports(report) => report,
            Said::Stands(stands) if stands.role == Role::Live => {
                self.seen_live.entry(stands.term).or_default().insert(who);
                return;
            }
            Said::Stands(_) | Said::Gone => return,
        };
        match report {
            Report::Live { term } | Report::Solo { term } => {
                self.entitled.entry(*term).or_default().insert(who);
                self.go_live(*term, who);
            }
            Report::Promoting { term } => drop(self.entitled.entry(*term).or_default().insert(who)),
            Report::Status { term, live: true, .. } => {
                self.seen_live.entry(*term).or_default().insert(who);
            }
            Report::Notice { text } => self.hear_notice(text, who),
            _ => {}
        }
        // However it is told, it names the record like this.
        if let Some(words) = report.words().filter(|words| words.contains("divergence at record")) {
            self.blame(format!("{} says: {words}", name(who)));
        }
    }

    fn go_live(&mut self, term: u64, who: Who) {
        match self.latest {
            Some((later, other)) if later > term => self.blame(format!(
                "{} went live or solo in term {term}, after {} did in term {later}",
                name(who),
                name(other)
            )),
            _ => self.latest = Some((term, who)),
        }
    }

    fn hear_notice(&mut self, text: &str, who: Who) {
        // A renouncement is told in words only: in those that a renouncement of this term would be told in.
        let said =
            |term: u64| Report::from(&Notice::Renounced(Term(term))) == Report::Notice { text: text.into() };
        let first = self.owners.keys().next_back().map_or(0, |term| term.saturating_sub(1));
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
        if let Some(term) = numbers.into_iter().find(|term| *term >= first && said(*term)) {
            self.renounced.insert(term, who);
        }
    }

    /// Takes in all that the arbiter keeps. What it kept before must still be there.
    pub(super) fn read(&mut self, history: &[OwnedTerm]) {
        let now: BTreeMap<u64, NodeId> = history.iter().map(|owned| (owned.term.0, owned.owner)).collect();
        for (term, owner) in std::mem::take(&mut self.owners) {
            match now.get(&term) {
                Some(other) if *other == owner => {}
                Some(other) => self.blame(format!("term {term} was {owner}'s, and is {other}'s now")),
                None => self.blame(format!("term {term} was {owner}'s, and is nobody's now")),
            }
        }
        self.owners = now;
    }

    /// Whether the owner of a term has said that it will never use it.
    fn is_renounced(&self, term: u64) -> bool {
        let by = self.renounced.get(&term).map(|who| who.0);
        by.is_some_and(|host| self.owners.get(&term).is_some_and(|owner| owner.host.0 == host))
    }

    /// Takes in which copy is live at the end: the last term must be its own, or count as such.
    pub(super) fn close(&mut self, live: Option<Who>) {
        let last = self.owners.last_key_value().map(|(term, owner)| (*term, *owner));
        match (live, last) {
            (Some(who), Some((_, owner))) if owner.host.0 == who.0 => {}
            (Some(_), Some((term, _))) if self.is_renounced(term) => {}
            (Some(who), Some((term, owner))) => {
                self.blame(format!(
                    "{} is live at the end, and the last term, {term}, is {owner}'s",
                    name(who)
                ));
            }
            _ => self
                .blame("at the end there is no copy, or more than one, that is live and owns a term".into()),
        }
    }

    /// Takes note that a process was let go on.
    pub(super) fn thaw(&mut self, at: Instant) {
        self.thawed = Some(at);
    }

    /// Takes in that an address turned up at another port of the LAN.
    pub(super) fn see(&mut self, at: Instant, mac: Mac, from: Option<PortId>, to: PortId) {
        let is_back = self.lan.entry(mac).or_default().remove(&to);
        if !is_back {
            self.lan.entry(mac).or_default().extend(from);
            return;
        }
        let excused = self.thawed.is_some_and(|thawed| at.saturating_duration_since(thawed) < LAST_WORD);
        if excused {
            self.last_words += 1;
        } else {
            self.blame(format!("{mac} talked at {to} of the LAN again, after another copy had taken over"));
        }
    }

    /// Takes in something that is wrong and was found elsewhere.
    pub(super) fn blame(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        } else {
            self.more += 1;
        }
    }

    /// Holds it all against each other, when nothing more will come.
    pub(super) fn judge(mut self) -> Vec<String> {
        let mut lives = Lives::default();
        for (term, whos) in std::mem::take(&mut self.entitled) {
            if whos.len() > 1 {
                let names: Vec<String> = whos.iter().copied().map(name).collect();
                self.blame(format!("term {term} was used by more than one copy: {}", names.join(", ")));
            }
            for who in whos {
                match self.owners.get(&term).copied() {
                    Some(owner) if owner.host.0 == who.0 => {
                        lives.meet(owner, who).into_iter().for_each(|what| self.blame(what));
                    }
                    Some(owner) => self.blame(format!("{} used term {term}, which is {owner}'s", name(who))),
                    None => self.blame(format!("{} used term {term}, which is nobody's", name(who))),
                }
            }
        }
        for (term, whos) in std::mem::take(&mut self.seen_live) {
            for who in whos {
                let is_own = self.owners.get(&term).is_some_and(|owner| lives.is_of(*owner, who));
                if !is_own && !self.is_renounced(term) {
                    self.blame(format!("{} was live in term {term}, which is not its own", name(who)));
                }
            }
        }
        if self.more > 0 {
            self.violations.push(format!("and {} more", self.more));
        }
        self.violations
    }
}

/// Which process is which life.
#[derive(Default)]
struct Lives {
    process: BTreeMap<NodeId, Who>,
    life: BTreeMap<Who, NodeId>,
}

impl Lives {
    /// The two are one; what is wrong with that.
    fn meet(&mut self, life: NodeId, who: Who) -> Option<String> {
        let (process, known) =
            (*self.process.entry(life).or_insert(who), *self.life.entry(who).or_insert(life));
        let is_one = process == who && known == life;
        (!is_one).then(|| format!("{} is {life}, and so is {}; or it is {known}", name(who), name(process)))
    }

    /// Whether a process can be that life: nobody else is, as far as is known.
    fn is_of(&self, life: NodeId, who: Who) -> bool {
        let fits = self.process.get(&life).is_none_or(|process| *process == who);
        fits && self.life.get(&who).is_none_or(|known| *known == life) && life.host.0 == who.0
    }
}

fn name((host, pid): Who) -> String {
    format!("the copy on host {host} (process {pid})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Status;
    use crate::vm::transfers::Transfers;
    use ft_core::error::{Divergence, Fault};
    use ft_core::units::{HostId, Seq};

    fn owned(term: u64, host: u64, incarnation: u64) -> OwnedTerm {
        let owner = NodeId { host: HostId(host), incarnation };
        OwnedTerm { term: Term(term), owner, remark: String::new() }
    }

    /// A judge of two terms: process 10 of host 1 owns the first, process 20 of host 2 the second.
    fn judge(reports: &[(Who, Report)]) -> Vec<String> {
        let (mut judge, at) = (Judge::default(), Instant::now());
        judge.read(&[owned(1, 1, 111)]);
        for (who, report) in reports {
            let what = Said::Reports(report.clone());
            judge.hear(&Heard { at, host: who.0, pid: who.1, what });
        }
        judge.read(&[owned(1, 1, 111), owned(2, 2, 222)]);
        judge.judge()
    }

    const A: Who = (1, 10);
    const B: Who = (2, 20);

    fn live(term: u64) -> Report {
        Report::Live { term }
    }

    fn status(term: u64) -> Report {
        let status = Status { term: Term(term), live: true, protected: true, ..Status::default() };
        Report::status(&status, &Transfers::default())
    }

    #[track_caller]
    fn is_blamed(violations: &[String], word: &str) {
        assert!(violations.len() == 1 && violations[0].contains(word), "{word}: {violations:?}");
    }

    #[test]
    fn a_failover_is_no_violation() {
        let promoting = Report::Promoting { term: 2 };
        let story =
            [(A, live(1)), (A, Report::Solo { term: 1 }), (A, status(1)), (B, promoting), (B, live(2))];
        assert_eq!(judge(&story), [""; 0]);
    }

    #[test]
    fn r4_a_term_has_one_user_who_owns_it() {
        is_blamed(&judge(&[(A, live(2))]), "which is");
        is_blamed(&judge(&[(B, live(3))]), "nobody's");
        is_blamed(&judge(&[(A, status(2))]), "not its own");
        // Another process of the same host.
        is_blamed(&judge(&[(B, live(2)), ((2, 21), status(2))]), "not its own");
        let both = judge(&[(B, live(2)), ((2, 21), live(2))]);
        assert!(both.len() == 2 && both[0].contains("more than one"), "{both:?}");
    }

    #[test]
    fn r4_nobody_goes_live_after_another_did_in_a_later_term() {
        is_blamed(&judge(&[(B, live(2)), (A, live(1))]), "after");
    }

    #[test]
    fn a_term_that_was_renounced_counts_as_the_primarys() {
        let renounced = Report::from(&Notice::Renounced(Term(2)));
        assert_eq!(judge(&[(A, live(1)), (B, renounced), (A, status(2))]), [""; 0]);
        let another = Report::from(&Notice::Renounced(Term(7)));
        is_blamed(&judge(&[(A, live(1)), (B, another), (A, status(2))]), "not its own");
    }

    #[test]
    fn r4_the_last_term_is_the_live_copys_or_renounced() {
        let close = |said: Option<Report>, live| {
            let mut judge = Judge::default();
            judge.read(&[owned(1, 1, 111), owned(2, 2, 222)]);
            if let Some(report) = said {
                judge.hear(&Heard { at: Instant::now(), host: B.0, pid: B.1, what: Said::Reports(report) });
            }
            judge.close(live);
            judge.judge()
        };
        let renounced = || Some(Report::from(&Notice::Renounced(Term(2))));
        assert_eq!(close(None, Some(B)), [""; 0]);
        assert_eq!(close(renounced(), Some(A)), [""; 0]);
        is_blamed(&close(None, Some(A)), "last term");
        is_blamed(&close(renounced(), None), "no copy");
    }

    #[test]
    fn r4_what_the_arbiter_keeps_never_changes() {
        for now in [vec![], vec![owned(1, 1, 112)], vec![owned(1, 2, 111)]] {
            let mut judge = Judge::default();
            judge.read(&[owned(1, 1, 111)]);
            judge.read(&now);
            is_blamed(&judge.judge(), "now");
        }
    }

    #[test]
    fn r5_a_port_that_lost_the_address_is_silent_unless_its_process_was_just_let_go_on() {
        let (mac, t0) = (Mac([2; 6]), Instant::now());
        let see = |thawed: Option<Instant>| {
            let mut judge = Judge::default();
            thawed.into_iter().for_each(|at| judge.thaw(at));
            for (from, to) in [(1, 2), (2, 1), (1, 2), (2, 3)] {
                judge.see(t0, mac, Some(PortId(from)), PortId(to));
            }
            (judge.last_words, judge.judge())
        };
        let (last_words, violations) = see(None);
        assert_eq!(last_words, 0);
        is_blamed(&violations, "again");
        assert_eq!(see(Some(t0)), (1, Vec::new()));
    }

    #[test]
    fn r11_a_divergence_is_a_violation() {
        let divergence = Divergence::Machine { seq: Seq(7), fault: Fault("no such device".into()) };
        let gave_up = Report::from(&Notice::Resigned(HostId(2), divergence.to_string()));
        is_blamed(&judge(&[(A, gave_up)]), "record #7");
        let halted = Report::from(&Notice::Halted(divergence.into()));
        is_blamed(&judge(&[(B, halted)]), "record #7");
    }
}
