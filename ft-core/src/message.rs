//! What primary and secondary say to each other. The core needs no order and no delivery from whatever carries messages:
//! they may be lost, repeated and reordered. It needs that they arrive whole, and from whom they say (R12).
//!
//! ```text
//! kind     1 byte, 0 is invalid
//! session  8 bytes
//! term     varint: the sender's term
//! body     by kind, see `Message`
//! ```

use crate::digest::StateDigest;
use crate::error::{DecodeError, FrameError};
use crate::frame::{Chain, FRAME_HEADER_BYTES, Frame, LogEnd, MAX_FRAME_PAYLOAD};
use crate::transfer::{Chunk, MAX_CHUNK_BYTES, StateHead};
use crate::units::{EffectSeq, HostId, Instant, NodeId, Seq, Session, Span, Term, Tick, VirtualTime};
use crate::varint::{self, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;
use thiserror::Error;

/// Version of messages, frames and records. Both sides must speak the same.
pub const PROTOCOL_VERSION: u32 = 3;

/// Largest encoded message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = MAX_FRAME_PAYLOAD + FRAME_HEADER_BYTES + 64;

/// Longest text in a message.
const MAX_TEXT_BYTES: usize = 256;

/// A message with the session and the term it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// Which join of which secondary.
    pub session: Session,
    /// The sender's term.
    pub term: Term,
    /// What it says.
    pub message: Message,
}

/// What one side says to the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Secondary to primary: wants to join. Opens the session.
    Hello(Hello),
    /// Primary to secondary, in the session that the Hello proposed: accepted; state follows.
    Welcome(Welcome),
    /// To the sender of a Hello or a Welcome: not accepted, and why.
    Refuse(Refusal),
    /// Primary to secondary: a frame of the log.
    Log {
        /// The primary's clock when it was sent, for the secondary to echo.
        time: Instant,
        /// Effects up to here have left: the secondary forgets them (R7).
        released: EffectSeq,
        /// The frame.
        frame: Frame,
    },
    /// Primary to secondary, in every heartbeat interval.
    Heartbeat {
        /// The primary's clock when it was sent.
        time: Instant,
        /// Effects up to here have left.
        released: EffectSeq,
        /// Once the primary holds effects for the secondary: from which record on. A secondary that holds the log up to
        /// here may claim the next term (R8).
        protect: Option<Seq>,
        /// The primary has lost contact: it only asks whether anybody is there. The secondary answers, and counts on as
        /// if it had heard nothing: if its answers do not arrive, it must be free to take over.
        probe: bool,
    },
    /// Secondary to primary: what it holds; upon each frame and in every heartbeat interval.
    Ack(Ack),
    /// Primary to secondary: a piece of the machine's state.
    State(Chunk),
    /// Secondary to primary: all pieces before this one have arrived.
    StateAck {
        /// The piece that is due next.
        next: u32,
    },
    /// Secondary to primary: it will never claim a term again, and why.
    Resign {
        /// It owns, or may own, terms up to here, and will never be live in them.
        renounced: Term,
        /// For the operator.
        reason: String,
    },
    /// From a primary that has yielded the machine, in the session that this ends: the secondary is to claim the next term and be live in
    /// it, as one of a pair with the sender.
    Handover {
        /// The session in which the sender is going to follow.
        session: Session,
        /// The log's end.
        end: Seq,
        /// Effects up to here have left: all there are.
        released: EffectSeq,
        /// The sender knows that the receiver has accepted: the receiver may claim.
        confirmed: bool,
    },
    /// To a primary that has yielded: its heir knows.
    Accept,
    /// From a primary to its secondary: another one has relieved it; it is to resign.
    Retire,
    /// To a sender whose session is over: the envelope's term has begun without it (R5).
    Superseded,
}

