//! Takeover, exhaustively, in small worlds.
#[path = "takeover_model/world.rs"]
mod world;

use ft_core::error::HaltReason;
use ft_core::primary::Standing;
use stateright::{Checker, HasDiscoveries, Model, Property};
use world::*;

struct Takeover {
    bounds: Bounds,
}

impl Model for Takeover {
    type State = World;
    type Action = Action;
    fn init_states(&self) -> Vec<World> {
        [false, true].map(|lags| World::pair(self.bounds, lags)).to_vec()
    }
    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(actions)
    }
    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut next = last.clone();
        next.act(action);
        (next != *last).then_some(next)
    }
    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no breach", |_, w: &World| w.history.breach.is_none()),
            Property::sometimes("takeover", |_, w: &World| w.standing(SECOND).is_some()),
            Property::sometimes("solo", |_, w: &World| w.standing(FIRST) == Some(Standing::Solo)),
            Property::sometimes("renounced", |_, w: &World| !w.history.renounced.is_empty()),
            Property::sometimes("reunited", |_, w: &World| w.is_reunited()),
            Property::sometimes("lost", |_, w: &World| {
                (0..2).any(|h| matches!(w.halted(h), Some(HaltReason::Lost { .. })))
            }),
            Property::sometimes("superseded", |_, w: &World| {
                (0..2).any(|h| matches!(w.halted(h), Some(HaltReason::Superseded { .. })))
            }),
        ]
    }
}

fn env(name: &str, default: u8) -> u8 {
    std::env::var(name).ok().map_or(default, |v| v.parse().unwrap())
}

#[test]
fn small() {
    let bounds = Bounds {
        steps: env("STEPS", 7),
        skips: env("SKIPS", 1),
        effects: env("EFFECTS", 1),
        crashes: env("CRASHES", 1),
        lost_answers: env("LOST", 0),
        wire: env("WIRE", 2).into(),
    };
    let start = std::time::Instant::now();
    let checker =
        Takeover { bounds }.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    println!(
        "{bounds:?}: {} states, {} unique, depth {}, {:?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    for (name, path) in checker.discoveries() {
        println!("== {name}: {:?}", path.last_state().history);
        if name == "no breach" {
            for a in path.into_actions() {
                println!("   {a}");
            }
        }
    }
}
