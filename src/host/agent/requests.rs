//! What is asked of an agent, and what it answers.

use super::{Agent, Protect, Reply};
use crate::arbiter::OwnedTerm;
use crate::host::events::Kind;
use crate::host::message::{Answer, Request, Retire};
use crate::host::process::Begin;
use crate::vm::config::{Cluster, Host, VmFile};
use crate::vm::control::Command;
use std::net::SocketAddr;

impl Agent {
    /// Answers a request of the host `from`, or of somebody here.
    pub(super) fn handle_request(&mut self, from: Option<&str>, request: Request, reply: Reply) {
        let answer = match request {
            Request::Describe => Answer::Description(Box::new(self.description())),
            Request::List => Answer::Hosts { hosts: self.hosts() },
            Request::Status { vm } => self.status(&vm),
            Request::Events { since, .. } => Answer::Events { events: self.events.since(since) },
            Request::AddPeer { vm, peer } => {
                self.add_peer(&vm, peer).map_or_else(Answer::refused, |()| Answer::done())
            }
            Request::Seed { file, primary } => match self.seed(from, &file, primary) {
                Ok(name) => return self.await_address(&name, reply),
                Err(reason) => Answer::refused(reason),
            },
            Request::Switchover { vm } => return self.switch_over(&vm, reply),
            Request::Drain { draining } => {
                self.drain(draining).map_or_else(Answer::refused, |()| Answer::done())
            }
            Request::Relieve { vm, to } => {
                self.relieve(&vm, to).map_or_else(Answer::refused, |()| Answer::done())
            }
            Request::Kill { vm, pid } => {
                self.kill(&vm, pid).map_or_else(Answer::refused, |()| Answer::done())
            }
            Request::Why { vm } => self.why(&vm).map_or_else(Answer::refused, Answer::Why),
            Request::Retire { vm, end } => return self.retire(&vm, end, reply),
            Request::Discard { vm } => {
                self.discard(&vm);
                Answer::done()
            }
            // The rim takes these apart: they need the arbiter, or other hosts.
            Request::Protect { .. } | Request::Stop { .. } => {
                Answer::refused("this is asked of an agent's rim")
            }
        };
        // Whoever asked may not wait any more.
        let _ = reply.send(answer);
    }

    fn await_address(&mut self, name: &str, reply: Reply) {
        if let Some(vm) = self.vms.get_mut(name) {
            vm.await_address(reply);
        }
    }

    fn status(&self, name: &str) -> Answer {
        let mut hosts = self.hosts();
        for host in &mut hosts {
            if let Some(description) = &mut host.description {
                description.vms.retain(|vm| vm.name == name);
            }
        }
        hosts.retain(|host| host.description.as_ref().is_some_and(|description| !description.vms.is_empty()));
        if hosts.is_empty() {
            return Answer::refused(format!("no host has a VM {name:?}: see `ft list`"));
        }
        Answer::Hosts { hosts }
    }

    fn add_peer(&mut self, name: &str, peer: Host) -> Result<(), String> {
        let vm = self.vms.get(name).filter(|vm| vm.is_running());
        let vm = vm.ok_or_else(|| format!("no VM {name:?} runs on {}", self.file.name))?;
        vm.tell(Command::AddPeer { id: peer.id, name: peer.name, address: peer.address })
    }

    /// Starts the first copy of a VM here.
    pub(super) fn protect(&mut self, protect: Protect) -> Result<(), String> {
        let Protect { file, again, lost, last } = protect;
        let name = file.name.clone();
        self.check_elsewhere(&name)?;
        self.check_room(&file)?;
        self.check_wishes(&file)?;
        if let Some(OwnedTerm { term, owner, .. }) = last {
            if !again {
                return Err(format!(
                    "VM {name:?} has been live before: {} owns {term}. If all of its copies are over, start it from what is on \
                     its disks with --again",
                    self.host_name(owner.host.0)
                ));
            }
            // In a term of its own a copy that nobody can see would not notice that there is another.
            let unseen: Vec<&str> = self
                .peers
                .values()
                .filter(|peer| peer.down.is_some() && !lost.contains(&peer.name))
                .map(|peer| &*peer.name)
                .collect();
            if !unseen.is_empty() {
                return Err(format!(
                    "cannot see whether a copy of VM {name:?} still runs on {}: bring it back, or make sure that it is off and say so \
                     with --lost {}",
                    unseen.join(" and "),
                    unseen.join(" --lost ")
                ));
            }
        }
        self.start_copy(self.with_hosts(file, None), Begin::Primary).map(drop)
    }

