//! One connection of the load, on its thread.

use super::config::LoadConfig;
use super::faults::Faults;
use super::gauge::Gauge;
use super::judge::Judge;
use super::model::{Model, Pending};
use super::readback::read_back;
use super::report::lock;
use super::resp::ReplyReader;
use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes under way at most, requests and replies together, so that neither side waits for the other to read.
const MOST_UNDER_WAY: usize = 128 << 10;
/// Waits between attempts to connect: the first, and the longest.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// A paced client that could not keep up does not make up for more than this.
const MOST_BEHIND: Duration = Duration::from_millis(100);
/// A client that waits for a reply looks so often whether it is to wait any longer.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Shortest wait of a socket.
const SHORTEST_WAIT: Duration = Duration::from_micros(100);

pub(super) struct Client {
    pub(super) config: Arc<LoadConfig>,
    pub(super) model: Model,
    pub(super) gauge: Arc<Mutex<Gauge>>,
    ends: Ends,
    judge: Judge,
    pending: VecDeque<Pending>,
    under_way: usize,
    /// When the next request may be sent, and the time between two.
    due: Instant,
    interval: Option<Duration>,
}

/// How a client learns that the load ends.
pub(super) struct Ends {
    /// Closed: no more requests.
    pub(super) stop: Receiver<Infallible>,
    /// Closed: no more waiting for replies either.
    pub(super) abandon: Receiver<Infallible>,
}

/// A connection that is over.
pub(super) struct Finished {
    pub(super) model: Model,
    /// Requests of which it is not known whether they were executed.
    pub(super) in_doubt: Vec<Pending>,
}

/// Opens a connection that is not kept waiting by the host.
pub(super) fn connect(config: &LoadConfig) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&config.address, config.reply_timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(config.reply_timeout))?;
    stream.set_write_timeout(Some(config.reply_timeout))?;
    Ok(stream)
}

impl Client {
    pub(super) fn new(config: Arc<LoadConfig>, number: usize, gauge: Arc<Mutex<Gauge>>, ends: Ends) -> Self {
        let interval = config.rate.map(|rate| Duration::from_secs_f64(config.connections as f64 / rate));
        Self {
            model: Model::new(&config, number),
            judge: Judge::new(config.pipeline),
            config,
            gauge,
            ends,
            pending: VecDeque::new(),
            under_way: 0,
            due: Instant::now(),
            interval,
        }
    }

    /// Keeps talking until the load ends, over other connections if it has to.
    pub(super) fn run(mut self, first: TcpStream) -> Finished {
        let mut next = Some(first);
        while let Some(mut stream) = next.take() {
            let result = self.talk(&mut stream);
            let faults = self.judge.flush(&mut self.model);
            let mut gauge = lock(&self.gauge);
            gauge.faults += faults;
            gauge.tell(self.judge.stories.drain(..));
            if let Err(error) = result {
                gauge.broken += 1;
                gauge.tell([format!("a connection broke: {error}")]);
                gauge.waits(Instant::now());
                drop(gauge);
                next = self.reconnect();
            }
        }
        lock(&self.gauge).hears(Instant::now(), false);
        Finished { model: self.model, in_doubt: self.pending.into() }
    }

