//! What stands before the frames of a segment.
//!
//! Invariant: every version, past and future, begins with the same 20 bytes, so that every build can name a version that
//! it does not read. The magic's first byte is not ASCII and its end is a line break, so that a copy that went through a
//! text conversion is not taken for a damaged recording.

use super::SegmentError;
use crate::digest::digest64;
use crate::error::{DecodeError, Misuse};
use crate::frame::{Chain, LogEnd};
use crate::message::{PROTOCOL_VERSION, Profile};
use crate::units::{Seq, Tick};
use crate::varint::{self, Reader};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::RangeInclusive;

/// Version of the segment's header.
pub const SEGMENT_VERSION: u32 = 2;

/// Largest header of a segment, in bytes.
pub const MAX_SEGMENT_HEADER_BYTES: usize = FIELDS_AT + 5 * (2 + MAX_TEXT_BYTES) + CHECK_BYTES;

const MAGIC: [u8; 8] = *b"\x89FTREC\r\n";

/// Bytes that are the same in every version.
pub(super) const PREFIX_BYTES: usize = 20;

const LENGTH_AT: usize = 12;
const FIELDS_AT: usize = 56;
const CHECK_BYTES: usize = 8;

/// Longest name, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// Keeps a header's checks apart from those of frames.
const CHECK_SEED: u64 = 0x4654_5345_474d_5431;

/// Whose log a segment holds, and from where on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SegmentHeader {
    /// The machine: what replays it must match this (R10).
    pub profile: Profile,
    /// The log's end before the segment's first record.
    pub start: LogEnd,
    /// Where the machine stands before the segment's first record.
    pub start_tick: Tick,
}

impl SegmentHeader {
    /// The header as it stands in the file.
    ///
    /// # Errors
    /// [`Misuse::Config`] for a profile of another protocol version, and for names that no reader would take back.
    pub fn encode(&self) -> Result<Bytes, Misuse> {
        // How the pair watched each other does not matter to a recording.
        let Profile { protocol, build, machine, vm, config, cpu, tick, .. } = &self.profile;
        if *protocol != PROTOCOL_VERSION {
            let hint = "frames are written in message::PROTOCOL_VERSION and no other";
            return Err(Misuse::Config { field: "protocol", value: u64::from(*protocol), hint });
        }
        let mut buf = BytesMut::new();
        buf.put_slice(&MAGIC);
        buf.put_u32_le(SEGMENT_VERSION);
        buf.put_bytes(0, PREFIX_BYTES - LENGTH_AT);
        buf.put_u32_le(*protocol);
        buf.put_u64_le(*config);
        buf.put_u64_le(self.start.seq.0);
        buf.put_u64_le(self.start.chain.0);
        buf.put_u64_le(self.start_tick.0);
        let names = [
            ("VM name", vm),
            ("build", build),
            ("machine version", machine),
            ("CPU model", cpu),
            ("tick kind", tick),
        ];
        for (field, name) in names {
            put_name(&mut buf, field, name)?;
        }
        let length = (buf.len() + CHECK_BYTES) as u32;
        buf[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_le_bytes());
        let check = prefix_check(&buf);
        buf[LENGTH_AT + 4..PREFIX_BYTES].copy_from_slice(&check.to_le_bytes());
        let check = digest64(CHECK_SEED, &buf);
        buf.put_u64_le(check);
        Ok(buf.freeze())
    }

    /// The bytes of the header at the front of `bytes`; `None` while it cannot be told.
    ///
    /// # Errors
    /// When this is no segment, or one of a newer version, or damaged.
    pub fn length(bytes: &[u8]) -> Result<Option<usize>, SegmentError> {
        check_magic(bytes)?;
        let Some(prefix) = bytes.get(..PREFIX_BYTES) else { return Ok(None) };
        let mut fields = Reader::new(Bytes::copy_from_slice(&prefix[MAGIC.len()..]));
        let (version, length, check) = (fields.u32()?, fields.u32()? as usize, fields.u32()?);
        if check != prefix_check(prefix) {
            return Err(SegmentError::Corrupt);
        }
        check_version("segment", MAGIC.len(), version, SEGMENT_VERSION..=SEGMENT_VERSION)?;
        if !(FIELDS_AT + CHECK_BYTES..=MAX_SEGMENT_HEADER_BYTES).contains(&length) {
            return Err(SegmentError::Corrupt);
        }
        Ok(Some(length))
    }

