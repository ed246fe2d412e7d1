//! The logging channel itself: records are made, framed, chained, sent, verified, decoded and acknowledged, as in a pair.
//!
//! The sender is a log writer with its bounded ring; the receiver a log reader. What is counted is the content of the
//! records; their points, frames and acknowledgements are overhead that the figure pays for.

use super::contender::{Channel, Echo, Ready};
use super::error::{Doing, Error};
use super::identity::{self, SERVER_NAME};
use super::order::{Buffers, Job, Sample};
use super::payload::Payload;
use super::quic_setup::runtime;
use super::stream::{MESSAGE_BYTES, WARM_UP, nanoseconds_since};
use super::usage::Meter;
use bytes::Bytes;
use crossbeam::channel::Receiver;
use ft_core::frame::LogEnd;
use ft_core::log::{Accepted, LogReader, LogWriter};
use ft_core::message::{Ack, Envelope, Message};
use ft_core::units::{EffectSeq, Instant as Time, Seq, Session, Term, Tick};
use ft_core::{Event, Point};
use ft_net::{Endpoint, Link, LinkConfig, LinkReceiver, LinkSender};
use std::time::Instant;

/// Content of one record: a disk read of this size, which is what fills a 10 Gbit/s log.
const RECORD_BYTES: usize = 64 << 10;
/// Frames are sealed at this size, as by default.
const FRAME_BYTES: usize = 128 << 10;
/// What a primary keeps for its secondary, as by default.
const RING_BYTES: usize = 32 << 20;

/// The whole volume as the content of disk-read records.
pub(super) struct Volume;

impl Channel for Volume {
    fn serve(&self, job: &Job, bytes: u64, ready: Ready<'_>) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (_endpoint, link, buffers) = accept(job, ready).await?;
            let (sender, mut receiver) = link.split();
            let mut follower = Follower::new();
            follower.acknowledge(&sender, Time(0));
            let meter = Meter::start();
            while follower.content < bytes {
                follower.take(&sender, &mut receiver).await?;
            }
            let sample = meter.stop(follower.content);
            wait_for_end(&mut receiver).await;
            Ok(Sample { buffers: Some(buffers), ..sample })
        })
    }

    fn drive(&self, job: &Job, payload: &Payload) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (endpoint, link) = connect(job).await?;
            let (sender, mut receiver) = link.split();
            let (tell, acks) = crossbeam::channel::unbounded();
            // As in a VMM, the machine's thread makes the log, and the network's carries it.
            let mut leader = tokio::task::spawn_blocking({
                let (sender, payload) = (sender.clone(), payload.clone());
                move || Leader::new().lead(&payload, &sender, &acks)
            });
            let sample = loop {
                tokio::select! {
                    message = receiver.recv() => {
                        if let Message::Ack(ack) = message.doing("wait for an acknowledgement")?.message {
                            // Whoever does not listen any more has all it needs.
                            let _ = tell.send(ack.held);
                        }
                    }
                    sample = &mut leader => break sample.doing("make the log")??,
                }
            };
            sender.close();
            endpoint.close().await;
            Ok(sample)
        })
    }
}

/// One small record on the log, flushed at once, and its acknowledgement: what an effect waits for.
pub(super) struct Acknowledged;

impl Echo for Acknowledged {
    fn serve(&self, job: &Job, ready: Ready<'_>) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (_endpoint, link, _) = accept(job, ready).await?;
            let (sender, mut receiver) = link.split();
            let mut follower = Follower::new();
            while follower.take(&sender, &mut receiver).await.is_ok() {}
            Ok(Sample::default())
        })
    }

    fn drive(&self, job: &Job, count: usize) -> Result<Sample, Error> {
        runtime()?.block_on(async {
            let (endpoint, link) = connect(job).await?;
            let (sender, mut receiver) = link.split();
            let mut leader = Leader::new();
            for _ in 0..WARM_UP {
                leader.exchange(&sender, &mut receiver).await?;
            }
            let meter = Meter::start();
            let mut round_trips_ns = Vec::with_capacity(count);
            for _ in 0..count {
                let asked = Instant::now();
                leader.exchange(&sender, &mut receiver).await?;
                round_trips_ns.push(nanoseconds_since(asked));
            }
            let sample = meter.stop((count * MESSAGE_BYTES) as u64);
            sender.close();
            endpoint.close().await;
            Ok(Sample { round_trips_ns, ..sample })
        })
    }
}

/// The primary's side of a log.
struct Leader {
    log: LogWriter,
    tick: u64,
    sent: Seq,
    acked: Seq,
}

impl Leader {
    fn new() -> Self {
        Self { log: LogWriter::new(LogEnd::default(), FRAME_BYTES), tick: 0, sent: Seq(0), acked: Seq(0) }
    }

