//! `ft bench channel`: how fast the logging channel is beside plain TCP, TLS over TCP and bare quinn.
//!
//! A figure for a network channel means nothing alone: machine, kernel and link decide most of it. So every
//! contender runs in the same run, on the same link, in turn (A B C A B C ...), and what counts is the ratio inside
//! one round.
//!
//! Invariant: sender and receiver are two processes, so that neither borrows the other's caches or CPU time.
//! Invariant: nothing outlives the run: peers are killed by id, and only namespaces this run made are removed.
//! Invariant: traffic stays on loopback or between those namespaces.
//!
//! ```text
//! plan -> for each link: rig -> for each round: for each contender: two peers -> samples -> report
//! ```
//!
//! Not here: how a channel is tuned for production. The settings below are what makes each contender as fast as it
//! gets, so that the comparison is hard on our own channel.

mod contender;
mod error;
mod host;
mod identity;
mod interrupt;
mod link;
mod log;
mod measure;
mod netns;
mod order;
mod payload;
mod peer;
mod plan;
mod process;
mod quic;
mod quic_setup;
mod quic_socket;
mod report;
mod socket;
mod stream;
mod targets;
mod tcp;
mod text;
mod tls;
mod udp;
mod usage;

pub(crate) use contender::Contender;
pub(crate) use error::Error;
pub(crate) use host::idle_cores;
pub(crate) use link::LinkKind;
pub(crate) use payload::Data;
pub(crate) use peer::run as run_peer;
pub(crate) use plan::{Plan, Tuning};

use interrupt::Interrupt;
use report::Report;
use std::io::Write;

/// What the logging channel carries over loopback, in 10^9 bits a second: the median of three rounds.
///
/// # Errors
/// As [`run`].
pub(crate) fn loopback_gbit_s() -> Result<f64, Error> {
    let plan = Plan {
        contenders: vec![Contender::Log],
        link_kinds: vec![LinkKind::Loopback],
        rtt_us: Vec::new(),
        data: Data::Random,
        bytes: 256 << 20,
        rounds: 3,
        round_trips: 0,
        tuning: Tuning { window: 16 << 20, socket_buffer: 8 << 20, gso: true, mtu: 1500 },
    };
    let interrupt = Interrupt::watch()?;
    let rig = link::Rig::set_up(&link::LinkSpec::Loopback, plan.tuning.mtu)?;
    let measured = measure::link(&rig, &plan, &interrupt)?;
    let log = measured.throughput_of(Contender::Log).and_then(|row| row.gbit_s);
    log.map(|rate| rate.median).ok_or(Error::NothingMeasured)
}

/// Measures everything `plan` asks for and prints it: tables on standard output, or, with `json`, the tables on
/// standard error and one JSON object on standard output.
///
/// # Errors
/// When no link can be measured, when a peer process dies, fails or hangs, or when the run is interrupted. Whatever
/// the run made is gone by then.
pub(crate) fn run(plan: &Plan, json: bool) -> Result<(), Error> {
    let interrupt = Interrupt::watch()?;
    let mut out: Box<dyn Write> =
        if json { Box::new(std::io::stderr()) } else { Box::new(std::io::stdout()) };
    let mut report = Report::new(host::Machine::read(), plan.clone());
    text::heading(&mut out, &report)?;
    for spec in plan.links() {
        match link::Rig::set_up(&spec, plan.tuning.mtu) {
            Ok(rig) => {
                let measured = measure::link(&rig, plan, &interrupt)?;
                text::link(&mut out, &measured, &plan.tuning)?;
                report.links.push(measured);
            }
            Err(obstacle) => {
                interrupt.check()?;
                report.skip(spec.name(), obstacle.to_string());
            }
        }
    }
    text::skipped(&mut out, &report.skipped)?;
    if report.links.is_empty() {
        return Err(Error::NothingMeasured);
    }
    report.judge();
    text::targets(&mut out, &report)?;
    if json { text::json(&mut std::io::stdout(), &report) } else { Ok(()) }
}