    /// Connects again, and finds out what became of the requests under way. Nothing if the load ends meanwhile.
    fn reconnect(&mut self) -> Option<TcpStream> {
        let mut wait = FIRST_RETRY;
        loop {
            if let Ok(stream) = connect(&self.config).and_then(|stream| self.resolve(stream)) {
                return Some(stream);
            }
            if self.is_stopped_within(wait) {
                return None;
            }
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    fn resolve(&mut self, mut stream: TcpStream) -> io::Result<TcpStream> {
        let found = read_back(&self.model, self.pending.make_contiguous(), &mut stream)?;
        let mut gauge = lock(&self.gauge);
        gauge.reconnects += 1;
        gauge.faults += found.faults;
        gauge.tell(found.stories);
        self.pending.clear();
        self.under_way = 0;
        self.model.use_fresh_keys();
        Ok(stream)
    }

    /// Whether the load ends before this time is over.
    fn is_stopped_within(&self, wait: Duration) -> bool {
        matches!(self.ends.stop.recv_timeout(wait), Err(RecvTimeoutError::Disconnected))
    }

    /// Talks until the load ends and all replies are there, or are not waited for.
    fn talk(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let (mut reader, mut out) = (ReplyReader::default(), Vec::new());
        let mut timeout = self.config.reply_timeout;
        let mut heard = Instant::now();
        loop {
            let stopping = is_closed(&self.ends.stop);
            if is_closed(&self.ends.abandon) {
                return Ok(());
            }
            let now = Instant::now();
            if !stopping {
                self.make_requests(&mut out, now);
            }
            stream.write_all(&out)?;
            out.clear();
            if self.pending.is_empty() {
                if stopping || self.is_stopped_within(self.due.saturating_duration_since(now)) {
                    return Ok(());
                }
                heard = Instant::now();
                continue;
            }
            let wait = self.wait_for_reply(now, heard, stopping)?;
            if wait != timeout {
                stream.set_read_timeout(Some(wait))?;
                timeout = wait;
            }
            match reader.fill(stream) {
                Ok(()) => heard = Instant::now(),
                Err(error) if is_timeout(&error) => continue,
                Err(error) => return Err(error),
            }
            self.check_replies(&mut reader, heard)?;
        }
    }

    /// How long to wait for a reply before there is something else to do.
    fn wait_for_reply(&self, now: Instant, heard: Instant, stopping: bool) -> io::Result<Duration> {
        let silent = now.saturating_duration_since(heard);
        let left = self.config.reply_timeout.saturating_sub(silent);
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "no reply for too long"));
        }
        let paced = self.interval.is_some() && !stopping && self.pending.len() < self.config.pipeline;
        // Unpaced, the socket's timeout stays as it is, and a quiet server is found out up to one look late.
        let wait =
            if paced { self.due.saturating_duration_since(now).min(left) } else { self.config.reply_timeout };
        Ok(wait.min(LOOK_UP).max(SHORTEST_WAIT))
    }

    /// Fills the pipeline, as far as the pace allows.
    fn make_requests(&mut self, out: &mut Vec<u8>, now: Instant) {
        while self.pending.len() < self.config.pipeline
            && self.under_way < MOST_UNDER_WAY
            && (self.interval.is_none() || self.due <= now)
        {
            let pending = self.model.next_request(out, now);
            self.under_way += pending.bytes;
            self.pending.push_back(pending);
            if let Some(interval) = self.interval {
                let earliest = now.checked_sub(MOST_BEHIND).unwrap_or(now);
                self.due = (self.due + interval).max(earliest);
            }
        }
        if !out.is_empty() {
            lock(&self.gauge).waits(now);
        }
    }

    fn check_replies(&mut self, reader: &mut ReplyReader, now: Instant) -> io::Result<()> {
        let gauge = Arc::clone(&self.gauge);
        let mut gauge = lock(&gauge);
        let mut replied = false;
        loop {
            let reply = match reader.next_reply() {
                Ok(Some(reply)) => reply,
                Ok(None) => break,
                Err(malformed) => {
                    gauge.faults += Faults::CORRUPTED;
                    return Err(io::Error::other(malformed));
                }
            };
            let Some(pending) = self.pending.pop_front() else {
                gauge.faults += Faults::CORRUPTED;
                gauge.tell([format!("a reply that nobody asked for: {reply}")]);
                return Err(io::Error::other("a reply that nobody asked for"));
            };
            self.under_way -= pending.bytes;
            gauge.took(now.saturating_duration_since(pending.sent_at));
            let verdict = self.judge.handle_reply(&mut self.model, pending, reply);
            gauge.faults += verdict.faults;
            gauge.refused += u64::from(verdict.refused);
            replied = true;
        }
        if replied {
            gauge.hears(now, !self.pending.is_empty());
        }
        gauge.tell(self.judge.stories.drain(..));
        Ok(())
    }
}

fn is_closed(channel: &Receiver<Infallible>) -> bool {
    matches!(channel.try_recv(), Err(TryRecvError::Disconnected))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
