//! The host ends of a VM's devices: attached while this copy is live, and only then.
//!
//! Invariant: before [`Notice::Live`], and after [`Notice::Yielded`], nothing of the outside world is touched. Between them, what is released is carried out in order for each
//! device, and what comes back enters the machine as an event. A copy of a mirrored disk is no part of the outside: only this process sees it.

use super::disk::{Disk, Lease};
use super::entropy::Entropy;
use super::mirror::store::Store;
use super::report::{Report, Reporter};
use super::transfers::Transfers;
use crate::driver::{Backend, Status};
use crate::error::in_one_line;
use crate::lan::{Endpoint, LanError, Mac, Port};
use crate::recording::RecordingWriter;
use crossbeam::channel::{Sender, TrySendError};
use ft_core::Event;
use ft_core::effect::{Effect, EffectKind, Numbered};
use ft_core::frame::Frame;
use ft_core::replica::Notice;
use ft_core::units::{Instant, Term};
use ft_vmm::power::{Cause, PowerEvent};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use thiserror::Error;

/// What the ends are attached to.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The switch's socket, and the machine's address.
    pub net: Option<(PathBuf, [u8; 6])>,
    /// The disk.
    pub disk: Option<DiskEnd>,
}

impl Outside {
    /// This host's copy of a mirrored disk.
    pub fn mirror(&self) -> Option<Arc<Store>> {
        match &self.disk {
            Some(DiskEnd::Mirrored(store)) => Some(Arc::clone(store)),
            _ => None,
        }
    }
}

/// Where a disk is.
#[derive(Clone, Debug)]
pub enum DiskEnd {
    /// In a file that all hosts share: open while this copy is live.
    Shared(PathBuf),
    /// In a copy of its own, which lives as long as this process and is written by the machine itself while it is not live.
    Mirrored(Arc<Store>),
}

/// The host ends.
pub struct HostEnds {
    outside: Outside,
    events: Sender<Event>,
    reporter: Reporter,
    recording: Option<RecordingWriter>,
    attached: Attached,
    lease: Lease,
    /// The last term that the copy of a mirrored disk was told.
    stamped: Term,
    transfers: Transfers,
    /// Dropped when the machine is off: nothing is left to be run.
    running: Option<Sender<()>>,
    ending: Arc<OnceLock<Ending>>,
}

/// Why there is nothing left to be run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest turned the machine off.
    PowerOff,
    /// The guest's processor is shut down, and where.
    Crashed(String),
    /// This host cannot serve the machine, and why.
    Failed(String),
}

#[derive(Default)]
struct Attached {
    net: Option<Port>,
    disk: Option<Disk>,
    entropy: Option<Entropy>,
}

