//! Planned operations, step by step, as somebody who asks the agents: a host is emptied, a failover is tried.
//!
//! Invariant: nothing is kept here. Whoever breaks an operation off leaves every VM running, and goes on by beginning it again.

use super::client::{Client, ClientError};
use super::events::{Event, Kind};
use super::message::{Answer, Description, HostStatus, Moving, Request, VmStatus, Why};
use crate::vm::control::Role;
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};

/// How often the agents are asked while something is waited for.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long one question for events waits for the next.
const EVENT_WITHIN: Duration = Duration::from_secs(1);

/// Pause after a step that was refused.
const RETRY: Duration = Duration::from_secs(1);

/// What became of emptying a host.
#[derive(Clone, Debug, Serialize)]
pub struct Drained {
    /// VMs of which no copy is there any more.
    pub moved: Vec<String>,
    /// Those that could not be moved.
    pub left: Vec<Left>,
}

/// A VM that could not be moved.
#[derive(Clone, Debug, Serialize)]
pub struct Left {
    /// The VM.
    pub vm: String,
    /// Why not.
    pub why: String,
}

/// What became of a failover that was tried. Times begin when the process is killed, and end when the word of the agents arrives here.
#[derive(Clone, Debug, Serialize)]
pub struct Failover {
    /// The host where the live copy was killed.
    pub killed_on: String,
    /// Its process.
    pub pid: u32,
    /// Where the VM is live since.
    pub live_on: String,
    /// How soon it was.
    pub live_after_ms: u64,
    /// Where its new secondary is, if that is known.
    pub secondary_on: Option<String>,
    /// How soon it was protected again.
    pub protected_after_ms: u64,
}

/// How far the copy of a VM on a host is from being gone.
enum Step {
    /// It is gone, and the VM is protected elsewhere, or over.
    Done,
    /// Something is waited for.
    Wait(String),
    /// Something was asked for and refused; it may work later.
    Refused(String),
    /// It cannot be moved.
    Stuck(String),
}

/// All hosts, as the agent that is asked knows them.
///
/// # Errors
/// [`ClientError`].
pub fn hosts(
    client: &mut Client,
    on: Option<&str>,
    request: Request,
) -> Result<Vec<HostStatus>, ClientError> {
    match client.ask(on, request)? {
        Answer::Hosts { hosts } => Ok(hosts),
        other => Err(unexpected(&other)),
    }
}

/// All copies of a VM, with the names of the hosts that they are on.
///
/// # Errors
/// [`ClientError`].
pub fn copies(
    client: &mut Client,
    on: Option<&str>,
    vm: &str,
) -> Result<Vec<(String, VmStatus)>, ClientError> {
    let hosts = hosts(client, on, Request::Status { vm: vm.to_owned() })?;
    let of = |host: HostStatus| {
        let vms = host.description.into_iter().flat_map(|description| description.vms);
        vms.map(move |vm| (host.name.clone(), vm)).collect::<Vec<_>>()
    };
    Ok(hosts.into_iter().flat_map(of).collect())
}

/// Where a VM is live, if it is anywhere, and its copy there.
///
/// # Errors
/// [`ClientError`].
pub fn live(client: &mut Client, vm: &str) -> Result<Option<(String, VmStatus)>, ClientError> {
    Ok(copies(client, None, vm)?.into_iter().find(|(_, copy)| copy.is_live()))
}

/// Why the next copy of a VM, which is live on `host`, is made where it is.
///
/// # Errors
/// [`ClientError`].
pub fn why(client: &mut Client, host: &str, vm: &str) -> Result<Why, ClientError> {
    match client.ask(Some(host), Request::Why { vm: vm.to_owned() })? {
        Answer::Why(why) => Ok(why),
        other => Err(unexpected(&other)),
    }
}

/// Has the live copy of a VM, which is on `host`, change roles with its secondary: the number of the host where it is live then.
///
/// # Errors
/// [`ClientError`].
pub fn switch_over(client: &mut Client, host: &str, vm: &str) -> Result<u64, ClientError> {
    match client.ask(Some(host), Request::Switchover { vm: vm.to_owned() })? {
        Answer::Live { host } => Ok(host),
        other => Err(unexpected(&other)),
    }
}

/// An answer that is none to what was asked.
pub fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Answer(io::Error::other(format!("{answer:?}")))
}

