//! Messages on a stream: a length, a flag for compression, the message.
//!
//! ```text
//! preface   once for each stream: "FT", version, lane
//! length    4 bytes little-endian: bytes that follow; bit 31 set when they are compressed
//! message   as `ft_core::message` lays it out; compressed: 4 bytes raw length, then one zstd frame
//! ```
//!
//! Invariant: no length is trusted beyond [`MAX_MESSAGE_BYTES`], before or after decompression.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use ft_core::message::{Envelope, Lane, MAX_MESSAGE_BYTES, MessageError};

/// First bytes of every stream.
const MAGIC: [u8; 2] = *b"FT";

/// Version of this framing.
pub(crate) const WIRE_VERSION: u8 = 1;

/// Bytes of a stream before its first message.
pub(crate) const PREFACE_BYTES: usize = 4;

const COMPRESSED: u32 = 1 << 31;

/// What cannot be taken off a stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("a stream that does not begin as one of ours")]
    Preface,
    #[error("framing version {0}; this build speaks {WIRE_VERSION}")]
    Version(u8),
    #[error("a message of {0} bytes, above the limit of {MAX_MESSAGE_BYTES}")]
    TooLong(u64),
    #[error("compressed bytes that do not decompress to the length they state")]
    Decompress,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("a message on the wrong lane")]
    Lane,
    #[error("a stream that ended in the middle")]
    Cut,
    #[error("a lane that it does not read any more")]
    Stopped,
}

pub(crate) fn preface(lane: Lane) -> [u8; PREFACE_BYTES] {
    [MAGIC[0], MAGIC[1], WIRE_VERSION, lane_code(lane)]
}

pub(crate) fn parse_preface(bytes: [u8; PREFACE_BYTES]) -> Result<Lane, WireError> {
    match bytes {
        [b'F', b'T', WIRE_VERSION, code] => match code {
            1 => Ok(Lane::Control),
            2 => Ok(Lane::Log),
            4 => Ok(Lane::State),
            _ => Err(WireError::Preface),
        },
        [b'F', b'T', version, _] => Err(WireError::Version(version)),
        _ => Err(WireError::Preface),
    }
}

fn lane_code(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 1,
        Lane::Log => 2,
        Lane::Datagram => 3,
        Lane::State => 4,
    }
}

/// The first bytes of a message of `raw_len` bytes as it stands in a stream: its length, and its small part. The bulk follows.
pub(crate) fn plain(raw_len: usize, head: &[u8]) -> Bytes {
    let mut first = BytesMut::with_capacity(4 + head.len());
    first.put_u32_le(raw_len as u32);
    first.put_slice(head);
    first.freeze()
}

/// The bytes of a message after `compress`, as they stand in a stream.
pub(crate) fn compressed(raw_len: usize, zstd: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + zstd.len());
    bytes.put_u32_le((zstd.len() + 4) as u32 | COMPRESSED);
    bytes.put_u32_le(raw_len as u32);
    bytes.put_slice(zstd);
    bytes.freeze()
}

/// Takes a length off a stream: how many bytes follow, and whether they are compressed.
pub(crate) fn parse_length(bytes: [u8; 4]) -> Result<(usize, bool), WireError> {
    let word = u32::from_le_bytes(bytes);
    let len = word & !COMPRESSED;
    // zstd may add a little to what it cannot compress; the sender then sends it plain.
    if len as usize > MAX_MESSAGE_BYTES {
        return Err(WireError::TooLong(u64::from(len)));
    }
    Ok((len as usize, word & COMPRESSED != 0))
}

/// Decodes what followed a length.
pub(crate) fn decode(mut body: Bytes, is_compressed: bool) -> Result<Envelope, WireError> {
    if is_compressed {
        if body.len() < 4 {
            return Err(WireError::Decompress);
        }
        let raw_len = body.get_u32_le() as usize;
        if raw_len > MAX_MESSAGE_BYTES {
            return Err(WireError::TooLong(raw_len as u64));
        }
        let raw = zstd::bulk::decompress(&body, raw_len).map_err(|_| WireError::Decompress)?;
        if raw.len() != raw_len {
            return Err(WireError::Decompress);
        }
        body = Bytes::from(raw);
    }
    Ok(Envelope::decode(body)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ft_core::message::{Ack, Message};
    use ft_core::units::{Session, Term};
    use proptest::prelude::*;

    fn ack() -> Envelope {
        Envelope { session: Session(7), term: Term(3), message: Message::Ack(Ack::default()) }
    }

    fn body(envelope: &Envelope) -> Bytes {
        let all = plain(envelope.to_bytes().len(), &envelope.to_bytes());
        let (len, is_compressed) = parse_length(all[..4].try_into().unwrap()).unwrap();
        assert_eq!((len, is_compressed), (all.len() - 4, false));
        all.slice(4..)
    }

    #[test]
    fn messages_come_back_plain_and_compressed() {
        let raw = body(&ack());
        assert_eq!(decode(raw.clone(), false).unwrap(), ack());
        let packed = compressed(raw.len(), &zstd::bulk::compress(&raw, 1).unwrap());
        assert_eq!(decode(packed.slice(4..), true).unwrap(), ack());
    }

    #[test]
    fn a_decompression_bomb_is_refused_at_its_stated_length() {
        let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
        assert!(bomb.len() < 20_000);
        let honest = compressed(100 << 20, &bomb);
        assert_eq!(decode(honest.slice(4..), true), Err(WireError::TooLong(100 << 20)));
        let lying = compressed(1000, &bomb);
        assert_eq!(decode(lying.slice(4..), true), Err(WireError::Decompress));
    }

    #[test]
    fn huge_lengths_and_other_protocols_are_refused() {
        assert_eq!(parse_length([0xff; 4]), Err(WireError::TooLong(0x7fff_ffff)));
        assert_eq!(parse_preface(*b"GET "), Err(WireError::Preface));
        assert_eq!(parse_preface([b'F', b'T', 9, 1]), Err(WireError::Version(9)));
        assert_eq!(parse_preface([b'F', b'T', WIRE_VERSION, 3]), Err(WireError::Preface));
        for lane in [Lane::Control, Lane::Log, Lane::State] {
            assert_eq!(parse_preface(preface(lane)), Ok(lane));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), packed: bool) {
            let _ = decode(Bytes::from(bytes), packed);
        }
    }
}
