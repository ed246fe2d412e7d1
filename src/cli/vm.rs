//! `ft run`, `ft primary`, `ft secondary`: one copy of a VM on this host.

use super::{CliResult, log_to};
use crate::signals::on_signal;
use ft::core::config::Config;
use ft::core::error::HaltReason;
use ft::core::units::Span;
use ft::vm::config::{HEARTBEAT_MS, HEARTBEAT_MS_RANGE, RECORD_VARIABLE, VmFile};
use ft::vm::control::Control;
use ft::vm::ends::Ending;
use ft::vm::log::LogFile;
use ft::vm::process::{self, Begin, Ended, Options};
use ft::vm::report::Reporter;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What all three have in common.
#[derive(clap::Args)]
struct Common {
    /// The VM's file (docs/operations.md)
    #[arg(value_name = "VM.toml")]
    file: PathBuf,
    /// Record the log of this copy, while it is live, to a file that `ft replay` takes [default for `ft primary`: $FT_RECORD]
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Milliseconds between two signs of life; a host is lost after three [default: the file's, or 100]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(HEARTBEAT_MS_RANGE))]
    heartbeat_ms: Option<u64>,
    /// Report as JSON lines on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

/// For whoever starts the process, leaves it to itself and comes back to it: `ft host`.
#[derive(Default, clap::Args)]
pub(crate) struct AgentArgs {
    /// Listen for controllers on a Unix socket, in a session of its own; hosts may then be added while the VM runs
    #[arg(long, value_name = "SOCKET", requires = "log", conflicts_with = "json")]
    control: Option<PathBuf>,
    /// Write to a file instead of standard output and standard error, and keep it small
    #[arg(long, value_name = "FILE", requires = "control")]
    log: Option<PathBuf>,
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
    /// Start although another host's copy of a mirrored disk is newer, or this host has none
    #[arg(long)]
    again: bool,
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
    let agent = AgentArgs::default();
    let common = Common { file, record: Some(recording), heartbeat_ms: None, json, agent };
    start(common, Begin::Alone)
}

pub(crate) fn primary(args: PrimaryArgs) -> CliResult {
    let PrimaryArgs { mut common, host, again } = args;
    common.record = common.record.or_else(|| std::env::var_os(RECORD_VARIABLE).map(PathBuf::from));
    start(common, Begin::Primary { host, again })
}

pub(crate) fn secondary(args: SecondaryArgs) -> CliResult {
    start(args.common, Begin::Secondary { host: args.host, primary: args.primary })
}

fn start(common: Common, begin: Begin) -> CliResult {
    let control = common.agent.control()?;
    let file = match &control {
        Some(_) => VmFile::read_growing(&common.file)?,
        None => VmFile::read(&common.file)?,
    };
    let reporter = match &control {
        Some(control) => control.reporter(),
        None if common.json => Reporter::json(),
        None => Reporter::plain(),
    };
    let config = config(common.heartbeat_ms.or(file.heartbeat_ms).unwrap_or(HEARTBEAT_MS));
    let options = Options { begin, config, record: common.record, reporter, stop: on_signal()?, control };
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

impl AgentArgs {
    /// The control socket, in a process that outlives whoever started it.
    fn control(&self) -> Result<Option<Control>, Box<dyn std::error::Error>> {
        let (Some(socket), Some(log)) = (&self.control, &self.log) else {
            log_to(io::stderr, "warn");
            return Ok(None);
        };
        let failed = |doing: &str, path: &Path, error: io::Error| {
            format!("cannot {doing} {}: {error}", path.display())
        };
        process::detach()?;
        let log = Arc::new(LogFile::open(log).map_err(|error| failed("write the log", log, error))?);
        log_to(Arc::clone(&log), "warn");
        let control = Control::listen(socket, log);
        Ok(Some(control.map_err(|error| failed("listen at", socket, error))?))
    }
}

/// The pair's intervals for a heartbeat.
fn config(heartbeat_ms: u64) -> Config {
    let heartbeat = Span::from_ms(heartbeat_ms);
    let silence = heartbeat.scale(3, 1);
    Config { heartbeat, silence, lease: silence.scale(63, 100), ..Config::default() }
}