/// Kills the live copy of a VM, and waits until it is live elsewhere and protected again.
///
/// # Errors
/// [`ClientError`]; a refusal when it is not protected, or when `patience` runs out.
pub fn try_failover(client: &mut Client, vm: &str, patience: Duration) -> Result<Failover, ClientError> {
    let refuse = |reason| Err(ClientError::Refused(reason));
    let Some((from, copy)) = live(client, vm)? else {
        return refuse(format!("VM {vm:?} is live on no host that answers: see `ft list`"));
    };
    let to = copy.copy.peer.filter(|_| copy.copy.protected);
    let to = to.and_then(|to| {
        Some(hosts(client, None, Request::List).ok()?.into_iter().find(|it| it.id == to)?.name)
    });
    let Some(to) = to else {
        return refuse(format!(
            "VM {vm:?} is not protected, so that nobody could take over: see `ft status --why {vm}`"
        ));
    };
    let mut heir = Heir { on: &to, vm, since: 0, began: Instant::now(), patience };
    heir.news(client, Duration::ZERO)?;
    heir.began = Instant::now();
    let pid = copy.copy.pid;
    client.ask(Some(&from), Request::Kill { vm: vm.to_owned(), pid })?;
    let live_after_ms = heir.wait_for(client, Kind::Live)?;
    let protected_after_ms = heir.wait_for(client, Kind::Protected)?;
    // Asked of the heir's own agent: what the others know of it may be of a moment ago.
    let heirs = copies(client, Some(&to), vm)?.into_iter().find(|(host, _)| *host == to);
    let peer = heirs.and_then(|(_, copy)| copy.copy.peer);
    let secondary = hosts(client, None, Request::List)?.into_iter().find(|host| Some(host.id) == peer);
    let secondary_on = secondary.map(|host| host.name);
    Ok(Failover { killed_on: from, pid, live_on: to, live_after_ms, secondary_on, protected_after_ms })
}

/// The host that takes over.
struct Heir<'a> {
    on: &'a str,
    vm: &'a str,
    /// The last of its events that was heard.
    since: u64,
    began: Instant,
    patience: Duration,
}

