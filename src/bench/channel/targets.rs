//! What the logging channel has to reach, held against what was measured.
//!
//! Ratios inside one run, so that they hold on any machine; the one absolute figure is a 10 GbE port's worth.

use super::contender::{Contender, Method};
use super::report::LinkReport;
use serde::Serialize;

/// The least share of bare quinn's rate.
const RATIO_TO_QUINN: f64 = 0.98;
/// The least share of TLS over TCP's rate on the shaped link; on loopback, where TCP skips most of its work, there is
/// nothing to learn from it.
const RATIO_TO_TLS: f64 = 0.97;
/// The least rate on loopback, in Gbit/s.
const LOOPBACK_GBIT_S: f64 = 10.0;
/// How much later than a message on a quinn stream an acknowledgement may come, at the median, in microseconds.
const ACK_OVER_QUINN_US: f64 = 10.0;

/// One aim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Target {
    pub(super) link: String,
    pub(super) what: &'static str,
    /// "at least" or "at most".
    pub(super) wanted: String,
    /// `None` when the logging channel did not run.
    pub(super) measured: Option<f64>,
    pub(super) reached: Option<bool>,
}

/// Every target of every link that was measured.
pub(super) fn judge(links: &[LinkReport]) -> Vec<Target> {
    links.iter().flat_map(of_link).collect()
}

fn of_link(link: &LinkReport) -> Vec<Target> {
    let log = link.throughput_of(Contender::Log);
    let mut targets =
        vec![at_least(link, "rate / bare quinn", RATIO_TO_QUINN, log.and_then(|row| row.ratio_to_quinn))];
    if link.is_loopback() {
        let rate = log.and_then(|row| row.gbit_s).map(|rate| rate.median);
        targets.push(at_least(link, "rate, Gbit/s", LOOPBACK_GBIT_S, rate));
    } else {
        targets.push(at_least(
            link,
            "rate / TLS over TCP",
            RATIO_TO_TLS,
            log.and_then(|row| row.ratio_to_tls),
        ));
    }
    targets.extend(acknowledgement(link));
    targets
}

fn at_least(link: &LinkReport, what: &'static str, least: f64, measured: Option<f64>) -> Target {
    Target {
        link: link.link.clone(),
        what,
        wanted: format!(">= {least}"),
        measured,
        reached: measured.map(|measured| measured >= least),
    }
}

/// `None` when the latency part was left out.
fn acknowledgement(link: &LinkReport) -> Option<Target> {
    let p50 = |method| link.round_trip_of(method).and_then(|row| row.p50_us);
    let most = p50(Method::QuinnStream)? + ACK_OVER_QUINN_US;
    let measured = p50(Method::LogAck);
    Some(Target {
        link: link.link.clone(),
        what: "acknowledgement, p50 us",
        wanted: format!("<= {most:.1}"),
        measured,
        reached: measured.map(|measured| measured <= most),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::report::tests::link_with;
    use super::*;

    #[test]
    fn without_a_log_nothing_is_judged() {
        let targets = judge(&[link_with("loopback", &[(Contender::Quinn, &[10.0])])]);
        assert_eq!(targets.len(), 2);
        assert!(targets.iter().all(|target| target.measured.is_none() && target.reached.is_none()));
    }

    #[test]
    fn a_log_is_judged_against_both_bases() {
        let rates: [(Contender, &[f64]); 3] =
            [(Contender::Tls, &[9.5]), (Contender::Quinn, &[9.4]), (Contender::Log, &[9.3])];
        let targets = judge(&[link_with("shaped", &rates)]);
        let reached: Vec<_> = targets.iter().map(|target| (target.what, target.reached)).collect();
        assert_eq!(reached, [("rate / bare quinn", Some(true)), ("rate / TLS over TCP", Some(true))]);
    }

    #[test]
    fn loopback_wants_a_port_worth_of_bytes() {
        let targets = judge(&[link_with("loopback", &[(Contender::Log, &[9.9])])]);
        let rate = targets.iter().find(|target| target.what == "rate, Gbit/s").unwrap();
        assert_eq!(rate.reached, Some(false));
    }
}
