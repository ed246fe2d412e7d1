//! `ft chaos`: a protected VM under load, and everything that a pair survives done to it.

use super::CliResult;
use crate::signals::on_signal;
use ft::chaos::{ChaosConfig, Entry, Verdict, What};
use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long faults strike, in minutes: 0.5 is half a one
    #[arg(long, value_name = "M", default_value = "1", value_parser = parse_minutes)]
    minutes: Duration,
    /// Decides which faults strike, in which order and for how long; not on what they fall [default: a new one]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Hosts
    #[arg(long, value_name = "N", default_value_t = 3)]
    hosts: u64,
    /// Print one JSON object at the end, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// An empty or new directory for everything, which stays [default: one that stays only when the test fails]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A week.
const MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse().ok().filter(|minutes| *minutes > 0.0 && *minutes <= MINUTES_MAX);
    let minutes: f64 =
        minutes.ok_or_else(|| format!("write a number above 0, up to {MINUTES_MAX}, such as 0.5"))?;
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

pub(crate) fn run(args: Args) -> CliResult {
    let stop = on_signal()?;
    let (dir, throw_away) = match &args.dir {
        Some(dir) => (take(dir)?, None),
        None => {
            let dir = tempfile::Builder::new().prefix("ft-chaos-").tempdir()?;
            (dir.path().to_owned(), Some(dir))
        }
    };
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ now_ms());
    let config = ChaosConfig {
        hosts: args.hosts,
        lasts: args.minutes,
        stop,
        ..ChaosConfig::new(std::env::current_exe()?, dir, seed)
    };
    let result = ft::chaos::run(config, &mut |entry| show(entry, args.json));
    let passed = result.as_ref().is_ok_and(|verdict| verdict.passed);
    let interrupted = matches!(&result, Err(error) if error.is_interruption());
    let kept = match throw_away {
        Some(dir) if passed || interrupted => dir.close().map(|()| false)?,
        Some(dir) => {
            eprintln!("ft: everything is kept in {}", dir.keep().display());
            true
        }
        None => true,
    };
    let mut verdict = result?;
    if !kept {
        verdict.history = None;
    }
    print(&verdict, args.json)?;
    Ok(if verdict.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Milliseconds since 1970: no two seeds are the same by chance.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A directory in which there is nothing yet.
fn take(dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let failed = |error: io::Error| format!("cannot use {}: {error}", dir.display());
    std::fs::create_dir_all(dir).map_err(failed)?;
    if std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(format!("{} is not empty: name a new directory", dir.display()).into());
    }
    Ok(std::path::absolute(dir)?)
}

/// Says what happens, as far as it is news to a spectator.
fn show(entry: &Entry, quiet: bool) {
    if matches!(entry.what, What::Detail | What::Lan | What::Verdict) {
        return;
    }
    let mark = match entry.what {
        What::Fault => "! ",
        What::Violation => "# ",
        _ => "  ",
    };
    let host = entry.host.map_or(String::new(), |host| format!("host {host}: "));
    let line = format!("{:>8.3} s {mark}{host}{}", entry.at_ms as f64 / 1000.0, entry.text);
    // Somebody who has seen enough (head, less) does not end the test.
    let _ = if quiet { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") };
}

fn print(verdict: &Verdict, json: bool) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(verdict)?)?;
        return Ok(());
    }
    if let Some(history) = &verdict.history {
        writeln!(out, "history: {}", history.display())?;
    }
    if verdict.skipped > 0 {
        writeln!(out, "{} faults were drawn that cannot be had here", verdict.skipped)?;
    }
    writeln!(out, "seed: {}", verdict.seed)?;
    writeln!(out, "{verdict}")?;
    Ok(())
}