/// Why a device has no host end here.
#[derive(Debug, Error)]
enum AttachError {
    #[error("cannot open the disk {}", .0.display())]
    Disk(PathBuf, #[source] io::Error),
    #[error("cannot reach the switch at {}", .0.display())]
    Net(PathBuf, #[source] LanError),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl HostEnds {
    /// Ends that put what comes in into `events`, and drop `running` once the machine is off.
    pub fn new(
        outside: Outside,
        events: Sender<Event>,
        reporter: Reporter,
        recording: Option<RecordingWriter>,
        running: Sender<()>,
    ) -> Self {
        let (attached, lease, transfers, ending) = Default::default();
        let (stamped, running) = (Term(0), Some(running));
        Self { outside, events, reporter, recording, attached, lease, stamped, transfers, running, ending }
    }

    /// Reports what is seen there of state transfers.
    #[must_use]
    pub fn with_transfers(self, transfers: Transfers) -> Self {
        Self { transfers, ..self }
    }

    /// Where it will stand why there is nothing left to be run.
    pub fn ending(&self) -> Arc<OnceLock<Ending>> {
        Arc::clone(&self.ending)
    }

    fn end(&mut self, ending: Ending) {
        // The first reason is the reason.
        let _ = self.ending.set(ending);
        self.running = None;
    }

    fn attach(&mut self) -> Result<(), AttachError> {
        if let Some(DiskEnd::Shared(path)) = &self.outside.disk {
            let disk = Disk::open(path, self.lease.clone(), self.events.clone());
            self.attached.disk = Some(disk.map_err(|error| AttachError::Disk(path.clone(), error))?);
        }
        self.attached.entropy = Some(Entropy::start(self.events.clone()).map_err(AttachError::Thread)?);
        // Last: with the announcement, the machine's packets come here.
        if let Some((socket, mac)) = &self.outside.net {
            let port = Port::connect(Endpoint::Unix(socket.clone()));
            let port = port.map_err(|error| AttachError::Net(socket.clone(), error))?;
            hand_on(&port, self.events.clone()).map_err(AttachError::Thread)?;
            port.announce(Mac(*mac));
            self.attached.net = Some(port);
        }
        Ok(())
    }

    /// Has it written down that the copy of a mirrored disk is in step in `term`.
    fn stamp(&mut self, term: Term) {
        if let (Some(store), true) = (self.outside.mirror(), term > self.stamped) {
            store.stamp(term);
            self.stamped = term;
        }
    }

    /// The machine cannot be served here: this copy ends, and the other side takes over.
    fn give_up(&mut self, reason: String) {
        self.reporter.say(Report::Failed { reason: reason.clone() });
        self.end(Ending::Failed(reason));
    }

    fn handle_power(&mut self, payload: &[u8]) {
        let Some(event) = PowerEvent::decode(payload) else {
            tracing::error!(
                ?payload,
                "the machine said something of its power that this build does not know"
            );
            return;
        };
        self.reporter.say(Report::Guest(event.into()));
        // Where it goes on, that has happened inside, in both copies.
        if !event.goes_on {
            self.end(match event.cause {
                Cause::Crash => Ending::Crashed(format!("triple fault at {:#x}", event.rip)),
                Cause::Reset | Cause::PowerOff | Cause::Watchdog => Ending::PowerOff,
            });
        }
    }

    fn give_entropy(&self, effect: &Effect) {
        let asked = effect.payload.first_chunk().map_or(0, |len| u32::from_le_bytes(*len) as usize);
        if let Some(entropy) = &self.attached.entropy {
            entropy.ask(asked);
        }
    }
}

impl Backend for HostEnds {
    fn release(&mut self, Numbered { effect, .. }: Numbered) {
        match effect.kind {
            EffectKind::Net => {
                if let Some(port) = &self.attached.net {
                    port.send(&effect.payload);
                }
            }
            EffectKind::BlockRead | EffectKind::BlockWrite | EffectKind::BlockFlush => {
                if let Some(disk) = &self.attached.disk {
                    disk.submit(effect);
                } else if let Some(store) = self.outside.mirror() {
                    store.submit(effect);
                }
            }
            EffectKind::Console => {
                let text = String::from_utf8_lossy(&effect.payload).into_owned();
                self.reporter.say(Report::Console { device: effect.device, text });
            }
            EffectKind::EntropyRead => self.give_entropy(&effect),
            EffectKind::Power => self.handle_power(&effect.payload),
            EffectKind::Vendor(_) => {}
        }
    }

    fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Live(term) => {
                if let Some(store) = self.outside.mirror() {
                    store.set_live(true);
                }
                self.stamp(*term);
                if let Err(error) = self.attach() {
                    self.give_up(in_one_line(&error));
                }
            }
            Notice::Yielded(_) => {
                self.attached = Attached::default();
                if let Some(store) = self.outside.mirror() {
                    store.set_live(false);
                }
            }
            _ => {}
        }
        self.reporter.say(Report::from(notice));
    }

    fn lease(&mut self, end: Instant) {
        self.lease.renew(end);
    }

    fn status(&mut self, status: &Status) {
        if status.live || status.protected {
            self.stamp(status.term);
        }
        if let Some(reason) = self.outside.mirror().and_then(|store| store.failure().map(str::to_owned)) {
            self.give_up(reason);
        }
        self.reporter.say(Report::status(status, &self.transfers));
    }

    fn sealed(&mut self, frame: &Frame) {
        let Some(recording) = &mut self.recording else { return };
        if let Err(error) = recording.append(frame) {
            // A recording is worth less than the machine.
            let reason = in_one_line(&error);
            tracing::error!(%reason, "the recording ends here; the machine goes on");
            self.reporter.say(Report::RecordingFailed { reason });
            self.recording = None;
        }
    }
}

/// Hands on what comes from the switch, on a thread, until the port is dropped.
fn hand_on(port: &Port, events: Sender<Event>) -> io::Result<()> {
    let frames = port.frames().clone();
    let hand_on = move || {
        for frame in frames {
            // A full inbox drops the frame, as a full network card would.
            if let Err(TrySendError::Disconnected(_)) = events.try_send(Event::Net { device: 0, frame }) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("ft-net-in".into()).spawn(hand_on).map(drop)
}
