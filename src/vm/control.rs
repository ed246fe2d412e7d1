//! The control socket of a VM's process: how an agent hears what happens, and tells the process what to do.
//!
//! JSON lines on a Unix stream socket, both ways. A controller first hears a [`Snapshot`], then each [`Report`] as it is made; each
//! [`Command`] is answered, to whoever gave it, by a snapshot, `done` or `refused`.
//!
//! ```text
//! <- {"line":"snapshot","vm":"exchange","role":"live","term":3, ...}
//! <- {"line":"report","report":"solo","term":3}
//! -> {"cmd":"add_peer","id":2,"name":"host-b","address":"10.0.0.2:40101"}
//! <- {"line":"done","cmd":"add_peer"}
//! ```
//!
//! Invariant: nothing here ever waits for a controller. One that does not read is dropped; it may come back and hears a snapshot.
//! Invariant: the socket is its owner's alone. Whoever can write to it can stop the machine.

mod message;

pub use message::{Command, Line, Role, Snapshot};

use super::log::LogFile;
use super::report::{Report, Reporter};
use crate::driver;
use crate::stamp;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use ft_core::units::HostId;
use ft_net::{HostName, Peer, Peers};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Controllers at a time. One more takes the place of the oldest.
const CONTROLLERS_MAX: usize = 16;

/// Lines that wait for a controller to read them.
const LINES_MAX: usize = 1024;

/// Reports that wait to be handed on. What does not fit is dropped and counted: the machine does not wait.
const INBOX_MAX: usize = 4096;

/// The longest command, in bytes.
const COMMAND_BYTES_MAX: u64 = 64 << 10;

/// How long controllers may take to read the last lines when the process ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// The control socket, open until this is dropped.
pub struct Control {
    inbox: Sender<Input>,
    stop: Receiver<()>,
    socket: PathBuf,
    hub: Option<JoinHandle<()>>,
}

/// What the hub is told.
enum Input {
    Said(Report),
    /// Reports can be told from here on to whom they are about.
    Named(String, u64),
    Reachable(Peers, Sender<driver::Command>),
    Answered(u64, Line),
    Joined(UnixStream),
    Asked(u64, Result<Command, String>),
    Left(u64),
    Close,
}

impl Control {
    /// Listens at `socket`, in place of whatever an earlier process left there. What happens is also written to `log`.
    ///
    /// # Errors
    /// When the socket cannot be made, or no thread be started.
    pub fn listen(socket: &Path, log: Arc<LogFile>) -> io::Result<Self> {
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        fs::set_permissions(socket, Permissions::from_mode(0o600))?;
        let (inbox, inputs) = bounded(INBOX_MAX);
        let (running, stop) = bounded(0);
        let hub = Hub {
            inbox: inbox.clone(),
            snapshot: Snapshot {
                version: stamp::build().into(),
                machine: stamp::machine(),
                pid: std::process::id(),
                ..Snapshot::default()
            },
            log,
            running_copy: None,
            controllers: BTreeMap::new(),
            joined: 0,
            running: Some(running),
        };
        let accept = inbox.clone();
        let hub = std::thread::Builder::new().name("ft-control".into()).spawn(move || hub.run(&inputs))?;
        std::thread::Builder::new().name("ft-control-in".into()).spawn(move || {
            for stream in listener.incoming() {
                let left = match stream {
                    Ok(stream) => accept.send(Input::Joined(stream)).is_err(),
                    // Out of file descriptors, most likely: some will be free again.
                    Err(_) => {
                        std::thread::sleep(Duration::from_millis(100));
                        false
                    }
                };
                if left {
                    return;
                }
            }
        })?;
        Ok(Self { inbox, stop, socket: socket.into(), hub: Some(hub) })
    }

    /// Where reports are said.
    pub fn reporter(&self) -> Reporter {
        let (inbox, dropped) = (self.inbox.clone(), std::sync::atomic::AtomicU64::new(0));
        Reporter::new(move |report| {
            use std::sync::atomic::Ordering::Relaxed;
            match inbox.try_send(Input::Said(report)) {
                Err(TrySendError::Full(_)) => drop(dropped.fetch_add(1, Relaxed)),
                Err(TrySendError::Disconnected(_)) => {}
                Ok(()) => {
                    let lost = dropped.swap(0, Relaxed);
                    if lost > 0 {
                        tracing::warn!(lost, "reports were made faster than they could be written");
                    }
                }
            }
        })
    }

