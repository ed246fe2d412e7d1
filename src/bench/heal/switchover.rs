//! Changes of roles under load, as clients see them.

use super::{Bench, Measured, PATIENCE, failed, finish, longest, median, ms};
use ft::demo::HostsError;
use ft::host::message::{Answer, Request};
use serde::Serialize;
use std::time::Duration;

/// How long the load runs before a change of roles, and after.
const BETWEEN: Duration = Duration::from_millis(500);

/// The guest's RAM in MiB: no state is carried, so that it does not matter.
const RAM_MIB: u64 = 64;

/// Times of all changes of roles, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Switchovers {
    pub(crate) count: usize,
    /// The longest gap between two replies that any client saw.
    pub(crate) client_p50_ms: f64,
    pub(crate) client_max_ms: f64,
}

impl Bench<'_> {
    pub(super) fn switchovers(&self) -> Measured<Switchovers> {
        let dir = tempfile::tempdir().map_err(failed)?;
        let mut cluster = self.cluster(dir.path(), RAM_MIB)?;
        let load = self.load(&cluster)?;
        let mut gaps = Vec::new();
        for number in 1..=self.plan.switchovers {
            (self.say)(&format!("change of roles {number} of {}", self.plan.switchovers));
            let (live, other) = cluster.pair()?;
            cluster.pass(BETWEEN)?;
            let mark = load.mark();
            let agents = cluster.0.agents();
            let request = Request::Switchover { vm: agents.config().vm.clone() };
            match agents.ask(live, request) {
                Some(Answer::Live { host }) if host == other => {}
                answer => return Err(refused(live, &answer)),
            }
            cluster.pass(BETWEEN)?;
            gaps.push(ms(load.gap_since(mark)));
            cluster.watch("the change of roles", |observed| {
                (observed.picture().pair() == Some((other, live))).then_some(())
            })?;
        }
        finish(load)?;
        Ok(Switchovers { count: gaps.len(), client_p50_ms: median(&gaps), client_max_ms: longest(&gaps) })
    }
}

fn refused(live: u64, answer: &Option<Answer>) -> HostsError {
    let why = format!("its agent says {answer:?}, after {PATIENCE:?} at most");
    HostsError::Io { doing: format!("change roles on host {live}"), source: std::io::Error::other(why) }
}
