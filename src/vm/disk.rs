//! The host end of a virtual disk: a file, and a thread that reads and writes it in the order in which operations come.
//!
//! Invariant: nothing is changed on the disk while the [`Lease`] has run out: a process that was stopped with writes in its queue must not
//! carry them out over those of the copy that is live now.
//!
//! Invariant: each operation is answered once, with an error where the host's disk fails it. The thread ends when its [`Disk`] is dropped,
//! after what it has begun; operations that it has not begun are left to whoever goes live next (R7).

use crate::driver::now;
use bytes::Bytes;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use ft_core::Event;
use ft_core::effect::{Effect, EffectKind};
use ft_core::units::Instant;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;

/// How an operation ended, in virtio-blk's codes.
pub(super) struct Status;

impl Status {
    pub(super) const OK: u8 = 0;
    pub(super) const IO_ERROR: u8 = 1;

    /// What a guest is told of its operation: the status, and what was read.
    pub(super) fn of(operation: &Effect, done: io::Result<Bytes>) -> (u8, Bytes) {
        done.map(|data| (Self::OK, data)).unwrap_or_else(|error| {
            tracing::error!(kind = ?operation.kind, %error, "the disk failed an operation; the guest is told");
            (Self::IO_ERROR, Bytes::new())
        })
    }
}

/// Until when this copy may change what others see. Shared with whoever learns of it.
#[derive(Clone, Debug, Default)]
pub struct Lease(Arc<AtomicU64>);

impl Lease {
    /// Takes in a new end, on the clock of [`now`].
    pub fn renew(&self, end: Instant) {
        self.0.store(end.0, Ordering::Release);
    }

    /// Whether it holds at this moment.
    pub fn holds(&self) -> bool {
        now().0 < self.0.load(Ordering::Acquire)
    }
}

