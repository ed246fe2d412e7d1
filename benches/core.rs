//! What the core costs beside the machine: records in and out of frames, checksums, the ring, the gate.
//!
//! `cargo bench --bench core -- --quick` takes about a minute. Bytes per record come first: they do not depend on the host.

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ft_core::digest::StateDigest;
use ft_core::effect::{Effect, EffectKind, Numbered};
use ft_core::frame::{FRAME_HEADER_BYTES, Frame, LogEnd};
use ft_core::gate::Gate;
use ft_core::log::{Accepted, LogReader, LogWriter};
use ft_core::units::{EffectSeq, Instant, Seq, Tick, VirtualTime};
use ft_core::{Event, Point};
use std::hint::black_box;

/// Where frames are sealed: what a pair sends when nothing waits for an acknowledgement.
const FRAME_BYTES: usize = 64 << 10;

/// Records in one pass.
const RECORDS: u64 = 10_000;

/// Points and events as a machine produces them.
type Inputs = Vec<(Point, Event)>;

/// A fixed sequence that looks like none.
struct Jitter(u64);

impl Jitter {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) % limit
    }

    fn point(&mut self, tick: u64) -> Point {
        Point::new(Tick(tick), 0xffff_ffff_8100_0000 + self.below(1 << 20), self.below(1 << 32) as u32)
    }
}

/// An idle guest with a timer of 100 Hz, on a host whose timer is late by up to 200 us.
fn steady_time() -> Inputs {
    let mut jitter = Jitter(1);
    let (mut tick, mut clock) = (9_000_000_000, 60_000_000_000);
    let next = |_| {
        tick += 3_000_000 - jitter.below(150_000);
        clock += 10_000_000 + jitter.below(200) * 1000;
        (jitter.point(tick), Event::Time(VirtualTime(clock)))
    };
    (0..RECORDS).map(next).collect()
}

/// A guest that receives a file.
fn full_packets() -> Inputs {
    let mut jitter = Jitter(2);
    let mut tick = 0;
    let next = |_| {
        tick += 2_000 + jitter.below(2_000);
        (jitter.point(tick), Event::Net { device: 0, frame: Bytes::from(vec![0x5a; 1500]) })
    };
    (0..RECORDS).map(next).collect()
}

/// A busy server: of a hundred records 30 set the clock, 30 mark effects, 25 are packets, most of them small, 12 are disk
/// completions, some with a page that was read; a few keystrokes, entropy and a digest are the rest.
fn busy_server() -> Inputs {
    let mut jitter = Jitter(3);
    let (mut tick, mut clock, mut op) = (0, 60_000_000_000, 0);
    let next = |_| {
        tick += jitter.below(20_000);
        clock += jitter.below(150) * 1000;
        let event = match jitter.below(100) {
            0..30 => Event::Time(VirtualTime(clock)),
            30..60 => Event::Emit { count: 1 + jitter.below(3) as u32, digest: jitter.below(1 << 32) as u32 },
            60..85 => {
                let len = [66, 66, 90, 300, 1500][jitter.below(5) as usize];
                Event::Net { device: 0, frame: Bytes::from(vec![0x5a; len]) }
            }
            85..97 => {
                op += 1;
                let data = Bytes::from(vec![0x17; [0, 0, 4096][jitter.below(3) as usize]]);
                Event::BlockDone { device: 0, id: op, status: 0, data }
            }
            97 => Event::Console { device: 0, bytes: Bytes::from_static(b"ls -l\n") },
            98 => Event::Entropy(Bytes::from(vec![0x33; 32])),
            _ => Event::Digest(StateDigest(jitter.below(1 << 32))),
        };
        (jitter.point(tick), event)
    };
    (0..RECORDS).map(next).collect()
}

/// As a primary writes them: the ring forgets what is acknowledged.
fn write_and_trim(inputs: Inputs) -> LogEnd {
    let mut log = LogWriter::new(LogEnd::default(), FRAME_BYTES);
    for (point, event) in inputs {
        let (seq, _) = log.append(Instant(0), point, event).expect("no event is too long");
        if log.is_due() {
            log.seal();
            log.trim(seq);
        }
    }
    log.sealed()
}

/// All frames of a log with these inputs.
fn write(inputs: Inputs) -> Vec<Frame> {
    let mut log = LogWriter::new(LogEnd::default(), FRAME_BYTES);
    for (point, event) in inputs {
        log.append(Instant(0), point, event).expect("no event is too long");
    }
    log.seal();
    log.after(Seq(0)).expect("nothing was trimmed").cloned().collect()
}

