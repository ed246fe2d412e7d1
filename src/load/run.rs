//! Starting, watching and finishing a load.

use super::client::{Client, Ends, Finished, connect};
use super::config::{LoadConfig, LoadError};
use super::gauge::{Gauge, Latency, Mark};
use super::readback::read_back;
use super::report::{LoadReport, Progress, latency, lock};
use crossbeam::channel::{self, Sender};
use std::convert::Infallible;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A load that runs. Dropping it ends it at once, without a report: replies may never come.
pub struct Load {
    config: Arc<LoadConfig>,
    gauges: Vec<Arc<Mutex<Gauge>>>,
    clients: Vec<JoinHandle<Finished>>,
    /// Dropped to end the clients, when all replies are there.
    stop: Option<Sender<Infallible>>,
    /// Dropped to end them as they stand.
    abandon: Option<Sender<Infallible>>,
    started: Instant,
}

impl Load {
    /// Connects all clients, and lets them go.
    ///
    /// # Errors
    /// When the configuration cannot work, nobody answers, or the host refuses a thread.
    pub fn start(config: LoadConfig) -> Result<Self, LoadError> {
        config.check()?;
        let config = Arc::new(config);
        let failed = |source| LoadError::Connect { address: config.address, source };
        let streams: Vec<TcpStream> =
            (0..config.connections).map(|_| connect(&config)).collect::<Result<_, _>>().map_err(failed)?;
        let (stop, stopped) = channel::bounded(0);
        let (abandon, abandoned) = channel::bounded(0);
        let mut load = Self {
            config: Arc::clone(&config),
            gauges: Vec::new(),
            clients: Vec::new(),
            stop: Some(stop),
            abandon: Some(abandon),
            started: Instant::now(),
        };
        for (number, stream) in streams.into_iter().enumerate() {
            let gauge = Arc::new(Mutex::new(Gauge::new()));
            let ends = Ends { stop: stopped.clone(), abandon: abandoned.clone() };
            let client = Client::new(Arc::clone(&config), number, Arc::clone(&gauge), ends);
            let thread = std::thread::Builder::new().name(format!("load-{number}"));
            load.clients.push(thread.spawn(move || client.run(stream)).map_err(LoadError::Thread)?);
            load.gauges.push(gauge);
        }
        Ok(load)
    }

    /// The numbers so far.
    pub fn progress(&self) -> Progress {
        Progress::of(&self.gauges, self.started.elapsed())
    }

    /// How long replies took so far.
    pub fn latency(&self) -> Latency {
        latency(&self.gauges)
    }

    /// Now, for [`Load::gap_since`].
    pub fn mark(&self) -> Mark {
        Mark(Instant::now())
    }

    /// The longest time for which a connection had requests under way and got no reply, among those times that ended since the
    /// mark or have not ended yet.
    pub fn gap_since(&self, mark: Mark) -> Duration {
        let now = Instant::now();
        self.gauges.iter().map(|gauge| lock(gauge).gap_since(mark, now)).max().unwrap_or_default()
    }

    /// Ends the load: waits for all replies, reads every key back over a fresh connection, and reports.
    pub fn finish(mut self) -> LoadReport {
        self.stop = None;
        let finished: Vec<Option<Finished>> =
            self.clients.drain(..).map(|client| client.join().ok()).collect();
        let elapsed = self.started.elapsed();
        let longest_gap = self.gap_since(Mark(self.started));
        let mut report = self.read_back(&finished);
        let progress = Progress::of(&self.gauges, elapsed);
        report.connections = self.config.connections;
        report.elapsed_s = progress.elapsed_s;
        report.ops = progress.ops;
        report.ops_per_second = progress.ops_per_second_since(&Progress::default());
        report.errors += progress.errors;
        report.reconnects = progress.reconnects;
        report.faults += progress.faults;
        report.longest_gap_ms = longest_gap.as_secs_f64() * 1e3;
        report.latency = latency(&self.gauges);
        let mut stories: Vec<String> =
            self.gauges.iter().flat_map(|gauge| lock(gauge).stories.clone()).collect();
        stories.append(&mut report.stories);
        report.stories = stories;
        report
    }

    fn read_back(&self, finished: &[Option<Finished>]) -> LoadReport {
        let mut report = LoadReport::default();
        let mut stream = connect(&self.config);
        for (number, client) in finished.iter().enumerate() {
            let Some(Finished { model, in_doubt }) = client else {
                report.errors += 1;
                report.stories.push(format!("the thread of connection {number} crashed"));
                continue;
            };
            let found = match &mut stream {
                Ok(stream) => read_back(model, in_doubt, stream),
                Err(error) => Err(error.kind().into()),
            };
            match found {
                Ok(found) => {
                    report.faults += found.faults;
                    report.keys_read_back += found.keys;
                    report.stories.extend(found.stories);
                }
                Err(error) => {
                    report.keys_not_read_back += model.acknowledged().count() as u64;
                    report.stories.push(format!("cannot read back connection {number}: {error}"));
                    stream = connect(&self.config);
                }
            }
        }
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        (self.stop, self.abandon) = (None, None);
        for client in self.clients.drain(..) {
            // A client that crashed has nothing to say here.
            let _ = client.join();
        }
    }
}
