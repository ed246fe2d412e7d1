//! From a disk to a store: what the log held when the machine stopped.

use super::layout::{BatchHeader, Layout, Part, SECTOR_BYTES, SUPERBLOCK_SECTORS, Superblock};
use super::record::Record;
use super::{Compaction, Log, Position};
use crate::store::Store;
use alloc::vec;
use alloc::vec::Vec;

/// A disk while the machine starts, when there is nothing else to do than to wait for it.
pub trait Disk {
    /// How large it is.
    fn sectors(&self) -> u64;

    /// Reads whole sectors.
    ///
    /// # Errors
    /// When the disk cannot.
    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError>;

    /// Writes whole sectors.
    ///
    /// # Errors
    /// When the disk cannot.
    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError>;

    /// Waits until all that was written will survive.
    ///
    /// # Errors
    /// When the disk cannot.
    fn flush(&mut self) -> Result<(), DiskError>;
}

/// The disk could not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError;

/// Why there is no log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Smaller than two areas.
    TooSmall,
    /// The disk failed.
    Disk,
    /// Something else is on the disk, or both superblocks are damaged.
    Foreign,
    /// The older part of the log ends before the newer one begins.
    Hole,
}

impl From<DiskError> for OpenError {
    fn from(_: DiskError) -> Self {
        Self::Disk
    }
}

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

impl Log {
    /// Makes a log on an empty disk, or reads the one that is there into `store`. Whatever is behind the last whole batch was never
    /// promised to anybody, and is overwritten.
    ///
    /// # Errors
    /// [`OpenError`]; `store` then holds something or other.
    pub fn open(disk: &mut impl Disk, store: &mut Store) -> Result<Self, OpenError> {
        let layout = Layout::new(disk.sectors()).ok_or(OpenError::TooSmall)?;
        Self::open_areas(disk, store, layout)
    }

    pub(super) fn open_areas(
        disk: &mut impl Disk,
        store: &mut Store,
        layout: Layout,
    ) -> Result<Self, OpenError> {
        let Some(superblock) = read_superblock(disk)? else {
            let first = Part { area: 0, first: 1, seed: 1 };
            let superblock = Superblock { generation: 1, first, second: None };
            disk.write(superblock.sector(), &superblock.encode())?;
            disk.flush()?;
            return Ok(Self::new(layout, superblock, Position::start(first), None));
        };
        let mut reader = Reader::new(layout);
        let (mut position, _) = reader.replay(disk, superblock.first, store)?;
        let mut compaction = None;
        if let Some(second) = superblock.second {
            if position.number != second.first {
                return Err(OpenError::Hole);
            }
            let cursor;
            (position, cursor) = reader.replay(disk, second, store)?;
            compaction = Some(Compaction::Walking { cursor });
        }
        Ok(Self::new(layout, superblock, position, compaction))
    }
}

fn read_superblock(disk: &mut impl Disk) -> Result<Option<Superblock>, OpenError> {
    let mut newest: Option<Superblock> = None;
    let mut empty = true;
    for sector in SUPERBLOCK_SECTORS {
        let mut content = [0; SECTOR_BYTES];
        disk.read(sector, &mut content)?;
        empty &= content.iter().all(|byte| *byte == 0);
        let found = Superblock::decode(&content);
        newest = [newest, found].into_iter().flatten().max_by_key(|superblock| superblock.generation);
    }
    if newest.is_none() && !empty { Err(OpenError::Foreign) } else { Ok(newest) }
}

/// Reads ahead.
struct Reader {
    layout: Layout,
    buffer: Vec<u8>,
    /// First sector in the buffer.
    sector: u64,
}

impl Reader {
    fn new(layout: Layout) -> Self {
        Self { layout, buffer: Vec::new(), sector: 0 }
    }

    /// Applies a part's records. Returns where it ends, and how far compaction had come there.
    fn replay(
        &mut self,
        disk: &mut impl Disk,
        part: Part,
        store: &mut Store,
    ) -> Result<(Position, u64), OpenError> {
        let mut position = Position::start(part);
        let mut cursor = 0;
        self.buffer.clear();
        while let Some((header, payload)) = self.batch(disk, &position)? {
            let mut records = payload;
            while let Some(record) = Record::decode(&mut records) {
                if let Record::Walked { cursor: walked } = record {
                    cursor = walked;
                }
                record.apply(store);
            }
            position.advance(header.sectors(), header.checksum());
        }
        Ok((position, cursor))
    }

    /// The batch at a position, if there is one.
    fn batch(
        &mut self,
        disk: &mut impl Disk,
        position: &Position,
    ) -> Result<Option<(BatchHeader, &[u8])>, OpenError> {
        let left = self.layout.area_sectors - position.sector;
        if left == 0 {
            return Ok(None);
        }
        let first = self.load(disk, position, 1)?;
        let header = BatchHeader::decode(first, position.number, position.checksum);
        let Some(header) = header.filter(|header| header.sectors() <= left) else { return Ok(None) };
        let batch = self.load(disk, position, header.sectors())?;
        Ok(header.payload(batch).map(|payload| (header, payload)))
    }

    /// `sectors` sectors at a position, and more of them read from the disk than asked for.
    fn load(
        &mut self,
        disk: &mut impl Disk,
        position: &Position,
        sectors: u64,
    ) -> Result<&[u8], OpenError> {
        let start = self.layout.start(position.area);
        let wanted = start + position.sector;
        let held = self.sector..self.sector + (self.buffer.len() / SECTOR_BYTES) as u64;
        if !(held.contains(&wanted) && wanted + sectors <= held.end) {
            let left = self.layout.area_sectors - position.sector;
            let sectors = sectors.max((READ_BYTES / SECTOR_BYTES) as u64).min(left);
            self.buffer = vec![0; sectors as usize * SECTOR_BYTES];
            self.sector = wanted;
            disk.read(wanted, &mut self.buffer)?;
        }
        let from = (wanted - self.sector) as usize * SECTOR_BYTES;
        Ok(&self.buffer[from..from + sectors as usize * SECTOR_BYTES])
    }
}
