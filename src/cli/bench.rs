//! `ft bench`: measurements.

use super::CliResult;
use crate::bench::channel::{self, Contender, Data, LinkKind, Plan, Tuning};
use crate::bench::{heal, vm};
use clap::Subcommand;
use comfy_table::Table;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// The logging channel beside TCP, TLS over TCP and bare quinn
    Channel(ChannelArgs),
    /// The software vCPU on the built-in guest's compute loop
    Cpu(CpuArgs),
    /// What protection costs a guest, and what a failure costs its clients
    Vm(VmArgs),
    /// How soon a VM is protected again after the loss of a host, and what that and a change of roles cost its clients
    Heal(HealArgs),
    /// One side of `channel`, started by it
    #[command(hide = true)]
    ChannelPeer {
        /// What it is for, so that a list of processes shows it
        role: String,
    },
}

#[derive(clap::Args)]
struct CpuArgs {
    /// Measurements
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of each, in seconds
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct VmArgs {
    /// Turns of protected and unprotected
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Length of a measurement, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// Primaries that are killed
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..))]
    kills: u16,
    /// Client connections
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Print one JSON object on standard output, and the table on standard error
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct HealArgs {
    /// Guests, by their RAM in MiB; a third of it is filled
    #[arg(long = "mib", value_name = "N", value_delimiter = ',', default_values_t = [64, 256, 1024], value_parser = clap::value_parser!(u64).range(64..=3072))]
    sizes_mib: Vec<u64>,
    /// Hosts that are killed, for each size
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    losses: u16,
    /// Changes of roles
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    switchovers: u16,
    /// Client connections
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Print one JSON object on standard output, and the table on standard error
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct ChannelArgs {
    /// Links to measure on [default: both]
    #[arg(long = "link", value_enum, value_name = "LINK", value_delimiter = ',')]
    links: Vec<LinkKind>,
    /// Round-trip times to add on the shaped link, in microseconds
    #[arg(long, value_delimiter = ',', default_values_t = [0, 50, 150])]
    rtt_us: Vec<u64>,
    /// Channels to measure, in the order of their turns [default: all in this build]
    #[arg(long, value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Content of the bytes
    #[arg(long, value_enum, default_value = "random")]
    data: Data,
    /// Volume of one measurement
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    mib: u64,
    /// Turns of each channel
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// 64-byte messages timed for each method over all rounds; 0 leaves this part out
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    round_trips: u32,
    /// MTU of the shaped link, and the largest packet QUIC looks for
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..=9216))]
    mtu: u16,
    /// QUIC flow-control windows
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    window_mib: u32,
    /// Socket buffers to ask for, each way
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    buffer_kib: u32,
    /// Leave segmentation offload off for QUIC
    #[arg(long)]
    no_gso: bool,
    /// A smoke test: loopback only, one round, little volume
    #[arg(long, conflicts_with_all = ["links", "mib", "rounds", "round_trips"])]
    quick: bool,
    /// Print one JSON object on standard output, and the tables on standard error
    #[arg(long)]
    json: bool,
}

impl ChannelArgs {
    fn plan(self) -> Plan {
        let (links, mib, rounds, round_trips) = if self.quick {
            (vec![LinkKind::Loopback], 16, 1, 200)
        } else {
            (
                or(self.links, || vec![LinkKind::Loopback, LinkKind::Shaped]),
                self.mib,
                self.rounds,
                self.round_trips,
            )
        };
        Plan {
            contenders: or(self.contenders, Contender::built),
            link_kinds: links,
            rtt_us: self.rtt_us,
            data: self.data,
            bytes: mib << 20,
            rounds: usize::from(rounds),
            round_trips: round_trips as usize,
            tuning: Tuning {
                window: self.window_mib << 20,
                socket_buffer: (self.buffer_kib as usize) << 10,
                gso: !self.no_gso,
                mtu: self.mtu,
            },
        }
    }
}

/// What was asked for, or the default where nothing was.
fn or<T>(asked: Vec<T>, default: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if asked.is_empty() { default() } else { asked }
}

