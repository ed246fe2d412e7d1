//! A copy of a VM on this host: its process, its files, and who waits for it.

use super::guest::{Supervision, is_fault};
use super::relief::Relief;
use super::respawn::Respawn;
use super::{Agent, Reply, process_at};
use crate::host::events::Kind;
use crate::host::message::{Answer, Ended, VmStatus};
use crate::host::process::{self, Begin, Process};
use crate::host::rim::Rim;
use crate::host::state::{Meta, VmDir};
use crate::host::telemetry;
use crate::vm::config::VmFile;
use crate::vm::control::{Command, Line, Role, Snapshot};
use crate::vm::report::Report;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How long a process may take to listen, and to end, before whoever waits for it is told that it did not.
const LISTEN_WITHIN: Duration = Duration::from_secs(15);
const END_WITHIN: Duration = Duration::from_secs(15);

/// How long a change of roles may take before whoever asked for it is told to look later.
const HANDOVER_WITHIN: Duration = Duration::from_secs(10);

/// A secondary that no primary has taken in by then ends: whoever had it made has given it up before, or is gone.
const WELCOME_WITHIN: Duration = Duration::from_secs(360);

/// A process that does not end when told to is sent SIGTERM after this long, and SIGKILL after twice as long.
const FORCE_AFTER: Duration = Duration::from_secs(4);

/// A copy.
pub(super) struct Vm {
    pub(super) file: VmFile,
    pub(super) dir: VmDir,
    pub(super) meta: Meta,
    pub(super) copy: Snapshot,
    pub(super) respawn: Respawn,
    /// The last secondary that was made to relieve another.
    pub(super) relief: Option<Relief>,
    pub(super) guest: Supervision,
    process: Option<Process>,
    life: u64,
    commands: Option<mpsc::Sender<Command>>,
    waiting: Vec<Waiting>,
    /// When it was told to end, and the last signal that it was sent since.
    stopping: Option<(Instant, Option<Signal>)>,
}

/// Somebody who waits for a copy.
struct Waiting {
    what: Awaited,
    reply: Reply,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Address,
    End,
    /// That it has handed the machine over and follows.
    Handover,
}

