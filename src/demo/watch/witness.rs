//! Hears what every copy of the VM says of itself, over the control socket of its process.
//!
//! Invariant: what a process has written is heard, also when it was killed right after: the kernel keeps what is in the socket.

use crate::demo::config::HostsError;
use crate::demo::hosts::io_error;
use crate::vm::control::{Line, Snapshot};
use crate::vm::report::Report;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked whether there is a process: well below what a copy needs to be anything.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How often a silent process is left to look whether the witness is to end.
const LEND_AN_EAR: Duration = Duration::from_millis(100);

/// Something that was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// On which host.
    pub host: u64,
    /// The process.
    pub pid: u32,
    /// What.
    pub what: Said,
}

/// What a process says.
#[derive(Clone, Debug)]
pub enum Said {
    /// How it stood when it was first heard.
    Stands(Box<Snapshot>),
    /// Something happened, or how it stands now.
    Reports(Report),
    /// The process is gone.
    Gone,
}

/// The witness of one host. Dropping it ends it.
pub struct Witness {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Listens at a host's `socket`, to one process after another.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn start(host: u64, socket: PathBuf, out: Sender<Heard>) -> Result<Self, HostsError> {
        let (stop, stopped) = crossbeam::channel::bounded(0);
        let listen = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
                listen(host, &socket, &out, &stopped);
            }
        };
        let thread = std::thread::Builder::new().name(format!("witness-{host}")).spawn(listen);
        let thread = thread.map_err(|source| io_error("start a thread", source))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that crashed has nothing to say here.
            let _ = thread.join();
        }
    }
}

/// Listens to the process at `socket`, if there is one, until it is gone.
fn listen(host: u64, socket: &Path, out: &Sender<Heard>, stopped: &Receiver<()>) {
    let Ok(stream) = UnixStream::connect(socket) else { return };
    if stream.set_read_timeout(Some(LEND_AN_EAR)).is_err() {
        return;
    }
    let (mut stream, mut line, mut known) = (BufReader::new(stream), Vec::new(), None);
    let hear = |pid, what| drop(out.send(Heard { at: Instant::now(), host, pid, what }));
    loop {
        // What is there of a line stays in `line` when the rest is late.
        match stream.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {
                match (serde_json::from_slice(&line), known) {
                    (Ok(Line::Snapshot(snapshot)), _) => {
                        known = Some(snapshot.pid);
                        hear(snapshot.pid, Said::Stands(Box::new(snapshot)));
                    }
                    (Ok(Line::Report(report)), Some(pid)) => hear(pid, Said::Reports(report)),
                    _ => {}
                }
                line.clear();
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                    return;
                }
            }
            // Half a line was never said.
            Ok(_) | Err(_) => break,
        }
    }
    if let Some(pid) = known {
        hear(pid, Said::Gone);
    }
}