/// How often a write that has no lease looks for a new one.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// An open disk.
pub struct Disk {
    operations: Option<Sender<Effect>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Opens the file at `path` and begins to serve.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path, lease: Lease, events: Sender<Event>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let (operations, queue) = unbounded();
        let (stop, stopped) = bounded(0);
        let builder = std::thread::Builder::new().name("ft-disk".into());
        let thread = builder.spawn(move || serve(&file, &lease, &queue, &stopped, &events))?;
        Ok(Self { operations: Some(operations), stop: Some(stop), thread: Some(thread) })
    }

    /// Makes a file of `sectors` sectors, all zero, where there is none.
    ///
    /// # Errors
    /// The operating system's; a file of another size is [`io::ErrorKind::InvalidData`].
    pub fn create(path: &Path, sectors: u64) -> io::Result<()> {
        let bytes = sectors * SECTOR_BYTES;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.metadata()?.len() {
            0 => file.set_len(bytes),
            len if len == bytes => Ok(()),
            len => {
                let text = format!("it has {len} bytes and the machine's disk {bytes}: change one of them");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }

    /// Begins an operation; its completion comes as an event.
    pub fn submit(&self, operation: Effect) {
        if let Some(operations) = &self.operations {
            // Fails only where the thread has died with a panic, which ends the process anyway.
            let _ = operations.send(operation);
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.stop.take();
        self.operations.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    file: &File,
    lease: &Lease,
    queue: &Receiver<Effect>,
    stopped: &Receiver<()>,
    events: &Sender<Event>,
) {
    loop {
        crossbeam::channel::select_biased! {
            recv(stopped) -> _ => return,
            recv(queue) -> operation => {
                let Ok(operation) = operation else { return };
                let Some(id) = operation.op else { continue };
                while operation.kind == EffectKind::BlockWrite && !lease.holds() {
                    // Either it is renewed, or this copy is over and will be told so.
                    if stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected) {
                        return;
                    }
                }
                let (status, data) = Status::of(&operation, carry_out(file, &operation));
                let done = Event::BlockDone { device: operation.device, id: id.0, status, data };
                if events.send(done).is_err() {
                    return;
                }
            }
        }
    }
}

/// Carries out an operation. Returns what was read.
///
/// # Errors
/// The operating system's; for what is no operation of a disk, [`io::ErrorKind::InvalidInput`].
pub(super) fn carry_out(file: &File, operation: &Effect) -> io::Result<Bytes> {
    let payload = &operation.payload[..];
    match operation.kind {
        EffectKind::BlockRead => {
            let (sector, rest) = take_u64(payload)?;
            let len = rest.try_into().map(u32::from_le_bytes).map_err(|_| malformed())?;
            let mut data = vec![0; len as usize];
            file.read_exact_at(&mut data, offset(sector)?)?;
            Ok(data.into())
        }
        EffectKind::BlockWrite => {
            let (sector, data) = take_u64(payload)?;
            file.write_all_at(data, offset(sector)?)?;
            Ok(Bytes::new())
        }
        EffectKind::BlockFlush => file.sync_data().map(|()| Bytes::new()),
        _ => Err(malformed()),
    }
}

/// Which bytes of the disk a write writes; none for what is no write that could be carried out.
pub(super) fn written_bytes(operation: &Effect) -> Range<u64> {
    let place =
        take_u64(&operation.payload).and_then(|(sector, data)| Ok((offset(sector)?, data.len() as u64)));
    place.map_or(0..0, |(start, len)| start..start.saturating_add(len))
}

fn take_u64(bytes: &[u8]) -> io::Result<(u64, &[u8])> {
    let (word, rest) = bytes.split_first_chunk().ok_or_else(malformed)?;
    Ok((u64::from_le_bytes(*word), rest))
}

fn offset(sector: u64) -> io::Result<u64> {
    sector.checked_mul(SECTOR_BYTES).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "an operation that the device should not have let through")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ft_core::effect::OpId;
    use std::time::Duration;

    fn operation(kind: EffectKind, id: u64, payload: &[u8]) -> Effect {
        Effect { kind, device: 0, op: Some(OpId(id)), payload: Bytes::copy_from_slice(payload) }
    }

    fn done(events: &Receiver<Event>) -> (u64, u8, Bytes) {
        match events.recv_timeout(Duration::from_secs(30)).unwrap() {
            Event::BlockDone { id, status, data, .. } => (id, status, data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn operations_are_carried_out_in_order_and_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        Disk::create(&path, 8).unwrap();
        let (send, events) = unbounded();
        let disk = Disk::open(&path, for_ever(), send).unwrap();
        let write = [&3u64.to_le_bytes()[..], &[7; 512]].concat();
        let read = [&3u64.to_le_bytes()[..], &512u32.to_le_bytes()].concat();
        disk.submit(operation(EffectKind::BlockWrite, 1, &write));
        disk.submit(operation(EffectKind::BlockFlush, 2, b""));
        disk.submit(operation(EffectKind::BlockRead, 3, &read));
        let beyond = [&8u64.to_le_bytes()[..], &512u32.to_le_bytes()].concat();
        disk.submit(operation(EffectKind::BlockRead, 4, &beyond));
        assert_eq!(done(&events), (1, Status::OK, Bytes::new()));
        assert_eq!(done(&events), (2, Status::OK, Bytes::new()));
        assert_eq!(done(&events), (3, Status::OK, Bytes::from(vec![7; 512])));
        assert_eq!(done(&events), (4, Status::IO_ERROR, Bytes::new()));
    }

    fn for_ever() -> Lease {
        let lease = Lease::default();
        lease.renew(Instant(u64::MAX));
        lease
    }

    /// What a stopped primary had in its queue: not done when it is continued, and not done at all if it is over.
    #[test]
    fn r4_without_a_lease_reads_are_answered_and_writes_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        Disk::create(&path, 8).unwrap();
        let write = |sector: u64| [&sector.to_le_bytes()[..], &[7; 512]].concat();
        let read = [&0u64.to_le_bytes()[..], &512u32.to_le_bytes()].concat();
        let (send, events) = unbounded();
        let lease = Lease::default();
        let disk = Disk::open(&path, lease.clone(), send).unwrap();
        disk.submit(operation(EffectKind::BlockRead, 1, &read));
        assert_eq!(done(&events).0, 1);
        disk.submit(operation(EffectKind::BlockWrite, 2, &write(0)));
        assert!(events.recv_timeout(Duration::from_millis(100)).is_err(), "it waits");
        assert_eq!(std::fs::read(&path).unwrap(), [0; 4096]);
        lease.renew(Instant(u64::MAX));
        assert_eq!(done(&events), (2, Status::OK, Bytes::new()));
        lease.renew(Instant(1));
        disk.submit(operation(EffectKind::BlockWrite, 3, &write(1)));
        drop(disk);
        assert_eq!(std::fs::read(&path).unwrap()[512..], [0; 3584], "never");
    }

    #[test]
    fn a_file_of_another_size_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, b"something else").unwrap();
        assert_eq!(Disk::create(&path, 8).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    }
}
