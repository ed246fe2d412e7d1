//! The real CPU: a child process that runs cases in ring 3 and gives back what came of them.
//!
//! Parent and child share a [`Board`]. A byte through one pipe says "run these", a byte through the other "done".
//!
//! Invariant: the child allocates nothing and calls nothing that uses thread-local storage once FS is the cases'. It dies with its
//! parent, and when the parent lets go of it.

mod child;

use super::case::{Case, Outcome};
use super::layout::Image;
use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;

/// Cases that go to the child at once.
pub(crate) const BATCH: usize = 128;

/// What both processes see.
#[repr(C)]
struct Board {
    image: Image,
    count: u32,
    /// Case that runs; the parent reads it when the child has died.
    current: u32,
    running: bool,
    start_fd: libc::c_int,
    done_fd: libc::c_int,
    /// The code pages and the read-only page, where they can be written.
    code_alias: *mut u8,
    read_only_alias: *mut u8,
    /// Whether FS and GS bases can be set without a system call.
    fsgsbase: bool,
    /// Case that the last alarm met.
    alarmed: u32,
    cases: [Case; BATCH],
    outcomes: [Outcome; BATCH],
}

/// The child that executes cases.
pub(crate) struct Native {
    board: NonNull<Board>,
    child: Pid,
    start: OwnedFd,
    done: OwnedFd,
}

impl Native {
    /// Starts the child.
    pub(crate) fn start() -> Self {
        let length = NonZeroUsize::new(size_of::<Board>()).expect("a board has a size");
        // SAFETY: a fresh anonymous mapping.
        let mapping = unsafe {
            let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            mmap_anonymous(None, length, access, MapFlags::MAP_SHARED).expect("memory to share")
        };
        let board = mapping.cast::<Board>();
        let (start_read, start) = pipe().expect("a pipe");
        let (done, done_write) = pipe().expect("a pipe");
        // SAFETY: the mapping is as large as a board, page-aligned, zero (a valid board) and not yet shared.
        unsafe {
            (*board.as_ptr()).start_fd = start_read.as_raw_fd();
            (*board.as_ptr()).done_fd = done_write.as_raw_fd();
        }
        // SAFETY: the child calls only what is safe after a fork from a process with threads (see `child`), and never returns.
        let child = match unsafe { fork() }.expect("a child process") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => unsafe {
                child::live(board.as_ptr(), [start.as_raw_fd(), done.as_raw_fd()])
            },
        };
        Self { board, child, start, done }
    }

    /// Lets the child begin with at most [`BATCH`] cases, each with fresh memory.
    pub(crate) fn begin(&mut self, image: &Image, cases: &[Case]) {
        // SAFETY: the child waits, so nobody else touches the board.
        let board = unsafe { self.board.as_mut() };
        board.image.clone_from(image);
        board.cases[..cases.len()].copy_from_slice(cases);
        board.count = cases.len() as u32;
        nix::unistd::write(&self.start, &[1]).expect("the child reads");
    }

    /// Waits until it has run them.
    pub(crate) fn outcomes(&mut self) -> &[Outcome] {
        let mut byte = [0];
        let read = loop {
            match nix::unistd::read(&self.done, &mut byte) {
                Err(Errno::EINTR) => {}
                read => break read,
            }
        };
        // SAFETY: the child waits again or is dead.
        let board = unsafe { self.board.as_ref() };
        assert!(read == Ok(1) || board.running, "the native side could not map its pages or handle signals");
        if read != Ok(1) {
            let case = &board.cases[board.current as usize % BATCH];
            panic!("the native side died of case {} of its batch: {:02x?}", board.current, case.bytes());
        }
        &board.outcomes[..board.count as usize]
    }

    /// Runs one case.
    pub(crate) fn run(&mut self, image: &Image, case: &Case) -> &Outcome {
        self.begin(image, std::slice::from_ref(case));
        &self.outcomes()[0]
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // What cannot be cleaned up has gone already.
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
        // SAFETY: mapped by `start`, and nobody uses it any more.
        let _ = unsafe { munmap(self.board.cast(), size_of::<Board>()) };
    }
}
