//! One input from outside the machine, with the point at which it enters.
//!
//! The layout is the same in memory (the ring holds encoded frames), in files and on the wire. A record is a tag byte, the
//! tick as a difference, an optional check, and the event. Differences run within a frame: every frame decodes alone.
//!
//! ```text
//! tag      1 byte: kind in bits 0-4, bit 5 set when rip and register digest follow, bits 6-7 zero
//! tick     varint: ticks since the record before; for Time, zigzag difference from the predicted tick
//! check    zigzag varint: rip minus the last checked rip; 4 bytes: register digest
//! event    by kind, see `Event`
//! ```
//!
//! Invariant: one record has one encoding; whatever decodes encodes to the same bytes.

use crate::digest::StateDigest;
use crate::error::{DecodeError, Misuse};
use crate::point::{Point, PointCheck};
use crate::units::{Tick, VirtualTime};
use crate::varint::{self, Reader};
use bytes::{BufMut, Bytes, BytesMut};

/// Largest content of one event, in bytes. Larger inputs are split by the device that takes them in.
pub const MAX_EVENT_BYTES: usize = 1 << 20;

/// Bytes that a record takes beyond its content, at most.
pub(crate) const MAX_RECORD_OVERHEAD: usize = 64;

/// Content at least this long is shared with whoever made the record instead of copied.
pub const SHARED_BYTES_MIN: usize = 4 << 10;

const CHECKED: u8 = 1 << 5;
const KIND: u8 = CHECKED - 1;

/// An event and the point at which it enters the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Where.
    pub point: Point,
    /// What.
    pub event: Event,
}

/// What happens to the machine from outside. Applying events at their points is the only way to change it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The machine's clock now shows this.
    Time(VirtualTime),
    /// A frame from the network.
    Net {
        /// Which network card.
        device: u8,
        /// The frame.
        frame: Bytes,
    },
    /// A disk operation has finished.
    BlockDone {
        /// Which disk.
        device: u8,
        /// Which operation.
        id: u64,
        /// 0 for success; otherwise as the device defines it.
        status: u8,
        /// What was read.
        data: Bytes,
    },
    /// Bytes typed at the console.
    Console {
        /// Which console.
        device: u8,
        /// The bytes.
        bytes: Bytes,
    },
    /// Random bytes for the guest's entropy device.
    Entropy(Bytes),
    /// Somebody outside asked for a reset.
    Reset,
    /// Somebody outside asked the guest to shut down.
    Shutdown,
    /// Not an input: the machine emitted effects here. A secondary that goes live has run at least to the last effect
    /// that anybody saw (R3), and both sides compare what they emitted.
    Emit {
        /// How many effects since the mark before.
        count: u32,
        /// Their digest, see [`EmitDigest`](crate::effect::EmitDigest).
        digest: u32,
    },
    /// Not an input: the digest of the whole machine here, for the secondary to compare (R11).
    Digest(StateDigest),
    /// A state delta, for the moments that no point can name.
    Checkpoint {
        /// Whether it is the last part at this point.
        last: bool,
        /// The delta, in the backend's own layout.
        delta: Bytes,
    },
    /// An input of an embedder's own device.
    Vendor {
        /// Which device or input.
        id: u32,
        /// Its content.
        bytes: Bytes,
    },
}

/// Kinds on the wire. 0 is invalid.
mod kind {
    pub(super) const TIME_US: u8 = 1;
    pub(super) const TIME_NS: u8 = 2;
    pub(super) const NET: u8 = 3;
    pub(super) const BLOCK_DONE: u8 = 4;
    pub(super) const CONSOLE: u8 = 5;
    pub(super) const ENTROPY: u8 = 6;
    pub(super) const RESET: u8 = 7;
    pub(super) const SHUTDOWN: u8 = 8;
    pub(super) const EMIT: u8 = 9;
    pub(super) const DIGEST: u8 = 10;
    pub(super) const CHECKPOINT: u8 = 11;
    pub(super) const CHECKPOINT_PART: u8 = 12;
    pub(super) const VENDOR: u8 = 13;
}

