use super::layout::Layout;
use super::open::{Disk, DiskError, OpenError};
use super::*;
use crate::service::{Now, Service};
use crate::store::{Limits, NEVER};
use proptest::prelude::*;
use twox_hash::XxHash3_64;

/// Small areas: a few hundred changes fill one.
const LAYOUT: Layout = Layout { area_sectors: 2048 };
const SECTORS: u64 = 16 + 2 * LAYOUT.area_sectors;

/// A disk with a cache: what was written survives a crash for certain only if a flush began after it.
struct FakeDisk {
    durable: Vec<u8>,
    cached: Vec<(u64, Vec<u8>)>,
    /// Under way; a flush with the number of cached writes that it covers.
    pending: Vec<(Request, usize)>,
}

fn write_at(content: &mut [u8], sector: u64, data: &[u8]) {
    let from = sector as usize * SECTOR_BYTES;
    content[from..from + data.len()].copy_from_slice(data);
}

impl FakeDisk {
    fn new(durable: Vec<u8>) -> Self {
        Self { durable, cached: Vec::new(), pending: Vec::new() }
    }

    fn empty() -> Self {
        Self::new(vec![0; SECTORS as usize * SECTOR_BYTES])
    }

    fn complete(&mut self, index: usize) -> u64 {
        match self.pending.remove(index) {
            (Request::Write { id, sector, data }, _) => {
                self.cached.push((sector, data));
                id
            }
            (Request::Flush { id }, covered) => {
                for (sector, data) in self.cached.drain(..covered) {
                    write_at(&mut self.durable, sector, &data);
                }
                id
            }
        }
    }

    /// The power fails: each write that was not flushed has come through, or in part, or not.
    fn crash(self, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable;
        let pending = self.pending.into_iter().filter_map(|(request, _)| match request {
            Request::Write { sector, data, .. } => Some((sector, data)),
            Request::Flush { .. } => None,
        });
        for (sector, mut data) in self.cached.into_iter().chain(pending) {
            match random.below(3) {
                0 => {}
                1 => write_at(&mut content, sector, &data),
                _ => {
                    data.truncate(random.below(data.len()));
                    write_at(&mut content, sector, &data);
                }
            }
        }
        content
    }
}