pub(crate) fn run(args: Args) -> CliResult {
    match args.subject {
        Subject::ChannelPeer { .. } => Ok(channel::run_peer()),
        Subject::Cpu(args) => cpu(&args),
        Subject::Vm(args) => vm(&args),
        Subject::Heal(args) => heal(&args),
        Subject::Channel(args) => {
            let json = args.json;
            channel::run(&args.plan(), json)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// At least a tenth of a second, at most an hour.
fn seconds(asked: f64) -> Duration {
    Duration::from_secs_f64(if asked.is_finite() { asked.clamp(0.1, 3600.0) } else { 1.0 })
}

fn cpu(args: &CpuArgs) -> CliResult {
    let figures = vm::run_cpu(usize::from(args.rounds), seconds(args.seconds))?;
    if args.json {
        println!("{}", serde_json::to_string(&figures)?);
        return Ok(ExitCode::SUCCESS);
    }
    let vm::CpuFigures { mips, mips_min, mips_max, target_mips, reached, .. } = figures;
    println!("software vCPU, compute loop: {mips:.0} million instructions/s ({mips_min:.0}..{mips_max:.0})");
    println!("aim: >= {target_mips:.0}, {}", if reached { "reached" } else { "NOT reached" });
    Ok(ExitCode::SUCCESS)
}

fn vm(args: &VmArgs) -> CliResult {
    let plan = vm::Plan {
        rounds: usize::from(args.rounds),
        window: seconds(args.seconds),
        kills: usize::from(args.kills),
        connections: usize::from(args.connections),
    };
    let figures = with_spinner(|say| vm::run(&plan, say))?;
    show(figures.cores, figures.free_cores, &figures.table(), args.json.then_some(&figures))
}

fn heal(args: &HealArgs) -> CliResult {
    let plan = heal::Plan {
        sizes_mib: args.sizes_mib.clone(),
        losses: usize::from(args.losses),
        switchovers: usize::from(args.switchovers),
        connections: usize::from(args.connections),
    };
    let figures = with_spinner(|say| heal::run(&plan, say))?;
    show(figures.cores, figures.free_cores, &figures.table(), args.json.then_some(&figures))
}

/// Measures, while a terminal shows what is being measured.
fn with_spinner<T>(measure: impl FnOnce(&dyn Fn(&str)) -> T) -> T {
    let bar = indicatif::ProgressBar::new_spinner();
    let measured = measure(&|what| {
        bar.set_message(what.to_owned());
        bar.tick();
    });
    bar.finish_and_clear();
    measured
}

/// Prints the table; with `json`, the figures on standard output and the table on standard error.
fn show(cores: usize, free_cores: f64, table: &Table, json: Option<&impl Serialize>) -> CliResult {
    let text = format!("{cores} cores, {free_cores:.1} of them idle before\n{table}");
    match json {
        Some(figures) => {
            eprintln!("{text}");
            println!("{}", serde_json::to_string(figures)?);
        }
        None => println!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ChannelArgs,
    }

    fn plan(line: &str) -> Plan {
        Line::try_parse_from(format!("channel {line}").split_whitespace()).unwrap().args.plan()
    }

    #[test]
    fn the_default_run_measures_everything_built() {
        let plan = plan("");
        assert_eq!(plan.contenders, Contender::built());
        assert_eq!(plan.link_kinds, [LinkKind::Loopback, LinkKind::Shaped]);
        assert_eq!((plan.bytes, plan.rounds, plan.rtt_us.as_slice()), (1 << 30, 5, &[0, 50, 150][..]));
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let plan = plan("--contenders quinn,tcp --link shaped --rtt-us 10,20 --mib 3 --no-gso");
        assert_eq!(plan.contenders, [Contender::Quinn, Contender::Tcp]);
        assert_eq!((plan.rtt_us.as_slice(), plan.bytes, plan.tuning.gso), (&[10, 20][..], 3 << 20, false));
    }

    #[test]
    fn a_quick_run_stays_on_loopback() {
        assert_eq!(plan("--quick").link_kinds, [LinkKind::Loopback]);
        assert!(Line::try_parse_from(["channel", "--quick", "--rounds", "3"]).is_err());
    }
}
