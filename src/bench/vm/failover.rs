//! Kill after kill, as clients see it.

use super::pair::{finish, listen_for, scratch};
use super::{Bench, Measured, PATIENCE};
use ft::demo::Hosts;
use ft::vm::report::Report;
use nix::sys::signal::Signal;
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
            listen_for(&mut hosts, BETWEEN);
            let Some(victim) = hosts.live() else { return Err(hosts.late("a live host".into(), PATIENCE)) };
            let heir = 3 - victim;
            let (mark, killed) = (load.mark(), Instant::now());
            hosts.signal(victim, Signal::SIGKILL)?;
            let heard = hosts.wait_for("the other copy going live", PATIENCE, |heard| {
                heard.host == heir && matches!(heard.report, Report::Live { .. })
            })?;
            live.push(ms(heard.at.saturating_duration_since(killed)));
            listen_for(&mut hosts, BETWEEN);
            client.push(ms(load.gap_since(mark)));
            let returned = Instant::now();
            hosts.start_secondary(victim, heir)?;
            hosts.wait_until("a protected pair", PATIENCE, Hosts::is_protected)?;
            again.push(ms(returned.elapsed()));
        }
        finish(load)?;
        Ok(Failovers {
            kills: self.plan.kills,
            client_p50_ms: quantile(&client, 0.5),
            client_p99_ms: quantile(&client, 0.99),
            client_max_ms: quantile(&client, 1.0),
            live_p50_ms: quantile(&live, 0.5),
            live_p99_ms: quantile(&live, 0.99),
            protected_again_p50_ms: quantile(&again, 0.5),
        })
    }
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

/// The least value that `share` of all do not exceed; 0 of none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=50).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [25.0, 50.0, 50.0]);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
