//! What a run found: the one structure that both the tables and `--json` are printed from.

use super::contender::{Contender, Method};
use super::host::Machine;
use super::link::{LinkSpec, Rig};
use super::order::{Buffers, Sample};
use super::plan::Plan;
use super::targets::{Target, judge};
use crate::bench::stats::{Spread, median, median_ratio, percentile};
use serde::Serialize;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) plan: Plan,
    pub(super) links: Vec<LinkReport>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) targets: Vec<Target>,
}

/// Links that could not be had, for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Skipped {
    pub(super) links: Vec<String>,
    pub(super) why: String,
}

impl Report {
    pub(super) fn new(machine: Machine, plan: Plan) -> Self {
        Self { machine, plan, links: Vec::new(), skipped: Vec::new(), targets: Vec::new() }
    }

    /// Links with the same obstacle are one entry: a reader needs one remedy.
    pub(super) fn skip(&mut self, link: String, why: String) {
        match self.skipped.iter_mut().find(|skipped| skipped.why == why) {
            Some(skipped) => skipped.links.push(link),
            None => self.skipped.push(Skipped { links: vec![link], why }),
        }
    }

    /// Holds the figures against the targets; last, when every link is in.
    pub(super) fn judge(&mut self) {
        self.targets = judge(&self.links);
    }
}

/// Everything measured on one link.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LinkReport {
    pub(super) link: String,
    pub(super) settings: String,
    /// Median round trip of a bare datagram before the run, in microseconds.
    pub(super) rtt_us: f64,
    /// The smallest socket buffers that any contender was granted.
    pub(super) buffers: Option<Buffers>,
    pub(super) throughput: Vec<Throughput>,
    pub(super) round_trips: Vec<RoundTrip>,
}

impl LinkReport {
    /// Nothing but the link itself, with the round trips of its bare datagrams.
    pub(super) fn new(rig: &Rig, bare_ns: &[u64]) -> Self {
        let bare: Vec<f64> = bare_ns.iter().map(|&ns| microseconds(ns)).collect();
        Self {
            link: rig.spec().name(),
            settings: rig.describe(),
            rtt_us: median(&bare).unwrap_or(f64::NAN),
            buffers: None,
            throughput: Vec::new(),
            round_trips: Vec::new(),
        }
    }

    /// Keeps the smallest grant, the one that can limit.
    pub(super) fn note_buffers(&mut self, serve: Option<Buffers>, drive: Option<Buffers>) {
        let smaller =
            |a: Buffers, b: Buffers| Buffers { send: a.send.min(b.send), receive: a.receive.min(b.receive) };
        self.buffers = [self.buffers, serve, drive].into_iter().flatten().reduce(smaller);
    }

    pub(super) fn set_throughput(&mut self, rounds: Vec<(Contender, Vec<Round>)>) {
        let rates = |contender| {
            let found = rounds.iter().find(|(other, _)| *other == contender);
            found.map(|(_, rounds)| each(rounds, Round::gbit_s)).unwrap_or_default()
        };
        let (quinn, tls) = (rates(Contender::Quinn), rates(Contender::Tls));
        let rows = rounds.iter().map(|(contender, rounds)| Throughput::new(*contender, rounds, &quinn, &tls));
        self.throughput = rows.collect();
    }

    pub(super) fn set_round_trips(&mut self, times: Vec<(Method, Vec<u64>)>) {
        self.round_trips = times.into_iter().map(|(method, times)| RoundTrip::new(method, times)).collect();
    }

    /// Whether nothing but the CPUs limits this link.
    pub(super) fn is_loopback(&self) -> bool {
        self.link == LinkSpec::Loopback.name()
    }

    /// The row of one contender.
    pub(super) fn throughput_of(&self, contender: Contender) -> Option<&Throughput> {
        self.throughput.iter().find(|row| row.contender == contender)
    }

    /// The row of one method.
    pub(super) fn round_trip_of(&self, method: Method) -> Option<&RoundTrip> {
        self.round_trips.iter().find(|row| row.method == method)
    }
}

/// One turn of one contender.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// The sender's clock, from "go" to the receipt.
    pub(super) seconds: f64,
    pub(super) sender_cpu_seconds: f64,
    pub(super) receiver_cpu_seconds: f64,
    /// CPU time of everything else meanwhile: other programs, and kernel threads that work for the network.
    pub(super) other_cpu_seconds: f64,
}

impl Round {
    pub(super) fn new(serve: &Sample, drive: &Sample) -> Self {
        let peers = serve.cpu_seconds + drive.cpu_seconds;
        Self {
            bytes_sent: drive.bytes,
            bytes_received: serve.bytes,
            seconds: drive.seconds,
            sender_cpu_seconds: drive.cpu_seconds,
            receiver_cpu_seconds: serve.cpu_seconds,
            other_cpu_seconds: (drive.machine_seconds - peers).max(0.0),
        }
    }

    fn gbit_s(&self) -> f64 {
        self.bytes_received as f64 * 8.0 / 1e9 / self.seconds
    }

    fn gigabytes(&self) -> f64 {
        self.bytes_received as f64 / 1e9
    }
}