impl Vm {
    pub(super) fn new(file: VmFile, dir: VmDir, meta: Meta) -> Self {
        let copy = Snapshot { vm: file.name.clone(), ..Snapshot::default() };
        let (respawn, guest, waiting) = Default::default();
        let (relief, process, commands, stopping) = (None, None, None, None);
        Self { file, dir, meta, copy, respawn, relief, guest, process, life: 0, commands, waiting, stopping }
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it is live, and another copy may be made.
    pub(super) fn wants_another(&self) -> bool {
        self.is_running() && self.copy.role == Role::Live && self.copy.solo && !self.meta.retired
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_running() && self.copy.role == Role::Live
    }

    pub(super) fn status(&self) -> VmStatus {
        VmStatus {
            name: self.file.name.clone(),
            memory_mib: self.file.ram_mib,
            began: self.meta.began,
            running: self.is_running(),
            copy: self.copy.clone(),
            ended: self.meta.ended.clone(),
            apart_from: self.file.placement.apart_from.clone(),
            retired: self.meta.retired,
            respawn: self.wants_another().then(|| self.respawn.describe()),
            moving: self.relief.as_ref().map(Relief::status),
        }
    }

    /// Finds the process that was written down, or the one at the socket.
    pub(super) fn find(&mut self) -> bool {
        if self.meta.ended.is_none() {
            let id = self.meta.process.clone().or_else(|| process_at(&self.dir.socket()));
            self.process = id.as_ref().and_then(Process::find);
            self.meta.process = id;
            self.respawn = Respawn::found();
        }
        self.is_running()
    }

    /// Starts its process.
    fn start(&mut self, program: &std::path::Path, host: u64, begin: Begin) -> Result<(), String> {
        let text =
            toml::to_string(&self.file).map_err(|error| format!("cannot write the VM's file: {error}"))?;
        let failed =
            |doing: &str, error: std::io::Error| format!("cannot {doing} of VM {}: {error}", self.file.name);
        self.dir.begin(&text, &self.meta).map_err(|error| failed("write the files", error))?;
        let process = Process::start(program, &self.dir, host, begin);
        let process = process.map_err(|error| failed("start the process", error))?;
        self.meta.process = Some(process.id.clone());
        self.process = Some(process);
        self.save();
        Ok(())
    }

    /// Listens to its process.
    pub(super) fn watch(&mut self, rim: &Rim, life: u64) {
        self.life = life;
        self.commands = Some(rim.watch(&self.file.name, life, self.dir.socket()));
    }

    pub(super) fn save(&self) {
        if let Err(error) = self.dir.save(&self.meta) {
            tracing::error!(vm = self.file.name, %error, "cannot write down what a copy is");
        }
    }

    pub(super) fn tell(&self, command: Command) -> Result<(), String> {
        let sent = self.commands.as_ref().and_then(|commands| commands.try_send(command).ok());
        sent.ok_or_else(|| format!("the process of VM {} does not take commands", self.file.name))
    }

    /// Begins to end it.
    pub(super) fn stop(&mut self) {
        if self.is_running() && self.stopping.is_none() {
            self.stopping = Some((Instant::now(), None));
            // Otherwise a signal will do it.
            let _ = self.tell(Command::Stop);
        }
    }

    /// Ends it as the loss of its host would.
    pub(super) fn kill(&self) {
        self.process.iter().for_each(|process| process.signal(Signal::SIGKILL));
    }

    pub(super) fn await_end(&mut self, reply: Reply) {
        self.wait(Awaited::End, reply, END_WITHIN);
    }

    /// Begins to hand the machine over, and answers when another copy has it.
    pub(super) fn hand_over(&mut self, reply: Reply) {
        match self.tell(Command::HandOver) {
            Ok(()) => self.wait(Awaited::Handover, reply, HANDOVER_WITHIN),
            Err(why) => drop(reply.send(Answer::refused(why))),
        }
    }

    /// The machine is not handed over.
    fn refuse_handover(&mut self, why: &str) {
        for Waiting { what, reply, until } in std::mem::take(&mut self.waiting) {
            match what {
                Awaited::Handover => drop(reply.send(Answer::refused(why))),
                _ => self.waiting.push(Waiting { what, reply, until }),
            }
        }
    }

    /// Answers with the address where it listens.
    pub(super) fn await_address(&mut self, reply: Reply) {
        self.wait(Awaited::Address, reply, LISTEN_WITHIN);
        self.settle(Instant::now());
    }

    fn wait(&mut self, what: Awaited, reply: Reply, within: Duration) {
        self.waiting.push(Waiting { what, reply, until: Instant::now() + within });
    }

    /// Answers those whose wait is over.
    fn settle(&mut self, now: Instant) {
        let (running, address) = (self.is_running(), self.copy.address.filter(|_| self.is_running()));
        for Waiting { what, reply, until } in std::mem::take(&mut self.waiting) {
            let answer = match (what, address) {
                (Awaited::Address, Some(address)) => Answer::Seeded { address },
                (Awaited::Address, None) if !running => Answer::refused(format!(
                    "the copy {}",
                    self.meta.ended.as_ref().map(describe).unwrap_or_default()
                )),
                (Awaited::End, _) if !running => Answer::done(),
                (Awaited::Handover, _) if self.copy.role == Role::Following => {
                    Answer::Live { host: self.copy.peer.unwrap_or_default() }
                }
                (Awaited::Handover, _) if !running || now > until => Answer::refused(
                    "the change of roles has begun and has not come to an end yet: see `ft status`",
                ),
                (Awaited::Address, None) if now > until => {
                    Answer::refused(format!("the copy did not listen within {LISTEN_WITHIN:?}"))
                }
                (Awaited::End, _) if now > until => {
                    Answer::refused(format!("the copy did not end within {END_WITHIN:?}"))
                }
                _ => {
                    self.waiting.push(Waiting { what, reply, until });
                    continue;
                }
            };
            // Whoever asked may not wait any more.
            let _ = reply.send(answer);
        }
    }

    /// Takes note that its process has ended, if it has and that is news: how.
    pub(super) fn note_end(&mut self) -> Option<String> {
        if self.meta.ended.is_some() {
            return None;
        }
        let ended = match &mut self.process {
            Some(process) => process.ended(&self.dir)?,
            None => Ended {
                at: process::now(),
                how: "ended while no agent was there to see it".into(),
                words: process::last_words(&self.dir),
            },
        };
        let text = describe(&ended);
        (self.process, self.commands, self.stopping) = (None, None, None);
        self.meta.process = None;
        self.meta.ended = Some(ended);
        self.save();
        Some(text)
    }

    /// Whether it waits for a primary in vain: by itself it would wait for ever.
    fn is_forgotten(&self) -> bool {
        let is_secondary = self.file.cluster.as_ref().is_some_and(|cluster| cluster.hosts.len() > 1);
        let age = process::now().saturating_sub(self.meta.began);
        is_secondary && self.copy.role == Role::Starting && age > WELCOME_WITHIN.as_secs()
    }

    /// Sends the signal that is due to a process that does not end.
    fn force(&mut self, now: Instant) {
        let (Some((since, sent)), Some(process)) = (&mut self.stopping, &self.process) else { return };
        let due = match now.duration_since(*since) {
            waited if waited > FORCE_AFTER * 2 => Some(Signal::SIGKILL),
            waited if waited > FORCE_AFTER => Some(Signal::SIGTERM),
            _ => None,
        };
        if due != *sent {
            *sent = due;
            due.into_iter().for_each(|signal| process.signal(signal));
        }
    }
}

fn describe(ended: &Ended) -> String {
    match ended.words.last() {
        Some(word) => format!("{}: {word}", ended.how),
        None => ended.how.clone(),
    }
}

impl Agent {
    /// Starts a copy here, in place of what is left of an earlier one.
    pub(super) fn start_copy(&mut self, file: VmFile, begin: Begin) -> Result<&mut Vm, String> {
        let name = file.name.clone();
        let dir = self.state.vm(&name)?;
        let meta = Meta { began: process::now(), process: None, ended: None, retired: false };
        let mut vm = Vm::new(file, dir, meta);
        vm.start(&self.program, self.file.id, begin)?;
        self.lives += 1;
        vm.watch(&self.rim, self.lives);
        let text = match begin {
            Begin::Primary => "as its first copy".to_owned(),
            Begin::Secondary(primary) => format!("as a copy of the one on host {primary}"),
        };
        self.events.add(Some(&name), Kind::Started, text);
        self.vms.insert(name.clone(), vm);
        Ok(self.vms.get_mut(&name).expect("inserted above"))
    }

