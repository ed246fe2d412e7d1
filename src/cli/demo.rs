//! `ft demo`: a protected VM under load, whose primary is killed.

mod show;
mod summary;

use super::CliResult;
use crate::signals::on_signal;
use crossbeam::channel::Receiver;
use ft::demo::{Hosts, HostsConfig};
use ft::load::{Load, LoadConfig, LoadReport};
use ft::vm::report::Report;
use show::Show;
use std::error::Error;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
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
    let stop = on_signal()?;
    let is_live_view = std::io::stderr().is_terminal() && !args.json;
    let mut demo = Demo { show: Show::new(is_live_view, args.json), started: Instant::now() };
    let result = demo.play(&args, &path, stop);
    demo.show.end();
    if args.keep {
        let kept = dir.keep();
        demo.show.line(&format!("kept: {}", kept.display()));
    }
    let summary = result?;
    summary.print(args.json)?;
    Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Demo {
    show: Show,
    started: Instant,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl Demo {
    /// The whole demonstration, unless `stop` is closed meanwhile.
    fn play(&mut self, args: &Args, dir: &Path, stop: Receiver<()>) -> Outcome<Summary> {
        let mut primary_args = Vec::new();
        if let Some(record) = &args.record {
            primary_args = vec!["--record".to_owned(), std::path::absolute(record)?.display().to_string()];
        }
        let config = HostsConfig::new(std::env::current_exe()?, dir);
        let mut hosts = Hosts::new(HostsConfig { primary_args, stop, ..config })?;
        self.show.line(
            "a LAN, an arbiter and two hosts; the guest is a key-value store that speaks Redis's protocol",
        );
        hosts.start_primary(1)?;
        hosts.start_secondary(2, 1)?;
        self.show.line(&format!("redis clients may connect to {}", hosts.service()));
        self.watch(&mut hosts, None, "a protected pair", Hosts::is_protected)?;
        let ready = |hosts: &Hosts| hosts.console().contains("ready");
        self.watch(&mut hosts, None, "the guest's service", ready)?;
        let start_to_protected = self.started.elapsed();
        self.show
            .line(&format!("protected after {:.2} s; the load begins", start_to_protected.as_secs_f64()));
        let load =
            Load::start(LoadConfig { connections: args.connections, ..LoadConfig::new(hosts.service()) })?;
        let mut failovers = Vec::new();
        let mut log = Carried::default();
        let under_load = Instant::now();
        for n in 1..=args.failovers {
            self.pass(&mut hosts, &load, BETWEEN)?;
            log.take_in(&hosts);
            failovers.push(self.fail_over(&mut hosts, &load, n)?);
        }
        self.pass(&mut hosts, &load, BETWEEN)?;
        log.take_in(&hosts);
        let seconds = under_load.elapsed().as_secs_f64();
        self.show.line("the load ends; every key and every counter is read back");
        let report = self.finish(&mut hosts, load)?;
        Ok(Summary::new("soft", start_to_protected, failovers, report, log.bytes, seconds))
    }

    /// Kills the live host under load, and brings it back as a secondary.
    fn fail_over(&mut self, hosts: &mut Hosts, load: &Load, n: u32) -> Outcome<Failover> {
        if let Some(victim) = hosts.live() {
            self.show.line(&format!("{n}: host {victim}, the primary, is killed"));
        }
        let mark = load.mark();
        let ft::demo::Failover { victim, heir, took: protocol } = hosts.fail_over(PATIENCE)?;
        // The gap is over when replies come again: give them time to come.
        self.pass(hosts, load, BETWEEN)?;
        let client = load.gap_since(mark);
        let ms = |span: Duration| span.as_secs_f64() * 1000.0;
        self.show.line(&format!(
            "{n}: host {heir} is live after {:.1} ms; the longest wait of a client was {:.1} ms",
            ms(protocol),
            ms(client)
        ));
        let returned = Instant::now();
        hosts.start_secondary(victim, heir)?;
        self.watch(hosts, Some(load), "a protected pair", Hosts::is_protected)?;
        self.show.line(&format!(
            "{n}: host {victim} is back; protected again after {:.2} s",
            returned.elapsed().as_secs_f64()
        ));
        Ok(Failover { client, protocol, protected_again: returned.elapsed() })
    }

    /// Ends the load, which takes as long as the store needs for its last replies.
    fn finish(&mut self, hosts: &mut Hosts, load: Load) -> Outcome<LoadReport> {
        let finish = std::thread::Builder::new().name("ft-finish".into()).spawn(|| load.finish())?;
        while !finish.is_finished() {
            self.listen(hosts, None)?;
        }
        finish.join().map_err(|_| "the load crashed: please report it".into())
    }

    /// Lets time pass.
    fn pass(&mut self, hosts: &mut Hosts, load: &Load, span: Duration) -> Outcome<()> {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.listen(hosts, Some(load))?;
        }
        Ok(())
    }

    /// Waits until `is_so`.
    fn watch(
        &mut self,
        hosts: &mut Hosts,
        load: Option<&Load>,
        what: &str,
        is_so: impl Fn(&Hosts) -> bool,
    ) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(hosts) {
            self.listen(hosts, load)?;
            if Instant::now() > deadline {
                return Err(hosts.late(what.to_owned(), PATIENCE).into());
            }
        }
        Ok(())
    }

    fn listen(&mut self, hosts: &mut Hosts, load: Option<&Load>) -> Outcome<()> {
        if let Some(heard) = hosts.listen(Duration::from_millis(50))? {
            self.show.report(&heard);
        }
        self.show.refresh(hosts, load);
        Ok(())
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
