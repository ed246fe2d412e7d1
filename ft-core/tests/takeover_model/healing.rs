//! What becomes of a world once everything works again: time passes, and all arrives at once and in order.

use crate::world::{FIRST, HOSTS, SECOND, World};
use ft_core::units::Term;

/// Steps after which whatever was pending has been tried again: the arbiter, the log, the silence of the other.
const SETTLE: usize = 5;

/// Steps after which a world must be at rest: three times over, one after the other.
const PATIENCE: usize = 3 * SETTLE;

/// How a healed world ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// One machine is live, lets its effects out, and where it has a secondary either may fail.
    Well,
    /// No copy is left, and none could know that it was safe to go on: the owner of the newest term crashed before the
    /// other side was in that term.
    Excused,
    /// A rule was broken on the way.
    Broken,
    /// No copy is left, without excuse.
    Extinct,
    /// No live machine, or two copies that find no way out.
    Stuck,
    /// The live machine's effects do not leave.
    Mute,
    /// The pair says that it is protected, and does not survive the crash of one side.
    Fragile,
}

impl World {
    /// Whether it has its machine again once it is healed, whatever becomes of what is on its way.
    pub(crate) fn ends_well(&self) -> bool {
        [false, true]
            .into_iter()
            .all(|arrives| matches!(self.ending(arrives), Ending::Well | Ending::Excused))
    }

    /// How it ends if what is on its way is lost, or, with `arrives`, is not.
    pub(crate) fn ending(&self, arrives: bool) -> Ending {
        let mut healed = self.clone();
        if !arrives {
            healed.lose_all();
        }
        let terms = HOSTS.map(|host| self.term(host));
        healed.settle();
        healed.judge(terms)
    }

    fn judge(&mut self, terms: [Option<Term>; 2]) -> Ending {
        if self.is_extinct() {
            return if self.is_excused(terms) { Ending::Excused } else { Ending::Extinct };
        }
        let Some(live) = self.solo().or(self.is_protected().then_some(FIRST)) else { return Ending::Stuck };
        self.emit(live);
        self.run_fairly(1);
        if self.history.breach.is_some() {
            return Ending::Broken;
        }
        if self.history.released != self.hosts[live].emitted {
            return Ending::Mute;
        }
        if self.is_protected() && HOSTS.into_iter().any(|host| !self.survives(host)) {
            return Ending::Fragile;
        }
        Ending::Well
    }

    /// Time passes until nothing is left to be settled.
    fn settle(&mut self) {
        self.run_fairly(SETTLE);
        for _ in SETTLE..PATIENCE {
            if self.solo().is_some() || self.is_extinct() || self.is_protected() {
                return;
            }
            self.run_fairly(1);
        }
    }

    fn survives(&self, crashed: usize) -> bool {
        let mut world = self.clone();
        world.crash(crashed);
        world.settle();
        world.history.breach.is_none() && world.solo() == Some(1 - crashed)
    }

    /// `terms` are those in which the copies were when all was healed.
    fn is_excused(&self, terms: [Option<Term>; 2]) -> bool {
        let Some((last, owner)) = self.arbiter.owners().last_key_value() else { return false };
        let owner = owner.host.0 as usize;
        self.hosts[owner].replica.is_none() && terms[1 - owner].is_none_or(|term| term < *last)
    }

    /// Time passes, and all arrives at once and in order.
    pub(crate) fn run_fairly(&mut self, steps: usize) {
        for _ in 0..steps {
            self.exchange();
            self.pass();
            self.tick(FIRST);
            self.tick(SECOND);
        }
        self.exchange();
    }

    /// All that is on its way arrives, and what follows from it.
    fn exchange(&mut self) {
        loop {
            for host in HOSTS {
                self.step(host);
            }
            if let Some((host, term)) = self.requests.first().copied() {
                self.decide(host, term);
            } else if let Some((to, term, outcome)) = self.answers.first().copied() {
                self.answer(to, term, outcome, false);
            } else if let Some(to) = HOSTS.into_iter().find(|to| !self.wires[*to].is_empty()) {
                let envelope = self.wires[to].remove(0);
                self.deliver(to, &envelope);
            } else {
                return;
            }
        }
    }
}