    /// Takes in a header: exactly one, whole.
    ///
    /// # Errors
    /// When it is not what [`Self::encode`] writes.
    pub fn decode(bytes: Bytes) -> Result<Self, SegmentError> {
        let length = Self::length(&bytes)?.filter(|length| *length <= bytes.len());
        let length = length.ok_or(DecodeError::Truncated { offset: bytes.len() })?;
        let (head, check) = bytes.split_at(length - CHECK_BYTES);
        if check != digest64(CHECK_SEED, head).to_le_bytes() {
            return Err(SegmentError::Corrupt);
        }
        let mut fields = Reader::new(bytes.slice(..length - CHECK_BYTES));
        fields.take(PREFIX_BYTES)?;
        let protocol = fields.u32()?;
        check_version("protocol", PREFIX_BYTES, protocol, 1..=PROTOCOL_VERSION)?;
        let config = fields.u64()?;
        let start = LogEnd { seq: Seq(fields.u64()?), chain: Chain(fields.u64()?) };
        let start_tick = Tick(fields.u64()?);
        let (vm, build, machine) = (name(&mut fields)?, name(&mut fields)?, name(&mut fields)?);
        let (cpu, tick) = (name(&mut fields)?, name(&mut fields)?);
        fields.finish()?;
        let profile = Profile { protocol, build, machine, vm, config, cpu, tick, ..Profile::default() };
        Ok(Self { profile, start, start_tick })
    }
}

/// Whether `bytes` can be the beginning of a segment, or of a piece of its beginning.
pub(super) fn check_magic(bytes: &[u8]) -> Result<(), SegmentError> {
    match bytes.iter().zip(MAGIC).all(|(found, expected)| *found == expected) {
        true => Ok(()),
        false => Err(SegmentError::Foreign),
    }
}

fn check_version(
    what: &'static str,
    offset: usize,
    found: u32,
    known: RangeInclusive<u32>,
) -> Result<(), SegmentError> {
    match found {
        0 => Err(DecodeError::Malformed { offset, what: "version 0" }.into()),
        _ if found > *known.end() => Err(SegmentError::Newer { what, found, known: *known.end() }),
        _ if found < *known.start() => Err(SegmentError::Older { what, found, known: *known.start() }),
        _ => Ok(()),
    }
}

fn prefix_check(bytes: &[u8]) -> u32 {
    digest64(CHECK_SEED, &bytes[..LENGTH_AT + 4]) as u32
}

fn is_name(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && !text.contains(char::is_control)
}

fn put_name(buf: &mut BytesMut, field: &'static str, text: &str) -> Result<(), Misuse> {
    if !is_name(text) {
        let hint = "its length in bytes; at most 256 are allowed, and no control characters";
        return Err(Misuse::Config { field, value: text.len() as u64, hint });
    }
    varint::put_bytes(buf, text.as_bytes());
    Ok(())
}

