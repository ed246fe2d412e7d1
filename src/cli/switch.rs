//! `ft switch`: the LAN of one host, until Ctrl-C.

use super::CliResult;
use crate::signals::on_signal;
use crossbeam::channel::{bounded, never, select, tick};
use ft::lan::{Endpoint, Forward, Notice, Subnet, Switch, SwitchConfig, SwitchStats};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Interval of --stats.
const STATS_EVERY: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Unix socket on which VMMs connect (and QEMU, with -netdev stream)
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Forward a TCP port of this host to a guest, as in 127.0.0.1:6379=10.0.2.15:6379; may be repeated
    #[arg(long = "forward", value_name = "HOST:PORT=GUEST:PORT")]
    forwards: Vec<Forward>,
    /// The switch's own address in the guests' network
    #[arg(long, value_name = "ADDRESS/BITS", default_value = "10.0.2.2/24")]
    ip: Subnet,
    /// Let VMMs connect to this loopback address too
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Longest Ethernet frame, 1518 to 9018; the guests' MTU is 18 less
    #[arg(long, value_name = "BYTES", default_value_t = 1518)]
    max_frame: usize,
    /// Print a line of figures each second in which something happened
    #[arg(long)]
    stats: bool,
}

impl Args {
    fn config(&self) -> SwitchConfig {
        SwitchConfig {
            listen_tcp: self.listen,
            subnet: self.ip,
            forwards: self.forwards.clone(),
            max_frame: self.max_frame,
            ..SwitchConfig::new(&self.socket)
        }
    }
}

pub(crate) fn run(args: Args) -> CliResult {
    let stop = on_signal()?;
    let (fail, failed) = bounded(1);
    let switch = Switch::start(args.config(), move |notice| {
        eprintln!("ft switch: {notice}");
        if matches!(notice, Notice::Failed { .. }) {
            // Once is enough.
            let _ = fail.try_send(());
        }
    })?;
    describe(&args, &switch);
    let look_up = if args.stats { tick(STATS_EVERY) } else { never() };
    let mut last = SwitchStats::default();
    loop {
        select! {
            recv(stop) -> _ => break,
            recv(failed) -> _ => break,
            recv(look_up) -> _ => {
                let Some(stats) = switch.statistics() else { break };
                if stats != last {
                    eprintln!("ft switch: {}", line(&stats, &last));
                    last = stats;
                }
            }
        }
    }
    // A switch that failed, and has said so, answers nothing.
    let Some(total) = switch.statistics() else { return Ok(ExitCode::FAILURE) };
    switch.stop();
    if args.stats {
        eprintln!("ft switch: in all: {}", line(&total, &SwitchStats::default()));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(args: &Args, switch: &Switch) {
    eprintln!("ft switch: {} on {}; Ctrl-C ends it", args.ip, switch.endpoint());
    if let Some(address) = switch.tcp_address() {
        eprintln!("ft switch: VMMs may also connect to {}", Endpoint::Tcp(address));
    }
    for (forward, address) in args.forwards.iter().zip(switch.forward_addresses()) {
        eprintln!("ft switch: {address} leads to {}", forward.guest);
    }
}

/// What happened since `last`.
fn line(now: &SwitchStats, last: &SwitchStats) -> String {
    format!(
        "{} ports, {} connections; {} frames ({} kB), {} flooded, {} dropped, {} moves; {} kB to guests, {} kB to clients",
        now.ports.len(),
        now.connections_now,
        now.fabric.frames - last.fabric.frames,
        (now.fabric.bytes - last.fabric.bytes) / 1000,
        now.fabric.flooded - last.fabric.flooded,
        now.fabric.dropped - last.fabric.dropped,
        now.fabric.moves - last.fabric.moves,
        (now.to_guests - last.to_guests) / 1000,
        (now.to_clients - last.to_clients) / 1000,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(format!("switch {line}").split_whitespace()).map(|line| line.args)
    }

    #[test]
    fn flags_become_a_configuration() {
        let args = args(
            "--socket /s --forward 127.0.0.1:1=10.9.0.5:2 --forward [::1]:0=10.9.0.6:3 --ip 10.9.0.1/16",
        );
        let config = args.unwrap().config();
        assert_eq!((config.forwards.len(), config.subnet.prefix, config.max_frame), (2, 16, 1518));
        assert_eq!(config.forwards[1].guest, "10.9.0.6:3".parse().unwrap());
    }

    #[test]
    fn what_is_wrong_is_said_with_an_example() {
        for wrong in ["", "--socket /s --forward 6379", "--socket /s --ip 10.0.2.2", "--socket /s --listen x"]
        {
            assert!(args(wrong).is_err(), "{wrong}");
        }
        let error = args("--socket /s --forward 6379").err().unwrap().to_string();
        assert!(error.contains("127.0.0.1:6379=10.0.2.15:6379"), "{error}");
    }
}
