//! The way to a world that fails, made short enough to read.

use crate::Takeover;
use crate::action::Action;
use crate::healing::Ending;
use crate::history::Breach;
use crate::world::{Start, World};
use std::fmt;

/// The way to a world that fails.
pub(crate) struct Trace {
    start: Start,
    actions: Vec<Action>,
    /// The rule that is broken there.
    pub(crate) breach: Option<Breach>,
    /// How it ends when it heals, and what was on its way is lost, or arrives.
    endings: [Ending; 2],
}

impl Trace {
    /// Leaves out what can be left out, one action at a time.
    ///
    /// # Panics
    /// When `actions` do not lead to a world that fails.
    pub(crate) fn new(model: &Takeover, mut actions: Vec<Action>) -> Self {
        let fails = |actions: &[Action]| model.worlds().into_iter().find_map(|start| replay(start, actions));
        let mut world = fails(&actions).expect("the way to a world that fails");
        let mut at = actions.len();
        while at > 0 {
            at -= 1;
            let mut fewer = actions.clone();
            fewer.remove(at);
            if let Some(shorter) = fails(&fewer) {
                (world, actions) = (shorter, fewer);
                at = actions.len();
            }
        }
        let endings = [false, true].map(|arrives| world.ending(arrives));
        Self { start: world.start, actions, breach: world.history.breach, endings }
    }
}

/// Where `actions` lead, if they can happen and the world then fails.
fn replay(mut world: World, actions: &[Action]) -> Option<World> {
    for action in actions {
        let mut possible = Vec::new();
        world.actions(&mut possible);
        if !possible.contains(action) {
            return None;
        }
        world.act(action.clone());
    }
    let fails = world.history.breach.is_some() || world.is_over() && !world.ends_well();
    fails.then_some(world)
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.breach {
            Some(breach) => writeln!(f, "{breach:?}")?,
            None => writeln!(
                f,
                "healed without what was on its way: {:?}, with it: {:?}",
                self.endings[0], self.endings[1]
            )?,
        }
        writeln!(f, "  from {:?}", self.start)?;
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action}"))
    }
}
