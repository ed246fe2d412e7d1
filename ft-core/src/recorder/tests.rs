#![allow(clippy::unwrap_used)]

use super::*;
use crate::effect::{Effect, EffectKind, OpId};
use crate::error::{Divergence, FrameError};
use crate::machine::Saved;
use crate::message::PROTOCOL_VERSION;
use crate::record::{MAX_EVENT_BYTES, Record};
use crate::segment::{SegmentHeader, SegmentReader, Tail};
use crate::units::Tick;
use bytes::Bytes;
use proptest::prelude::*;

/// Mixes all that enters into one number and speaks of it every few ticks; asks its disk, and answers some inputs at once.
#[derive(Clone, Debug, Default, PartialEq)]
struct Toy {
    tick: u64,
    mix: u64,
    out: VecDeque<Effect>,
    /// From this tick on it is not the machine that it should be.
    wrong: Option<(u64, Fault)>,
}

impl Toy {
    fn wrong(tick: u64, how: &str) -> Self {
        Self { wrong: Some((tick, Fault(how.into()))), ..Self::default() }
    }

    fn is_wrong(&self, how: &str) -> bool {
        self.wrong.as_ref().is_some_and(|(tick, kind)| self.tick >= *tick && kind.0 == how)
    }

    fn emit(&mut self, kind: EffectKind) {
        let op = kind.is_query().then_some(OpId(self.tick));
        let says = if self.is_wrong("effect") { 0 } else { self.mix };
        let payload = Bytes::copy_from_slice(&says.to_le_bytes());
        self.out.push_back(Effect { kind, device: 0, op, payload });
    }
}

impl Machine for Toy {
    fn point(&self) -> Point {
        let regs = if self.is_wrong("point") { 1 } else { 0 };
        Point::new(Tick(self.tick), self.tick * 4, regs)
    }

    fn run(&mut self, until: Tick) -> Result<Stop, Fault> {
        while self.tick < until.0 {
            self.tick += 1;
            self.mix = self.mix.rotate_left(7) ^ self.tick;
            if self.is_wrong("fault") {
                return Err(Fault("out of order".into()));
            }
            match self.tick % 9 {
                0 => self.emit(EffectKind::Net),
                5 => self.emit(EffectKind::BlockRead),
                _ => continue,
            }
            return Ok(Stop::Effect);
        }
        Ok(Stop::Reached)
    }

    fn apply(&mut self, record: &Record) -> Result<(), Fault> {
        if let Event::Console { .. } = record.event {
            self.emit(EffectKind::Console);
        }
        if let Event::Time(now) = record.event {
            self.mix ^= now.0;
        }
        self.mix = self.mix.wrapping_add(record.event.payload().iter().map(|byte| u64::from(*byte)).sum());
        Ok(())
    }

    fn take_effect(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }

    fn in_flight(&self) -> Vec<Effect> {
        Vec::new()
    }

    fn digest(&mut self) -> StateDigest {
        StateDigest(if self.is_wrong("state") { 0 } else { self.mix })
    }

    fn save(&mut self, _first: bool) -> Saved {
        unreachable!("a recording needs no state")
    }

    fn restore(&mut self, _: &[u8], _: bool) -> Result<(), Fault> {
        unreachable!("a recording needs no state")
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enter(Event),
    Run(u64),
    Digest,
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        bytes().prop_map(|bytes| Op::Enter(Event::Console { device: 0, bytes })),
        bytes().prop_map(|frame| Op::Enter(Event::Net { device: 0, frame })),
        Just(Op::Enter(Event::Reset)),
        (0u64..60).prop_map(Op::Run),
        Just(Op::Digest),
        Just(Op::Flush),
    ]
}