/// What a secondary holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ack {
    /// The log up to here is in its memory, whole and verified. Counts for R3.
    pub held: Seq,
    /// The machine has applied the log up to here.
    pub applied: Seq,
    /// The last record whose state digest was compared and found equal (R11).
    pub verified: Seq,
    /// The latest of the primary's times that reached the secondary. It will not go live before its silence limit has
    /// passed since then, which is the primary's lease on its outputs (R4).
    pub echo: Instant,
    /// Latest of the primary's times that arrived in a probe: shows that it is heard again, and promises nothing.
    pub probe: Instant,
    /// How long the oldest record that the machine has not applied has been here.
    pub lag: Span,
    /// The secondary owns terms up to here and will never be live in them: the primary may count them as its own.
    pub renounced: Term,
    /// It knows that it may claim the next term.
    pub eligible: bool,
    /// A frame is missing: send again from `held`.
    pub gap: bool,
}

/// Everything in which two sides must agree before they can be a pair (R10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Profile {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Which build of the VMM this is: for people who look for the cause of something. Builds may differ.
    pub build: String,
    /// Which machine that build makes: two of the same name behave alike, bug for bug, and read each other's state.
    pub machine: String,
    /// Name of the VM.
    pub vm: String,
    /// Hash of the machine's configuration.
    pub config: u64,
    /// The guest-visible CPU model.
    pub cpu: String,
    /// What a tick counts, for instance `soft` or `kvm`.
    pub tick: String,
    /// [`Config::silence`](crate::config::Config::silence): the other side's lease is measured against it. Filled in by the
    /// replica.
    pub silence: Span,
    /// [`Config::lease`](crate::config::Config::lease). Filled in by the replica.
    pub lease: Span,
}

/// A wish to join.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Hello {
    /// Who wants to join.
    pub node: NodeId,
    /// What it is.
    pub profile: Profile,
}

/// A join that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Welcome {
    /// The session from now on. The primary names it, so that a greeting that comes late, or twice, cannot bring an ended
    /// session back.
    pub session: Session,
    /// The primary.
    pub node: NodeId,
    /// What it is.
    pub profile: Profile,
}

/// Why a join was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// The two sides differ in a field of the [`Profile`] (R10).
    #[error("{field} differs: the primary has {primary}, the secondary {secondary}")]
    Mismatch {
        /// Which field.
        field: String,
        /// The primary's value.
        primary: String,
        /// The secondary's value.
        secondary: String,
    },
    /// The primary has a secondary, or is not sure yet that it lost it.
    #[error("the primary has a secondary")]
    Busy,
    /// Nobody is live here.
    #[error("no live machine on this host")]
    NotPrimary,
}

/// How a message travels. Lanes must not hold each other up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Rare, small and urgent.
    Control,
    /// Frames, in order.
    Log,
    /// Small and soon out of date: better lost than late.
    Datagram,
    /// Bulk, behind everything else.
    State,
}

impl Message {
    /// How it travels.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Log { .. } => Lane::Log,
            Self::Heartbeat { .. } | Self::Ack(_) => Lane::Datagram,
            Self::State(_) => Lane::State,
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Refuse(_)
            | Self::StateAck { .. }
            | Self::Resign { .. }
            | Self::Handover { .. }
            | Self::Accept
            | Self::Retire
            | Self::Superseded => Lane::Control,
        }
    }

    /// The kind's name, for traces.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome(_) => "welcome",
            Self::Refuse(_) => "refuse",
            Self::Log { .. } => "log",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Ack(_) => "ack",
            Self::State(_) => "state",
            Self::StateAck { .. } => "state-ack",
            Self::Resign { .. } => "resign",
            Self::Handover { .. } => "handover",
            Self::Accept => "accept",
            Self::Retire => "retire",
            Self::Superseded => "superseded",
        }
    }
}

impl Profile {
    /// The first field in which a secondary does not match this primary.
    pub fn mismatch(&self, secondary: &Self) -> Option<Refusal> {
        let fields = [
            ("protocol version", self.protocol.to_string(), secondary.protocol.to_string()),
            ("VM", self.vm.clone(), secondary.vm.clone()),
            ("machine version", self.machine.clone(), secondary.machine.clone()),
            ("machine configuration", format!("{:016x}", self.config), format!("{:016x}", secondary.config)),
            ("CPU model", self.cpu.clone(), secondary.cpu.clone()),
            ("tick kind", self.tick.clone(), secondary.tick.clone()),
            ("silence limit", self.silence.to_string(), secondary.silence.to_string()),
            ("lease", self.lease.to_string(), secondary.lease.to_string()),
        ];
        let (field, primary, secondary) =
            fields.into_iter().find(|(_, primary, secondary)| primary != secondary)?;
        Some(Refusal::Mismatch { field: field.to_owned(), primary, secondary })
    }

