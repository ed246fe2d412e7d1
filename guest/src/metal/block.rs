//! The disk.

use super::virtio::{Part, Queue, Slot};
use super::{cpu, memory, watchdog};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use ft_guest::log::Request;
use ft_guest::log::layout::SECTOR_BYTES;
use ft_guest::log::open::{Disk, DiskError};

const SLOT: usize = 1;
const DEVICE_ID: u32 = 2;
/// Its line.
pub(crate) const LINE: u16 = 1 << 10;
const FEATURE_FLUSH: u32 = 1 << 9;
const QUEUE_SIZE: u16 = 128;
/// Descriptors of a request: header, data, status.
const PARTS: u16 = 3;
/// Data of one request, at most; longer jobs become several.
const PIECE_BYTES: usize = 64 * 1024;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const STATUS_OK: u8 = 0;

/// What the device reads and writes of a request, beside its data.
#[repr(C)]
struct Frame {
    kind: u32,
    reserved: u32,
    sector: u64,
    status: u8,
}
const HEADER_BYTES: usize = 16;

/// One thing to do, in as many requests as it takes.
struct Job {
    id: u64,
    kind: u32,
    sector: u64,
    /// Stays where it is until the job is done: the device has its address.
    data: Vec<u8>,
    /// Bytes that requests were made for.
    started: usize,
    begun: bool,
    /// Requests that the device has.
    in_flight: usize,
    ok: bool,
}

impl Job {
    fn is_started(&self) -> bool {
        self.begun && (self.started == self.data.len() || !self.ok)
    }

    fn is_done(&self) -> bool {
        self.is_started() && self.in_flight == 0
    }
}

/// The disk.
pub(crate) struct Block {
    slot: Slot,
    queue: Queue,
    frames: *mut Frame,
    /// Job of each request that the device has.
    owners: Vec<u64>,
    free: Vec<u16>,
    jobs: VecDeque<Job>,
    has_flush: bool,
}

impl Block {
    /// Starts it, if there is one.
    pub(crate) fn open() -> Option<Self> {
        let (slot, features) = Slot::open(SLOT, DEVICE_ID, FEATURE_FLUSH)?;
        let queue = Queue::new(slot, 0, QUEUE_SIZE)?;
        let requests = queue.size() / PARTS;
        let frames = memory::pages(usize::from(requests) * size_of::<Frame>()).cast();
        slot.start();
        Some(Self {
            slot,
            queue,
            frames,
            owners: vec![0; usize::from(requests)],
            free: (0..requests).collect(),
            jobs: VecDeque::new(),
            has_flush: features & FEATURE_FLUSH != 0,
        })
    }

    /// It has interrupted: lowers the line.
    pub(crate) fn acknowledge(&self) {
        self.slot.acknowledge();
    }

    /// Begins what the log asks for.
    pub(crate) fn submit(&mut self, request: Request) {
        match request {
            Request::Write { id, sector, data } => self.begin(id, WRITE, sector, data),
            Request::Flush { id } => self.begin(id, FLUSH, 0, Vec::new()),
        }
    }

    /// Tells the device of all that has begun.
    pub(crate) fn notify(&mut self) {
        self.queue.notify();
    }

    /// What has ended: the request's id, and whether the disk could.
    pub(crate) fn take_done(&mut self) -> Option<(u64, bool)> {
        self.take_job().map(|job| (job.id, job.ok))
    }

    fn begin(&mut self, id: u64, kind: u32, sector: u64, data: Vec<u8>) {
        let begun = kind == FLUSH && !self.has_flush;
        self.jobs.push_back(Job { id, kind, sector, data, started: 0, begun, in_flight: 0, ok: true });
        self.start();
    }

    fn take_job(&mut self) -> Option<Job> {
        while let Some((head, _)) = self.queue.pop() {
            let request = head / PARTS;
            // SAFETY: one of the frames, which the device does not have any more.
            let status =
                unsafe { (&raw const (*self.frames.add(usize::from(request))).status).read_volatile() };
            let owner = self.owners[usize::from(request)];
            self.free.push(request);
            if let Some(job) = self.jobs.iter_mut().find(|job| job.id == owner) {
                job.in_flight -= 1;
                job.ok &= status == STATUS_OK;
            }
        }
        self.start();
        let done = self.jobs.iter().position(Job::is_done)?;
        self.jobs.remove(done)
    }

    /// Makes requests of jobs, as far as there is room.
    fn start(&mut self) {
        for job in &mut self.jobs {
            while !job.is_started() {
                let Some(request) = self.free.pop() else { return };
                self.owners[usize::from(request)] = job.id;
                // SAFETY: `request` numbers a frame.
                let frame = unsafe { self.frames.add(usize::from(request)) };
                let bytes = (job.data.len() - job.started).min(PIECE_BYTES);
                let sector = job.sector + (job.started / SECTOR_BYTES) as u64;
                // SAFETY: the frame is free: the device does not have it.
                unsafe { frame.write_volatile(Frame { kind: job.kind, reserved: 0, sector, status: 0xff }) };
                let status = frame as usize + core::mem::offset_of!(Frame, status);
                let data = job.data.as_ptr() as usize + job.started;
                let parts = [
                    Part { address: frame as usize, bytes: HEADER_BYTES, device_writes: false },
                    Part { address: data, bytes, device_writes: job.kind == READ },
                    Part { address: status, bytes: 1, device_writes: true },
                ];
                let without_data = [parts[0], parts[2]];
                self.queue.describe(request * PARTS, if bytes == 0 { &without_data } else { &parts });
                self.queue.push(request * PARTS);
                job.started += bytes;
                job.begun = true;
                job.in_flight += 1;
            }
        }
    }

    /// Does one thing and waits for it.
    fn wait(&mut self, kind: u32, sector: u64, data: Vec<u8>) -> Result<Vec<u8>, DiskError> {
        self.begin(0, kind, sector, data);
        loop {
            self.queue.notify();
            if let Some(job) = self.take_job() {
                return if job.ok { Ok(job.data) } else { Err(DiskError) };
            }
            cpu::idle();
            cpu::take_lines();
            watchdog::alive();
            self.acknowledge();
        }
    }
}

impl Disk for Block {
    fn sectors(&self) -> u64 {
        u64::from(self.slot.config(0)) | u64::from(self.slot.config(4)) << 32
    }

    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), DiskError> {
        let data = self.wait(READ, sector, vec![0; to.len()])?;
        to.copy_from_slice(&data);
        Ok(())
    }

    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), DiskError> {
        self.wait(WRITE, sector, from.into()).map(|_| ())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.wait(FLUSH, 0, Vec::new()).map(|_| ())
    }
}
