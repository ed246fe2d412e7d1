//! The copy of a disk on this host, and the thread that carries out, in order, whatever happens to it: being filled, mirrored writes, and
//! the operations of the live side.
//!
//! Invariant: after anything but a stamp or an operation of the live side has failed, nothing more is carried out or answered: the copy is of no use,
//! and whoever runs the machine learns of it from [`Store::failure`]. A failed operation of the live side is answered as such.
//!
//! Unlike a shared disk it needs no lease (R4): nobody else sees this copy, and that of a host which has lost its term is thrown away.

use super::BLOCK_BYTES;
use super::dirty::Dirty;
use super::files::{CopyFiles, Stamp};
use super::piece::{self, Sum};
use crate::vm::disk::{Status, carry_out, written_bytes};
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded, select_biased, unbounded};
use ft_core::Event;
use ft_core::effect::{Effect, EffectKind};
use ft_core::units::Term;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// Bytes in the queue at which a secondary takes in neither records nor state (R9).
const QUEUE_BYTES_MAX: u64 = 8 << 20;

/// What work counts beside its content, in bytes.
const WORK_OVERHEAD: u64 = 64;

/// While a copy is filled it is written out this often: nothing is taken in meanwhile, and the primary's patience is limited (`stall`).
const WRITE_OUT_BYTES: u64 = 8 << 20;

/// What happens to a copy.
enum Work {
    /// A new copy begins, all zero.
    Begin,
    /// A piece of blocks comes in: its body.
    Fill(Bytes),
    /// All of them have come in, unless more follow, and this is what they should have been.
    Settle(Sum),
    /// The machine has done this, here as on the live side.
    Mirror(Effect),
    /// This is the live side, and somebody waits for the answer.
    Operation(Effect),
    /// The copy is in step in this term.
    Stamp(Term),
}

impl Work {
    fn bytes(&self) -> u64 {
        let content = match self {
            Self::Fill(body) => body.len(),
            Self::Mirror(effect) | Self::Operation(effect) => effect.payload.len(),
            Self::Begin | Self::Settle(_) | Self::Stamp(_) => 0,
        };
        WORK_OVERHEAD + content as u64
    }
}

/// What the machine's thread and the copy's thread both know.
#[derive(Debug)]
struct Shared {
    /// The backend carries out the writes: they are not mirrored.
    live: AtomicBool,
    queued_bytes: AtomicU64,
    /// Number of the last write that was carried out, or of a later one.
    written: AtomicU64,
    dirty: Dirty,
    failure: OnceLock<String>,
}

/// The copy of a disk on this host.
#[derive(Debug)]
pub struct Store {
    files: CopyFiles,
    blocks: u64,
    work: Option<Sender<Work>>,
    /// Closed when nobody takes answers any more.
    answered: Option<Sender<()>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Takes into use the whole copy at `files`, for this incarnation. What operations answer goes to `events`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(files: CopyFiles, bytes: u64, life: u64, events: Sender<Event>) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(files.disk())?;
        Self::start(Copy::new(files, bytes, life, Some(file)), events)
    }

    /// A copy that a primary is going to fill. What is at `files` stays until it begins to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn awaited(files: CopyFiles, bytes: u64, life: u64, events: Sender<Event>) -> io::Result<Self> {
        Self::start(Copy::new(files, bytes, life, None), events)
    }

    fn start(copy: Copy, events: Sender<Event>) -> io::Result<Self> {
        let (files, blocks) = (copy.files.clone(), copy.blocks());
        let shared = Arc::new(Shared {
            live: AtomicBool::new(false),
            queued_bytes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            dirty: Dirty::new(blocks),
            failure: OnceLock::new(),
        });
        let (work, queue) = unbounded();
        let (answered, closed) = bounded(0);
        let mut thread = Thread { copy, shared: Arc::clone(&shared), events, closed };
        let builder = std::thread::Builder::new().name("ft-mirror".into());
        let thread = Some(builder.spawn(move || thread.serve(&queue))?);
        Ok(Self { files, blocks, work: Some(work), answered: Some(answered), shared, thread })
    }

    /// Where the whole copy is.
    pub fn path(&self) -> &Path {
        self.files.disk()
    }

    /// How many blocks the disk has.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Which of them were written.
    pub(super) fn dirty(&self) -> &Dirty {
        &self.shared.dirty
    }

    /// Says whether this is the live side from here on: then operations are submitted, and nothing is mirrored.
    pub fn set_live(&self, live: bool) {
        self.shared.live.store(live, Ordering::Release);
    }

    pub(super) fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Acquire)
    }

    /// Why the copy is of no use any more.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Whether a secondary should take in more (R9): never, once the copy is of no use.
    pub(super) fn has_room(&self) -> bool {
        self.failure().is_none() && self.shared.queued_bytes.load(Ordering::Acquire) < QUEUE_BYTES_MAX
    }

    /// Whether all work is done, and with it the writes up to this one.
    pub(super) fn is_quiet(&self, last_write: u64) -> bool {
        self.failure().is_none()
            && self.shared.written.load(Ordering::Acquire) >= last_write
            && self.shared.queued_bytes.load(Ordering::Acquire) == 0
    }

    /// Begins an operation of the live side; its completion comes as an event.
    pub fn submit(&self, operation: Effect) {
        self.push(Work::Operation(operation));
    }

    /// Does what the live side does.
    pub(super) fn mirror(&self, effect: Effect) {
        self.push(Work::Mirror(effect));
    }

    pub(super) fn begin(&self) {
        self.push(Work::Begin);
    }

    /// Takes in the body of a piece of blocks, which has been looked at.
    pub(super) fn fill(&self, body: Bytes) {
        self.push(Work::Fill(body));
    }

    /// All pieces have come in, unless more follow: checks that, and gives the copy its name.
    pub(super) fn settle(&self, sum: Sum) {
        self.push(Work::Settle(sum));
    }

    /// Writes down that the copy is in step in `term`.
    pub fn stamp(&self, term: Term) {
        self.push(Work::Stamp(term));
    }

    fn push(&self, work: Work) {
        if let Some(queue) = &self.work {
            self.shared.queued_bytes.fetch_add(work.bytes(), Ordering::AcqRel);
            // Fails only where the thread has died with a panic, which ends the process anyway.
            let _ = queue.send(work);
        }
    }
}