    fn encode(&self, buf: &mut BytesMut) {
        varint::put(buf, u64::from(self.protocol));
        put_text(buf, &self.build);
        put_text(buf, &self.machine);
        put_text(buf, &self.vm);
        buf.put_u64_le(self.config);
        put_text(buf, &self.cpu);
        put_text(buf, &self.tick);
        varint::put(buf, self.silence.0);
        varint::put(buf, self.lease.0);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol: reader.varint_u32()?,
            build: text(reader)?,
            machine: text(reader)?,
            vm: text(reader)?,
            config: reader.u64()?,
            cpu: text(reader)?,
            tick: text(reader)?,
            silence: Span(reader.counter()?),
            lease: Span(reader.counter()?),
        })
    }
}

/// Kinds on the wire. 0 is invalid.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const REFUSE: u8 = 3;
    pub(super) const LOG: u8 = 4;
    pub(super) const HEARTBEAT: u8 = 5;
    pub(super) const ACK: u8 = 6;
    pub(super) const STATE: u8 = 7;
    pub(super) const STATE_LAST: u8 = 8;
    pub(super) const STATE_ACK: u8 = 9;
    pub(super) const RESIGN: u8 = 10;
    pub(super) const SUPERSEDED: u8 = 11;
    pub(super) const HANDOVER: u8 = 12;
    pub(super) const ACCEPT: u8 = 13;
    pub(super) const RETIRE: u8 = 14;
}

impl Envelope {
    /// The message in pieces, to be sent one after the other: a small one, and the bulk, which is shared and not copied.
    pub fn encode(&self) -> (Bytes, &[Bytes]) {
        let mut buf = BytesMut::with_capacity(64);
        buf.put_u8(self.message.kind());
        buf.put_u64_le(self.session.0);
        varint::put(&mut buf, self.term.0);
        let bulk = self.message.encode_body(&mut buf);
        (buf.freeze(), bulk)
    }

    /// The message in one piece.
    pub fn to_bytes(&self) -> Bytes {
        match self.encode() {
            (head, []) => head,
            (head, bulk) => Bytes::from([&[head], bulk].concat().concat()),
        }
    }

    /// Takes in a message: exactly one, whole.
    ///
    /// # Errors
    /// When it is not what [`Envelope::encode`] writes.
    pub fn decode(bytes: Bytes) -> Result<Self, MessageError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        let session = Session(reader.u64()?);
        let term = Term(reader.counter()?);
        let message = Message::decode_body(kind, &mut reader)?;
        reader.finish()?;
        Ok(Self { session, term, message })
    }
}

