//! What is seen while a demonstration runs: a line for each event, and below them, on a terminal, how each host and the client are doing.

use ft::demo::{Heard, HostState, Hosts};
use ft::load::Load;
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
    before: Option<(Instant, u64, u64)>,
}

impl Show {
    pub(super) fn new(is_live: bool, quiet: bool) -> Self {
        let live = is_live.then(|| {
            let bars = MultiProgress::new();
            let hosts = [1, 2].map(|host| (host, bars.add(bar())));
            let client = bars.add(bar());
            Live { bars, hosts: hosts.into(), client, before: None }
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

    /// Says what a host reported, where it is news to a spectator.
    pub(super) fn report(&self, heard: &Heard) {
        let host = heard.host;
        match &heard.report {
            Report::Console { text, .. } => {
                text.lines()
                    .filter(|line| !line.trim().is_empty())
                    .for_each(|line| self.line(&format!("guest: {line}")));
            }
            Report::Guest(guest) => self.line(&format!("host {host}: {guest}")),
            Report::Failed { reason } | Report::RecordingFailed { reason } | Report::Halted { reason } => {
                self.line(&format!("host {host}: {reason}"));
            }
            Report::Protected { with } => self.line(&format!("host {host}: protected, with host {with}")),
            Report::Solo { term } => self.line(&format!("host {host}: solo in term {term}")),
            _ => {}
        }
    }

    /// Brings the figures up to date.
    pub(super) fn refresh(&mut self, hosts: &Hosts, load: Option<&Load>) {
        let Some(live) = &mut self.live else { return };
        if self.last.elapsed() < REFRESH_EVERY {
            return;
        }
        self.last = Instant::now();
        for (host, bar) in &live.hosts {
            bar.set_message(describe(*host, hosts.running().get(host)));
        }
        let Some(load) = load else { return };
        let (now, ops) = (Instant::now(), load.progress().ops);
        let log = hosts.live().and_then(|host| hosts.running().get(&host)?.status.clone());
        let log_bytes = if let Some(Report::Status { log_bytes, .. }) = log { log_bytes } else { 0 };
        if let Some((then, ops_before, log_before)) = live.before.replace((now, ops, log_bytes)) {
            let seconds = now.duration_since(then).as_secs_f64();
            let rate = ops.saturating_sub(ops_before) as f64 / seconds;
            let mbit = log_bytes.saturating_sub(log_before) as f64 * 8.0 / seconds / 1e6;
            live.client.set_message(format!("clients   {rate:>7.0} operations/s    log {mbit:>6.2} Mbit/s"));
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

fn describe(host: u64, state: Option<&HostState>) -> String {
    let Some(state) = state else { return format!("host {host}    down") };
    let Some(Report::Status { term, live, protected, tick, lag_us, pace, .. }) = &state.status else {
        return format!("host {host}    starting");
    };
    let role = match (live, protected) {
        (true, true) => "primary",
        (true, false) => "solo",
        (false, true) => "secondary",
        (false, false) => "joining",
    };
    let lag = if *live {
        format!("    lag {:>6.1} ms    pace {:>3} %", *lag_us as f64 / 1000.0, pace / 10)
    } else {
        String::new()
    };
    format!("host {host}    {role:<9}  term {term}    {:>9.1} M instructions{lag}", *tick as f64 / 1e6)
}
