//! `ft demo`: a protected VM under load on hosts with agents. The host where it is live is killed; the VM goes on elsewhere, is protected
//! again by yet another host, and the killed one comes back.

mod show;
mod summary;

use super::CliResult;
use crate::signals::on_signal;
use ft::demo::AgentsConfig;
use ft::demo::watch::{Healing, Observed};
use ft::host::config::Capacity;
use ft::load::{Load, LoadConfig, LoadReport};
use show::Show;
use std::error::Error;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use summary::{Failover, Summary};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the load runs before a kill, and after it at least.
const BETWEEN: Duration = Duration::from_millis(1500);

/// How often it is looked whether something has come about, while nothing is heard.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The host where the VM is first.
const FIRST: u64 = 1;

/// RAM and disk of the VM in MiB.
const MIB: u64 = 64;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How the guest's processor is run
    #[arg(long, value_enum, default_value_t = VcpuChoice::Auto)]
    vcpu: VcpuChoice,
    /// Hosts, each with an agent; with two, the VM is protected again only when the killed one is back
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=16))]
    hosts: u64,
    /// How often the host where the VM is live is killed
    #[arg(long, value_name = "N", default_value_t = 3)]
    failovers: u32,
    /// Client connections
    #[arg(long, value_name = "N", default_value_t = 8)]
    connections: usize,
    /// Record the first live copy's log, until it is killed, to a file that `ft replay` takes
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Keep the directory with credentials, disk and the hosts' logs
    #[arg(long)]
    keep: bool,
    /// Print one JSON object at the end, and nothing else on standard output
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum VcpuChoice {
    /// In software: on every x86-64 Linux machine
    Soft,
    /// On /dev/kvm
    Kvm,
    /// What this machine has
    Auto,
}

pub(crate) fn run(args: Args) -> CliResult {
    if args.vcpu == VcpuChoice::Kvm {
        return Err("this build has no KVM vCPU yet: run with --vcpu soft".into());
    }
    let dir = tempfile::Builder::new().prefix("ft-demo-").tempdir()?;
    let is_live_view = std::io::stderr().is_terminal() && !args.json;
    let mut show = Show::new(args.hosts, is_live_view, args.json);
    let result = play(&args, dir.path(), &mut show);
    show.end();
    if args.keep {
        let kept = dir.keep();
        show.line(&format!("kept: {}", kept.display()));
    }
    let summary = result?;
    summary.print(args.json)?;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The whole demonstration, unless a signal ends it.
fn play(args: &Args, dir: &Path, show: &mut Show) -> Outcome<Summary> {
    let started = Instant::now();
    let config = AgentsConfig {
        hosts: args.hosts,
        ram_mib: MIB,
        disk_mib: MIB,
        capacity: Capacity { memory_mib: 2 * MIB, vms: 2 },
        record: args.record.as_ref().map(std::path::absolute).transpose()?,
        stop: on_signal()?,
        ..AgentsConfig::new(std::env::current_exe()?, dir)
    };
    show.line(&format!(
        "a LAN, an arbiter and {} hosts with an agent each; the guest is a key-value store that speaks Redis's protocol",
        args.hosts
    ));
    let cluster = Observed::start(config, |notice| tracing::debug!(?notice, "the LAN"))?;
    let service = cluster.agents().service();
    show.line(&format!("redis clients may connect to {service}"));
    let mut demo = Demo { load: None, cluster, show, log_bytes: 0 };
    demo.cluster.agents().protect(FIRST)?;
    let (live, other) = demo.pair()?;
    let start_to_protected = started.elapsed();
    demo.show.line(&format!(
        "live on host-{live} and protected, on host-{other}, after {:.2} s; the load begins",
        start_to_protected.as_secs_f64()
    ));
    let load = Load::start(LoadConfig { connections: args.connections, ..LoadConfig::new(service) })?;
    demo.load = Some(load);
    let under_load = Instant::now();
    let mut failovers = Vec::new();
    for n in 1..=args.failovers {
        demo.pass(BETWEEN)?;
        failovers.push(demo.fail_over(n)?);
    }
    demo.pass(BETWEEN)?;
    demo.note_log();
    let seconds = under_load.elapsed().as_secs_f64();
    demo.show.line("the load ends; every key and every counter is read back");
    let report = demo.finish()?;
    let log = (demo.log_bytes, seconds);
    Ok(Summary::new("soft", args.hosts, start_to_protected, failovers, report, log))
}

/// A demonstration that runs. Its order matters: the clients end before the cluster.
struct Demo<'a> {
    load: Option<Load>,
    cluster: Observed,
    show: &'a mut Show,
    /// What the live copies have sent of the log, as far as they are killed.
    log_bytes: u64,
}