/// A message that cannot be taken: the peer's fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum MessageError {
    /// It does not decode.
    #[error("message does not decode")]
    Decode(#[from] DecodeError),
    /// The frame inside is damaged.
    #[error("message with a bad frame")]
    Frame(#[from] FrameError),
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Welcome(_) => kind::WELCOME,
            Self::Refuse(_) => kind::REFUSE,
            Self::Log { .. } => kind::LOG,
            Self::Heartbeat { .. } => kind::HEARTBEAT,
            Self::Ack(_) => kind::ACK,
            Self::State(Chunk { head: None, .. }) => kind::STATE,
            Self::State(Chunk { head: Some(_), .. }) => kind::STATE_LAST,
            Self::StateAck { .. } => kind::STATE_ACK,
            Self::Resign { .. } => kind::RESIGN,
            Self::Superseded => kind::SUPERSEDED,
            Self::Handover { .. } => kind::HANDOVER,
            Self::Accept => kind::ACCEPT,
            Self::Retire => kind::RETIRE,
        }
    }

    fn encode_body(&self, buf: &mut BytesMut) -> &[Bytes] {
        match self {
            Self::Hello(hello) => {
                put_node(buf, hello.node);
                hello.profile.encode(buf);
            }
            Self::Welcome(welcome) => {
                buf.put_u64_le(welcome.session.0);
                put_node(buf, welcome.node);
                welcome.profile.encode(buf);
            }
            Self::Refuse(refusal) => encode_refusal(refusal, buf),
            Self::Log { time, released, frame } => {
                varint::put(buf, time.0);
                varint::put(buf, released.0);
                return frame.pieces();
            }
            Self::Heartbeat { time, released, protect, probe } => {
                varint::put(buf, time.0);
                varint::put(buf, released.0);
                // 0 stands for None: records are numbered from 1, and a seed of an empty log protects from 0.
                varint::put(buf, protect.map_or(0, |seq| seq.0 + 1));
                buf.put_u8(u8::from(*probe));
            }
            Self::Ack(ack) => ack.encode(buf),
            Self::State(chunk) => {
                varint::put(buf, u64::from(chunk.index));
                if let Some(head) = &chunk.head {
                    encode_head(head, buf);
                }
                return std::slice::from_ref(&chunk.bytes);
            }
            Self::StateAck { next } => varint::put(buf, u64::from(*next)),
            Self::Resign { renounced, reason } => {
                varint::put(buf, renounced.0);
                put_text(buf, reason);
            }
            Self::Handover { session, end, released, confirmed } => {
                buf.put_u64_le(session.0);
                varint::put(buf, end.0);
                varint::put(buf, released.0);
                buf.put_u8(u8::from(*confirmed));
            }
            Self::Accept | Self::Retire | Self::Superseded => {}
        }
        &[]
    }

    fn decode_body(kind: u8, reader: &mut Reader) -> Result<Self, MessageError> {
        Ok(match kind {
            kind::HELLO => Self::Hello(Hello { node: node(reader)?, profile: Profile::decode(reader)? }),
            kind::WELCOME => Self::Welcome(Welcome {
                session: Session(reader.u64()?),
                node: node(reader)?,
                profile: Profile::decode(reader)?,
            }),
            kind::REFUSE => Self::Refuse(decode_refusal(reader)?),
            kind::LOG => {
                let (time, released) = (Instant(reader.counter()?), EffectSeq(reader.counter()?));
                let frame = Frame::decode(reader.take(reader.remaining())?)?;
                Self::Log { time, released, frame }
            }
            kind::HEARTBEAT => Self::Heartbeat {
                time: Instant(reader.counter()?),
                released: EffectSeq(reader.counter()?),
                protect: reader.counter()?.checked_sub(1).map(Seq),
                probe: flag(reader)?,
            },
            kind::ACK => Self::Ack(Ack::decode(reader)?),
            kind::STATE | kind::STATE_LAST => {
                let index = reader.varint_u32()?;
                let head = if kind == kind::STATE_LAST { Some(decode_head(reader)?) } else { None };
                let (offset, len) = (reader.offset(), reader.remaining());
                if len > MAX_CHUNK_BYTES {
                    let len = len as u64;
                    return Err(DecodeError::TooLong { offset, len, max: MAX_CHUNK_BYTES }.into());
                }
                Self::State(Chunk { index, head, bytes: reader.take(len)? })
            }
            kind::STATE_ACK => Self::StateAck { next: reader.varint_u32()? },
            kind::RESIGN => Self::Resign { renounced: Term(reader.counter()?), reason: text(reader)? },
            kind::SUPERSEDED => Self::Superseded,
            kind::HANDOVER => Self::Handover {
                session: Session(reader.u64()?),
                end: Seq(reader.counter()?),
                released: EffectSeq(reader.counter()?),
                confirmed: flag(reader)?,
            },
            kind::ACCEPT => Self::Accept,
            kind::RETIRE => Self::Retire,
            value => {
                let value = u64::from(value);
                return Err(DecodeError::Unknown { offset: 0, what: "message kind", value }.into());
            }
        })
    }
}

const ELIGIBLE: u8 = 1;
const GAP: u8 = 2;