/// All turns of one contender on one link.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) contender: Contender,
    /// Payload, in 10^9 bits a second.
    pub(super) gbit_s: Option<Spread>,
    /// Medians over the rounds, in seconds for 10^9 payload bytes.
    pub(super) sender_cpu_s_per_gb: Option<f64>,
    pub(super) receiver_cpu_s_per_gb: Option<f64>,
    /// Cores that everything else kept busy meanwhile.
    pub(super) other_cores: Option<f64>,
    /// Medians of the ratios in each round.
    pub(super) ratio_to_quinn: Option<f64>,
    pub(super) ratio_to_tls: Option<f64>,
    pub(super) rounds: Vec<Round>,
}

impl Throughput {
    /// `quinn` and `tls` are the rates of those contenders in the same rounds; empty if they did not run.
    fn new(contender: Contender, rounds: &[Round], quinn: &[f64], tls: &[f64]) -> Self {
        let rates = each(rounds, Round::gbit_s);
        Self {
            contender,
            gbit_s: Spread::of(&rates),
            sender_cpu_s_per_gb: median(&each(rounds, |round| round.sender_cpu_seconds / round.gigabytes())),
            receiver_cpu_s_per_gb: median(&each(rounds, |round| {
                round.receiver_cpu_seconds / round.gigabytes()
            })),
            other_cores: median(&each(rounds, |round| round.other_cpu_seconds / round.seconds)),
            ratio_to_quinn: median_ratio(&rates, quinn),
            ratio_to_tls: median_ratio(&rates, tls),
            rounds: rounds.to_vec(),
        }
    }
}

/// All small messages of one method on one link.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RoundTrip {
    pub(super) method: Method,
    pub(super) count: usize,
    pub(super) p50_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) min_us: Option<f64>,
}

impl RoundTrip {
    fn new(method: Method, mut times_ns: Vec<u64>) -> Self {
        times_ns.sort_unstable();
        let at = |percent| percentile(&times_ns, percent).map(microseconds);
        Self { method, count: times_ns.len(), p50_us: at(50), p99_us: at(99), min_us: at(0) }
    }
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn each(rounds: &[Round], figure: impl Fn(&Round) -> f64) -> Vec<f64> {
    rounds.iter().map(figure).collect()
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A link on which each contender ran at these rates (Gbit/s), one for each round.
    pub(in crate::bench::channel) fn link_with(name: &str, rates: &[(Contender, &[f64])]) -> LinkReport {
        let mut link = LinkReport {
            link: name.to_owned(),
            settings: String::new(),
            rtt_us: 0.0,
            buffers: None,
            throughput: Vec::new(),
            round_trips: Vec::new(),
        };
        let rounds = rates
            .iter()
            .map(|(contender, rates)| (*contender, rates.iter().map(|&rate| round_at(rate)).collect()));
        link.set_throughput(rounds.collect());
        link
    }

    fn round_at(gbit_s: f64) -> Round {
        let drive = Sample { bytes: 1_000_000_000, seconds: 8.0 / gbit_s, ..Sample::default() };
        Round::new(&drive.clone(), &drive)
    }

    #[test]
    fn the_table_of_ratios_has_one_for_each_base_that_ran() {
        let link = link_with("x", &[(Contender::Tcp, &[8.0, 4.0]), (Contender::Quinn, &[4.0, 2.0])]);
        let tcp = link.throughput_of(Contender::Tcp).unwrap();
        assert_eq!(tcp.ratio_to_quinn, Some(2.0));
        assert_eq!(tcp.ratio_to_tls, None);
        assert_eq!(link.throughput_of(Contender::Quinn).unwrap().ratio_to_quinn, Some(1.0));
    }

    #[test]
    fn cpu_time_is_given_for_each_gigabyte() {
        let sample = |cpu_seconds, machine_seconds| Sample {
            bytes: 500_000_000,
            seconds: 1.0,
            cpu_seconds,
            machine_seconds,
            ..Sample::default()
        };
        let row =
            Throughput::new(Contender::Tcp, &[Round::new(&sample(0.25, 0.0), &sample(0.5, 1.0))], &[], &[]);
        assert_eq!(row.gbit_s.unwrap().median, 4.0);
        assert_eq!((row.sender_cpu_s_per_gb, row.receiver_cpu_s_per_gb), (Some(1.0), Some(0.5)));
        assert_eq!(row.other_cores, Some(0.25));
    }

    #[test]
    fn round_trips_are_sorted_before_they_are_ranked() {
        let row = RoundTrip::new(Method::Udp, vec![3000, 1000, 2000]);
        assert_eq!((row.count, row.min_us, row.p50_us, row.p99_us), (3, Some(1.0), Some(2.0), Some(3.0)));
    }

    #[test]
    fn the_smallest_buffers_are_kept() {
        let mut link = link_with("x", &[]);
        link.note_buffers(Some(Buffers { send: 8, receive: 4 }), Some(Buffers { send: 2, receive: 9 }));
        link.note_buffers(None, Some(Buffers { send: 5, receive: 5 }));
        assert_eq!(link.buffers, Some(Buffers { send: 2, receive: 4 }));
    }
}