    /// Sends all of the payload, and waits until all of it is acknowledged. It begins once the first acknowledgement is here.
    fn lead(mut self, payload: &Payload, sender: &LinkSender, acks: &Receiver<Seq>) -> Result<Sample, Error> {
        self.handle_ack(acks)?;
        let meter = Meter::start();
        for piece in payload.pieces(RECORD_BYTES) {
            self.append(piece)?;
            if self.log.is_due() {
                self.send(sender);
            }
            while self.log.bytes() >= RING_BYTES {
                self.handle_ack(acks)?;
            }
        }
        self.send(sender);
        while self.acked < self.log.last() {
            self.handle_ack(acks)?;
        }
        Ok(meter.stop(payload.len()))
    }

    fn handle_ack(&mut self, acks: &Receiver<Seq>) -> Result<(), Error> {
        self.acked = self.acked.max(acks.recv().doing("wait for an acknowledgement")?);
        self.log.trim(self.acked);
        Ok(())
    }

    fn append(&mut self, data: Bytes) -> Result<(), Error> {
        self.tick += 100_000;
        let point = Point::new(Tick(self.tick), 0xffff_8000_0010_0000 + self.tick % 64, self.tick as u32);
        let event = Event::BlockDone { device: 0, id: self.tick, status: 0, data };
        self.log.append(Time(self.tick), point, event).map(drop).doing("append a record")
    }

    fn send(&mut self, sender: &LinkSender) {
        self.log.seal();
        let frames = self.log.after(self.sent).into_iter().flatten();
        for frame in frames {
            self.sent = frame.last();
            let (time, released) = (Time(self.tick), EffectSeq(0));
            sender.send(envelope(Message::Log { time, released, frame: frame.clone() }));
        }
    }

    /// Waits for the next acknowledgement.
    async fn wait(&mut self, receiver: &mut LinkReceiver) -> Result<(), Error> {
        loop {
            if let Message::Ack(ack) = receiver.recv().await.doing("wait for an acknowledgement")?.message {
                self.acked = self.acked.max(ack.held);
                self.log.trim(self.acked);
                return Ok(());
            }
        }
    }

    async fn exchange(&mut self, sender: &LinkSender, receiver: &mut LinkReceiver) -> Result<(), Error> {
        self.append(Bytes::from_static(&[0; MESSAGE_BYTES]))?;
        self.send(sender);
        while self.acked < self.log.last() {
            self.wait(receiver).await?;
        }
        Ok(())
    }
}

/// The secondary's side of a log.
struct Follower {
    reader: LogReader,
    /// Bytes of content in the records that arrived.
    content: u64,
}

impl Follower {
    fn new() -> Self {
        Self { reader: LogReader::new(LogEnd::default(), Tick(0)), content: 0 }
    }

    async fn take(&mut self, sender: &LinkSender, receiver: &mut LinkReceiver) -> Result<(), Error> {
        let envelope = receiver.recv().await.doing("receive a frame")?;
        if let Message::Log { time, frame, .. } = envelope.message {
            if let Accepted::New(records) = self.reader.accept(&frame).doing("follow the log")? {
                self.content += records.iter().map(|record| record.event.payload().len() as u64).sum::<u64>();
            }
            self.acknowledge(sender, time);
        }
        Ok(())
    }

    fn acknowledge(&self, sender: &LinkSender, echo: Time) {
        let held = self.reader.end().seq;
        sender.send(envelope(Message::Ack(Ack { held, applied: held, echo, ..Ack::default() })));
    }
}

fn envelope(message: Message) -> Envelope {
    Envelope { session: Session(1), term: Term(1), message }
}

fn config(job: &Job) -> LinkConfig {
    let tuning = &job.tuning;
    LinkConfig {
        mtu: tuning.mtu,
        window: tuning.window,
        socket_buffer: tuning.socket_buffer,
        ..LinkConfig::default()
    }
}

fn endpoint(job: &Job, address: std::net::SocketAddr) -> Result<Endpoint, Error> {
    Endpoint::bind(address, identity::load(&job.identity)?, None, config(job)).doing("open the channel")
}

async fn accept(job: &Job, ready: Ready<'_>) -> Result<(Endpoint, Link, Buffers), Error> {
    let endpoint = endpoint(job, job.address)?;
    ready(endpoint.local_addr().doing("read the channel's address")?)?;
    let incoming = endpoint.accept().await.ok_or("the endpoint is closed").doing("accept a link")?;
    let link = incoming.identify(&endpoint).await.doing("accept a link")?;
    let granted = endpoint.socket_buffers();
    Ok((endpoint, link, Buffers { send: granted.send, receive: granted.receive }))
}

async fn connect(job: &Job) -> Result<(Endpoint, Link), Error> {
    let endpoint = endpoint(job, ([0, 0, 0, 0], 0).into())?;
    let peer = SERVER_NAME.parse().doing("name the receiver")?;
    let link = endpoint.connect(job.address, &peer).await.doing("make a link")?;
    Ok((endpoint, link))
}

async fn wait_for_end(receiver: &mut LinkReceiver) {
    while receiver.recv().await.is_ok() {}
}