    /// Looks whether the process of a copy has ended, and who has waited long enough.
    pub(super) fn look_after(&mut self, name: &str, now: Instant) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        if vm.is_running() {
            if vm.is_forgotten() {
                vm.stop();
            }
            vm.force(now);
            if let Some(text) = vm.note_end() {
                self.events.add(Some(name), Kind::Ended, text);
            }
        }
        vm.settle(now);
    }

    /// Takes in what the process of a copy said.
    pub(super) fn handle_line(&mut self, name: &str, life: u64, line: Line) {
        let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.life == life && vm.is_running()) else { return };
        let now = Instant::now();
        match line {
            Line::Snapshot(snapshot) => vm.copy = snapshot,
            Line::Report(report) => {
                let (was, other) = (vm.copy.role, vm.copy.peer);
                vm.copy.take_in(&report);
                if let Some(kind) = kind(&report) {
                    self.events.add(Some(name), kind, report.words().unwrap_or_default());
                }
                if let Report::HandoverFailed { reason } = &report {
                    vm.refuse_handover(reason);
                }
                if matches!(report, Report::Live { .. }) && was == Role::Promoting {
                    telemetry::count_failover();
                }
                vm.guest.hear(&report, vm.copy.solo, now);
                if let (Report::Solo { .. }, Some(lost)) = (&report, other) {
                    vm.respawn.note_lost(lost, now);
                }
                if let Report::Guest(guest) = &report
                    && is_fault(guest)
                {
                    self.handle_restart(name, guest, now);
                }
            }
            Line::Done { cmd } if cmd == "relieve" => self.handle_announced(name, Ok(())),
            Line::Done { .. } => {}
            Line::Refused { cmd, reason } => {
                match cmd.as_deref() {
                    Some("hand_over") => vm.refuse_handover(&reason),
                    Some("relieve") => self.handle_announced(name, Err(&reason)),
                    _ => {}
                }
                self.events.add(Some(name), Kind::Notice, reason);
            }
        }
        if let Some(vm) = self.vms.get_mut(name) {
            vm.settle(now);
        }
        self.respawn(name, now);
    }
}

/// The kind of event that a report is; `None` for none.
fn kind(report: &Report) -> Option<Kind> {
    Some(match report {
        Report::Live { .. } => Kind::Live,
        Report::Protected { .. } => Kind::Protected,
        Report::Solo { .. } => Kind::Solo,
        Report::Following { .. } => Kind::Following,
        Report::Promoting { .. } => Kind::Promoting,
        Report::Guest(guest) if is_fault(guest) => Kind::GuestRestarted,
        Report::Listening { .. } | Report::Console { .. } | Report::Status { .. } => return None,
        _ => Kind::Notice,
    })
}
