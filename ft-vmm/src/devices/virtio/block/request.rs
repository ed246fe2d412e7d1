//! What a driver asks of a disk: header, data, status.

use super::{SECTOR_BYTES, STATUS_IO_ERROR, STATUS_UNSUPPORTED, TRANSFER_BYTES_MAX};
use crate::devices::virtio::Broken;
use crate::devices::virtio::chain::Chain;
use crate::ram::GuestRam;

/// Bytes before the data: type, reserved, sector.
pub(super) const HEADER_BYTES: u64 = 16;

/// The answer to [`Request::Identify`], padded with zeros.
const NAME: [u8; 20] = *b"ft-disk\0\0\0\0\0\0\0\0\0\0\0\0\0";

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

/// A request that can be carried out, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read {
        sector: u64,
        len: u32,
    },
    Write {
        sector: u64,
    },
    Flush,
    Identify,
    /// Answered with this status.
    Refused(u8),
}

impl Request {
    /// What a chain asks for. A chain without header or status is [`Broken`]: there is nowhere to answer.
    pub(super) fn parse(
        chain: &Chain,
        memory: &GuestRam,
        sectors: u64,
        read_only: bool,
    ) -> Result<Self, Broken> {
        let mut header = [0; HEADER_BYTES as usize];
        chain.read(memory, 0, &mut header)?;
        let to_write = chain.writable_bytes().checked_sub(1).ok_or(Broken)?;
        let to_read = chain.readable_bytes() - HEADER_BYTES;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let (kind, sector) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(sector));
        Ok(match kind {
            TYPE_IN if fits(sector, to_write, sectors) => Self::Read { sector, len: to_write as u32 },
            TYPE_OUT if fits(sector, to_read, sectors) && !read_only => Self::Write { sector },
            TYPE_IN | TYPE_OUT => Self::Refused(STATUS_IO_ERROR),
            TYPE_FLUSH => Self::Flush,
            TYPE_GET_ID => Self::Identify,
            _ => Self::Refused(STATUS_UNSUPPORTED),
        })
    }
}

/// Whether a transfer is of whole sectors, of a bounded size, and within the disk.
fn fits(sector: u64, bytes: u64, sectors: u64) -> bool {
    (1..=u64::from(TRANSFER_BYTES_MAX)).contains(&bytes)
        && bytes.is_multiple_of(SECTOR_BYTES)
        && sector.checked_add(bytes / SECTOR_BYTES).is_some_and(|end| end <= sectors)
}

/// Writes the disk's name, as much as there is room for. Returns how much.
pub(super) fn write_name(chain: &Chain, memory: &GuestRam) -> Result<u32, Broken> {
    let len = NAME.len().min(chain.writable_bytes().saturating_sub(1) as usize);
    chain.write(memory, 0, &NAME[..len])?;
    Ok(len as u32)
}
