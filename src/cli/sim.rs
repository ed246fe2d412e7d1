//! `ft sim`: runs seeded worlds on all cores, and says which broke a rule.

use super::CliResult;
use ft_core::sim::{self, Stats, Verdict};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Failing seeds that are described; of further ones only the number is said.
const MOST_DESCRIBED: u64 = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seeds to run, from A up to but not including B
    #[arg(long, value_name = "A..B", value_parser = parse_range, default_value = "0..10000")]
    seeds: Range<u64>,
    /// Run this one seed
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Print everything that happens in the world of --seed
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "trace")]
    json: bool,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "N")]
    jobs: Option<std::num::NonZeroUsize>,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let hint = || format!("{text:?} is not a range of seeds; write for instance 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(hint)?;
    let range = first.parse().map_err(|_| hint())?..end.parse().map_err(|_| hint())?;
    if range.is_empty() { Err(format!("{text:?} holds no seed; the end is not included")) } else { Ok(range) }
}

pub(crate) fn run(args: Args) -> CliResult {
    if args.trace {
        return Ok(trace(args.seed.unwrap_or_default()));
    }
    let seeds = args.seed.map_or(args.seeds, |seed| seed..seed.saturating_add(1));
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, |jobs| jobs.get());
    let started = Instant::now();
    let report = run_seeds(seeds, jobs, args.json);
    if args.json {
        println!("{}", report.json());
    } else {
        report.print(started.elapsed());
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn trace(seed: u64) -> ExitCode {
    let verdict = sim::trace(seed, |line| {
        // A reader that has seen enough (head, less) is no error.
        if writeln!(std::io::stdout(), "{line}").is_err() {
            std::process::exit(0);
        }
    });
    match verdict {
        Verdict::Passed(_) => println!("seed {seed} passed"),
        Verdict::Extinct(_) => println!("seed {seed} passed: faults took every copy of the machine"),
        Verdict::Failed(_, at, failure) => {
            println!("seed {seed} failed at {at}: {failure}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Report {
    passed: u64,
    extinct: u64,
    total: Stats,
    /// Seed, and what was broken.
    failures: Vec<(u64, String)>,
}

fn run_seeds(seeds: Range<u64>, jobs: usize, quiet: bool) -> Report {
    let next = AtomicU64::new(seeds.start);
    let bar = progress_bar(seeds.end - seeds.start, quiet);
    let (sender, verdicts) = mpsc::channel();
    let mut report = Report::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, end) = (sender.clone(), &next, seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send((seed, sim::run(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (seed, verdict) in verdicts {
            if let Some((seed, what)) = report.add(seed, verdict) {
                bar.suspend(|| eprintln!("seed {seed}: {what}\n  replay: ft sim --seed {seed} --trace"));
            }
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    report.failures.sort();
    report
}

fn progress_bar(len: u64, quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} worlds, {per_sec}, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

impl Report {
    /// Takes in a verdict; gives back a failure that is worth describing.
    fn add(&mut self, seed: u64, verdict: Verdict) -> Option<(u64, String)> {
        let (Verdict::Passed(stats) | Verdict::Extinct(stats) | Verdict::Failed(stats, ..)) = &verdict;
        let total = &mut self.total;
        total.events += stats.events;
        total.effects += stats.effects;
        total.repeats += stats.repeats;
        total.answered += stats.answered;
        total.protected += stats.protected;
        total.takeovers += stats.takeovers;
        total.solos += stats.solos;
        total.renounced += stats.renounced;
        total.yielded += stats.yielded;
        total.respawns += stats.respawns;
        total.relieved += stats.relieved;
        total.losers += stats.losers;
        match verdict {
            Verdict::Passed(_) => self.passed += 1,
            Verdict::Extinct(_) => self.extinct += 1,
            Verdict::Failed(_, at, failure) => {
                self.failures.push((seed, format!("at {at}: {failure}")));
                if self.failures.len() as u64 <= MOST_DESCRIBED {
                    return self.failures.last().cloned();
                }
            }
        }
        None
    }

    fn print(&self, took: Duration) {
        let worlds = self.passed + self.extinct + self.failures.len() as u64;
        let Stats {
            events,
            effects,
            repeats,
            protected,
            takeovers,
            solos,
            yielded,
            respawns,
            relieved,
            renounced,
            losers,
            ..
        } = self.total;
        let rate = worlds as f64 / took.as_secs_f64();
        println!("{worlds} worlds, {events} events in {:.1} s ({rate:.0} worlds/s)", took.as_secs_f64());
        println!("  effects that left the machine   {effects} ({repeats} of them more than once)");
        println!("  pairs that became protected     {protected}");
        println!("  secondaries that went live      {takeovers}");
        println!("  primaries that went on alone    {solos}");
        println!("  machines handed over            {yielded}");
        println!("  copies that agents asked for    {respawns}");
        println!("  secondaries relieved            {relieved}");
        println!("  terms won and renounced         {renounced}");
        println!("  copies that lost and halted     {losers}");
        println!("  machines lost to faults         {} (every copy was taken)", self.extinct);
        let failed = self.failures.len() as u64;
        if failed > MOST_DESCRIBED {
            println!("  failures not described above    {}", failed - MOST_DESCRIBED);
        }
        println!("{} passed, {failed} failed", self.passed + self.extinct);
    }

    fn json(&self) -> serde_json::Value {
        let Stats {
            events,
            effects,
            repeats,
            protected,
            takeovers,
            solos,
            yielded,
            respawns,
            relieved,
            renounced,
            losers,
            answered,
        } = self.total;
        serde_json::json!({
            "passed": self.passed + self.extinct,
            "failed": self.failures.len(),
            "extinct": self.extinct,
            "events": events,
            "effects": effects,
            "repeats": repeats,
            "answered": answered,
            "protected": protected,
            "takeovers": takeovers,
            "solos": solos,
            "yielded": yielded,
            "respawns": respawns,
            "relieved": relieved,
            "renounced": renounced,
            "losers": losers,
            "failures": self.failures.iter().map(|(seed, what)| {
                serde_json::json!({ "seed": seed, "what": what, "replay": format!("ft sim --seed {seed} --trace") })
            }).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds() {
        assert_eq!(parse_range("5..9"), Ok(5..9));
        for wrong in ["", "5", "9..5", "5..5", "a..b", "-1..2"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }
}
