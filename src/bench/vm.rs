//! `ft bench vm`: what protection costs a guest, and what a failure costs its clients.
//!
//! Everything is measured on whole processes, as they run in production: two hosts on this machine, and the built-in guest. Protected and
//! unprotected take turns, so that a ratio compares neighbours in time; seconds depend on the machine and on who else uses it.

mod cpu;
mod failover;
mod figures;
mod pair;
mod replay;

pub(crate) use cpu::{CpuFigures, run as run_cpu};
pub(crate) use figures::Figures;

use super::channel::idle_cores;
use super::stats;
use crate::signals::on_signal;
use crossbeam::channel::Receiver;
use ft::demo::HostsError;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Turns of protected and unprotected.
    pub(crate) rounds: usize,
    /// Length of one measurement.
    pub(crate) window: Duration,
    /// Primaries that are killed.
    pub(crate) kills: usize,
    /// Client connections.
    pub(crate) connections: usize,
}

/// Measures everything, telling `say` what it is at.
pub(crate) fn run(plan: &Plan, say: impl Fn(&str)) -> Result<Figures, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    let stop = on_signal()?;
    let cores = std::thread::available_parallelism()?.get();
    let free_cores = idle_cores(cores);
    let bench = Bench { plan, program, stop, say: &say };
    let compute = bench.compute()?;
    let store = bench.store()?;
    let replay = bench.replay()?;
    let failovers = bench.failovers()?;
    Ok(Figures { cores, free_cores, compute, store, replay, failovers })
}

struct Bench<'a> {
    plan: &'a Plan,
    program: PathBuf,
    stop: Receiver<()>,
    say: &'a dyn Fn(&str),
}

type Measured<T> = Result<T, HostsError>;

/// The median; NaN, which no aim is reached with, of no figures.
fn median(figures: &[f64]) -> f64 {
    stats::median(figures).unwrap_or(f64::NAN)
}