/// A recording: its frames, its effects, and the machine as it was at the end.
fn record(ops: &[Op], frame_bytes: usize) -> (Vec<Frame>, Vec<Numbered>, Toy) {
    let mut recorder = Recorder::new(Toy::default(), frame_bytes);
    let (mut frames, mut effects) = (Vec::new(), Vec::new());
    for (op, now) in ops.iter().cloned().zip((0..).map(Instant)) {
        match op {
            Op::Enter(event) => recorder.enter(now, event).unwrap(),
            Op::Run(ticks) => drop(recorder.run(now, ticks).unwrap()),
            Op::Digest => drop(recorder.digest(now).unwrap()),
            Op::Flush => recorder.flush(),
        }
        frames.extend(std::iter::from_fn(|| recorder.poll_frame()));
        effects.extend(std::iter::from_fn(|| recorder.poll_effect()));
    }
    recorder.finish(Instant(ops.len() as u64)).unwrap();
    frames.extend(std::iter::from_fn(|| recorder.poll_frame()));
    assert_eq!(frames.last().map(Frame::end), Some(recorder.end()));
    (frames, effects, recorder.machine().clone())
}

/// Goes through all that was pushed, a few ticks at a time; the effects seen.
fn replay(replayer: &mut Replayer<Toy>, ticks: u64) -> Result<Vec<Numbered>, Divergence> {
    let mut seen = Vec::new();
    loop {
        match replayer.step(ticks)? {
            Replayed::Applied { effects, .. } => seen.extend(effects),
            Replayed::Underway => {}
            Replayed::Drained => return Ok(seen),
        }
    }
}

proptest! {
    #[test]
    fn r1_a_recorded_machine_replays_to_the_same_end(
        ops in proptest::collection::vec(op(), 0..60), frame_bytes in 1usize..300, ticks in 1u64..50,
    ) {
        let (frames, effects, machine) = record(&ops, frame_bytes);
        let mut replayer = Replayer::new(Toy::default(), LogEnd::default());
        let mut seen = Vec::new();
        for frame in &frames {
            replayer.push(frame).unwrap();
            seen.extend(replay(&mut replayer, ticks).unwrap());
            prop_assert_eq!(replayer.pending(), 0);
        }
        prop_assert_eq!(replayer.machine(), &machine);
        let marked: Vec<Numbered> = effects.into_iter().filter(|one| one.seq != EffectSeq(0)).collect();
        prop_assert_eq!(&seen, &marked);
        let expected = Progress {
            records: frames.iter().map(|frame| u64::from(frame.count())).sum(),
            ticks: machine.tick,
            effects: marked.len() as u64,
            digests: 1 + ops.iter().filter(|op| matches!(op, Op::Digest)).count() as u64,
        };
        prop_assert_eq!(replayer.progress(), expected);
    }

    /// The log goes through its layout on disk and back.
    #[test]
    fn a_recording_replays_from_a_segment(ops in proptest::collection::vec(op(), 0..40), size in 1usize..200) {
        let (frames, _, machine) = record(&ops, 100);
        let mut header = SegmentHeader::default();
        header.profile.protocol = PROTOCOL_VERSION;
        let mut file = header.encode().unwrap().to_vec();
        frames.iter().for_each(|frame| file.extend_from_slice(&frame.to_bytes()));
        let mut reader = SegmentReader::new();
        let mut replayer = Replayer::new(Toy::default(), header.start);
        for mut piece in file.chunks(size) {
            while !piece.is_empty() {
                piece = &piece[reader.push(piece)..];
                while let Some(verified) = reader.poll().unwrap() {
                    replayer.push(&verified.frame).unwrap();
                    replay(&mut replayer, 10).unwrap();
                }
            }
        }
        prop_assert_eq!(reader.finish(), Ok(Tail::Whole));
        prop_assert_eq!(replayer.machine(), &machine);
    }
}

fn session() -> Vec<Op> {
    let typed = || Op::Enter(Event::Console { device: 0, bytes: Bytes::from_static(b"ls\n") });
    // The first run ends at tick 5 with a query, which makes no record; the second at tick 9 with record #1.
    vec![Op::Run(30), Op::Run(30), typed(), Op::Run(30), Op::Digest, Op::Run(30), typed(), Op::Run(4)]
}

