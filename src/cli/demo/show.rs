//! What is seen while a demonstration runs: a line for each event, and below them, on a terminal, how each host and the clients are doing.

use ft::demo::watch::{Copy, Heard, Observed, Said};
use ft::load::Load;
use ft::vm::control::{Role, Snapshot};
use ft::vm::report::Report;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the figures change.
const REFRESH_EVERY: Duration = Duration::from_millis(200);

pub(super) struct Show {
    started: Instant,
    /// Figures are shown.
    live: Option<Live>,
    /// Lines go to standard error, because standard output is for a script.
    quiet: bool,
    last: Instant,
}

struct Live {
    bars: MultiProgress,
    hosts: BTreeMap<u64, ProgressBar>,
    client: ProgressBar,
    before: Option<Sample>,
}

/// What the figures of a span are taken from.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    operations: u64,
    log_bytes: u64,
}

impl Show {
    pub(super) fn new(hosts: u64, is_live: bool, quiet: bool) -> Self {
        let live = is_live.then(|| {
            let bars = MultiProgress::new();
            let hosts = (1..=hosts).map(|host| (host, bars.add(bar()))).collect();
            let client = bars.add(bar());
            Live { bars, hosts, client, before: None }
        });
        let now = Instant::now();
        Self { started: now, live, quiet, last: now }
    }

    /// Says something that happened.
    pub(super) fn line(&self, text: &str) {
        let line = format!("{:>7.3} s  {text}", self.started.elapsed().as_secs_f64());
        match &self.live {
            // Only a terminal that is gone fails here.
            Some(live) => drop(live.bars.println(line)),
            None if self.quiet => eprintln!("{line}"),
            None => println!("{line}"),
        }
    }

    /// Says what a copy said, where it is news to a spectator.
    pub(super) fn hear(&self, heard: &Heard) {
        let (host, Said::Reports(report)) = (heard.host, &heard.what) else { return };
        match report {
            Report::Console { text, .. } => {
                text.lines()
                    .filter(|line| !line.trim().is_empty())
                    .for_each(|line| self.line(&format!("guest: {line}")));
            }
            Report::Solo { .. }
            | Report::Seeding { .. }
            | Report::Guest(_)
            | Report::Failed { .. }
            | Report::RecordingFailed { .. }
            | Report::Halted { .. } => {
                report.words().iter().for_each(|words| self.line(&format!("host-{host}: {words}")));
            }
            _ => {}
        }
    }

    /// Brings the figures up to date.
    pub(super) fn refresh(&mut self, cluster: &Observed, load: Option<&Load>) {
        let Some(live) = &mut self.live else { return };
        if self.last.elapsed() < REFRESH_EVERY {
            return;
        }
        self.last = Instant::now();
        let picture = cluster.picture();
        for (host, bar) in &live.hosts {
            bar.set_message(describe(*host, cluster.agents().has_agent(*host), picture.copy(*host)));
        }
        let Some(load) = load else { return };
        let log = picture.live().and_then(|(host, _)| picture.copy(host));
        let log_bytes = log.map_or(0, |copy| copy.stands.log_bytes);
        let now = Sample { at: self.last, operations: load.progress().ops, log_bytes };
        if let Some(before) = live.before.replace(now) {
            live.client.set_message(rates(before, now));
        }
    }

    /// Takes the figures away.
    pub(super) fn end(&mut self) {
        if let Some(live) = self.live.take() {
            // The same as above.
            let _ = live.bars.clear();
        }
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// What the clients do, and the log: another copy counts from nothing.
fn rates(before: Sample, now: Sample) -> String {
    let seconds = now.at.duration_since(before.at).as_secs_f64();
    let rate = now.operations.saturating_sub(before.operations) as f64 / seconds;
    let mbit = now.log_bytes.saturating_sub(before.log_bytes) as f64 * 8.0 / seconds / 1e6;
    format!("clients   {rate:>7.0} operations/s    log {mbit:>6.2} Mbit/s")
}

fn describe(host: u64, is_up: bool, copy: Option<&Copy>) -> String {
    let Some(Copy { stands, .. }) = copy else {
        return format!("host-{host}    {}", if is_up { "spare" } else { "down" });
    };
    let Snapshot { term, tick, lag_us, pace, .. } = stands;
    let lag = if stands.role == Role::Live {
        format!("    lag {:>6.1} ms    pace {:>3} %", *lag_us as f64 / 1000.0, pace / 10)
    } else {
        String::new()
    };
    let role = role(stands);
    format!("host-{host}    {role:<9}  term {term}    {:>9.1} M instructions{lag}", *tick as f64 / 1e6)
}

fn role(stands: &Snapshot) -> &'static str {
    match (stands.role, stands.protected) {
        (Role::Live, true) => "primary",
        (Role::Live, false) => "solo",
        (Role::Following, true) => "secondary",
        (Role::Following | Role::Starting, _) => "joining",
        (Role::Promoting, _) => "promoting",
        (Role::Yielded, _) => "yielded",
        (Role::Over, _) => "over",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_down_or_spare_or_has_a_copy() {
        assert_eq!(describe(2, false, None), "host-2    down");
        assert_eq!(describe(3, true, None), "host-3    spare");
        let stands = Snapshot {
            role: Role::Live,
            protected: true,
            term: 7,
            tick: 1_500_000,
            lag_us: 2300,
            pace: 970,
            ..Snapshot::default()
        };
        assert_eq!(
            describe(1, true, Some(&Copy::new(1, stands))),
            "host-1    primary    term 7          1.5 M instructions    lag    2.3 ms    pace  97 %"
        );
    }

    #[test]
    fn rates_are_of_the_span_and_never_negative() {
        let at = Instant::now();
        let before = Sample { at, operations: 1000, log_bytes: 900_000 };
        let later = Sample { at: at + Duration::from_secs(2), operations: 9000, log_bytes: 2_900_000 };
        assert_eq!(rates(before, later), "clients      4000 operations/s    log   8.00 Mbit/s");
        let heir = Sample { log_bytes: 0, ..later };
        assert!(rates(before, heir).ends_with("log   0.00 Mbit/s"));
    }
}
