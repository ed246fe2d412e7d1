//! Moves one VM's copies to where an operator wants them, protected throughout, as somebody who asks the agents.
//!
//! Invariant: nothing is kept here. Whoever breaks a move off leaves the VM running and protected; its secondary may still arrive.

use super::client::{Client, ClientError};
use super::message::{HostStatus, Request, VmStatus};
use super::planned::{LOOK_EVERY, hosts, live, switch_over};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The VM is to be live there.
    Live,
    /// Only its second copy is to be there.
    Secondary,
}

/// Where a VM's copies are after a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Where it is live.
    pub live_on: String,
    /// Where its other copy is.
    pub secondary_on: String,
}

/// Moves a VM to a host: its live copy, then its other copy is where it was live; or only its second copy. `say` hears what is going on.
///
/// # Errors
/// [`ClientError`]; a refusal when the host cannot take a copy, when a copy or a host is lost meanwhile, or when `patience` runs out.
pub fn move_vm(
    client: &mut Client,
    vm: &str,
    (host, what): (&str, What),
    patience: Duration,
    say: impl FnMut(&str),
) -> Result<Moved, ClientError> {
    let all = hosts(client, None, Request::List)?;
    let Some(target) = all.iter().find(|it| it.name == host) else {
        let known: Vec<&str> = all.iter().map(|host| &*host.name).collect();
        return refuse(format!("{host} is no host of this cluster, which has {}", known.join(", ")));
    };
    if let Some(down) = &target.down {
        return refuse(format!("{host} does not answer: {down}"));
    }
    let Some((from, copy)) = live(client, vm)? else {
        return refuse(format!("VM {vm:?} is live on no host that answers: see `ft list`"));
    };
    let mut the_move =
        Move { client, vm, from, to: target.id, host, until: Instant::now() + patience, patience, say };
    the_move.check(what, &copy, target)?;
    if copy.copy.peer != Some(the_move.to) {
        the_move.move_secondary()?;
    }
    match what {
        What::Secondary => Ok(Moved { live_on: the_move.from, secondary_on: host.to_owned() }),
        What::Live => the_move.switch_over(),
    }
}

struct Move<'a, S> {
    client: &'a mut Client,
    vm: &'a str,
    /// Where the VM is live.
    from: String,
    to: u64,
    host: &'a str,
    until: Instant,
    patience: Duration,
    say: S,
}

impl<S: FnMut(&str)> Move<'_, S> {
    /// Whether there is anything to do that this could do.
    fn check(&self, what: What, copy: &VmStatus, target: &HostStatus) -> Result<(), ClientError> {
        let Self { vm, from, host, .. } = self;
        let is_draining = target.description.as_ref().is_some_and(|it| it.draining);
        match what {
            What::Live if from == host => refuse(format!("VM {vm:?} is live on {host} already")),
            What::Secondary if from == host => refuse(format!(
                "VM {vm:?} is live on {host}: to have its copies change places, say `ft switchover {vm}`"
            )),
            What::Secondary if copy.copy.peer == Some(self.to) && copy.copy.protected => {
                refuse(format!("the secondary of VM {vm:?} is on {host} already"))
            }
            _ if is_draining => refuse(format!(
                "{host} is draining: say `ft undrain {host}` first, if VM {vm:?} is to be there"
            )),
            _ if !copy.copy.protected => refuse(format!(
                "VM {vm:?} is not protected: it is moved once it is, see `ft status --why {vm}`"
            )),
            _ => Ok(()),
        }
    }

    /// Has the secondary move, and waits until it has.
    fn move_secondary(&mut self) -> Result<(), ClientError> {
        let Self { vm, to, .. } = *self;
        self.client.ask(Some(&self.from), Request::Relieve { vm: vm.to_owned(), to: Some(to) })?;
        (self.say)(&format!("live on {}, a second secondary is made on {}", self.from, self.host));
        loop {
            let copy = self.live_copy()?;
            if copy.copy.protected && copy.copy.peer == Some(to) {
                return Ok(());
            }
            match copy.moving {
                Some(moving) if moving.to == to => {
                    if let Some(why) = moving.failed {
                        return refuse(format!(
                            "the secondary of VM {vm:?} could not be moved to {}: {why}; the VM goes on as it is",
                            self.host
                        ));
                    }
                }
                // It has arrived, and the words that the VM is in step with it are on their way; or nobody knows of it any more.
                _ if copy.copy.peer == Some(to) => {}
                _ => {
                    return refuse(format!(
                        "the agent on {} knows of no move of VM {vm:?} any more; see `ft status {vm}`, and say it again",
                        self.from
                    ));
                }
            }
            self.wait("its secondary has not moved")?;
        }
    }

    /// Has the copies change roles, and waits until they are in step again.
    fn switch_over(mut self) -> Result<Moved, ClientError> {
        (self.say)(&format!("its copies change roles: {} is to be live", self.host));
        switch_over(self.client, &self.from, self.vm)?;
        let left = std::mem::replace(&mut self.from, self.host.to_owned());
        loop {
            if self.live_copy()?.copy.protected {
                return Ok(Moved { live_on: self.from, secondary_on: left });
            }
            self.wait("it is live there, and not protected yet")?;
        }
    }

    /// The copy on the host where the VM is live for all that this move has done.
    fn live_copy(&mut self) -> Result<VmStatus, ClientError> {
        loop {
            match live(self.client, self.vm)? {
                Some((host, copy)) if host == self.from => return Ok(copy),
                Some((host, _)) => {
                    let Self { vm, from, .. } = self;
                    return refuse(format!(
                        "the move is over: the live copy of VM {vm:?} on {from} was lost meanwhile, and the VM is live on {host}; see \
                         `ft status {vm}`"
                    ));
                }
                None => self.wait("it is live on no host that answers")?,
            }
        }
    }

    /// Pauses before the next look.
    fn wait(&self, state: &str) -> Result<(), ClientError> {
        if Instant::now() > self.until {
            let Self { vm, host, patience, .. } = self;
            let patience = patience.as_secs();
            return refuse(format!(
                "VM {vm:?} was not moved to {host} within {patience} s: {state}; see `ft status {vm}`"
            ));
        }
        std::thread::sleep(LOOK_EVERY);
        Ok(())
    }
}

fn refuse<T>(reason: String) -> Result<T, ClientError> {
    Err(ClientError::Refused(reason))
}
