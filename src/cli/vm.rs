//! `ft run`, `ft primary`, `ft secondary`: one copy of a VM on this host.

use super::CliResult;
use crate::signals::on_signal;
use ft::core::config::Config;
use ft::core::error::HaltReason;
use ft::core::units::Span;
use ft::vm::config::VmFile;
use ft::vm::ends::Ending;
use ft::vm::process::{self, Begin, Ended, Options};
use ft::vm::report::Reporter;
use std::path::PathBuf;
use std::process::ExitCode;

/// What all three have in common.
#[derive(clap::Args)]
struct Common {
    /// The VM's file (docs/operating.md)
    #[arg(value_name = "VM.toml")]
    file: PathBuf,
    /// Record the log of this copy, while it is live, to a file that `ft replay` takes
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Milliseconds between two signs of life; a host is lost after three
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=1000))]
    heartbeat_ms: u64,
    /// Report as JSON lines on standard output
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct RecordArgs {
    /// The recording to make
    recording: PathBuf,
    /// The VM's file
    #[arg(value_name = "VM.toml")]
    file: PathBuf,
    /// Report as JSON lines on standard output
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct PrimaryArgs {
    #[command(flatten)]
    common: Common,
    /// This host's id in the VM's file
    #[arg(long, value_name = "ID")]
    host: u64,
}

#[derive(clap::Args)]
pub(crate) struct SecondaryArgs {
    #[command(flatten)]
    common: Common,
    /// This host's id in the VM's file
    #[arg(long, value_name = "ID")]
    host: u64,
    /// The primary's [default: who owns the last term at the arbiter]
    #[arg(long, value_name = "ID")]
    primary: Option<u64>,
}

pub(crate) fn run(args: RunArgs) -> CliResult {
    start(args.common, Begin::Alone)
}

pub(crate) fn record(args: RecordArgs) -> CliResult {
    let RecordArgs { recording, file, json } = args;
    let common = Common { file, record: Some(recording), heartbeat_ms: 100, json };
    start(common, Begin::Alone)
}

pub(crate) fn primary(args: PrimaryArgs) -> CliResult {
    start(args.common, Begin::Primary { host: args.host })
}

pub(crate) fn secondary(args: SecondaryArgs) -> CliResult {
    start(args.common, Begin::Secondary { host: args.host, primary: args.primary })
}

fn start(common: Common, begin: Begin) -> CliResult {
    let file = VmFile::read(&common.file)?;
    let reporter = if common.json { Reporter::json() } else { Reporter::plain() };
    let config = config(common.heartbeat_ms);
    let options = Options { begin, config, record: common.record, reporter, stop: on_signal()? };
    match process::run(&file, options)? {
        Ended::Stopped | Ended::Over(HaltReason::Requested) | Ended::Ending(Ending::PowerOff) => Ok(ExitCode::SUCCESS),
        // It has been reported.
        Ended::Over(_) | Ended::Ending(Ending::Failed(_)) => Ok(ExitCode::FAILURE),
        Ended::Ending(Ending::Crashed(what)) => Err(format!(
            "the guest crashed: {what}; record it with `ft record FILE VM.toml`, and look at it with `ft replay FILE --console`"
        )
        .into()),
    }
}

/// The pair's intervals for a heartbeat.
fn config(heartbeat_ms: u64) -> Config {
    let heartbeat = Span::from_ms(heartbeat_ms);
    let silence = heartbeat.scale(3, 1);
    Config { heartbeat, silence, lease: silence.scale(63, 100), ..Config::default() }
}
