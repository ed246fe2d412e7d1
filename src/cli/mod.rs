//! The command line: one module for each subcommand; each turns its flags into library calls and prints.

mod agent;
mod bench;
mod ca;
mod chaos;
mod check;
mod demo;
mod host;
mod replay;
mod sim;
mod stamp;
mod switch;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Parser)]
#[command(name = "ft", version = ft::stamp::build(), about = "Fault-tolerant lockstep replication of virtual machines")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show a protected VM: primaries are killed under load, and no client loses anything
    Demo(demo::Args),
    /// Run a VM, unprotected
    Run(vm::RunArgs),
    /// Run the first copy of a protected VM on this host
    Primary(vm::PrimaryArgs),
    /// Run a further copy of a protected VM on this host
    Secondary(vm::SecondaryArgs),
    /// Be this host's agent: start VMs, look after them and keep them redundant
    Host(host::Args),
    /// Start a VM on the hosts of the cluster, and keep it protected
    Protect(agent::ProtectArgs),
    /// List hosts and VMs
    List(agent::ListArgs),
    /// Say how VMs are
    Status(agent::StatusArgs),
    /// Change the roles of a VM's two copies, with no work lost
    Switchover(agent::SwitchoverArgs),
    /// Move a VM to another host, protected throughout
    Move(agent::MoveArgs),
    /// Empty a host: it takes no further copies, and those that it has are moved to others
    Drain(agent::DrainArgs),
    /// Have a host take copies again
    Undrain(agent::UndrainArgs),
    /// Kill a VM's live copy, to see that the other takes over
    Failover(agent::FailoverArgs),
    /// Stop a VM on all hosts
    Stop(agent::StopArgs),
    /// Say what has happened on a host
    Events(agent::EventsArgs),
    /// Run a VM, unprotected, and record it
    Record(vm::RecordArgs),
    /// Run a recording again, and compare everything
    Replay(replay::ReplayArgs),
    /// Say what is in a recording
    Inspect(replay::InspectArgs),
    /// Say what this host can do, and what to change
    Check(check::Args),
    /// Make the cluster's certificate authority and host certificates
    Ca(ca::Args),
    /// Break simulated clusters by the thousand, and check that no rule of the protocol is broken
    Sim(sim::Args),
    /// Break a cluster of real processes under load, and check that nobody could have noticed
    Chaos(chaos::Args),
    /// Be the LAN between VMMs of this host, and forward its ports to guests
    Switch(switch::Args),
    /// Make a copy of this program that names its build
    Stamp(stamp::Args),
    /// Measure this build on this machine
    Bench(bench::Args),
}

/// Parses the command line and runs the subcommand. What went wrong is printed as one sentence on standard error.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        // These choose by themselves where log lines go.
        Command::Run(_) | Command::Primary(_) | Command::Secondary(_) | Command::Record(_) => {}
        // A daemon says what happens.
        Command::Host(_) => log_to(std::io::stderr, "info"),
        _ => log_to(std::io::stderr, "warn"),
    }
    let result = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => vm::run(args),
        Command::Primary(args) => vm::primary(args),
        Command::Secondary(args) => vm::secondary(args),
        Command::Host(args) => host::run(args),
        Command::Protect(args) => agent::protect(args),
        Command::List(args) => agent::list(args),
        Command::Status(args) => agent::status(args),
        Command::Switchover(args) => agent::switchover(args),
        Command::Move(args) => agent::move_vm(args),
        Command::Drain(args) => agent::drain(args),
        Command::Undrain(args) => agent::undrain(args),
        Command::Failover(args) => agent::failover(args),
        Command::Stop(args) => agent::stop(args),
        Command::Events(args) => agent::events(args),
        Command::Record(args) => vm::record(args),
        Command::Replay(args) => replay::replay(args),
        Command::Inspect(args) => replay::inspect(args),
        Command::Check(args) => check::run(args),
        Command::Ca(args) => ca::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Chaos(args) => chaos::run(args),
        Command::Switch(args) => switch::run(args),
        Command::Stamp(args) => stamp::run(args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ft: {}", ft::error::in_one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Log lines from `level` on; more with FT_LOG=debug, or as tracing-subscriber's EnvFilter has it.
pub(crate) fn log_to(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static, level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FT_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false).init();
}

/// What a subcommand returns: its exit status, or an error to print.
pub(crate) type CliResult = Result<ExitCode, Box<dyn std::error::Error>>;