impl Disk for FakeDisk {
    fn sectors(&self) -> u64 {
        (self.durable.len() / SECTOR_BYTES) as u64
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError> {
        let from = sector as usize * SECTOR_BYTES;
        to.copy_from_slice(&self.durable[from..from + to.len()]);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError> {
        write_at(&mut self.durable, sector, from);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}

fn open(disk: &mut FakeDisk) -> Result<Service, OpenError> {
    let mut store = Store::new(Limits { memory_bytes: u64::MAX / 2, record_bytes: u64::MAX / 2 });
    let log = Log::open_areas(disk, &mut store, LAYOUT)?;
    store.set_limits(Limits { record_bytes: log.record_bytes_max(), ..store.limits() });
    Ok(Service::new(store, Some(log)))
}

fn digest(store: &Store) -> u64 {
    let mut bytes = Vec::new();
    store.scan(0, usize::MAX, |entry| {
        Record::Set { key: entry.key(), value: entry.value(), deadline: entry.deadline() }.encode(&mut bytes);
    });
    XxHash3_64::oneshot(&bytes)
}

/// A store that is changed, its disk, and all states that it went through.
struct World {
    service: Service,
    disk: FakeDisk,
    random: Random,
    now: u64,
    states: Vec<u64>,
    /// How many of the states are known to survive: ticket and number of the newest state at that time.
    saves: Vec<(u64, usize)>,
    survives: usize,
}

impl World {
    fn new(mut disk: FakeDisk, random: Random) -> Result<Self, OpenError> {
        let service = open(&mut disk)?;
        let states = vec![digest(service.store())];
        Ok(Self { service, disk, random, now: 1, states, saves: Vec::new(), survives: 0 })
    }

    fn note(&mut self) {
        self.states.push(digest(self.service.store()));
    }

    fn change(&mut self) {
        let key = self.random.below(60).to_string().into_bytes();
        let bytes = self.random.below(12_000);
        let value = vec![self.random.next() as u8; bytes];
        let deadline = self.now + 1 + self.random.below(50) as u64;
        match self.random.below(20) {
            0 => {
                self.service.remove(&key);
            }
            1 => {
                self.service.set_deadline(&key, deadline);
            }
            2 if self.random.below(20) == 0 => self.service.clear(),
            3 => {
                self.now += 10;
                // Each expiry is a state of its own: a crash may come between two of them.
                while let Some(key) = self.service.store().due(self.now).map(Vec::from) {
                    self.service.remove(&key);
                    self.note();
                }
                self.service.set_now(Now { unix_us: self.now * 1000, up_us: 0 });
            }
            4..8 if self.service.admit(key.len(), bytes / 8).is_ok() => {
                self.service.append(&key, &value[..bytes / 8]);
            }
            _ if self.service.admit(key.len(), bytes).is_ok() => {
                let deadline = if self.random.below(4) == 0 { deadline } else { NEVER };
                self.service.set(&key, &value, deadline);
            }
            _ => {}
        }
        self.note();
    }

    fn drive(&mut self) {
        if self.random.below(3) == 0 {
            self.log().tick();
        }
        if self.random.below(10) == 0 {
            let ticket = self.service.save();
            self.saves.push((ticket, self.states.len() - 1));
        }
        while let Some(request) = self.service.poll_log() {
            let covered = self.disk.cached.len();
            self.disk.pending.push((request, covered));
        }
        while !self.disk.pending.is_empty() && (self.random.below(2) == 0 || self.service.is_congested()) {
            let index = self.random.below(self.disk.pending.len());
            let id = self.disk.complete(index);
            self.log().handle_done(id, true);
            while let Some(request) = self.service.poll_log() {
                let covered = self.disk.cached.len();
                self.disk.pending.push((request, covered));
            }
        }
        for (ticket, state) in &self.saves {
            if self.service.is_saved(*ticket) == Ok(true) {
                self.survives = self.survives.max(*state);
            }
        }
    }

    fn log(&mut self) -> &mut Log {
        self.service.log_mut().expect("it has a log")
    }

    /// The world after a crash; checks that it is one that was, and not older than what was saved.
    fn crash(mut self) -> Self {
        let content = self.disk.crash(&mut self.random);
        let after = Self::new(FakeDisk::new(content), self.random).expect("a crash leaves a log");
        let found = digest(after.service.store());
        assert!(self.states[self.survives..].contains(&found), "a state that was, and not before the last save");
        Self { now: self.now, ..after }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_leaves_a_state_that_was(seed in any::<u64>()) {
        let mut world = World::new(FakeDisk::empty(), Random(seed)).unwrap();
        for _ in 0..4 {
            for _ in 0..world.random.below(300) {
                world.change();
                world.drive();
                prop_assert!(!world.log().has_failed(), "an area has overflowed");
            }
            world = world.crash();
        }
    }
}

#[test]
fn compaction_goes_on_for_ever() {
    let mut world = World::new(FakeDisk::empty(), Random(1)).unwrap();
    for _ in 0..3000 {
        world.change();
        world.drive();
    }
    assert!(!world.log().has_failed());
    assert!(world.log().compactions() > 5, "{}", world.log().compactions());
    assert!(world.survives > 2500);
    world.crash();
}

/// Power fails again and again before any compaction is through.
#[test]
fn compactions_that_never_end_do_not_fill_the_disk() {
    let mut world = World::new(FakeDisk::empty(), Random(2)).unwrap();
    let mut interrupted = 0;
    for _ in 0..3000 {
        world.change();
        world.drive();
        if world.log().is_compacting() && world.random.below(3) == 0 {
            interrupted += 1;
            world = world.crash();
        }
        assert!(!world.log().has_failed());
    }
    assert!(interrupted > 10, "{interrupted}");
}

/// Writes whatever the log wants to be written, at once.
fn settle(service: &mut Service, disk: &mut FakeDisk) {
    service.save();
    while let Some(request) = service.poll_log() {
        disk.pending.push((request, disk.cached.len()));
        let id = disk.complete(0);
        service.log_mut().unwrap().handle_done(id, true);
    }
}

#[test]
fn a_batch_torn_at_any_byte_is_not_there() {
    let mut disk = FakeDisk::empty();
    let mut service = open(&mut disk).unwrap();
    service.set(b"old", b"value", NEVER);
    settle(&mut service, &mut disk);
    let before = disk.durable.clone();
    service.set(b"new", &[7; 600], NEVER);
    service.remove(b"old");
    settle(&mut service, &mut disk);
    let after = disk.durable.clone();
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    let (first, last) = (changed[0], changed[changed.len() - 1]);
    assert!(last - first > 600);
    for cut in first..=last {
        let torn = [&after[..cut], &before[cut..]].concat();
        let torn = open(&mut FakeDisk::new(torn)).unwrap();
        assert!(torn.store().get(b"old").is_some() && torn.store().get(b"new").is_none(), "cut at {cut}");
    }
    let whole = open(&mut FakeDisk::new(after)).unwrap();
    assert!(whole.store().get(b"old").is_none() && whole.store().get(b"new").is_some());
}

#[test]
fn what_follows_a_lost_batch_does_not_come_back_later() {
    let mut disk = FakeDisk::empty();
    let mut service = open(&mut disk).unwrap();
    let start = disk.durable.clone();
    service.set(b"a", b"lost", NEVER);
    settle(&mut service, &mut disk);
    let lost = disk.durable.clone();
    service.set(b"b", b"orphan", NEVER);
    settle(&mut service, &mut disk);
    // The first batch was lost, the second was not.
    let mut crashed = disk.durable.clone();
    let batch = 16 * SECTOR_BYTES..17 * SECTOR_BYTES;
    assert_ne!(lost[batch.clone()], start[batch.clone()]);
    crashed[batch.clone()].copy_from_slice(&start[batch]);
    let mut disk = FakeDisk::new(crashed);
    let mut service = open(&mut disk).unwrap();
    assert!(service.store().is_empty());
    service.set(b"c", b"other", NEVER);
    settle(&mut service, &mut disk);
    let reopened = open(&mut disk).unwrap();
    assert_eq!(reopened.store().len(), 1);
    assert!(reopened.store().get(b"c").is_some());
}

#[test]
fn one_damaged_superblock_is_survived_and_two_are_told() {
    let mut world = World::new(FakeDisk::empty(), Random(3)).unwrap();
    while world.log().compactions() == 0 {
        world.change();
        world.drive();
    }
    settle(&mut world.service, &mut world.disk);
    let content = world.disk.durable;
    let damaged = |sectors: &[u64]| {
        let mut content = content.clone();
        sectors.iter().for_each(|sector| content[*sector as usize * SECTOR_BYTES + 30] ^= 1);
        open(&mut FakeDisk::new(content)).map(|_| ())
    };
    assert_eq!(damaged(&[]), Ok(()));
    assert_eq!(damaged(&[0, 8]), Err(OpenError::Foreign));
    // The older one names an area that is not written any more.
    assert!(matches!(damaged(&[0]), Ok(()) | Err(OpenError::Hole)));
    assert!(matches!(damaged(&[8]), Ok(()) | Err(OpenError::Hole)));
}

#[test]
fn a_failed_write_ends_the_log_and_says_so() {
    let mut disk = FakeDisk::empty();
    let mut service = open(&mut disk).unwrap();
    service.set(b"k", b"v", NEVER);
    let ticket = service.save();
    let Some(Request::Write { id, .. }) = service.poll_log() else { panic!("a write") };
    assert_eq!(service.is_saved(ticket), Ok(false));
    service.log_mut().unwrap().handle_done(id, false);
    assert_eq!(service.is_saved(ticket), Err(crate::store::Full::Disk));
    assert_eq!(service.admit(1, 1), Err(crate::store::Full::Disk));
    assert_eq!(service.poll_log(), None);
}

#[test]
fn a_small_disk_is_refused() {
    let mut store = Store::new(Limits { memory_bytes: 0, record_bytes: 0 });
    let mut disk = FakeDisk::new(vec![0; 1 << 20]);
    assert_eq!(Log::open(&mut disk, &mut store).map(|_| ()), Err(OpenError::TooSmall));
}
