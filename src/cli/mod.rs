//! The command line: one module for each subcommand; each turns its flags into library calls and prints.

mod bench;
mod ca;
mod check;
mod demo;
mod replay;
mod sim;
mod switch;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "ft", version, about = "Fault-tolerant lockstep replication of virtual machines")]
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
    /// Be the LAN between VMMs of this host, and forward its ports to guests
    Switch(switch::Args),
    /// Measure this build on this machine
    Bench(bench::Args),
}

/// Parses the command line and runs the subcommand. What went wrong is printed as one sentence on standard error.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    log_to_standard_error();
    let result = match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => vm::run(args),
        Command::Primary(args) => vm::primary(args),
        Command::Secondary(args) => vm::secondary(args),
        Command::Record(args) => vm::record(args),
        Command::Replay(args) => replay::replay(args),
        Command::Inspect(args) => replay::inspect(args),
        Command::Check(args) => check::run(args),
        Command::Ca(args) => ca::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Switch(args) => switch::run(args),
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

/// Log lines from warnings on; more with FT_LOG=debug, or as tracing-subscriber's EnvFilter has it.
fn log_to_standard_error() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FT_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

/// What a subcommand returns: its exit status, or an error to print.
pub(crate) type CliResult = Result<ExitCode, Box<dyn std::error::Error>>;