impl Heir<'_> {
    /// What has happened there to the VM since it was last asked.
    fn news(&mut self, client: &mut Client, wait: Duration) -> Result<Vec<Event>, ClientError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        match client.ask(Some(self.on), Request::Events { since: self.since, wait_ms })? {
            Answer::Events { mut events } => {
                self.since = events.last().map_or(self.since, |event| event.seq);
                events.retain(|event| event.vm.as_deref() == Some(self.vm));
                Ok(events)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// After how many milliseconds it happened.
    fn wait_for(&mut self, client: &mut Client, kind: Kind) -> Result<u64, ClientError> {
        loop {
            let since = self.since;
            let events = self.news(client, EVENT_WITHIN)?;
            let elapsed = self.began.elapsed();
            if let Some(event) = events.into_iter().find(|event| event.kind == kind) {
                // What came with it is heard again: the next that is waited for may be among it.
                self.since = event.seq.max(since);
                return Ok(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            }
            if elapsed > self.patience {
                let (on, vm, patience) = (self.on, self.vm, self.patience.as_secs());
                return Err(ClientError::Refused(format!(
                    "the live copy was killed, and {on} has not said that VM {vm:?} is {} within {patience} s: see `ft status {vm}`",
                    if kind == Kind::Live { "live there" } else { "protected again" }
                )));
            }
        }
    }
}

/// Empties a host: it takes no further copies, and those that it has are moved, one after the other. `say` hears what is going on.
///
/// # Errors
/// [`ClientError`], when an agent cannot be asked. What was moved stays so.
pub fn drain(
    client: &mut Client,
    host: &str,
    patience: Duration,
    say: impl FnMut(&str),
) -> Result<Drained, ClientError> {
    client.ask(Some(host), Request::Drain { draining: true })?;
    let mut drain = Drain { client, host, patience, say, moved: Vec::new(), left: Vec::new() };
    while let Some(vm) = drain.next()? {
        drain.move_away(vm)?;
    }
    Ok(Drained { moved: drain.moved, left: drain.left })
}

struct Drain<'a, S> {
    client: &'a mut Client,
    host: &'a str,
    patience: Duration,
    say: S,
    moved: Vec<String>,
    left: Vec<Left>,
}

impl<S: FnMut(&str)> Drain<'_, S> {
    /// A VM that still runs there.
    fn next(&mut self) -> Result<Option<String>, ClientError> {
        let vms = describe(self.client, self.host)?.vms;
        let is_left = |vm: &VmStatus| self.left.iter().any(|left| left.vm == vm.name);
        Ok(vms.into_iter().find(|vm| vm.running && !is_left(vm)).map(|vm| vm.name))
    }

    fn move_away(&mut self, vm: String) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.patience;
        let mut said = String::new();
        loop {
            let (text, pause) = match self.step(&vm)? {
                Step::Done => {
                    (self.say)(&format!("{vm}: has left {}", self.host));
                    self.moved.push(vm);
                    return Ok(());
                }
                Step::Stuck(why) => {
                    self.left.push(Left { vm, why });
                    return Ok(());
                }
                Step::Wait(what) => (what, LOOK_EVERY),
                Step::Refused(why) => (why, RETRY),
            };
            if said != text {
                (self.say)(&format!("{vm}: {text}"));
                said = text;
            }
            if Instant::now() > deadline {
                let why = format!("not moved within {} s: {said}", self.patience.as_secs());
                self.left.push(Left { vm, why });
                return Ok(());
            }
            std::thread::sleep(pause);
        }
    }

    /// Looks how things stand, and asks for what is next.
    fn step(&mut self, vm: &str) -> Result<Step, ClientError> {
        let here = describe(self.client, self.host)?.vms.into_iter().find(|it| it.name == vm && it.running);
        let Some(here) = here else { return self.elsewhere(vm) };
        match here.copy.role {
            Role::Live if here.copy.protected => {
                (self.say)(&format!("{vm}: its copies change roles"));
                let asked = switch_over(self.client, self.host, vm);
                refused(asked, "has changed roles")
            }
            Role::Live => {
                let why = match unless_refused(why(self.client, self.host, vm))? {
                    Ok(why) => why,
                    Err(reason) => return Ok(Step::Refused(reason)),
                };
                Ok(match why.no_host {
                    true => Step::Stuck(format!("it is live here, without a second copy:\n{}", why.now)),
                    false => Step::Wait("is to be protected first".into()),
                })
            }
            Role::Following => self.relieve(vm),
            _ => Ok(Step::Wait("its copy is about to be something else".into())),
        }
    }

    /// The copy on the host is a secondary.
    fn relieve(&mut self, vm: &str) -> Result<Step, ClientError> {
        let Some((live, copy)) = live(self.client, vm)? else {
            return Ok(Step::Wait("is live on no host that answers".into()));
        };
        if !copy.copy.protected {
            return Ok(Step::Wait("is to be protected first".into()));
        }
        match copy.moving {
            Some(Moving { to, failed: None }) => {
                return Ok(Step::Wait(format!("live on {live}, its secondary moves to host {to}")));
            }
            // It stays where it is, and is moved to another host, if there is one.
            Some(Moving { failed: Some(why), .. }) => (self.say)(&format!("{vm}: {why}")),
            None => {}
        }
        let why = match unless_refused(why(self.client, &live, vm))? {
            Ok(why) => why,
            Err(reason) => return Ok(Step::Refused(reason)),
        };
        if why.now.chosen.is_none() {
            return Ok(Step::Stuck(format!("no other host can take its secondary:\n{}", why.now)));
        }
        let asked = self.client.ask(Some(&live), Request::Relieve { vm: vm.to_owned(), to: None });
        refused(asked, "another secondary is made, to relieve the one here")
    }

    /// Nothing of the VM runs on the host: the next is not touched before this one is protected.
    fn elsewhere(&mut self, vm: &str) -> Result<Step, ClientError> {
        let copies = copies(self.client, None, vm)?;
        let Some((live, copy)) = copies.iter().find(|(_, copy)| copy.is_live()) else {
            return Ok(match copies.iter().any(|(_, copy)| copy.running) {
                true => Step::Wait("is about to be live".into()),
                false => Step::Done,
            });
        };
        Ok(match &copy.respawn {
            // Whoever stops it wants no other copy.
            _ if copy.copy.protected || copy.retired => Step::Done,
            Some(_) => Step::Wait(format!("live on {live}, not protected yet")),
            None => Step::Wait(format!("live on {live}")),
        })
    }
}

/// What it means that a step was taken or refused.
fn refused<T>(asked: Result<T, ClientError>, done: &str) -> Result<Step, ClientError> {
    Ok(match unless_refused(asked)? {
        Ok(_) => Step::Wait(done.into()),
        Err(reason) => Step::Refused(reason),
    })
}

/// What came of a question, or why it was refused: that may be otherwise in a moment, and is no failure.
fn unless_refused<T>(asked: Result<T, ClientError>) -> Result<Result<T, String>, ClientError> {
    match asked {
        Ok(answer) => Ok(Ok(answer)),
        Err(ClientError::Refused(reason)) => Ok(Err(reason)),
        Err(error) => Err(error),
    }
}

fn describe(client: &mut Client, host: &str) -> Result<Description, ClientError> {
    match client.ask(Some(host), Request::Describe)? {
        Answer::Description(description) => Ok(*description),
        other => Err(unexpected(&other)),
    }
}
