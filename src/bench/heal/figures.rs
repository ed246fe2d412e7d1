//! The figures, beside what is to be reached.

use super::loss::Losses;
use super::switchover::Switchovers;
use crate::bench::table::{Aim, Row, row, table};
use comfy_table::Table;
use serde::Serialize;

/// The longest that a guest may stand still for a piece of its state.
const PAUSE_MS: f64 = 10.0;

/// What healing may take beyond carrying the whole RAM at the link's rate: noticing the loss, choosing a host, starting a process.
const HEALING_MS: f64 = 2000.0;

/// What clients may notice of a change of roles.
const SWITCHOVER_MS: f64 = 50.0;

/// All that `ft bench heal` measures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) cores: usize,
    /// Cores that were idle before it began.
    pub(crate) free_cores: f64,
    /// What the logging channel carries between two processes on this machine.
    pub(crate) link_gbit_s: f64,
    pub(crate) losses: Vec<Losses>,
    pub(crate) switchovers: Switchovers,
}

impl Figures {
    /// Within how many milliseconds a guest with so much RAM is to be protected again.
    fn heals_within_ms(&self, ram_mib: u64) -> f64 {
        let bits = (ram_mib << 20) as f64 * 8.0;
        bits / (self.link_gbit_s * 1e9) * 1000.0 + HEALING_MS
    }

    fn rows(&self) -> Vec<Row> {
        use Aim::{AtMost, None};
        let mut rows = vec![row("link, Gbit/s", self.link_gbit_s, None)];
        for loss in &self.losses {
            let mib = loss.ram_mib;
            let mut add = |what: &str, value, aim| rows.push(row(format!("{mib} MiB: {what}"), value, aim));
            add("filled, MiB", loss.filled_mib as f64, None);
            add("state carried, MiB", loss.state_mib, None);
            add("longest stop of the guest for it, ms", loss.pause_max_ms, AtMost(PAUSE_MS));
            add("longest wait of a client meanwhile, ms", loss.client_gap_max_ms, None);
            add("protected, operations/s", loss.before_ops_s, None);
            add("operations/s while state is carried", loss.during_ops_s, None);
            add("the same in relation to before", loss.during_ratio, None);
            add("death to live, p50 ms", loss.live_p50_ms, None);
            add("transfer to protected, p50 ms", loss.transfer_p50_ms, None);
            let limit = AtMost(self.heals_within_ms(mib));
            add("death to protected again, p50 ms", loss.protected_again_p50_ms, None);
            add("death to protected again, longest ms", loss.protected_again_max_ms, limit);
        }
        let Switchovers { count, client_p50_ms, client_max_ms } = self.switchovers;
        let label = |what: &str| format!("{count} changes of roles, client, {what} ms");
        rows.push(row(label("p50"), client_p50_ms, AtMost(SWITCHOVER_MS)));
        rows.push(row(label("longest"), client_max_ms, None));
        rows
    }

    /// As a table for a person.
    pub(crate) fn table(&self) -> Table {
        table("healing", self.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healing_may_take_as_long_as_the_link_needs_and_two_seconds() {
        let switchovers = Switchovers { count: 0, client_p50_ms: f64::NAN, client_max_ms: f64::NAN };
        let losses = Vec::new();
        let figures = Figures { cores: 2, free_cores: 2.0, link_gbit_s: 8.0, losses, switchovers };
        // A gigabyte a second.
        assert_eq!(figures.heals_within_ms(1000).round(), 3049.0);
    }
}