impl Event {
    /// The kind's name, for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Time(_) => "time",
            Self::Net { .. } => "net",
            Self::BlockDone { .. } => "block-done",
            Self::Console { .. } => "console",
            Self::Entropy(_) => "entropy",
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Emit { .. } => "emit",
            Self::Digest(_) => "digest",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Vendor { .. } => "vendor",
        }
    }

    /// The variable part of the content.
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Net { frame: bytes, .. }
            | Self::BlockDone { data: bytes, .. }
            | Self::Console { bytes, .. }
            | Self::Entropy(bytes)
            | Self::Checkpoint { delta: bytes, .. }
            | Self::Vendor { bytes, .. } => bytes,
            Self::Time(_) | Self::Reset | Self::Shutdown | Self::Emit { .. } | Self::Digest(_) => &[],
        }
    }

    /// Refuses an event that no frame can hold.
    ///
    /// # Errors
    /// [`Misuse::EventTooLong`] above [`MAX_EVENT_BYTES`].
    pub fn validate(&self) -> Result<(), Misuse> {
        match self.payload().len() {
            len if len > MAX_EVENT_BYTES => Err(Misuse::EventTooLong { len, max: MAX_EVENT_BYTES }),
            _ => Ok(()),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Time(now) if now.0 % 1000 == 0 => kind::TIME_US,
            Self::Time(_) => kind::TIME_NS,
            Self::Net { .. } => kind::NET,
            Self::BlockDone { .. } => kind::BLOCK_DONE,
            Self::Console { .. } => kind::CONSOLE,
            Self::Entropy(_) => kind::ENTROPY,
            Self::Reset => kind::RESET,
            Self::Shutdown => kind::SHUTDOWN,
            Self::Emit { .. } => kind::EMIT,
            Self::Digest(_) => kind::DIGEST,
            Self::Checkpoint { last: true, .. } => kind::CHECKPOINT,
            Self::Checkpoint { last: false, .. } => kind::CHECKPOINT_PART,
            Self::Vendor { .. } => kind::VENDOR,
        }
    }
}

/// What the differences in a frame refer to. Starts at zero in every frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Context {
    tick: u64,
    rip: u64,
    /// Tick and clock at the last Time record, and how far both had moved since the one before it. A steady guest
    /// moves as far again, so what is written is the small difference from that.
    time: Stride,
    clock: Stride,
}

/// A value that usually moves by the same step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Stride {
    last: u64,
    step: u64,
}

impl Stride {
    fn predicted(&self) -> u64 {
        self.last.wrapping_add(self.step)
    }

    fn advance(&mut self, value: u64) {
        // The first value in a frame is no step: what came before it is in another frame.
        self.step = if self.last == 0 { 0 } else { value.wrapping_sub(self.last) };
        self.last = value;
    }
}

impl Context {
    fn enter(&mut self, point: &Point, event: &Event) {
        self.tick = point.tick.0;
        if let Some(check) = point.check {
            self.rip = check.rip;
        }
        if let Event::Time(now) = event {
            self.time.advance(point.tick.0);
            self.clock.advance(now.0);
        }
    }
}

/// Appends `record` to a frame. What is returned is content that stands after it in the frame, and was not copied into `buf`.
///
/// # Panics
/// When the record's tick or clock is before the last one's, or its event was not validated: broken invariants of the log.
pub(crate) fn encode(record: &Record, context: &mut Context, buf: &mut BytesMut) -> Option<Bytes> {
    let Record { point, event } = record;
    assert!(point.tick.0 >= context.tick, "a record enters before the one that precedes it");
    assert!(event.validate().is_ok(), "an event above the limit reached the log");
    assert!(
        !matches!(event, Event::Time(now) if now.0 < context.clock.last),
        "the machine's clock goes backwards"
    );
    let checked = if point.check.is_some() { CHECKED } else { 0 };
    buf.put_u8(event.kind() | checked);
    match event {
        Event::Time(_) => varint::put_delta(buf, point.tick.0, context.time.predicted()),
        _ => varint::put(buf, point.tick.0 - context.tick),
    }
    if let Some(check) = point.check {
        varint::put_delta(buf, check.rip, context.rip);
        buf.put_u32_le(check.regs);
    }
    let content = encode_event(event, context, buf);
    context.enter(point, event);
    content
}

fn encode_event(event: &Event, context: &Context, buf: &mut BytesMut) -> Option<Bytes> {
    let content = match event {
        Event::Time(now) if now.0 % 1000 == 0 => {
            varint::put_delta(buf, now.0 / 1000, context.clock.predicted() / 1000);
            return None;
        }
        Event::Time(now) => {
            varint::put_delta(buf, now.0, context.clock.predicted());
            return None;
        }
        Event::Reset | Event::Shutdown => return None,
        Event::Emit { count, digest } => {
            varint::put(buf, u64::from(*count));
            buf.put_u32_le(*digest);
            return None;
        }
        Event::Digest(digest) => {
            buf.put_u64_le(digest.0);
            return None;
        }
        Event::Net { device, frame: bytes } | Event::Console { device, bytes } => {
            buf.put_u8(*device);
            bytes
        }
        Event::BlockDone { device, id, status, data } => {
            buf.put_u8(*device);
            varint::put(buf, *id);
            buf.put_u8(*status);
            data
        }
        Event::Entropy(bytes) | Event::Checkpoint { delta: bytes, .. } => bytes,
        Event::Vendor { id, bytes } => {
            varint::put(buf, u64::from(*id));
            bytes
        }
    };
    varint::put(buf, content.len() as u64);
    if content.len() >= SHARED_BYTES_MIN {
        return Some(content.clone());
    }
    buf.put_slice(content);
    None
}

