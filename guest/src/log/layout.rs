//! Where things are on the disk, and how they look there. All numbers are little-endian.
//!
//! ```text
//! sector 0, 8     superblock, the one with the higher generation counts
//! sector 16 ...   area 0, then area 1, of equal size: batches one after the other, each from the start of a sector
//! ```
//!
//! A superblock names one *part*, an area with the number and the predecessor's checksum of its first batch; during a compaction two, of which
//! the second continues the first. A batch carries its number and its predecessor's checksum, so that what an area held before is
//! never taken for a continuation.

use crate::resp::ARGUMENT_BYTES_MAX;
use crate::store::{KEY_BYTES_MAX, RECORD_OVERHEAD_BYTES};
use alloc::vec::Vec;
use twox_hash::XxHash3_64;

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;
/// Sectors of the two superblocks, far enough apart that no torn write hits both.
pub const SUPERBLOCK_SECTORS: [u64; 2] = [0, 8];
const AREAS_SECTOR: u64 = 16;
/// Below this a disk is of no use.
pub const DISK_SECTORS_MIN: u64 = (16 << 20) / SECTOR_BYTES as u64;

/// "FTGUEST" and the version of the format.
const SUPERBLOCK_MAGIC: u64 = u64::from_le_bytes(*b"FTGUEST\x01");
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"FTLB");
const BATCH_HEADER_BYTES: usize = 32;
/// A batch with so many bytes of records takes no more.
pub const BATCH_BYTES: usize = 64 * 1024;
/// Longest payload of a batch: one that would have taken more, and the longest record.
pub const PAYLOAD_BYTES_MAX: usize =
    BATCH_BYTES + KEY_BYTES_MAX + ARGUMENT_BYTES_MAX + RECORD_OVERHEAD_BYTES as usize;

/// Where an area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Sectors of each area.
    pub area_sectors: u64,
}

impl Layout {
    /// Of a disk; `None` if it is too small.
    pub fn new(disk_sectors: u64) -> Option<Self> {
        (disk_sectors >= DISK_SECTORS_MIN).then_some(Self { area_sectors: (disk_sectors - AREAS_SECTOR) / 2 })
    }

    /// First sector of an area.
    pub fn start(self, area: u8) -> u64 {
        AREAS_SECTOR + u64::from(area) * self.area_sectors
    }
}

/// A run of batches in an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// 0 or 1.
    pub area: u8,
    /// Number of its first batch.
    pub first: u64,
    /// What stands for the checksum of the batch before.
    pub seed: u64,
}

/// Which parts make up the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with every superblock written.
    pub generation: u64,
    /// The log, or its older part.
    pub first: Part,
    /// Its newer part, while a compaction is under way.
    pub second: Option<Part>,
}

impl Superblock {
    /// As a sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut sector = Vec::with_capacity(SECTOR_BYTES);
        for number in [SUPERBLOCK_MAGIC, self.generation, u64::from(self.second.is_some())] {
            sector.extend_from_slice(&number.to_le_bytes());
        }
        for part in [Some(self.first), self.second].into_iter().flatten() {
            for number in [u64::from(part.area), part.first, part.seed] {
                sector.extend_from_slice(&number.to_le_bytes());
            }
        }
        sector.resize(SECTOR_BYTES - 8, 0);
        let checksum = XxHash3_64::oneshot(&sector);
        sector.extend_from_slice(&checksum.to_le_bytes());
        sector
    }

    /// From a sector; `None` if that is none.
    pub fn decode(sector: &[u8]) -> Option<Self> {
        let (content, checksum) = sector.split_last_chunk::<8>()?;
        let number = |index: usize| {
            let bytes = content.get(index * 8..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        if number(0)? != SUPERBLOCK_MAGIC || XxHash3_64::oneshot(content) != u64::from_le_bytes(*checksum) {
            return None;
        }
        let part = |index| {
            let area = u8::try_from(number(index)?).ok().filter(|area| *area < 2)?;
            Some(Part { area, first: number(index + 1)?, seed: number(index + 2)? })
        };
        let second = if number(2)? == 0 { None } else { Some(part(6)?) };
        Some(Self { generation: number(1)?, first: part(3)?, second })
    }

    /// Where it belongs.
    pub fn sector(&self) -> u64 {
        SUPERBLOCK_SECTORS[(self.generation % 2) as usize]
    }
}

/// The beginning of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes of records behind it.
    pub payload_bytes: usize,
    number: u64,
    previous: u64,
    checksum: u64,
}

impl BatchHeader {
    /// From the first sector of what may be batch `number` after one with the checksum `previous`.
    pub fn decode(sector: &[u8], number: u64, previous: u64) -> Option<Self> {
        let word = |at: usize| Some(u64::from_le_bytes(*sector.get(at..)?.first_chunk()?));
        let start = word(0)?;
        let header = Self {
            payload_bytes: (start >> 32) as usize,
            number: word(8)?,
            previous: word(16)?,
            checksum: word(24)?,
        };
        let fits = start as u32 == BATCH_MAGIC && header.payload_bytes <= PAYLOAD_BYTES_MAX;
        (fits && header.number == number && header.previous == previous).then_some(header)
    }

    /// Sectors of the whole batch.
    pub fn sectors(&self) -> u64 {
        batch_sectors(self.payload_bytes)
    }

    /// The records of the whole batch, if it is whole.
    pub fn payload<'a>(&self, batch: &'a [u8]) -> Option<&'a [u8]> {
        let content = batch.get(..BATCH_HEADER_BYTES + self.payload_bytes)?;
        (checksum(content) == self.checksum).then(|| &content[BATCH_HEADER_BYTES..])
    }

    /// What the next batch names as its predecessor.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }
}

/// Of all of a batch but its own checksum.
fn checksum(content: &[u8]) -> u64 {
    let header = XxHash3_64::oneshot(&content[..BATCH_HEADER_BYTES - 8]);
    XxHash3_64::oneshot_with_seed(header, &content[BATCH_HEADER_BYTES..])
}

/// Sectors of a batch with so many bytes of records.
pub fn batch_sectors(payload_bytes: usize) -> u64 {
    (BATCH_HEADER_BYTES + payload_bytes).div_ceil(SECTOR_BYTES) as u64
}

/// The beginning of a batch's buffer, before any record: room for the header.
pub fn batch_start() -> Vec<u8> {
    Vec::from([0; BATCH_HEADER_BYTES])
}

/// Bytes of records in a batch's buffer.
pub fn payload_bytes(batch: &[u8]) -> usize {
    batch.len() - BATCH_HEADER_BYTES
}

/// Fills in the header and pads to whole sectors. Returns the checksum.
pub fn seal(batch: &mut Vec<u8>, number: u64, previous: u64) -> u64 {
    let start = u64::from(BATCH_MAGIC) | (payload_bytes(batch) as u64) << 32;
    batch[0..8].copy_from_slice(&start.to_le_bytes());
    batch[8..16].copy_from_slice(&number.to_le_bytes());
    batch[16..24].copy_from_slice(&previous.to_le_bytes());
    let checksum = checksum(batch);
    batch[24..32].copy_from_slice(&checksum.to_le_bytes());
    batch.resize(batch.len().next_multiple_of(SECTOR_BYTES), 0);
    checksum
}