    /// Closed when a controller wants this copy to end.
    pub fn stop(&self) -> Receiver<()> {
        self.stop.clone()
    }

    /// Names the VM and this host.
    pub(super) fn name(&self, vm: &str, host: u64) {
        self.tell(Input::Named(vm.to_owned(), host));
    }

    /// From here on peers can be added, and the driver be told what to do.
    pub(super) fn attach(&self, peers: Peers, driver: Sender<driver::Command>) {
        self.tell(Input::Reachable(peers, driver));
    }

    fn tell(&self, input: Input) {
        // The hub ends only when this is dropped.
        let _ = self.inbox.send(input);
    }
}

impl Drop for Control {
    /// Hands on what has been said, for as long as a farewell may take, and removes the socket.
    fn drop(&mut self) {
        self.tell(Input::Close);
        if let Some(hub) = self.hub.take() {
            // Its panic has been printed.
            let _ = hub.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

/// Owns all that is known, on a thread of its own.
struct Hub {
    inbox: Sender<Input>,
    snapshot: Snapshot,
    log: Arc<LogFile>,
    /// What commands are for, once it is there.
    running_copy: Option<(Peers, Sender<driver::Command>)>,
    controllers: BTreeMap<u64, Controller>,
    joined: u64,
    /// Dropped when this copy is to end.
    running: Option<Sender<()>>,
}

struct Controller {
    lines: Sender<Arc<str>>,
    stream: UnixStream,
    /// Closed when all lines are written, or no more can be.
    written: Receiver<()>,
}

impl Hub {
    fn run(mut self, inputs: &Receiver<Input>) {
        for input in inputs {
            match input {
                Input::Said(report) => self.handle_report(report),
                Input::Named(vm, host) => (self.snapshot.vm, self.snapshot.host) = (vm, host),
                Input::Reachable(peers, driver) => self.running_copy = Some((peers, driver)),
                Input::Answered(id, line) => self.answer(id, &line),
                Input::Joined(stream) => {
                    if let Err(error) = self.join(stream) {
                        tracing::warn!(%error, "a controller could not be served");
                    }
                }
                Input::Asked(id, command) => self.handle_command(id, command),
                Input::Left(id) => self.dismiss(id),
                Input::Close => break,
            }
        }
        let deadline = Instant::now() + FAREWELL;
        for (_, Controller { lines, stream, written }) in std::mem::take(&mut self.controllers) {
            drop(lines);
            // Nothing is ever sent: the channel is closed with the last line.
            let _ = written.recv_deadline(deadline);
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn handle_report(&mut self, report: Report) {
        self.snapshot.take_in(&report);
        match (&report, report.words()) {
            (Report::Console { text, .. }, _) => self.log.text(text),
            (_, Some(words)) => self.log.line(&words),
            (_, None) => {}
        }
        if let Some(line) = text(&Line::Report(report)) {
            let ids: Vec<u64> = self.controllers.keys().copied().collect();
            ids.into_iter().for_each(|id| self.send(id, Arc::clone(&line)));
        }
    }

    fn join(&mut self, stream: UnixStream) -> io::Result<()> {
        if self.controllers.len() >= CONTROLLERS_MAX {
            let oldest = self.controllers.keys().next().copied();
            oldest.into_iter().for_each(|id| self.dismiss(id));
        }
        self.joined += 1;
        let id = self.joined;
        let (lines, queue) = bounded(LINES_MAX);
        let (out, commands, inbox) = (stream.try_clone()?, stream.try_clone()?, self.inbox.clone());
        let (writing, written) = bounded(0);
        let writer = std::thread::Builder::new().name("ft-control-w".into());
        writer.spawn(move || write_lines(&out, &queue, writing))?;
        let reader = std::thread::Builder::new().name("ft-control-r".into());
        reader.spawn(move || read_commands(id, &commands, &inbox))?;
        self.controllers.insert(id, Controller { lines, stream, written });
        self.answer(id, &Line::Snapshot(self.snapshot.clone()));
        Ok(())
    }

    fn handle_command(&mut self, id: u64, command: Result<Command, String>) {
        let (cmd, carried_out) = match command {
            Ok(command) => (Some(command.name().to_owned()), self.carry_out(id, &command)),
            Err(reason) => (None, Err(reason)),
        };
        match carried_out {
            Ok(line) => line.into_iter().for_each(|line| self.answer(id, &line)),
            Err(reason) => self.answer(id, &Line::Refused { cmd, reason }),
        }
    }

    /// Returns the answer, if there is one already.
    fn carry_out(&mut self, controller: u64, command: &Command) -> Result<Option<Line>, String> {
        let running = || self.running_copy.as_ref().ok_or("this copy is starting and has no network yet");
        match command {
            Command::Status => return Ok(Some(Line::Snapshot(self.snapshot.clone()))),
            Command::Stop => self.running = None,
            Command::HandOver => {
                let (_, driver) = running()?;
                let answer = self.answer_later(controller, command.name());
                return tell(driver, driver::Command::HandOver(Box::new(answer)));
            }
            Command::Relieve { id } => {
                let (_, driver) = running()?;
                let answer = self.answer_later(controller, command.name());
                return tell(driver, driver::Command::Relieve(HostId(*id), Box::new(answer)));
            }
            Command::AddPeer { id, name, address } => {
                let (peers, _) = running()?;
                let name: HostName = name.parse().map_err(|error| format!("{error}"))?;
                if *id == self.snapshot.host {
                    return Err(format!("host {id} is this one"));
                }
                peers.add(HostId(*id), Peer { name, address: *address });
            }
        }
        Ok(Some(Line::Done { cmd: command.name().into() }))
    }

    /// What the driver gives its answer to.
    fn answer_later<E: Display>(
        &self,
        controller: u64,
        cmd: &str,
    ) -> impl FnOnce(Result<(), E>) + Send + use<E> {
        let (inbox, cmd) = (self.inbox.clone(), cmd.to_owned());
        move |outcome| {
            let line = match outcome {
                Ok(()) => Line::Done { cmd },
                Err(refused) => Line::Refused { cmd: Some(cmd), reason: refused.to_string() },
            };
            // Dropped only when reports pile up: who waits for the answer gives up after a while.
            let _ = inbox.try_send(Input::Answered(controller, line));
        }
    }

    fn answer(&mut self, id: u64, line: &Line) {
        if let Some(line) = text(line) {
            self.send(id, line);
        }
    }

    fn send(&mut self, id: u64, line: Arc<str>) {
        let Some(controller) = self.controllers.get(&id) else { return };
        if controller.lines.try_send(line).is_err() {
            self.dismiss(id);
        }
    }

    /// Ends a controller's connection, and with it its threads.
    fn dismiss(&mut self, id: u64) {
        if let Some(controller) = self.controllers.remove(&id) {
            let _ = controller.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Tells the driver what to do: it answers later.
fn tell(driver: &Sender<driver::Command>, command: driver::Command) -> Result<Option<Line>, String> {
    let told = driver.try_send(command);
    told.map(|()| None).map_err(|_| "this copy takes no commands at the moment".into())
}

fn text(line: &Line) -> Option<Arc<str>> {
    let mut text = serde_json::to_string(line).ok()?;
    text.push('\n');
    Some(text.into())
}

fn write_lines(mut stream: &UnixStream, lines: &Receiver<Arc<str>>, writing: Sender<()>) {
    for line in lines {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    drop(writing);
}

fn read_commands(id: u64, stream: &UnixStream, inbox: &Sender<Input>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stream).take(COMMAND_BYTES_MAX).read_until(b'\n', &mut line);
        if !matches!(read, Ok(len) if len > 0) || line.last() != Some(&b'\n') {
            let _ = inbox.send(Input::Left(id));
            return;
        }
        let command = serde_json::from_slice(&line).map_err(|error| format!("not a command: {error}"));
        if inbox.send(Input::Asked(id, command)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "control/tests.rs"]
mod tests;