/// As a secondary reads them: bytes to verified records.
fn read(frames: &[Frame]) -> u64 {
    let mut log = LogReader::new(LogEnd::default(), Tick(0));
    let mut count = 0;
    for frame in frames {
        let frame = Frame::decode(frame.to_bytes()).expect("a frame that was sealed");
        match log.accept(&frame).expect("frames of one log") {
            Accepted::New(records) => count += black_box(records).len() as u64,
            other => panic!("in order and once: {other:?}"),
        }
    }
    count
}

fn records(c: &mut Criterion) {
    let contents = [("time", steady_time()), ("net-1500", full_packets()), ("mixed", busy_server())];
    for (name, inputs) in contents {
        let frames = write(inputs.clone());
        let bytes: usize = frames.iter().map(|frame| frame.size()).sum();
        let payload: usize = inputs.iter().map(|(_, event)| event.payload().len()).sum();
        println!(
            "{name}: {:.2} bytes per record, {:.2} of them content; {} frames, headers included",
            bytes as f64 / RECORDS as f64,
            payload as f64 / RECORDS as f64,
            frames.len()
        );
        assert_eq!(read(&frames), RECORDS);
        let throughput = Throughput::ElementsAndBytes { elements: RECORDS, bytes: bytes as u64 };
        let mut group = c.benchmark_group("records");
        group.throughput(throughput);
        group.bench_function(BenchmarkId::new("encode", name), |b| {
            b.iter_batched(|| inputs.clone(), write_and_trim, BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("decode", name), |b| b.iter(|| read(&frames)));
    }
}

/// A frame with one event of this many bytes, still open.
fn open_frame(bytes: usize) -> LogWriter {
    let mut log = LogWriter::new(LogEnd::default(), FRAME_BYTES);
    let event = Event::Entropy(Bytes::from(vec![0x33; bytes]));
    log.append(Instant(0), Point::new(Tick(1), 0, 0), event).expect("the event is not too long");
    log
}

/// Nearly all checksum: XXH3-64 over the payload, once on either side.
fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for bytes in [1 << 10, 64 << 10, 1 << 20] {
        let mut log = open_frame(bytes);
        let frame = log.seal().expect("a frame with a record").clone();
        let payload = (frame.size() - FRAME_HEADER_BYTES) as u64;
        group.throughput(Throughput::Bytes(payload));
        group.bench_function(BenchmarkId::new("seal", bytes), |b| {
            b.iter_batched_ref(|| open_frame(bytes), |log| log.seal().map(Frame::end), BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("verify", bytes), |b| {
            b.iter(|| Frame::decode(black_box(frame.to_bytes())));
        });
    }
}

/// A frame for every packet, as when an effect waits: append, seal, find what is to be sent, acknowledge.
fn ring(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring");
    let event = Event::Net { device: 0, frame: Bytes::from(vec![0x5a; 66]) };
    for depth in [1, 1000] {
        let mut log = LogWriter::new(LogEnd::default(), FRAME_BYTES);
        let mut step = || {
            let (seq, _) = log.append(Instant(0), Point::default(), event.clone()).expect("short enough");
            log.seal();
            let sent = log.after(Seq(seq.0 - 1)).and_then(|mut frames| frames.next().map(Frame::end));
            log.trim(Seq(seq.0.saturating_sub(depth)));
            sent
        };
        for _ in 0..depth {
            step();
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("append+ack", format!("{depth}-frames-deep")), |b| {
            b.iter(&mut step);
        });
    }
}

fn gate(c: &mut Criterion) {
    let mut group = c.benchmark_group("gate");
    let payload = Bytes::from(vec![0x5a; 1500]);
    let effect = Effect { kind: EffectKind::Net, device: 0, op: None, payload };
    for depth in [1, 1000] {
        let mut gate = Gate::new(EffectSeq(0), usize::MAX);
        let mut seq = 0;
        let mut step = |lag: u64| {
            seq += 1;
            gate.hold(Seq(seq), Numbered { seq: EffectSeq(seq), effect: effect.clone() });
            gate.release(Seq(seq.saturating_sub(lag)))
        };
        for _ in 1..depth {
            step(u64::MAX);
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("hold+release", format!("{depth}-deep")), |b| {
            b.iter(|| step(depth - 1));
        });
    }
}

criterion_group!(benches, records, frames, ring, gate);
criterion_main!(benches);
