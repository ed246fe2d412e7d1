//! `ft drain`, `ft undrain`: what operators plan.

use super::{Common, print_json};
use crate::cli::CliResult;
use ft::host::message::Request;
use ft::host::planned;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct DrainArgs {
    /// The host: it takes no further copies, and those that it has are moved to others
    host: String,
    /// Seconds that each VM may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(crate) struct UndrainArgs {
    /// The host: it takes copies again
    host: String,
    #[command(flatten)]
    common: Common,
}

pub(crate) fn drain(args: DrainArgs) -> CliResult {
    let DrainArgs { host, timeout, common } = args;
    let say = |text: &str| eprintln!("ft: {text}");
    let drained = planned::drain(&mut common.connect()?, &host, Duration::from_secs(timeout), say)?;
    if common.json {
        print_json(&serde_json::json!({ "host": host, "moved": drained.moved, "left": drained.left }))?;
    } else {
        for left in &drained.left {
            eprintln!("ft: {} stays on {host}: {}", left.vm, left.why.replace('\n', "\n      "));
        }
        let text = match drained.left.len() {
            0 => format!("{host} is empty and takes no further copies"),
            n => format!("{host} takes no further copies; what it has of {n} VMs could not be moved"),
        };
        writeln!(io::stdout(), "{text}")?;
    }
    Ok(if drained.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn undrain(args: UndrainArgs) -> CliResult {
    let UndrainArgs { host, common } = args;
    common.connect()?.ask(Some(&host), Request::Drain { draining: false })?;
    if common.json {
        print_json(&serde_json::json!({ "host": host, "draining": false }))?;
    } else {
        writeln!(io::stdout(), "{host} takes copies again")?;
    }
    Ok(ExitCode::SUCCESS)
}