/// Reads a name that will be shown to a person: it cannot write to a terminal.
fn name(fields: &mut Reader) -> Result<String, DecodeError> {
    let offset = fields.offset();
    let bytes = fields.bytes(MAX_TEXT_BYTES)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| is_name(text));
    text.map(str::to_owned)
        .ok_or(DecodeError::Malformed { offset, what: "a name that is not printable UTF-8" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_name() -> impl Strategy<Value = String> {
        "[a-zäß0-9 .:-]{0,40}"
    }

    pub(in crate::segment) fn header() -> impl Strategy<Value = SegmentHeader> {
        let names = (any_name(), any_name(), any_name(), any_name(), any_name());
        (any::<u64>(), names, 0u64..1 << 60, any::<u64>(), 0u64..1 << 40).prop_map(
            |(config, (vm, build, machine, cpu, tick), seq, chain, start_tick)| SegmentHeader {
                profile: Profile {
                    protocol: PROTOCOL_VERSION,
                    build,
                    machine,
                    vm,
                    config,
                    cpu,
                    tick,
                    ..Profile::default()
                },
                start: LogEnd { seq: Seq(seq), chain: Chain(chain) },
                start_tick: Tick(start_tick),
            },
        )
    }

    fn plain() -> SegmentHeader {
        let profile = Profile { protocol: PROTOCOL_VERSION, ..Profile::default() };
        SegmentHeader { profile, ..SegmentHeader::default() }
    }

    /// A header with other fields, whose checks are right.
    fn forged(edit: impl FnOnce(&mut [u8])) -> Bytes {
        let mut bytes = plain().encode().unwrap().to_vec();
        edit(&mut bytes);
        let check = prefix_check(&bytes);
        bytes[16..20].copy_from_slice(&check.to_le_bytes());
        let end = bytes.len() - CHECK_BYTES;
        let check = digest64(CHECK_SEED, &bytes[..end]);
        bytes[end..].copy_from_slice(&check.to_le_bytes());
        Bytes::from(bytes)
    }

    proptest! {
        #[test]
        fn headers_come_back(header in header()) {
            let bytes = header.encode().unwrap();
            prop_assert_eq!(SegmentHeader::length(&bytes), Ok(Some(bytes.len())));
            prop_assert_eq!(SegmentHeader::decode(bytes), Ok(header));
        }

        #[test]
        fn arbitrary_headers_are_refused(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(SegmentHeader::decode(Bytes::from(rest.clone())).is_err());
            prop_assert!(SegmentHeader::decode(Bytes::from([&MAGIC[..], &rest].concat())).is_err());
        }
    }

    #[test]
    fn the_longest_header_is_within_the_limit() {
        let long = || "x".repeat(MAX_TEXT_BYTES);
        let mut header = plain();
        header.profile = Profile {
            build: long(),
            machine: long(),
            vm: long(),
            cpu: long(),
            tick: long(),
            ..header.profile
        };
        let bytes = header.encode().unwrap();
        assert_eq!(bytes.len(), MAX_SEGMENT_HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(bytes), Ok(header));
    }

    #[test]
    fn a_newer_and_an_older_version_are_refused_with_both_versions() {
        let text = |bytes| SegmentHeader::decode(bytes).unwrap_err().to_string();
        let segment = forged(|bytes| bytes[8] = 7);
        assert_eq!(text(segment), "segment version 7 is newer than 2, the newest that this build reads");
        let old = forged(|bytes| bytes[8] = 1);
        assert_eq!(
            text(old),
            "segment version 1 is older than 2, the oldest that this build reads: use the build that wrote it"
        );
        let protocol = forged(|bytes| bytes[20] = 9);
        assert_eq!(
            text(protocol),
            format!("protocol version 9 is newer than {PROTOCOL_VERSION}, the newest that this build reads")
        );
    }

    #[test]
    fn version_zero_and_impossible_lengths_are_refused() {
        let refused = |edit: fn(&mut [u8])| SegmentHeader::decode(forged(edit)).unwrap_err();
        assert!(matches!(refused(|bytes| bytes[8] = 0), SegmentError::Header(_)));
        assert!(matches!(refused(|bytes| bytes[20] = 0), SegmentError::Header(_)));
        assert_eq!(refused(|bytes| bytes[LENGTH_AT] = 20), SegmentError::Corrupt);
        assert_eq!(refused(|bytes| bytes[LENGTH_AT + 3] = 1), SegmentError::Corrupt);
    }

    #[test]
    fn what_no_reader_takes_back_is_not_written() {
        let with = |vm: String, protocol| {
            let profile = Profile { vm, protocol, ..Profile::default() };
            SegmentHeader { profile, ..SegmentHeader::default() }.encode()
        };
        assert!(matches!(
            with("a\nb".into(), PROTOCOL_VERSION),
            Err(Misuse::Config { field: "VM name", .. })
        ));
        assert!(matches!(with("x".repeat(257), PROTOCOL_VERSION), Err(Misuse::Config { value: 257, .. })));
        assert!(matches!(with(String::new(), 0), Err(Misuse::Config { field: "protocol", .. })));
    }
}
