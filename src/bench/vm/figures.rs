//! The figures, beside what is to be reached.

use super::failover::Failovers;
use super::pair::{Compute, Store};
use super::replay::Replay;
use crate::bench::table::{Aim, Row, row, table};
use comfy_table::Table;
use serde::Serialize;

/// All that `ft bench vm` measures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) cores: usize,
    /// Cores that were idle before it began.
    pub(crate) free_cores: f64,
    pub(crate) compute: Compute,
    pub(crate) store: Store,
    pub(crate) replay: Replay,
    pub(crate) failovers: Failovers,
}

impl Figures {
    fn rows(&self) -> Vec<Row> {
        use Aim::{AtLeast, AtMost, None};
        let Self { compute, store, replay, failovers, .. } = self;
        vec![
            row("compute: protected / unprotected", compute.ratio, AtLeast(0.98)),
            row("compute: protected / unprotected beside another VM", compute.ratio_beside, AtLeast(0.98)),
            row("compute: unprotected, million instructions/s", compute.unprotected_mips, None),
            row("compute: the same beside another VM", compute.beside_mips, None),
            row("compute: log, Mbit/s", compute.log_mbit_s, None),
            row(
                "compute: log bytes per 1,000 instructions",
                compute.log_bytes_per_1000_instructions,
                AtMost(0.05),
            ),
            row("store: protected / unprotected", store.ratio, None),
            row("store: unprotected, operations/s", store.unprotected_ops_s, None),
            row("store: protected, operations/s", store.protected_ops_s, None),
            row("store: idle log, Mbit/s", store.idle_log_mbit_s, AtMost(0.05)),
            row("store: busy log, Mbit/s", store.busy_log_mbit_s, None),
            row("start to protected, ms", store.start_to_protected_ms, AtMost(2000.0)),
            row("VMM memory beyond the guest's RAM, MiB", store.beyond_ram_mib, AtMost(64.0)),
            row("replay speed / record speed", replay.speed, AtLeast(1.0)),
            row("failover, client, p50 ms", failovers.client_p50_ms, AtMost(50.0)),
            row("failover, client, p99 ms", failovers.client_p99_ms, AtMost(200.0)),
            row("failover, client, longest ms", failovers.client_max_ms, None),
            row("failover, kill to live, p50 ms", failovers.live_p50_ms, None),
            row("failover, kill to live, p99 ms", failovers.live_p99_ms, AtMost(100.0)),
            row("protected again after a return, p50 ms", failovers.protected_again_p50_ms, None),
        ]
    }

    /// As a table for a person.
    pub(crate) fn table(&self) -> Table {
        table("soft vCPU", self.rows())
    }
}
