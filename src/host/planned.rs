//! Planned operations, step by step, as somebody who asks the agents: a host is emptied.
//!
//! Invariant: nothing is kept here. Whoever breaks an operation off leaves every VM running, and goes on by beginning it again.

use super::client::{Client, ClientError};
use super::message::{Answer, Description, HostStatus, Request, VmStatus, Why};
use crate::vm::control::Role;
use serde::Serialize;
use std::io;
use std::time::{Duration, Instant};

/// How often the agents are asked while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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

/// An answer that is none to what was asked.
pub fn unexpected(answer: &Answer) -> ClientError {
    ClientError::Answer(io::Error::other(format!("{answer:?}")))
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
    let id = describe(client, host)?.id;
    let mut drain = Drain { client, host, id, patience, say, moved: Vec::new(), left: Vec::new() };
    while let Some(vm) = drain.next()? {
        drain.move_away(vm)?;
    }
    Ok(Drained { moved: drain.moved, left: drain.left })
}

struct Drain<'a, S> {
    client: &'a mut Client,
    host: &'a str,
    id: u64,
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
                let request = Request::Switchover { vm: vm.to_owned() };
                let asked = self.client.ask(Some(self.host), request);
                refused(asked, "has changed roles")
            }
            Role::Live => {
                let why = match why(self.client, self.host, vm) {
                    Err(ClientError::Refused(reason)) => return Ok(Step::Refused(reason)),
                    why => why?,
                };
                Ok(match why.no_host {
                    true => Step::Stuck(format!("it is live here, without a second copy:\n{}", why.now)),
                    false => Step::Wait("is to be protected first".into()),
                })
            }
            Role::Following => self.make_anew(vm),
            _ => Ok(Step::Wait("its copy is about to be something else".into())),
        }
    }

    /// The copy on the host is a secondary.
    fn make_anew(&mut self, vm: &str) -> Result<Step, ClientError> {
        let Some((live, copy)) = live(self.client, vm)? else {
            return Ok(Step::Wait("is live on no host that answers".into()));
        };
        if !copy.copy.protected {
            return Ok(Step::Wait("is to be protected first".into()));
        }
        let why = match why(self.client, &live, vm) {
            Err(ClientError::Refused(reason)) => return Ok(Step::Refused(reason)),
            why => why?,
        };
        if why.now.chosen.is_none() {
            return Ok(Step::Stuck(format!("no other host can take its secondary:\n{}", why.now)));
        }
        (self.say)(&format!("{vm}: live on {live}, its secondary is made anew"));
        let asked = self.client.ask(Some(&live), Request::Relocate { vm: vm.to_owned(), from: self.id });
        refused(asked, "its secondary has ended")
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
fn refused(asked: Result<Answer, ClientError>, done: &str) -> Result<Step, ClientError> {
    match asked {
        Ok(_) => Ok(Step::Wait(done.into())),
        Err(ClientError::Refused(reason)) => Ok(Step::Refused(reason)),
        Err(error) => Err(error),
    }
}

fn describe(client: &mut Client, host: &str) -> Result<Description, ClientError> {
    match client.ask(Some(host), Request::Describe)? {
        Answer::Description(description) => Ok(*description),
        other => Err(unexpected(&other)),
    }
}
