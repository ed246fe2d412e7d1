//! Kill after kill, as clients see it.

use super::pair::{finish, listen_for, scratch};
use super::{Bench, Measured, PATIENCE};
use crate::bench::stats::percentile;
use ft::demo::{Failover, Hosts};
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long the load runs before a kill, and after.
const BETWEEN: Duration = Duration::from_millis(500);

/// Times of all failovers, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failovers {
    pub(crate) kills: usize,
    /// The longest gap between two replies that any client saw.
    pub(crate) client_p50_ms: f64,
    pub(crate) client_p99_ms: f64,
    pub(crate) client_max_ms: f64,
    /// From the kill to the other copy being live.
    pub(crate) live_p50_ms: f64,
    pub(crate) live_p99_ms: f64,
    /// From the host's return to the pair being protected.
    pub(crate) protected_again_p50_ms: f64,
}

impl Bench<'_> {
    pub(super) fn failovers(&self) -> Measured<Failovers> {
        let dir = tempfile::tempdir().map_err(scratch)?;
        let mut hosts = self.start(dir.path(), "mode=kv", true)?;
        let load = self.load(&hosts)?;
        let (mut client, mut live, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for kill in 1..=self.plan.kills {
            (self.say)(&format!("failover {kill} of {}", self.plan.kills));
            listen_for(&mut hosts, BETWEEN)?;
            let mark = load.mark();
            let Failover { victim, heir, took } = hosts.fail_over(PATIENCE)?;
            live.push(took);
            listen_for(&mut hosts, BETWEEN)?;
            client.push(load.gap_since(mark));
            let returned = Instant::now();
            hosts.start_secondary(victim, heir)?;
            hosts.wait_until("a protected pair", PATIENCE, Hosts::is_protected)?;
            again.push(returned.elapsed());
        }
        finish(load)?;
        let [client, live, again] = [client, live, again].map(Times::new);
        Ok(Failovers {
            kills: self.plan.kills,
            client_p50_ms: client.ms(50),
            client_p99_ms: client.ms(99),
            client_max_ms: client.ms(100),
            live_p50_ms: live.ms(50),
            live_p99_ms: live.ms(99),
            protected_again_p50_ms: again.ms(50),
        })
    }
}

/// Percentiles by nearest rank, in milliseconds; NaN of no times.
struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn ms(&self, percent: usize) -> f64 {
        percentile(&self.0, percent).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }
}