/// Takes the next record off a frame.
pub(crate) fn decode(context: &mut Context, reader: &mut Reader) -> Result<Record, DecodeError> {
    let offset = reader.offset();
    let tag = reader.u8()?;
    if tag & !(KIND | CHECKED) != 0 {
        return Err(DecodeError::Malformed { offset, what: "reserved bits in a record's tag" });
    }
    let kind = tag & KIND;
    let tick = decode_tick(kind, context, reader)?;
    let check = match tag & CHECKED {
        0 => None,
        _ => Some(PointCheck { rip: reader.delta(context.rip)?, regs: reader.u32()? }),
    };
    let event = decode_event(kind, offset, context, reader)?;
    let point = Point { tick: Tick(tick), check };
    context.enter(&point, &event);
    Ok(Record { point, event })
}

fn decode_tick(kind: u8, context: &Context, reader: &mut Reader) -> Result<u64, DecodeError> {
    let offset = reader.offset();
    let tick = match kind {
        kind::TIME_US | kind::TIME_NS => Some(reader.delta(context.time.predicted())?),
        _ => context.tick.checked_add(reader.varint()?),
    };
    tick.filter(|tick| *tick >= context.tick)
        .ok_or(DecodeError::Malformed { offset, what: "tick before the last record's" })
}

fn decode_event(
    kind: u8,
    offset: usize,
    context: &Context,
    reader: &mut Reader,
) -> Result<Event, DecodeError> {
    let event = match kind {
        kind::TIME_US | kind::TIME_NS => Event::Time(decode_time(kind, context, reader)?),
        kind::NET => Event::Net { device: reader.u8()?, frame: reader.bytes(MAX_EVENT_BYTES)? },
        kind::BLOCK_DONE => Event::BlockDone {
            device: reader.u8()?,
            id: reader.varint()?,
            status: reader.u8()?,
            data: reader.bytes(MAX_EVENT_BYTES)?,
        },
        kind::CONSOLE => Event::Console { device: reader.u8()?, bytes: reader.bytes(MAX_EVENT_BYTES)? },
        kind::ENTROPY => Event::Entropy(reader.bytes(MAX_EVENT_BYTES)?),
        kind::RESET => Event::Reset,
        kind::SHUTDOWN => Event::Shutdown,
        kind::EMIT => Event::Emit { count: reader.varint_u32()?, digest: reader.u32()? },
        kind::DIGEST => Event::Digest(StateDigest(reader.u64()?)),
        kind::CHECKPOINT | kind::CHECKPOINT_PART => {
            Event::Checkpoint { last: kind == kind::CHECKPOINT, delta: reader.bytes(MAX_EVENT_BYTES)? }
        }
        kind::VENDOR => Event::Vendor { id: reader.varint_u32()?, bytes: reader.bytes(MAX_EVENT_BYTES)? },
        value => return Err(DecodeError::Unknown { offset, what: "record kind", value: u64::from(value) }),
    };
    Ok(event)
}