impl Demo<'_> {
    /// Kills the live host under load, sees it heal, and brings the host back.
    fn fail_over(&mut self, n: u32) -> Outcome<Failover> {
        let has_spare = self.cluster.agents().hosts().count() > 2;
        // On a busy machine a copy may have been taken for dead meanwhile.
        let (victim, _) = self.pair()?;
        self.note_log();
        let mark = self.load.as_ref().map(Load::mark);
        self.show.line(&format!("{n}: host-{victim}, where the VM is live, is killed"));
        self.cluster.kill_live_host()?;
        let (heir, live) = self.step("another live copy", |healing| healing.live)?;
        let protocol = self.since_kill(live);
        self.show.line(&format!("{n}: host-{heir} is live after {:.1} ms", protocol.as_secs_f64() * 1000.0));
        // The gap is over when replies come again: give them time to come.
        let settled = Instant::now() + BETWEEN;
        let healed = if has_spare { Some(self.protected(n, None)?) } else { None };
        self.pass(settled.saturating_duration_since(Instant::now()))?;
        let client =
            self.load.as_ref().zip(mark).map(|(load, mark)| load.gap_since(mark)).unwrap_or_default();
        self.show
            .line(&format!("{n}: the longest wait of a client was {:.1} ms", client.as_secs_f64() * 1000.0));
        let returned = Instant::now();
        self.cluster.agents_mut().spawn_agent(victim)?;
        self.watch("the return of the killed host", |cluster| cluster.agents().sees_back(heir, victim))?;
        self.show.line(&format!("{n}: host-{victim} is back and takes copies again"));
        let protected_again = match healed {
            Some(healed) => healed,
            None => self.protected(n, Some(returned))?,
        };
        self.pair()?;
        Ok(Failover { client, protocol, protected_again })
    }

    /// Waits until two copies are in step; the hosts of the live one and of the other.
    fn pair(&mut self) -> Outcome<(u64, u64)> {
        let what = "a protected pair";
        self.watch(what, |cluster| cluster.picture().pair().is_some())?;
        self.cluster.picture().pair().ok_or_else(|| self.cluster.late(what, PATIENCE).into())
    }

    /// Waits until the VM is protected again, and says how long that took: since the kill, or since `start`.
    fn protected(&mut self, n: u32, start: Option<Instant>) -> Outcome<Duration> {
        let (host, at) = self.step("protection", |healing| healing.protected)?;
        let took = start.map_or_else(|| self.since_kill(at), |start| at.saturating_duration_since(start));
        self.show.line(&format!("{n}: protected again, on host-{host}, after {:.2} s", took.as_secs_f64()));
        Ok(took)
    }

    /// Waits for a step of the healing.
    fn step(
        &mut self,
        what: &str,
        step: impl Fn(&Healing) -> Option<(u64, Instant)>,
    ) -> Outcome<(u64, Instant)> {
        let taken = |cluster: &Observed| cluster.healing().and_then(&step);
        self.watch(what, |cluster| taken(cluster).is_some())?;
        taken(&self.cluster).ok_or_else(|| self.cluster.late(what, PATIENCE).into())
    }

    fn since_kill(&self, at: Instant) -> Duration {
        self.cluster.healing().map(|healing| healing.after(at)).unwrap_or_default()
    }

    /// Adds what the live copy has sent of the log, before it is killed.
    fn note_log(&mut self) {
        let picture = self.cluster.picture();
        let live = picture.live().and_then(|(host, _)| picture.copy(host));
        self.log_bytes += live.map_or(0, |copy| copy.stands.log_bytes);
    }

    /// Ends the load, which takes as long as the store needs for its last replies.
    fn finish(&mut self) -> Outcome<LoadReport> {
        let Some(load) = self.load.take() else { return Ok(LoadReport::default()) };
        let finish = std::thread::Builder::new().name("ft-finish".into()).spawn(|| load.finish())?;
        while !finish.is_finished() {
            self.listen()?;
        }
        finish.join().map_err(|_| "the load crashed: please report it".into())
    }

    /// Lets time pass.
    fn pass(&mut self, span: Duration) -> Outcome<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.listen()?;
        }
        Ok(())
    }

    /// Waits until `is_so`.
    fn watch(&mut self, what: &str, is_so: impl Fn(&Observed) -> bool) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.cluster) {
            self.listen()?;
            if Instant::now() > deadline {
                return Err(self.cluster.late(what, PATIENCE).into());
            }
        }
        Ok(())
    }

    fn listen(&mut self) -> Outcome<()> {
        if let Some(heard) = self.cluster.listen(LOOK_EVERY)? {
            self.show.hear(&heard);
        }
        self.show.refresh(&self.cluster, self.load.as_ref());
        Ok(())
    }
}
