//! One link: rounds in which every contender has its turn, then rounds of small messages.

use super::contender::{Contender, Method};
use super::error::Error;
use super::identity::Identities;
use super::interrupt::Interrupt;
use super::link::Rig;
use super::order::{Job, Order, Sample, Side, Work};
use super::plan::Plan;
use super::process::{Deadline, Duo};
use super::report::{LinkReport, Round};
use indicatif::{ProgressBar, ProgressStyle};
use std::net::SocketAddr;

/// Messages that time the bare link before anything else runs on it.
const LINK_CHECK_MESSAGES: usize = 300;
/// Time to start, connect and shake hands on the busiest machine.
const START_SECONDS: u64 = 60;
/// Slower than this is not a measurement any more.
const SLOWEST_BYTES_PER_SECOND: u64 = 10_000_000;
/// As for messages.
const SLOWEST_MESSAGES_PER_SECOND: u64 = 100;

/// Measures every contender and every method of the plan on this link.
pub(super) fn link(rig: &Rig, plan: &Plan, interrupt: &Interrupt) -> Result<LinkReport, Error> {
    let bench = Bench { rig, plan, interrupt, identities: Identities::make()? };
    let check = bench.once(Work::RoundTrips { method: Method::Udp, count: LINK_CHECK_MESSAGES })?;
    let mut report = LinkReport::new(rig, &check.1.round_trips_ns);
    bench.volumes(&mut report)?;
    bench.round_trips(&mut report)?;
    Ok(report)
}

struct Bench<'a> {
    rig: &'a Rig,
    plan: &'a Plan,
    interrupt: &'a Interrupt,
    identities: Identities,
}

impl Bench<'_> {
    fn volumes(&self, report: &mut LinkReport) -> Result<(), Error> {
        let mut rounds: Vec<(Contender, Vec<Round>)> =
            self.plan.contenders.iter().map(|&contender| (contender, Vec::new())).collect();
        let progress = self.progress(rounds.len());
        for _ in 0..self.plan.rounds {
            for (contender, rounds) in &mut rounds {
                progress.set_message(contender.title());
                let Plan { bytes, data, .. } = *self.plan;
                let (serve, drive) = self.once(Work::Volume { contender: *contender, bytes, data })?;
                report.note_buffers(serve.buffers, drive.buffers);
                rounds.push(Round::new(&serve, &drive));
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        report.set_throughput(rounds);
        Ok(())
    }

    fn round_trips(&self, report: &mut LinkReport) -> Result<(), Error> {
        let mut times: Vec<(Method, Vec<u64>)> =
            self.plan.methods().into_iter().map(|method| (method, Vec::new())).collect();
        let count = self.plan.round_trips_each();
        let progress = self.progress(times.len());
        for _ in 0..self.plan.rounds {
            for (method, times) in &mut times {
                progress.set_message(method.title());
                let (_, drive) = self.once(Work::RoundTrips { method: *method, count })?;
                times.extend(drive.round_trips_ns);
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        report.set_round_trips(times);
        Ok(())
    }

    /// One measurement: two processes, one result from each (serving side first).
    fn once(&self, work: Work) -> Result<(Sample, Sample), Error> {
        let mut duo = Duo::new(work.title(), self.interrupt);
        let (namespace, ip) = self.rig.serve();
        duo.start(namespace, &self.order(Side::Serve, work, SocketAddr::new(ip, 0)))?;
        let address = duo.ready(Deadline::after(START_SECONDS))?;
        duo.start(self.rig.drive(), &self.order(Side::Drive, work, address))?;
        duo.done(Deadline::after(START_SECONDS + allowance_seconds(&work)))
    }

    fn order(&self, side: Side, work: Work, address: SocketAddr) -> Order {
        let identity = match side {
            Side::Serve => self.identities.serve(),
            Side::Drive => self.identities.drive(),
        };
        Order { side, work, job: Job { address, identity, tuning: self.plan.tuning.clone() } }
    }

    /// A bar on standard error; it is not drawn where that is no terminal.
    fn progress(&self, turns: usize) -> ProgressBar {
        let bar = ProgressBar::new((turns * self.plan.rounds) as u64);
        let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(self.rig.spec().name());
        bar
    }
}

/// Generous: it is there to end a hang, not to judge.
fn allowance_seconds(work: &Work) -> u64 {
    match work {
        Work::Volume { bytes, .. } => bytes / SLOWEST_BYTES_PER_SECOND,
        Work::RoundTrips { count, .. } => *count as u64 / SLOWEST_MESSAGES_PER_SECOND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::channel::payload::Data;

    #[test]
    fn larger_work_may_take_longer() {
        let volume = |bytes| Work::Volume { contender: Contender::Tcp, bytes, data: Data::Random };
        assert_eq!(allowance_seconds(&volume(1_000_000_000)), 100);
        assert_eq!(allowance_seconds(&Work::RoundTrips { method: Method::Tcp, count: 5000 }), 50);
    }
}
