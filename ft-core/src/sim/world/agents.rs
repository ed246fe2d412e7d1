//! The agents of a world's hosts. Where there are some, no host begins a copy of its own accord: the agent beside the live copy sees to the
//! next, as [`Respawner`] and [`place`] have it, and the others start and stop copies when they are asked.
//!
//! An agent ends with its host, and knows nothing when it begins again. It sees of the others what the network lets through, and that is wrong at
//! times.

use super::{Happening, World};
use crate::message::Lane;
use crate::node::Node;
use crate::placement::{Action, Candidate, Demand, HostState, Hosts, RespawnConfig, Respawner, place};
use crate::primary::Standing;
use crate::replica::Role;
use crate::secondary::Progress;
use crate::sim::check::{Failure, Rule};
use crate::units::{HostId, Instant, Span};
use std::collections::BTreeSet;

/// How often an agent is wrong about another host, in thousandths.
const ERRORS: u64 = 20;

/// The one VM.
const VM: &str = "toy";

#[derive(Debug)]
pub(super) struct Agent {
    respawner: Respawner,
    /// The attempt that was begun and neither came to something nor was given up.
    under_way: Option<(u64, HostId)>,
    /// The copy here, if it was asked for.
    made: Option<Made>,
    /// The hosts that it saw last.
    seen: BTreeSet<HostId>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    asker: HostId,
    attempt: u64,
    life: u64,
}

/// What one agent asks of another, for one of its attempts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Start(u64),
    Abandon(u64),
}

impl Agent {
    pub(super) fn new() -> Self {
        let config = RespawnConfig {
            follow_within: Span::from_ms(100),
            protect_within: Span::from_ms(100),
            retry: Span::from_ms(5),
            retry_max: Span::from_ms(40),
            suspect_for: Span::from_ms(60),
            calm: Span::from_ms(20),
        };
        Self { respawner: Respawner::new(config), under_way: None, made: None, seen: BTreeSet::new() }
    }
}

impl World {
    /// An agent looks at the copy on its host, and does what follows.
    pub(super) fn tend(&mut self, id: HostId) -> Result<(), Failure> {
        let clock = self.hosts[id.0 as usize].clock(self.now);
        let standing = match self.hosts[id.0 as usize].node.as_ref().map(Node::role) {
            Some(Role::Primary(primary)) if primary.is_live() => Some(primary.standing()),
            _ => None,
        };
        let hosts = self.view(id);
        let follows = self.attempt_follows(id);
        let agent = &mut self.agents[id.0 as usize];
        match standing {
            Some(Standing::Solo) => agent.respawner.handle_solo(clock, demand(id)),
            Some(Standing::Paired { host, protected: true }) => {
                agent.under_way = None;
                agent.respawner.handle_protected(clock, host);
            }
            Some(_) => {}
            None => agent.respawner.handle_over(),
        }
        match (agent.under_way, follows) {
            (Some((attempt, _)), Some(true)) => agent.respawner.handle_following(clock, attempt),
            (Some((attempt, _)), Some(false)) => {
                agent.respawner.handle_failed(clock, attempt, "its copy has halted".into());
            }
            _ => {}
        }
        let is_up =
            |(host, candidate): (&HostId, &Candidate)| (candidate.state == HostState::Up).then_some(*host);
        let seen: BTreeSet<HostId> = hosts.iter().filter_map(is_up).collect();
        if !seen.is_subset(&agent.seen) {
            agent.respawner.handle_hosts_changed(clock);
        }
        agent.seen = seen;
        agent.respawner.handle_tick(clock);
        self.act(id, clock, &hosts)
    }