/// The queue is worked off first: what it holds is in the copy that remains.
impl Drop for Store {
    fn drop(&mut self) {
        self.answered.take();
        self.work.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    copy: Copy,
    shared: Arc<Shared>,
    events: Sender<Event>,
    closed: Receiver<()>,
}

impl Thread {
    fn serve(&mut self, queue: &Receiver<Work>) {
        for work in queue {
            let bytes = work.bytes();
            if self.shared.failure.get().is_none() {
                self.take(work);
            }
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    fn take(&mut self, work: Work) {
        let doing = match &work {
            Work::Begin => "make",
            Work::Fill(_) => "fill",
            Work::Settle(_) => "complete",
            Work::Mirror(_) => "write",
            Work::Stamp(term) => return self.stamp(*term),
            Work::Operation(operation) => return self.operate(operation),
        };
        let done = match work {
            Work::Begin => self.copy.begin(),
            Work::Fill(body) => self.copy.fill(&body),
            Work::Settle(sum) => self.copy.settle(sum),
            Work::Mirror(effect) => self.copy.carry_out(&effect).map(|_| self.note(&effect)),
            Work::Stamp(_) | Work::Operation(_) => unreachable!("returned above"),
        };
        if let Err(error) = done {
            let path = self.copy.files.disk().display();
            // The first failure is the reason.
            let _ = self
                .shared
                .failure
                .set(format!("cannot {doing} this host's copy of the disk {path}: {error}"));
        }
    }

    /// An old stamp makes a copy look older than it is: no reason to end the machine.
    fn stamp(&self, term: Term) {
        if let Err(error) = self.copy.stamp(term) {
            let path = self.copy.files.disk().display();
            tracing::error!(%path, %term, %error, "the disk's term cannot be written beside it; the machine goes on");
        }
    }

    fn operate(&self, operation: &Effect) {
        let Some(id) = operation.op else { return };
        let (status, data) = Status::of(operation, self.copy.carry_out(operation));
        // What has failed may have been written in part.
        self.note(operation);
        let done = Event::BlockDone { device: operation.device, id: id.0, status, data };
        select_biased! {
            recv(self.closed) -> _ => {}
            send(self.events, done) -> _ => {}
        }
    }

    /// Takes in that a write was carried out, before anybody is told.
    fn note(&self, effect: &Effect) {
        if effect.kind == EffectKind::BlockWrite {
            self.shared.dirty.mark(written_bytes(effect));
            self.shared.written.fetch_max(effect.op.map_or(0, |op| op.0), Ordering::AcqRel);
        }
    }
}

/// The files.
struct Copy {
    files: CopyFiles,
    bytes: u64,
    life: u64,
    file: Option<File>,
    /// It has its name.
    whole: bool,
    /// What has come in.
    sum: Sum,
    /// Bytes that were filled since they were last written out.
    unwritten: u64,
}

impl Copy {
    fn new(files: CopyFiles, bytes: u64, life: u64, file: Option<File>) -> Self {
        let (whole, sum) = (file.is_some(), Sum::default());
        Self { files, bytes, life, file, whole, sum, unwritten: 0 }
    }

    fn stamp(&self, term: Term) -> io::Result<()> {
        self.files.write_stamp(Stamp { term, life: self.life })
    }

    fn blocks(&self) -> u64 {
        self.bytes.div_ceil(BLOCK_BYTES as u64)
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::Error::other("the primary has not filled it"))
    }

    fn begin(&mut self) -> io::Result<()> {
        (self.whole, self.sum, self.unwritten) = (false, Sum::default(), 0);
        self.file = Some(self.files.begin(self.bytes)?);
        Ok(())
    }

    fn fill(&mut self, body: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut self.whole) {
            self.files.reopen()?;
        }
        let blocks = piece::blocks(body, self.blocks());
        for (index, content) in blocks.map_err(|fault| io::Error::other(fault.0))? {
            let content = content.unwrap_or(&[0; BLOCK_BYTES]);
            self.file()?.write_all_at(content, index * BLOCK_BYTES as u64)?;
            self.unwritten += BLOCK_BYTES as u64;
        }
        self.sum.add(body);
        if self.unwritten >= WRITE_OUT_BYTES {
            self.unwritten = 0;
            self.file()?.sync_data()?;
        }
        Ok(())
    }

    fn settle(&mut self, sum: Sum) -> io::Result<()> {
        if self.sum != sum {
            let (Sum { pieces, digest }, ours) = (sum, self.sum);
            return Err(io::Error::other(format!(
                "the primary sent {pieces} pieces with digest {digest:016x}, and {} with {:016x} came in",
                ours.pieces, ours.digest
            )));
        }
        self.files.complete(self.file()?, self.life)?;
        self.whole = true;
        Ok(())
    }

    fn carry_out(&self, effect: &Effect) -> io::Result<Bytes> {
        carry_out(self.file()?, effect)
    }
}