fn decode_time(kind: u8, context: &Context, reader: &mut Reader) -> Result<VirtualTime, DecodeError> {
    let offset = reader.offset();
    let predicted = context.clock.predicted();
    let malformed = |what| DecodeError::Malformed { offset, what };
    let now = match kind {
        kind::TIME_US => {
            let us = reader.delta(predicted / 1000)?;
            us.checked_mul(1000).ok_or(malformed("clock above 64 bits"))?
        }
        _ => Some(reader.delta(predicted)?)
            .filter(|ns| ns % 1000 != 0)
            .ok_or(malformed("whole microseconds in the nanosecond form"))?,
    };
    if now < context.clock.last {
        return Err(malformed("clock going backwards"));
    }
    Ok(VirtualTime(now))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload() -> impl Strategy<Value = Bytes> {
        let shared = (SHARED_BYTES_MIN - 1..SHARED_BYTES_MIN + 2, any::<u8>());
        prop_oneof![
            9 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from),
            1 => shared.prop_map(|(len, byte)| Bytes::from(vec![byte; len])),
        ]
    }

    /// Any event but Time, whose value must not go backwards from one record to the next.
    fn untimed() -> impl Strategy<Value = Event> {
        prop_oneof![
            (any::<u8>(), payload()).prop_map(|(device, frame)| Event::Net { device, frame }),
            (any::<u8>(), any::<u64>(), any::<u8>(), payload())
                .prop_map(|(device, id, status, data)| Event::BlockDone { device, id, status, data }),
            (any::<u8>(), payload()).prop_map(|(device, bytes)| Event::Console { device, bytes }),
            payload().prop_map(Event::Entropy),
            Just(Event::Reset),
            Just(Event::Shutdown),
            (any::<u32>(), any::<u32>()).prop_map(|(count, digest)| Event::Emit { count, digest }),
            any::<u64>().prop_map(|digest| Event::Digest(StateDigest(digest))),
            (any::<bool>(), payload()).prop_map(|(last, delta)| Event::Checkpoint { last, delta }),
            (any::<u32>(), payload()).prop_map(|(id, bytes)| Event::Vendor { id, bytes }),
        ]
    }

    /// A log as a machine could produce it: ticks and clock never go back.
    pub(crate) fn history(max: usize) -> impl Strategy<Value = Vec<Record>> {
        let event = prop_oneof![
            2 => untimed().prop_map(Some),
            1 => Just(None),
        ];
        let check = proptest::option::of((any::<u64>(), any::<u32>()));
        let step = (0u64..1 << 40, 0u64..1 << 40, any::<bool>(), check, event);
        proptest::collection::vec(step, 0..max).prop_map(|steps| {
            let (mut tick, mut clock) = (0, 0);
            let record =
                |(ticks, ns, whole, check, event): (u64, u64, bool, Option<(u64, u32)>, Option<Event>)| {
                    tick += ticks;
                    clock += if whole { ns / 1000 * 1000 } else { ns };
                    let check = check.map(|(rip, regs)| PointCheck { rip, regs });
                    let event = event.unwrap_or(Event::Time(VirtualTime(clock)));
                    Record { point: Point { tick: Tick(tick), check }, event }
                };
            steps.into_iter().map(record).collect()
        })
    }

    fn encode_all(records: &[Record]) -> Bytes {
        let (mut context, mut buf) = (Context::default(), BytesMut::new());
        for record in records {
            let content = encode(record, &mut context, &mut buf);
            buf.extend_from_slice(&content.unwrap_or_default());
        }
        buf.freeze()
    }

    fn decode_all(bytes: Bytes) -> Result<Vec<Record>, DecodeError> {
        let (mut context, mut reader, mut records) = (Context::default(), Reader::new(bytes), Vec::new());
        while reader.remaining() > 0 {
            records.push(decode(&mut context, &mut reader)?);
        }
        Ok(records)
    }

    proptest! {
        #[test]
        fn records_come_back(records in history(20)) {
            prop_assert_eq!(decode_all(encode_all(&records)), Ok(records));
        }

        /// Whatever bytes a peer sends: no panic, and what is accepted is in its only form.
        #[test]
        fn arbitrary_bytes_decode_to_their_only_form(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(records) = decode_all(Bytes::from(bytes.clone())) {
                prop_assert_eq!(&encode_all(&records)[..], &bytes[..]);
            }
        }

        #[test]
        fn damaged_records_decode_to_their_only_form(
            records in history(20), at: proptest::sample::Index, flip in 1u8..,
        ) {
            let mut bytes = encode_all(&records).to_vec();
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(records) = decode_all(Bytes::from(bytes.clone())) {
                prop_assert_eq!(&encode_all(&records)[..], &bytes[..]);
            }
        }
    }

    /// 100 Hz, 150-300 million instructions a second with 5 % of jitter, host timer jitter of 200 us.
    #[test]
    fn a_steady_time_record_takes_at_most_six_bytes() {
        let (mut context, mut buf) = (Context::default(), BytesMut::new());
        let (mut tick, mut clock, mut seed) = (9_000_000_000u64, 60_000_000_000u64, 1u64);
        for n in 0..10_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let jitter = seed >> 32;
            tick += 3_000_000 - jitter % 150_000;
            clock += 10_000_000 + jitter % 200 * 1000;
            let before = buf.len();
            let point = Point { tick: Tick(tick), check: None };
            encode(&Record { point, event: Event::Time(VirtualTime(clock)) }, &mut context, &mut buf);
            // The first two records of a frame establish what the others differ from.
            assert!(n < 2 || buf.len() - before <= 6, "record {n} takes {} bytes", buf.len() - before);
        }
    }

    #[test]
    fn a_record_never_takes_more_than_the_stated_overhead() {
        let point = Point::new(Tick(u64::MAX), u64::MAX / 3, u32::MAX);
        let event =
            Event::BlockDone { device: 255, id: u64::MAX, status: 255, data: Bytes::from(vec![0; 300]) };
        let bytes = encode_all(&[Record { point, event }]);
        assert!(bytes.len() - 300 <= MAX_RECORD_OVERHEAD);
    }

    #[test]
    fn kind_zero_and_reserved_bits_are_refused() {
        assert!(matches!(
            decode_all(Bytes::from_static(&[0, 0])),
            Err(DecodeError::Unknown { what: "record kind", value: 0, .. })
        ));
        assert!(matches!(decode_all(Bytes::from_static(&[0x47, 0])), Err(DecodeError::Malformed { .. })));
    }
}
