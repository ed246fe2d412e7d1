//! Takeover, exhaustively, in small worlds: every order in which messages, clocks, claims and a crash can come, up to the
//! bounds of each test. The replicas are the crate's own, so what is checked here is what runs.
//!
//! A world starts as a protected pair. What it may do is in `action`, what must hold in `history`, and what must become of
//! it once all faults are over in `healing`. What is not here: joining, divergence, a clock that drifts, hosts that come back.
#![allow(missing_docs)]

#[path = "takeover_model/action.rs"]
mod action;
#[path = "takeover_model/healing.rs"]
mod healing;
#[path = "takeover_model/history.rs"]
mod history;
#[path = "takeover_model/trace.rs"]
mod trace;
#[path = "takeover_model/world.rs"]
mod world;

use action::{Action, Bounds};
use stateright::{Checker, HasDiscoveries, Model, Path, Property};
use std::time::Instant;
use trace::Trace;
use world::{Flaw, Start, World};

const RULES: &str = "every rule is kept";
const HEALS: &str = "a world that heals has its machine";

/// All worlds within bounds.
struct Takeover {
    bounds: Bounds,
    flaw: Flaw,
}

impl Takeover {
    fn worlds(&self) -> [World; 4] {
        [Start::InStep, Start::Lagging, Start::Renounced, Start::WonLate]
            .map(|start| World::new(self.bounds, self.flaw, start))
    }

    fn heals(&self, world: &World) -> bool {
        !world.is_over() || world.ends_well()
    }
}

impl Model for Takeover {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.worlds().to_vec()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.act(action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(RULES, |_, world: &World| world.history.breach.is_none()),
            Property::always(HEALS, Self::heals),
            Property::sometimes("the secondary takes over", |_, world: &World| world.has_taken_over()),
            Property::sometimes("the primary goes solo", |_, world: &World| world.has_gone_solo()),
            Property::sometimes("contact comes back first", |_, world: &World| world.is_reunited()),
            Property::sometimes("a term is won too late", |_, world: &World| world.uses_renounced()),
            Property::sometimes("a loser halts", |_, world: &World| world.has_loser()),
            Property::sometimes("a superseded copy halts", |_, world: &World| world.has_superseded()),
        ]
    }
}

/// Checks all worlds within bounds. Panics with the way to a world that fails.
fn check(bounds: Bounds) {
    let start = Instant::now();
    let checker = explore(bounds, Flaw::None);
    println!("{bounds:?}: {} worlds in {:.1?}", checker.unique_state_count(), start.elapsed());
    if let Some(actions) = failure(&checker) {
        panic!("{}", Trace::new(checker.model(), actions));
    }
    for property in checker.model().properties() {
        let is_met =
            property.expectation.discovery_is_failure() || checker.discovery(property.name).is_some();
        assert!(is_met, "never: {}", property.name);
    }
}

/// Depth first: breadth first would show shorter ways, and needs fifty times the memory.
fn explore(bounds: Bounds, flaw: Flaw) -> impl Checker<Takeover> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let builder = Takeover { bounds, flaw }.checker().threads(threads);
    builder.finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join()
}

/// What happens until a world fails.
fn failure(checker: &impl Checker<Takeover>) -> Option<Vec<Action>> {
    [RULES, HEALS].into_iter().find_map(|rule| checker.discovery(rule)).map(Path::into_actions)
}

/// The smallest world in which all that is reachable is reached.
#[test]
fn small() {
    check(Bounds { steps: 4, skips: 1, effects: 1, crashes: 1, lost_answers: 0, wire: 2 });
}

/// One answer of the arbiter more may be lost. `cargo test --release -p ft-core --test takeover_model -- --ignored`
#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn larger() {
    check(Bounds { steps: 4, skips: 1, effects: 1, crashes: 1, lost_answers: 1, wire: 2 });
}