impl Ack {
    fn encode(&self, buf: &mut BytesMut) {
        varint::put(buf, self.held.0);
        // What is applied and verified is close behind what is held.
        varint::put_delta(buf, self.applied.0, self.held.0);
        varint::put_delta(buf, self.verified.0, self.held.0);
        varint::put(buf, self.echo.0);
        varint::put(buf, self.probe.0);
        varint::put(buf, self.lag.0);
        varint::put(buf, self.renounced.0);
        buf.put_u8(if self.eligible { ELIGIBLE } else { 0 } | if self.gap { GAP } else { 0 });
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let held = Seq(reader.counter()?);
        let applied = Seq(reader.delta(held.0)?);
        let verified = Seq(reader.delta(held.0)?);
        let echo = Instant(reader.counter()?);
        let probe = Instant(reader.counter()?);
        let lag = Span(reader.counter()?);
        let renounced = Term(reader.counter()?);
        let offset = reader.offset();
        let flags = reader.u8()?;
        if flags & !(ELIGIBLE | GAP) != 0 {
            return Err(DecodeError::Malformed { offset, what: "reserved bits in an acknowledgement" });
        }
        if applied > held || verified > applied {
            return Err(DecodeError::Malformed { offset, what: "acknowledgement of what was not received" });
        }
        let (eligible, gap) = (flags & ELIGIBLE != 0, flags & GAP != 0);
        Ok(Self { held, applied, verified, echo, probe, lag, renounced, eligible, gap })
    }
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    let offset = reader.offset();
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed { offset, what: "a flag that is neither 0 nor 1" }),
    }
}

fn put_node(buf: &mut BytesMut, node: NodeId) {
    buf.put_u64_le(node.host.0);
    buf.put_u64_le(node.incarnation);
}

fn node(reader: &mut Reader) -> Result<NodeId, DecodeError> {
    Ok(NodeId { host: HostId(reader.u64()?), incarnation: reader.u64()? })
}

fn encode_head(head: &StateHead, buf: &mut BytesMut) {
    varint::put(buf, head.end.seq.0);
    buf.put_u64_le(head.end.chain.0);
    varint::put(buf, head.tick.0);
    varint::put(buf, head.clock.0);
    varint::put(buf, head.emitted.0);
    buf.put_u64_le(head.digest.0);
}

fn decode_head(reader: &mut Reader) -> Result<StateHead, DecodeError> {
    Ok(StateHead {
        end: LogEnd { seq: Seq(reader.counter()?), chain: Chain(reader.u64()?) },
        tick: Tick(reader.counter()?),
        clock: VirtualTime(reader.counter()?),
        emitted: EffectSeq(reader.counter()?),
        digest: StateDigest(reader.u64()?),
    })
}

fn encode_refusal(refusal: &Refusal, buf: &mut BytesMut) {
    match refusal {
        Refusal::Mismatch { field, primary, secondary } => {
            buf.put_u8(1);
            put_text(buf, field);
            put_text(buf, primary);
            put_text(buf, secondary);
        }
        Refusal::Busy => buf.put_u8(2),
        Refusal::NotPrimary => buf.put_u8(3),
    }
}

fn decode_refusal(reader: &mut Reader) -> Result<Refusal, DecodeError> {
    let offset = reader.offset();
    match reader.u8()? {
        1 => Ok(Refusal::Mismatch { field: text(reader)?, primary: text(reader)?, secondary: text(reader)? }),
        2 => Ok(Refusal::Busy),
        3 => Ok(Refusal::NotPrimary),
        value => Err(DecodeError::Unknown { offset, what: "refusal", value: u64::from(value) }),
    }
}

/// Appends `text` as it may be shown: without control characters, cut at the last whole character within the limit.
fn put_text(buf: &mut BytesMut, text: &str) {
    let text = text.replace(char::is_control, " ");
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    varint::put_bytes(buf, &text.as_bytes()[..end]);
}

