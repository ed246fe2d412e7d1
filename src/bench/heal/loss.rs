//! Hosts that are lost under load, and the way back to a protected VM.

use super::fill::fill;
use super::{BETWEEN, Bench, Cluster, FILLED, Measured, failed, finish, longest, median, ms};
use ft::demo::HostsError;
use ft::load::Load;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What was measured with guests of one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Losses {
    pub(crate) ram_mib: u64,
    /// Of it, what the store was filled with.
    pub(crate) filled_mib: u64,
    pub(crate) losses: usize,
    /// What of the state went to the new secondary.
    pub(crate) state_mib: f64,
    /// The longest time for which the live machine stood still for a piece of its state.
    pub(crate) pause_max_ms: f64,
    /// The longest wait of any client that ended while the state was under way.
    pub(crate) client_gap_max_ms: f64,
    /// Operations a second while the pair was protected, and while the state was under way.
    pub(crate) before_ops_s: f64,
    pub(crate) during_ops_s: f64,
    /// The second in relation to the first, within one loss.
    pub(crate) during_ratio: f64,
    /// From the kill to the other copy being live.
    pub(crate) live_p50_ms: f64,
    /// From the first piece of state to the VM being protected.
    pub(crate) transfer_p50_ms: f64,
    /// From the kill to the VM being protected.
    pub(crate) protected_again_p50_ms: f64,
    pub(crate) protected_again_max_ms: f64,
}

/// One loss.
struct Loss {
    state_mib: f64,
    pause_ms: f64,
    client_gap_ms: f64,
    before_ops_s: f64,
    during_ops_s: f64,
    live_ms: f64,
    transfer_ms: f64,
    protected_again_ms: f64,
}

impl Bench<'_> {
    pub(super) fn losses(&self, ram_mib: u64) -> Measured<Losses> {
        let dir = tempfile::tempdir().map_err(failed)?;
        (self.say)(&format!("{ram_mib} MiB: the store is filled"));
        let mut cluster = self.cluster(dir.path(), ram_mib)?;
        let filled_mib = ram_mib * FILLED.0 / FILLED.1;
        fill(cluster.0.agents().service(), filled_mib << 20, &self.stop)?;
        let load = self.load(&cluster)?;
        let mut losses = Vec::new();
        for number in 1..=self.plan.losses {
            (self.say)(&format!("{ram_mib} MiB: loss {number} of {}", self.plan.losses));
            losses.push(cluster.lose_a_host(&load)?);
        }
        finish(load)?;
        let all = |pick: fn(&Loss) -> f64| losses.iter().map(pick).collect::<Vec<_>>();
        Ok(Losses {
            ram_mib,
            filled_mib,
            losses: losses.len(),
            state_mib: median(&all(|one| one.state_mib)),
            pause_max_ms: longest(&all(|one| one.pause_ms)),
            client_gap_max_ms: longest(&all(|one| one.client_gap_ms)),
            before_ops_s: median(&all(|one| one.before_ops_s)),
            during_ops_s: median(&all(|one| one.during_ops_s)),
            during_ratio: median(&all(|one| one.during_ops_s / one.before_ops_s)),
            live_p50_ms: median(&all(|one| one.live_ms)),
            transfer_p50_ms: median(&all(|one| one.transfer_ms)),
            protected_again_p50_ms: median(&all(|one| one.protected_again_ms)),
            protected_again_max_ms: longest(&all(|one| one.protected_again_ms)),
        })
    }
}

impl Cluster {
    fn lose_a_host(&mut self, load: &Load) -> Measured<Loss> {
        self.pass(BETWEEN)?;
        let before = Rate::begin(load);
        self.pass(BETWEEN)?;
        let before_ops_s = before.end(load);
        // On a busy machine a copy may have been taken for dead meanwhile.
        self.pair()?;
        self.0.kill_live_host()?;
        let healing = |cluster: &Self| cluster.0.healing().cloned().ok_or(HostsError::NoneLive);
        let seeding = |observed: &ft::demo::watch::Observed| observed.healing()?.seeding;
        let (_, seeding) = self.watch("the transfer of the state", seeding)?;
        let (mark, during) = (load.mark(), Rate::begin(load));
        let (_, protected) = self.watch("protection", |observed| observed.healing()?.protected)?;
        let (client_gap, during_ops_s) = (load.gap_since(mark), during.end(load));
        let victim = healing(self)?.victim;
        let (heir, live) = self.watch("another live copy", |observed| observed.healing()?.live)?;
        // Both have said how they stand since: the transfer's figures are whole.
        self.pair()?;
        let stands = self.0.picture().copy(heir).map(|copy| copy.stands.clone()).unwrap_or_default();
        let healing = healing(self)?;
        self.bring_back(victim, heir)?;
        Ok(Loss {
            state_mib: stands.state_bytes as f64 / f64::from(1 << 20),
            pause_ms: ms(Duration::from_micros(stands.state_stop_us)),
            client_gap_ms: ms(client_gap),
            before_ops_s,
            during_ops_s,
            live_ms: ms(healing.after(live)),
            transfer_ms: ms(protected.saturating_duration_since(seeding)),
            protected_again_ms: ms(healing.after(protected)),
        })
    }

    fn bring_back(&mut self, victim: u64, heir: u64) -> Measured<()> {
        self.0.agents_mut().spawn_agent(victim)?;
        self.watch("the return of the killed host", |observed| {
            observed.agents().sees_back(heir, victim).then_some(())
        })
    }
}

/// Operations a second from one moment to another.
struct Rate {
    since: Instant,
    operations: u64,
}

impl Rate {
    fn begin(load: &Load) -> Self {
        Self { since: Instant::now(), operations: load.progress().ops }
    }

    fn end(self, load: &Load) -> f64 {
        (load.progress().ops - self.operations) as f64 / self.since.elapsed().as_secs_f64()
    }
}
