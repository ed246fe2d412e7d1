//! The command line: one module for each subcommand; each turns its flags into library calls and prints.

mod bench;
mod ca;
mod sim;
mod switch;

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
    let result = match Cli::parse().command {
        Command::Ca(args) => ca::run(args),
        Command::Sim(args) => sim::run(args),
        Command::Switch(args) => switch::run(args),
        Command::Bench(args) => bench::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ft: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What a subcommand returns: its exit status, or an error to print.
pub(crate) type CliResult = Result<ExitCode, Box<dyn std::error::Error>>;

/// An error and its sources in one line, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
