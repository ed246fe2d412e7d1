//! `ft replay` and `ft inspect`: recordings.

use super::CliResult;
use comfy_table::{CellAlignment, Table, presets};
use ft::core::frame::LogEnd;
use ft::core::record::Event;
use ft::core::recorder::{Replayed, Replayer};
use ft::core::{Record, units::Seq};
use ft::recording::RecordingReader;
use ft::vm::recipe::Recipe;
use ft_vmm::machine::Vm;
use ft_vmm::soft::SoftVcpu;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Ticks between two looks at the clock.
const TICKS_PER_STEP: u64 = 10_000_000;

#[derive(clap::Args)]
pub(crate) struct ReplayArgs {
    /// The recording
    file: PathBuf,
    /// Print what the guest wrote to its console
    #[arg(long)]
    console: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a replay has found.
#[derive(Debug, Serialize)]
struct ReplayReport {
    records: u64,
    instructions: u64,
    effects: u64,
    digests: u64,
    /// The machine's clock at the end of the recording, in seconds.
    recorded_s: f64,
    replayed_s: f64,
    /// How many times as fast as it was recorded.
    speed: f64,
    /// What a crash left half written at the end, if anything.
    torn: Option<String>,
}

pub(crate) fn replay(args: ReplayArgs) -> CliResult {
    let mut reader = RecordingReader::open(&args.file)?;
    let profile = reader.header().profile.clone();
    // The recipe is among the first records: the frames read for it are replayed like the others.
    let mut ahead = VecDeque::new();
    let recipe = loop {
        let Some(verified) = reader.next_frame()? else {
            return Err(format!("{}: it does not say what machine it is of", args.file.display()).into());
        };
        let recipe = verified.records.iter().find_map(|record| Recipe::of(&record.event));
        ahead.push_back(verified.frame);
        if let Some(recipe) = recipe {
            break recipe?;
        }
    };
    let config = recipe.vm_config(&profile)?;
    let mut replayer = Replayer::new(Vm::new(config, SoftVcpu::new())?, LogEnd::default());
    let bar = progress(args.json);
    let started = Instant::now();
    let mut recorded = Duration::ZERO;
    loop {
        match replayer.step(TICKS_PER_STEP)? {
            Replayed::Applied { record, effects, .. } => {
                if let Event::Time(now) = record.event {
                    recorded = Duration::from_nanos(now.0);
                }
                if args.console {
                    print_console(&effects)?;
                }
            }
            Replayed::Underway => bar.set_message(format!("{} instructions", replayer.progress().ticks)),
            Replayed::Drained => {
                let next = match ahead.pop_front() {
                    Some(frame) => Some(frame),
                    None => reader.next_frame()?.map(|verified| verified.frame),
                };
                let Some(frame) = next else { break };
                replayer.push(&frame)?;
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    let (progress, took) = (replayer.progress(), started.elapsed().as_secs_f64());
    let report = ReplayReport {
        records: progress.records,
        instructions: progress.ticks,
        effects: progress.effects,
        digests: progress.digests,
        recorded_s: recorded.as_secs_f64(),
        replayed_s: took,
        speed: recorded.as_secs_f64() / took,
        torn: reader.torn().map(|torn| torn.to_string()),
    };
    print(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn print(report: &ReplayReport, json: bool) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
        return Ok(());
    }
    let ReplayReport { records, instructions, effects, digests, recorded_s, replayed_s, speed, torn } =
        report;
    if let Some(torn) = torn {
        writeln!(out, "{torn}")?;
    }
    writeln!(
        out,
        "{records} records, {instructions} instructions, {effects} effects, {digests} digests: all equal"
    )?;
    writeln!(out, "recorded in {recorded_s:.1} s, replayed in {replayed_s:.1} s: {speed:.1} times as fast")?;
    Ok(())
}

fn print_console(effects: &[ft::core::effect::Numbered]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for numbered in effects {
        if numbered.effect.kind == ft::core::effect::EffectKind::Console {
            out.write_all(&numbered.effect.payload)?;
        }
    }
    out.flush()
}

fn progress(hidden: bool) -> ProgressBar {
    if hidden {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos} frames, {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    /// The recording
    file: PathBuf,
    /// Print every record
    #[arg(long)]
    entries: bool,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// A record, as it is printed.
#[derive(Serialize)]
struct Entry {
    seq: u64,
    tick: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rip: Option<String>,
    kind: &'static str,
    bytes: usize,
}

/// Records of one kind.
#[derive(Default, Serialize)]
struct Sum {
    records: u64,
    content_bytes: u64,
}

pub(crate) fn inspect(args: InspectArgs) -> CliResult {
    let mut reader = RecordingReader::open(&args.file)?;
    let mut out = io::stdout().lock();
    let mut kinds: BTreeMap<&'static str, Sum> = BTreeMap::new();
    let (mut frames, mut frame_bytes, mut seq) = (0u64, 0u64, reader.header().start.seq);
    let (mut tick, mut clock) = (0, 0);
    while let Some(verified) = reader.next_frame()? {
        frames += 1;
        frame_bytes += verified.frame.size() as u64;
        for record in &verified.records {
            seq = seq.next();
            tick = record.point.tick.0;
            if let Event::Time(now) = record.event {
                clock = now.0;
            }
            let sum = kinds.entry(record.event.name()).or_default();
            sum.records += 1;
            sum.content_bytes += record.event.payload().len() as u64;
            if args.entries {
                print_entry(&mut out, seq, record, args.json)?;
            }
        }
    }
    let torn = reader.torn().map(|torn| torn.to_string());
    let seconds = clock as f64 / 1e9;
    if args.json {
        let profile = &reader.header().profile;
        let object = serde_json::json!({
            "vm": profile.vm, "build": profile.build, "machine": profile.machine, "cpu": profile.cpu, "frames": frames, "bytes": frame_bytes,
            "last_seq": seq.0, "last_tick": tick, "clock_s": seconds, "kinds": kinds, "torn": torn,
        });
        writeln!(out, "{object}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}", table(&kinds))?;
    writeln!(out, "{frames} frames, {frame_bytes} bytes, to {seq} at tick {tick}, clock {seconds:.3} s")?;
    if seconds > 0.0 && tick > 0 {
        let (rate, density) =
            (frame_bytes as f64 * 8.0 / seconds / 1e6, frame_bytes as f64 * 1000.0 / tick as f64);
        writeln!(out, "{rate:.3} Mbit/s of the machine's time, {density:.4} bytes per 1,000 instructions")?;
    }
    if let Some(torn) = torn {
        writeln!(out, "{torn}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_entry(
    out: &mut impl io::Write,
    seq: Seq,
    record: &Record,
    json: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let entry = Entry {
        seq: seq.0,
        tick: record.point.tick.0,
        rip: record.point.check.map(|check| format!("{:#x}", check.rip)),
        kind: record.event.name(),
        bytes: record.event.payload().len(),
    };
    if json {
        writeln!(out, "{}", serde_json::to_string(&entry)?)?;
    } else {
        let Entry { seq, tick, rip, kind, bytes } = entry;
        writeln!(out, "{seq:>8} {tick:>14} {:>14} {kind:<12} {bytes:>8}", rip.unwrap_or_default())?;
    }
    Ok(())
}

fn table(kinds: &BTreeMap<&'static str, Sum>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(["kind", "records", "bytes of content"]);
    for (kind, sum) in kinds {
        table.add_row([(*kind).to_owned(), sum.records.to_string(), sum.content_bytes.to_string()]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