fn divergence(machine: Toy) -> Divergence {
    let (frames, ..) = record(&session(), 1 << 10);
    let mut replayer = Replayer::new(machine, LogEnd::default());
    frames.iter().for_each(|frame| replayer.push(frame).unwrap());
    let divergence = replay(&mut replayer, 7).unwrap_err();
    assert_eq!(replayer.step(7), Err(divergence.clone()), "a replay that diverged stays so");
    divergence
}

#[test]
fn r2_a_machine_that_is_elsewhere_diverges() {
    assert!(matches!(divergence(Toy::wrong(9, "point")), Divergence::Point { seq: Seq(1), .. }));
}

#[test]
fn r11_other_effects_and_other_states_diverge() {
    assert!(matches!(divergence(Toy::wrong(1, "effect")), Divergence::Effects { seq: Seq(1), .. }));
    assert!(matches!(divergence(Toy::wrong(1, "state")), Divergence::State { .. }));
    assert!(matches!(divergence(Toy { mix: 1, ..Toy::default() }), Divergence::Effects { seq: Seq(1), .. }));
}

#[test]
fn a_machine_that_stops_diverges_in_its_own_words() {
    let text = divergence(Toy::wrong(3, "fault")).to_string();
    assert_eq!(text, "divergence at record #1: the machine stopped: out of order");
}

#[test]
fn what_was_recorded_before_a_fault_can_be_replayed() {
    let mut recorder = Recorder::new(Toy::wrong(20, "fault"), 1 << 10);
    recorder.enter(Instant(0), Event::Reset).unwrap();
    while recorder.run(Instant(0), 30).is_ok() {}
    recorder.flush();
    let mut replayer = Replayer::new(Toy::default(), LogEnd::default());
    replayer.push(&recorder.poll_frame().unwrap()).unwrap();
    assert_eq!(replay(&mut replayer, 100).unwrap().len(), 2, "ticks 9 and 18 speak");
}

#[test]
fn what_is_no_input_is_refused_and_changes_nothing() {
    let mut recorder = Recorder::new(Toy::default(), 1 << 10);
    let mut enter = |event| recorder.enter(Instant(0), event).unwrap_err();
    let text = enter(Event::Digest(StateDigest(1))).to_string();
    assert_eq!(text, "digest is no input: the recorder makes it by itself");
    assert_eq!(enter(Event::Emit { count: 1, digest: 1 }), RecordError::NotAnInput { event: "emit" });
    let long = enter(Event::Entropy(Bytes::from(vec![0; MAX_EVENT_BYTES + 1])));
    assert!(matches!(long, RecordError::Misuse(Misuse::EventTooLong { .. })));
    recorder.enter(Instant(0), Event::Time(VirtualTime(5))).unwrap();
    let back = recorder.enter(Instant(0), Event::Time(VirtualTime(4))).unwrap_err();
    assert_eq!(back, RecordError::ClockBack { clock: VirtualTime(5), asked: VirtualTime(4) });
    assert_eq!(recorder.opened(), Some(Instant(0)));
    recorder.flush();
    assert_eq!(recorder.poll_frame().map(|frame| frame.count()), Some(1));
}

#[test]
fn frames_out_of_order_are_the_callers_fault() {
    let (frames, ..) = record(&session(), 1);
    let mut replayer = Replayer::new(Toy::default(), LogEnd::default());
    let order = |expected, found| Err(ReplayError::Order { expected: Seq(expected), found: Seq(found) });
    assert_eq!(replayer.push(&frames[1]), order(1, 2));
    assert_eq!(replayer.push(&frames[0]), Ok(()));
    assert_eq!(replayer.push(&frames[0]), order(2, 1));
    assert_eq!(replayer.push(&frames[1]), Ok(()));
    let mut other = Replayer::new(Toy::default(), frames[1].start());
    other.push(&frames[1]).unwrap();
    let mut stranger = Replayer::new(Toy::default(), LogEnd { seq: Seq(1), ..LogEnd::default() });
    let error = stranger.push(&frames[1]).unwrap_err();
    assert!(matches!(error, ReplayError::Frame(FrameError::Chain { .. })));
}