    fn check_elsewhere(&self, name: &str) -> Result<(), String> {
        if self.vms.get(name).is_some_and(|vm| vm.is_running()) {
            return Err(format!("VM {name:?} runs here already: see `ft status {name}`"));
        }
        let has_it = |host: &crate::host::message::HostStatus| {
            let vms = host.description.iter().flat_map(|description| &description.vms);
            host.down.is_none() && vms.into_iter().any(|vm| vm.name == name && vm.running)
        };
        match self.hosts().into_iter().find(has_it) {
            Some(host) => Err(format!("VM {name:?} runs on {} already: see `ft status {name}`", host.name)),
            None => Ok(()),
        }
    }

    fn check_room(&self, file: &VmFile) -> Result<(), String> {
        let (own, free) = (&self.file.name, self.free());
        if self.is_draining() {
            return Err(format!("{own} is draining and takes no further copies: see `ft undrain`"));
        }
        if free.vms == 0 {
            return Err(format!("{own} has no room for another VM: raise capacity.vms in its file"));
        }
        if free.memory_mib < file.ram_mib {
            return Err(format!(
                "{own} has {} MiB of memory free, and the VM needs {}",
                free.memory_mib, file.ram_mib
            ));
        }
        Ok(())
    }

    pub(super) fn host_name(&self, id: u64) -> String {
        match self.peers.get(&id) {
            Some(peer) => peer.name.clone(),
            None if id == self.file.id => "this host".into(),
            None => format!("host {id}"),
        }
    }

    /// A VM's file as its process here reads it.
    fn with_hosts(&self, file: VmFile, primary: Option<Host>) -> VmFile {
        let own = &self.file;
        // The process chooses a port, and says which.
        let address = SocketAddr::new(own.vm_address, 0);
        let mut hosts = vec![Host { id: own.id, name: own.name.clone(), address }];
        hosts.extend(primary);
        let cluster = Cluster { arbiter: own.arbiter.clone(), credentials: own.credentials.clone(), hosts };
        VmFile { cluster: Some(cluster), ..file }
    }

    /// Starts a secondary here, unless it is the one that was asked for before; its name.
    fn seed(&mut self, from: Option<&str>, file: &str, primary: Host) -> Result<String, String> {
        if from.is_some_and(|from| from != primary.name) {
            return Err("only the host where a VM is live may have a secondary made".into());
        }
        let file = VmFile::from_text(file)?;
        let name = file.name.clone();
        if let Some(vm) = self.vms.get(&name).filter(|vm| vm.is_running()) {
            let hosts = vm.file.cluster.iter().flat_map(|cluster| &cluster.hosts);
            let is_of_it =
                hosts.into_iter().any(|host| host.id == primary.id && host.address == primary.address);
            if is_of_it && vm.copy.role.is_secondary() {
                return Ok(name);
            }
            return Err(format!("a copy of VM {name:?} still runs on {}", self.file.name));
        }
        self.check_room(&file)?;
        let begin = Begin::Secondary(primary.id);
        self.start_copy(self.with_hosts(file, Some(primary)), begin)?;
        Ok(name)
    }

    fn switch_over(&mut self, name: &str, reply: Reply) {
        match self.vms.get_mut(name).filter(|vm| vm.is_live()) {
            Some(vm) => vm.hand_over(reply),
            None => {
                let text = format!("VM {name:?} is not live on {}: see `ft status {name}`", self.file.name);
                let _ = reply.send(Answer::refused(text));
            }
        }
    }

    fn discard(&mut self, name: &str) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        // Whoever asks may be behind the times: a copy that others depend on stays.
        if vm.copy.role.is_secondary() && !vm.copy.protected {
            vm.stop();
        }
    }

    fn retire(&mut self, name: &str, end: Retire, reply: Reply) {
        let Some(vm) = self.vms.get_mut(name).filter(|vm| vm.is_running()) else {
            let _ = reply.send(Answer::done());
            return;
        };
        if !vm.meta.retired {
            vm.meta.retired = true;
            vm.save();
            self.events.add(Some(name), Kind::Stopping, "it is not made redundant any more");
        }
        let ends = match end {
            Retire::None => false,
            Retire::Followers => !vm.is_live(),
            Retire::All => true,
        };
        if ends {
            vm.stop();
            vm.await_end(reply);
        } else {
            let _ = reply.send(Answer::done());
        }
    }
}
