//! `ft demo`: a protected VM under load, whose primary is killed.

mod show;
mod summary;

use super::CliResult;
use crossbeam::channel::Receiver;
use ft::demo::{Hosts, HostsConfig};
use ft::load::{Load, LoadConfig};
use ft::vm::report::Report;
use show::Show;
use std::error::Error;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use summary::{Failover, Summary};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the load runs before a kill, and after the last.
const BETWEEN: Duration = Duration::from_millis(1500);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How the guest's processor is run
    #[arg(long, value_enum, default_value_t = VcpuChoice::Auto)]
    vcpu: VcpuChoice,
    /// How many primaries are killed
    #[arg(long, value_name = "N", default_value_t = 3)]
    failovers: u32,
    /// Client connections
    #[arg(long, value_name = "N", default_value_t = 8)]
    connections: usize,
    /// Record the first primary's log, until it is killed, to a file that `ft replay` takes
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
    let path = dir.path().to_owned();
    let stop = super::vm::on_signal()?;
    let is_live_view = std::io::stderr().is_terminal() && !args.json;
    let mut demo = Demo { show: Show::new(is_live_view, args.json), stop, started: Instant::now() };
    let result = demo.play(&args, &path);
    if args.keep {
        let kept = dir.keep();
        demo.show.line(&format!("kept: {}", kept.display()));
    }
    let Some(summary) = result? else {
        return Err("interrupted; everything that was started is ended".into());
    };
    summary.print(args.json)?;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Demo {
    show: Show,
    stop: Receiver<()>,
    started: Instant,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl Demo {
    /// The whole demonstration; `None` when it was interrupted.
    fn play(&mut self, args: &Args, dir: &std::path::Path) -> Outcome<Option<Summary>> {
        let mut primary_args = Vec::new();
        if let Some(record) = &args.record {
            primary_args = vec!["--record".to_owned(), std::path::absolute(record)?.display().to_string()];
        }
        let config = HostsConfig::new(std::env::current_exe()?, dir);
        let mut hosts = Hosts::new(HostsConfig { primary_args, ..config })?;
        self.show.line(
            "a LAN, an arbiter and two hosts; the guest is a key-value store that speaks Redis's protocol",
        );
        hosts.start_primary(1)?;
        hosts.start_secondary(2, 1)?;
        self.show.line(&format!("redis clients may connect to {}", hosts.service()));
        if !self.watch(&mut hosts, None, "a protected pair", PATIENCE, Hosts::is_protected)? {
            return Ok(None);
        }
        let ready = |hosts: &Hosts| hosts.console().contains("ready");
        if !self.watch(&mut hosts, None, "the guest's service", PATIENCE, ready)? {
            return Ok(None);
        }
        let start_to_protected = self.started.elapsed();
        self.show
            .line(&format!("protected after {:.2} s; the load begins", start_to_protected.as_secs_f64()));
        let load =
            Load::start(LoadConfig { connections: args.connections, ..LoadConfig::new(hosts.service()) })?;
        let mut failovers = Vec::new();
        let mut log = Carried::default();
        let under_load = Instant::now();
        for n in 1..=args.failovers {
            if !self.pass(&mut hosts, &load, BETWEEN)? {
                return Ok(None);
            }
            log.take_in(&hosts);
            let Some(failover) = self.fail_over(&mut hosts, &load, n)? else { return Ok(None) };
            failovers.push(failover);
        }
        if !self.pass(&mut hosts, &load, BETWEEN)? {
            return Ok(None);
        }
        log.take_in(&hosts);
        let seconds = under_load.elapsed().as_secs_f64();
        self.show.line("the load ends; every key and every counter is read back");
        let report = load.finish();
        self.show.end();
        drop(hosts);
        Ok(Some(Summary::new("soft", start_to_protected, failovers, report, log.bytes, seconds)))
    }

    /// Kills the live host under load, and brings it back as a secondary.
    fn fail_over(&mut self, hosts: &mut Hosts, load: &Load, n: u32) -> Outcome<Option<Failover>> {
        if let Some(victim) = hosts.live() {
            self.show.line(&format!("{n}: host {victim}, the primary, is killed"));
        }
        let mark = load.mark();
        let ft::demo::Failover { victim, heir, took: protocol } = hosts.fail_over(PATIENCE)?;
        // The gap is over when replies come again: give them time to come.
        if !self.pass(hosts, load, BETWEEN)? {
            return Ok(None);
        }
        let client = load.gap_since(mark);
        let ms = |span: Duration| span.as_secs_f64() * 1000.0;
        self.show.line(&format!(
            "{n}: host {heir} is live after {:.1} ms; the longest wait of a client was {:.1} ms",
            ms(protocol),
            ms(client)
        ));
        let returned = Instant::now();
        hosts.start_secondary(victim, heir)?;
        if !self.watch(hosts, Some(load), "a protected pair", PATIENCE, Hosts::is_protected)? {
            return Ok(None);
        }
        self.show.line(&format!(
            "{n}: host {victim} is back; protected again after {:.2} s",
            returned.elapsed().as_secs_f64()
        ));
        Ok(Some(Failover { client, protocol, protected_again: returned.elapsed() }))
    }

    /// Lets time pass. `false` when the demonstration was interrupted.
    fn pass(&mut self, hosts: &mut Hosts, load: &Load, span: Duration) -> Outcome<bool> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            if !self.listen(hosts, Some(load)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until `is_so`. `false` when the demonstration was interrupted.
    fn watch(
        &mut self,
        hosts: &mut Hosts,
        load: Option<&Load>,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&Hosts) -> bool,
    ) -> Outcome<bool> {
        let deadline = Instant::now() + patience;
        while !is_so(hosts) {
            if !self.listen(hosts, load) {
                return Ok(false);
            }
            if Instant::now() > deadline {
                return Err(hosts.late(what.to_owned(), patience).into());
            }
        }
        Ok(true)
    }

    fn listen(&mut self, hosts: &mut Hosts, load: Option<&Load>) -> bool {
        if matches!(self.stop.try_recv(), Err(crossbeam::channel::TryRecvError::Disconnected)) {
            return false;
        }
        if let Some(heard) = hosts.listen(Duration::from_millis(50)) {
            self.show.report(&heard);
        }
        self.show.refresh(hosts, load);
        true
    }
}

/// The log that was carried, over all lives of all hosts.
#[derive(Default)]
struct Carried {
    bytes: u64,
}

impl Carried {
    /// Takes in what the live host has sent, before it is killed.
    fn take_in(&mut self, hosts: &Hosts) {
        let live = hosts.live().and_then(|host| hosts.running().get(&host));
        if let Some(Report::Status { log_bytes, .. }) = live.and_then(|host| host.status.clone()) {
            self.bytes += log_bytes;
        }
    }
}
