//! `ft bench heal`: what it costs a guest and its clients that a VM is made redundant again, and how soon it is.
//!
//! Measured on a cluster of three real agents on this machine. For each size of guest its store is filled, clients write, and the host where
//! the VM is live is killed: the heir gives its state to the third host while it serves. Then roles are changed, nothing being killed.
//!
//! Three hosts, clients and LAN share this machine's cores, so that the guest's share of them is smaller than in production: figures are
//! upper bounds but for the link's rate.

mod figures;
mod fill;
mod loss;
mod switchover;

pub(crate) use figures::Figures;

use super::channel::{idle_cores, loopback_gbit_s};
use super::stats;
use crate::signals::on_signal;
use crossbeam::channel::Receiver;
use ft::demo::watch::{Heard, Observed};
use ft::demo::{AgentsConfig, HostsError};
use ft::host::config::Capacity;
use ft::load::{Load, LoadConfig};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often it is looked whether something has come about, while nothing is heard.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long the load runs before something is done, and after it at least.
const BETWEEN: Duration = Duration::from_secs(1);

/// The host where the VM is first.
const FIRST: u64 = 1;

/// Of a guest's RAM, this part is filled: less than half, which is what the store takes.
const FILLED: (u64, u64) = (1, 3);

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Guests, by their RAM in MiB.
    pub(crate) sizes_mib: Vec<u64>,
    /// Hosts that are lost, for each size.
    pub(crate) losses: usize,
    /// Changes of roles.
    pub(crate) switchovers: usize,
    /// Client connections.
    pub(crate) connections: usize,
}

/// Measures everything, telling `say` what it is at.
pub(crate) fn run(plan: &Plan, say: impl Fn(&str)) -> Result<Figures, Box<dyn Error>> {
    let (program, stop) = (std::env::current_exe()?, on_signal()?);
    let cores = std::thread::available_parallelism()?.get();
    let free_cores = idle_cores(cores);
    say("the link between hosts");
    let link_gbit_s = loopback_gbit_s()?;
    let bench = Bench { plan, program, stop, say: &say };
    let losses = plan.sizes_mib.iter().map(|mib| bench.losses(*mib)).collect::<Measured<_>>()?;
    let switchovers = bench.switchovers()?;
    Ok(Figures { cores, free_cores, link_gbit_s, losses, switchovers })
}

struct Bench<'a> {
    plan: &'a Plan,
    program: PathBuf,
    stop: Receiver<()>,
    say: &'a dyn Fn(&str),
}

type Measured<T> = Result<T, HostsError>;

impl Bench<'_> {
    /// Three hosts, and a protected VM with so much RAM.
    fn cluster(&self, dir: &Path, ram_mib: u64) -> Measured<Cluster> {
        let config = AgentsConfig {
            ram_mib,
            // Room for two areas, of which entries may take three eighths each.
            disk_mib: ram_mib * 5 / 2,
            capacity: Capacity { memory_mib: 2 * ram_mib, vms: 2 },
            stop: self.stop.clone(),
            ..AgentsConfig::new(&self.program, dir)
        };
        let observed = Observed::start(config, |_| {})?;
        observed.agents().protect(FIRST)?;
        let mut cluster = Cluster(observed);
        cluster.pair()?;
        Ok(cluster)
    }

    fn load(&self, cluster: &Cluster) -> Measured<Load> {
        let service = cluster.0.agents().service();
        let config = LoadConfig { connections: self.plan.connections, ..LoadConfig::new(service) };
        Load::start(config).map_err(|error| failed(std::io::Error::other(error)))
    }
}

/// The cluster, with patience.
struct Cluster(Observed);

impl Cluster {
    /// Waits until two copies are in step; the hosts of the live one and of the other.
    fn pair(&mut self) -> Measured<(u64, u64)> {
        self.watch("a protected pair", |observed| observed.picture().pair())
    }

    /// Waits until there is what `find` looks for.
    fn watch<T>(&mut self, what: &str, find: impl Fn(&Observed) -> Option<T>) -> Measured<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(&self.0) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(self.0.late(what, PATIENCE));
            }
            self.listen()?;
        }
    }

    /// Lets time pass.
    fn pass(&mut self, span: Duration) -> Measured<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.listen()?;
        }
        Ok(())
    }

    fn listen(&mut self) -> Measured<Option<Heard>> {
        self.0.listen(LOOK_EVERY)
    }
}

/// Ends a load, which must have found nothing wrong: a figure of a broken store is none.
fn finish(load: Load) -> Measured<()> {
    let report = load.finish();
    if report.is_clean() {
        return Ok(());
    }
    Err(failed(std::io::Error::other(format!("the load found errors: {report:?}"))))
}

fn failed(source: std::io::Error) -> HostsError {
    HostsError::Io { doing: "measure".into(), source }
}

/// The median; NaN, which no aim is reached with, of no figures.
fn median(figures: &[f64]) -> f64 {
    stats::median(figures).unwrap_or(f64::NAN)
}

/// The largest; NaN of no figures.
fn longest(figures: &[f64]) -> f64 {
    figures.iter().copied().reduce(f64::max).unwrap_or(f64::NAN)
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