/// Reads text that will be shown to a person: control characters are refused, so that no peer can write to a terminal.
fn text(reader: &mut Reader) -> Result<String, DecodeError> {
    let offset = reader.offset();
    let bytes = reader.bytes(MAX_TEXT_BYTES)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| !text.contains(char::is_control));
    text.map(str::to_owned).ok_or(DecodeError::Malformed { offset, what: "text that is not printable UTF-8" })
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {:x})", self.message.name(), self.term, self.session.0)?;
        match &self.message {
            Message::Log { frame, released, .. } => {
                write!(f, " {}..={} released {released}", frame.first(), frame.last())
            }
            Message::Heartbeat { released, protect, probe, .. } => {
                write!(f, " released {released} protect {protect:?}{}", if *probe { " probe" } else { "" })
            }
            Message::Ack(ack) => write!(
                f,
                " held {} applied {} verified {} renounced {}{}{}",
                ack.held,
                ack.applied,
                ack.verified,
                ack.renounced,
                if ack.eligible { " eligible" } else { "" },
                if ack.gap { " gap" } else { "" }
            ),
            Message::State(chunk) => write!(f, " {}{}", chunk.index, chunk.head.map_or("", |_| " last")),
            Message::StateAck { next } => write!(f, " next {next}"),
            Message::Hello(hello) => write!(f, " from {}", hello.node),
            Message::Refuse(refusal) => write!(f, " {refusal}"),
            Message::Resign { reason, .. } => write!(f, " {reason}"),
            Message::Handover { end, confirmed, .. } => {
                write!(f, " at {end}{}", if *confirmed { " confirmed" } else { "" })
            }
            Message::Welcome(_) | Message::Accept | Message::Retire | Message::Superseded => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameBuilder;
    use proptest::prelude::*;

    fn text_value() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9 .:-]{0,40}"
    }

    fn counter() -> impl Strategy<Value = u64> {
        0..=varint::MAX_COUNTER
    }

    fn counters<const N: usize>() -> impl Strategy<Value = [u64; N]> {
        any::<[u64; N]>().prop_map(|words| words.map(|word| word & (varint::MAX_COUNTER - 1)))
    }

    fn profile() -> impl Strategy<Value = Profile> {
        let texts = [text_value(), text_value(), text_value(), text_value(), text_value()];
        (any::<u32>(), texts, any::<u64>(), counters::<2>()).prop_map(|(protocol, texts, config, spans)| {
            let [build, machine, vm, cpu, tick] = texts;
            let [silence, lease] = spans.map(Span);
            Profile { protocol, build, machine, vm, config, cpu, tick, silence, lease }
        })
    }

    fn ack() -> impl Strategy<Value = Ack> {
        (counters::<7>(), any::<bool>(), any::<bool>()).prop_map(|(n, eligible, gap)| {
            let applied = n[1] % n[0].max(1);
            Ack {
                held: Seq(n[0]),
                applied: Seq(applied),
                verified: Seq(n[2] % applied.max(1)),
                echo: Instant(n[3]),
                renounced: Term(n[4]),
                lag: Span(n[5]),
                probe: Instant(n[6]),
                eligible,
                gap,
            }
        })
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let records =
            crate::record::tests::history(6).prop_filter("not empty", |records| !records.is_empty());
        (records, 0u64..1 << 50, any::<u64>()).prop_map(|(records, seq, chain)| {
            let mut builder = FrameBuilder::new();
            records.iter().for_each(|record| builder.push(record));
            builder.seal(LogEnd { seq: Seq(seq), chain: Chain(chain) })
        })
    }

    fn chunk() -> impl Strategy<Value = Chunk> {
        let head = counters::<6>().prop_map(|n| StateHead {
            end: LogEnd { seq: Seq(n[0]), chain: Chain(n[1]) },
            tick: Tick(n[2]),
            emitted: EffectSeq(n[3]),
            clock: VirtualTime(n[5]),
            digest: StateDigest(n[4]),
        });
        let bytes = proptest::collection::vec(any::<u8>(), 0..50).prop_map(Bytes::from);
        (any::<u32>(), proptest::option::of(head), bytes).prop_map(|(index, head, bytes)| Chunk {
            index,
            head,
            bytes,
        })
    }

    fn refusal() -> impl Strategy<Value = Refusal> {
        prop_oneof![
            (text_value(), text_value(), text_value())
                .prop_map(|(field, primary, secondary)| Refusal::Mismatch { field, primary, secondary }),
            Just(Refusal::Busy),
            Just(Refusal::NotPrimary),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let instant = || counter().prop_map(Instant);
        let effect = || counter().prop_map(EffectSeq);
        prop_oneof![
            (any::<u64>(), any::<u64>(), profile()).prop_map(|(host, incarnation, profile)| Message::Hello(
                Hello { node: NodeId { host: HostId(host), incarnation }, profile }
            )),
            (any::<[u64; 3]>(), profile()).prop_map(|([session, host, incarnation], profile)| {
                let node = NodeId { host: HostId(host), incarnation };
                Message::Welcome(Welcome { session: Session(session), node, profile })
            }),
            refusal().prop_map(Message::Refuse),
            (instant(), effect(), frame()).prop_map(|(time, released, frame)| Message::Log {
                time,
                released,
                frame
            }),
            (instant(), effect(), proptest::option::of(0..varint::MAX_COUNTER), any::<bool>()).prop_map(
                |(time, released, protect, probe)| {
                    let protect = protect.map(Seq);
                    Message::Heartbeat { time, released, protect, probe }
                }
            ),
            ack().prop_map(Message::Ack),
            chunk().prop_map(Message::State),
            any::<u32>().prop_map(|next| Message::StateAck { next }),
            (counter(), text_value())
                .prop_map(|(term, reason)| Message::Resign { renounced: Term(term), reason }),
            Just(Message::Superseded),
            Just(Message::Accept),
            Just(Message::Retire),
            (any::<u64>(), counters::<2>(), any::<bool>()).prop_map(|(session, n, confirmed)| {
                let (session, end, released) = (Session(session), Seq(n[0]), EffectSeq(n[1]));
                Message::Handover { session, end, released, confirmed }
            }),
        ]
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        (any::<u64>(), counter(), message()).prop_map(|(session, term, message)| Envelope {
            session: Session(session),
            term: Term(term),
            message,
        })
    }

    proptest! {
        #[test]
        fn messages_come_back(envelope in envelope()) {
            prop_assert_eq!(Envelope::decode(envelope.to_bytes()), Ok(envelope));
        }

        #[test]
        fn damaged_messages_are_refused_or_in_their_only_form(
            envelope in envelope(), at: proptest::sample::Index, flip in 1u8.., cut in any::<bool>(),
        ) {
            let mut bytes = envelope.to_bytes().to_vec();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            if let Ok(envelope) = Envelope::decode(Bytes::from(bytes.clone())) {
                prop_assert_eq!(envelope.to_bytes().to_vec(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(envelope) = Envelope::decode(Bytes::from(bytes.clone())) {
                prop_assert_eq!(envelope.to_bytes().to_vec(), bytes);
            }
        }

        #[test]
        fn r10_profiles_match_only_when_equal(one in profile(), two in profile()) {
            prop_assert_eq!(one.mismatch(&one), None);
            prop_assert_eq!(one.mismatch(&two).is_none(), one == two);
        }
    }

    #[test]
    fn r10_a_mismatch_names_the_field_and_both_values() {
        let primary = Profile { cpu: "ft-v1".into(), ..Profile::default() };
        let secondary = Profile { cpu: "ft-v2".into(), ..Profile::default() };
        let text = primary.mismatch(&secondary).unwrap().to_string();
        assert_eq!(text, "CPU model differs: the primary has ft-v1, the secondary ft-v2");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let mut buf = BytesMut::new();
        put_text(&mut buf, &"ü".repeat(MAX_TEXT_BYTES));
        assert_eq!(text(&mut Reader::new(buf.freeze())).unwrap(), "ü".repeat(MAX_TEXT_BYTES / 2));
    }

    #[test]
    fn control_characters_are_neither_sent_nor_taken() {
        let mut buf = BytesMut::new();
        put_text(&mut buf, "two\nlines");
        assert_eq!(text(&mut Reader::new(buf.freeze())).unwrap(), "two lines");
        let mut buf = BytesMut::new();
        varint::put_bytes(&mut buf, b"\x1b[2J");
        assert!(text(&mut Reader::new(buf.freeze())).is_err());
    }
}
