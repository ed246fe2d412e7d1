//! What the switch has to know of Ethernet: addresses, the header, and the frame that announces an address.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bytes of an Ethernet header without VLAN tag.
pub(super) const HEADER: usize = 14;
/// EtherType of IPv4.
pub(super) const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub(super) const ARP: u16 = 0x0806;
/// EtherType of RARP (RFC 903).
const RARP: u16 = 0x8035;
/// Shortest frame on a wire, without checksum.
const SHORTEST: usize = 60;

/// An Ethernet address, as `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Self = Self([0xFF; 6]);

    /// Whether it names one station, rather than a group or everybody.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let byte = |part: &str| {
            let is_hex = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok()).map(Self);
        mac.ok_or_else(|| {
            format!("{text:?} is no Ethernet address: write six bytes, such as 52:54:00:12:34:56")
        })
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) to: Mac,
    pub(super) from: Mac,
    pub(super) kind: u16,
}

impl Header {
    /// Nothing if the frame is too short to have one.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let (to, rest) = frame.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        Some(Self { to: Mac(*to), from: Mac(*from), kind: u16::from_be_bytes(*kind) })
    }

    /// Writes itself to the start of `frame`, which must have room for it.
    pub(super) fn write(self, frame: &mut [u8]) {
        frame[..6].copy_from_slice(&self.to.0);
        frame[6..12].copy_from_slice(&self.from.0);
        frame[12..14].copy_from_slice(&self.kind.to_be_bytes());
    }
}

/// The broadcast that tells switches where `mac` now is: a reverse ARP request (RFC 903) for itself. It needs no IP
/// address, so a VMM can send it for a guest that it knows nothing about.
pub fn announcement(mac: Mac) -> [u8; 60] {
    let mut frame = [0; SHORTEST];
    Header { to: Mac::BROADCAST, from: mac, kind: RARP }.write(&mut frame);
    // Hardware type Ethernet, protocol type IPv4, lengths 6 and 4, operation 3.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 3]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[32..38].copy_from_slice(&mac.0);
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_header_survives_writing_and_parsing() {
        let header = Header { to: Mac([1; 6]), from: Mac([2, 3, 4, 5, 6, 7]), kind: IPV4 };
        let mut frame = [0; 20];
        header.write(&mut frame);
        assert_eq!(Header::parse(&frame), Some(header));
        assert_eq!(Header::parse(&frame[..HEADER]), Some(header));
        assert_eq!(Header::parse(&frame[..HEADER - 1]), None);
    }

    #[test]
    fn an_announcement_is_a_broadcast_from_the_address() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let header = Header::parse(&announcement(mac)).unwrap();
        assert_eq!((header.to, header.from, header.kind), (Mac::BROADCAST, mac, RARP));
        assert!(mac.is_unicast() && !Mac::BROADCAST.is_unicast());
    }

    #[test]
    fn an_address_is_six_bytes_of_two_digits() {
        let mac = Mac([0x52, 0x54, 0, 0x0A, 0x34, 0xFF]);
        assert_eq!(mac.to_string(), "52:54:00:0a:34:ff");
        assert_eq!("52:54:00:0A:34:fF".parse(), Ok(mac));
        for wrong in
            ["", "52", "52:54:00:0a:34", "52:54:00:0a:34:ff:00", "52:54:0:0a:34:ff", "+2:54:00:0a:34:ff"]
        {
            assert!(wrong.parse::<Mac>().unwrap_err().contains("six bytes"), "{wrong}");
        }
    }
}
