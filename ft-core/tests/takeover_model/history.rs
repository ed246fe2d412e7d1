//! What the outside has seen of a world, and the rules that it checks.

use crate::world::{FIRST, HOSTS, SECOND, World, node_id};
use ft_core::error::HaltReason;
use ft_core::primary::Standing;
use ft_core::replica::{Notice, Role};
use ft_core::units::{EffectSeq, Term};
use std::collections::{BTreeMap, BTreeSet};

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Breach {
    /// R4: two nodes were live in one term.
    OneLive,
    /// R4: a node was live in a term that it does not own and whose owner has not renounced it.
    Owner,
    /// R4: a node let out an effect after another had become live in a later term.
    LateRelease,
    /// R5: a node let out an effect after it had lost.
    DeadRelease,
    /// R3: an effect left before the secondary held its record.
    OutputRule,
    /// R7: a node went live and did not know of an effect that had left, or kept one back.
    LostEffect,
    /// Effects left out of turn.
    Order,
    /// A copy halted for another reason than that it lost.
    Halt,
}

/// What the outside has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History {
    /// Who was live in each term.
    pub(crate) live: BTreeMap<Term, usize>,
    /// Terms that their owner will not use.
    pub(crate) renounced: BTreeSet<Term>,
    /// The last effect that has left.
    pub(crate) released: EffectSeq,
    /// The first rule that was broken.
    pub(crate) breach: Option<Breach>,
}

impl World {
    /// An effect leaves `host`.
    pub(crate) fn release(&mut self, host: usize, seq: EffectSeq) {
        let (Some(standing), Some(term)) = (self.standing(host), self.term(host)) else {
            return self.breach(Breach::DeadRelease);
        };
        if self.history.live.iter().any(|(later, other)| *later > term && *other != host) {
            self.breach(Breach::LateRelease);
        }
        let depends = matches!(standing, Standing::Paired { .. } | Standing::Contested(_));
        if depends && seq > self.hosts[1 - host].covered {
            self.breach(Breach::OutputRule);
        }
        if seq > self.history.released.next() {
            self.breach(Breach::Order);
        }
        self.history.released = self.history.released.max(seq);
    }

    /// A host says something.
    pub(crate) fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Renounced(term) => {
                self.history.renounced.insert(term);
            }
            Notice::Halted(HaltReason::Lost { .. } | HaltReason::Superseded { .. }) => {}
            Notice::Halted(_) => self.breach(Breach::Halt),
            _ => {}
        }
    }

    /// `host` has just gone live: all that ever left it has let out again or knows to have left, and it keeps nothing back.
    pub(crate) fn check_takeover(&mut self, host: usize) {
        if self.hosts[host].emitted != self.history.released {
            self.breach(Breach::LostEffect);
        }
    }

    /// Looks at a host after anything has happened to it.
    pub(crate) fn inspect(&mut self, host: usize) {
        let Some(replica) = &self.hosts[host].replica else { return };
        match replica.role() {
            Role::Primary(primary) if primary.standing() != Standing::Creating => {
                let term = primary.term();
                let owns = self.arbiter.owners().get(&term) == Some(&node_id(host));
                if *self.history.live.entry(term).or_insert(host) != host {
                    self.breach(Breach::OneLive);
                }
                if !owns && !self.history.renounced.contains(&term) {
                    self.breach(Breach::Owner);
                }
            }
            Role::Secondary(secondary) => self.hosts[host].covered = secondary.covered(),
            Role::Primary(_) | Role::Halted(_) => {}
        }
    }

    /// Whether the secondary has taken over.
    pub(crate) fn has_taken_over(&self) -> bool {
        self.standing(SECOND).is_some()
    }

    /// Whether the primary goes on alone.
    pub(crate) fn has_gone_solo(&self) -> bool {
        self.standing(FIRST) == Some(Standing::Solo)
    }

    /// Whether the pair is together again before the arbiter's answer to the primary.
    pub(crate) fn is_reunited(&self) -> bool {
        matches!(self.standing(FIRST), Some(Standing::Paired { .. })) && self.has_claimed(FIRST)
    }

    /// Whether the primary is live in a term that the secondary won and did not use.
    pub(crate) fn uses_renounced(&self) -> bool {
        let live = |term: &Term| self.history.live.get(term) == Some(&FIRST);
        self.history.renounced.iter().any(live)
    }

    /// Whether a copy has halted because another owns the next term.
    pub(crate) fn has_loser(&self) -> bool {
        HOSTS.into_iter().any(|host| matches!(self.halted(host), Some(HaltReason::Lost { .. })))
    }

    /// Whether a copy has halted because another is live.
    pub(crate) fn has_superseded(&self) -> bool {
        HOSTS.into_iter().any(|host| matches!(self.halted(host), Some(HaltReason::Superseded { .. })))
    }
}