    /// Carries out what an agent's respawner wants.
    fn act(&mut self, id: HostId, clock: Instant, hosts: &Hosts) -> Result<(), Failure> {
        while let Some(action) = self.agents[id.0 as usize].respawner.poll() {
            self.note(|| format!("the agent of {id}: {action:?}"));
            let agent = &mut self.agents[id.0 as usize];
            match action {
                Action::Place(demand) => {
                    agent.respawner.handle_decision(clock, place(&demand, hosts));
                }
                Action::Start { attempt, host } => {
                    if host == id || agent.under_way.is_some() {
                        let detail =
                            format!("{id} begins attempt {attempt} on {host}, beside {:?}", agent.under_way);
                        return Err(Failure { rule: Rule::Respawn, detail });
                    }
                    agent.under_way = Some((attempt, host));
                    self.stats.respawns += 1;
                    self.ask(id, host, Ask::Start(attempt));
                }
                Action::Abandon { attempt, host } => {
                    agent.under_way = agent.under_way.filter(|(number, _)| *number != attempt);
                    self.ask(id, host, Ask::Abandon(attempt));
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, from: HostId, to: HostId, ask: Ask) {
        for at in self.net.arrivals(self.now, (from, to), Lane::Control, &mut self.rng) {
            self.schedule(at.since(self.now), Happening::Ask { from, to, ask });
        }
    }

    /// An agent is asked by another one. Who is down or stopped does not hear it.
    pub(super) fn obey(&mut self, from: HostId, to: HostId, ask: Ask) {
        let now = self.now;
        let host = &self.hosts[to.0 as usize];
        if !host.is_up || host.is_paused {
            return;
        }
        match ask {
            Ask::Start(attempt) if host.is_free(now) => {
                self.start(to, Some(from));
                let life = self.hosts[to.0 as usize].life;
                self.agents[to.0 as usize].made = Some(Made { asker: from, attempt, life });
            }
            Ask::Start(_) => {}
            Ask::Abandon(attempt) => {
                let is_it = self.made(to, from, attempt);
                // Whoever asks may be behind the times: a copy that others depend on stays.
                let is_needed = host.node.as_ref().is_some_and(|node| match node.role() {
                    Role::Secondary(secondary) => {
                        secondary.progress() == Progress::Following { eligible: true }
                    }
                    _ => true,
                });
                if is_it && !is_needed {
                    self.quit(to);
                }
            }
        }
    }

    /// Whether the copy on a host is the one that was made for an attempt.
    fn made(&self, host: HostId, by: HostId, number: u64) -> bool {
        let life = self.hosts[host.0 as usize].life;
        let made = self.agents[host.0 as usize].made;
        made.is_some_and(|made| (made.asker, made.attempt, made.life) == (by, number, life))
    }

    /// Whether the copy of the attempt that is under way follows, or has halted; `None` if neither, or nobody knows.
    fn attempt_follows(&self, id: HostId) -> Option<bool> {
        let (attempt, host) = self.agents[id.0 as usize].under_way?;
        if !self.sees(id, host) || !self.made(host, id, attempt) {
            return None;
        }
        match self.hosts[host.0 as usize].node.as_ref()?.role() {
            Role::Secondary(secondary) => {
                matches!(secondary.progress(), Progress::Following { .. }).then_some(true)
            }
            Role::Halted(_) => Some(false),
            Role::Primary(_) => None,
        }
    }

    fn sees(&self, id: HostId, other: HostId) -> bool {
        let host = &self.hosts[other.0 as usize];
        let is_cut = [(id, other), (other, id)].iter().any(|way| self.net.cuts.contains(way));
        host.is_up && !host.is_paused && !is_cut
    }

    /// The hosts as an agent knows them.
    fn view(&mut self, id: HostId) -> Hosts {
        let mut hosts = Hosts::new();
        for other in (0..self.hosts.len() as u64).map(HostId) {
            let is_wrong = self.rng.chance(ERRORS);
            let is_up = other == id || self.sees(id, other) != is_wrong;
            let has_copy = !self.hosts[other.0 as usize].is_free(self.now) && !is_wrong;
            let candidate = Candidate {
                state: if is_up { HostState::Up } else { HostState::Unreachable },
                free_bytes: 1,
                free_slots: 1,
                vms: has_copy.then(|| VM.to_owned()).into_iter().collect(),
                ..Candidate::default()
            };
            hosts.insert(other, candidate);
        }
        hosts
    }
}

fn demand(live: HostId) -> Demand {
    Demand { vm: VM.into(), ram_bytes: 1, live: Some(live), ..Demand::default() }
}
