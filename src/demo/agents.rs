//! A cluster of real agents on one machine: a process `ft host` for each host, and a VM that they protect.
//!
//! Invariant: every process that was started, and every one that the agents started, is ended by its own id when [`Agents`] is dropped.
//! VM processes are known by the directory that is theirs alone.

mod files;
mod wires;

pub use files::AgentsConfig;
pub use wires::{Wires, WiresError};

use super::config::HostsError;
use super::hosts::io_error;
use crate::host::client::Client;
use crate::host::events::Event;
use crate::host::message::{Answer, Description, HostStatus, Request, VmStatus};
use crate::lan::{Notice, Switch};
use crate::vm::config::{RECORD_VARIABLE, VmFile};
use crate::vm::control::Role;
use crossbeam::channel::RecvTimeoutError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long killed processes may take to be gone.
const END: Duration = Duration::from_secs(10);

/// How often it is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The cluster. Hosts are numbered from 1.
pub struct Agents {
    config: AgentsConfig,
    /// What hosts run that have another program than the others.
    programs: BTreeMap<u64, PathBuf>,
    running: BTreeMap<u64, Child>,
    service: SocketAddr,
    switch: Switch,
}

impl Agents {
    /// Sets everything up, starts all agents, and waits until they see each other. What the LAN says is told to `notice`, on a thread
    /// that must not be kept waiting.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn start(
        config: AgentsConfig,
        notice: impl FnMut(Notice) + Send + 'static,
    ) -> Result<Self, HostsError> {
        let switch = files::switch(&config, notice)?;
        let service = switch.forward_addresses()[0];
        files::write(&config)?;
        let (programs, running) = (BTreeMap::new(), BTreeMap::new());
        let mut agents = Self { config, programs, running, service, switch };
        for id in agents.hosts() {
            agents.start_agent(id)?;
        }
        agents.wait_until("agents that see each other", |agents| {
            agents.hosts().all(|id| agents.hosts().all(|other| agents.sees(id, other)))
        })?;
        Ok(agents)
    }

    /// The numbers of all hosts.
    pub fn hosts(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.config.hosts
    }

    /// What the cluster was told at its start.
    pub fn config(&self) -> &AgentsConfig {
        &self.config
    }

    /// Where clients reach the guest's service.
    pub fn service(&self) -> SocketAddr {
        self.service
    }

    /// The LAN.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The state directory of a host's agent.
    pub fn state(&self, host: u64) -> PathBuf {
        self.config.dir.join(files::state(host))
    }

    /// The socket at which the VM's process on a host can be talked to, while there is one.
    pub fn control_socket(&self, host: u64) -> PathBuf {
        self.vm_dir(host).join("control.sock")
    }

    /// What keeps the namespaces of hosts apart, where they have some.
    pub fn wires(&self) -> Option<&Wires> {
        self.config.wires.as_ref()
    }

    fn vm_dir(&self, host: u64) -> PathBuf {
        self.state(host).join("vms").join(&self.config.vm)
    }

    /// Whether the agent of a host has been started and was not killed.
    pub fn has_agent(&self, host: u64) -> bool {
        self.running.contains_key(&host)
    }

    /// Starts a host's agent, and waits until it answers.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn start_agent(&mut self, host: u64) -> Result<(), HostsError> {
        self.spawn_agent(host)?;
        self.wait_until(&format!("an answer of the agent of host {host}"), |agents| {
            agents.describe(host).is_some()
        })
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn spawn_agent(&mut self, host: u64) -> Result<(), HostsError> {
        let doing = || format!("start the agent of host {host}");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.agent_log(host));
        let log = log.map_err(|source| io_error(doing(), source))?;
        let program = self.programs.get(&host).unwrap_or(&self.config.program);
        let mut command = match &self.config.wires {
            Some(wires) => wires.command(host, program),
            None => Command::new(program),
        };
        let record = self.config.record.iter().map(|file| (RECORD_VARIABLE, file));
        let agent = command
            .envs(record)
            .args(["host", &files::host_file(host)])
            .current_dir(&self.config.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|source| io_error(doing(), source))?;
        self.running.insert(host, agent);
        Ok(())
    }

    /// From the next start of its agent on, a host runs another program.
    pub fn set_program(&mut self, host: u64, program: PathBuf) {
        self.programs.insert(host, program);
    }

    /// Kills a host's agent; its VM goes on.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn kill_agent(&mut self, host: u64) -> Result<(), HostsError> {
        let Some(mut agent) = self.running.remove(&host) else { return Ok(()) };
        let killed = agent.kill().and_then(|()| agent.wait());
        killed.map(drop).map_err(|source| io_error(format!("kill the agent of host {host}"), source))
    }

    /// Kills whatever runs on a host: what the loss of the host would end. All of it has ended when this returns.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn kill_host(&mut self, host: u64) -> Result<(), HostsError> {
        let copy = self.vm_of(host);
        // Both at once, so that neither speaks of the other's end; then both are waited for.
        for pid in self.running.get(&host).map(Child::id).into_iter().chain(copy) {
            send(pid, Signal::SIGKILL)
                .map_err(|error| io_error(format!("kill host {host}"), error.into()))?;
        }
        self.kill_agent(host)?;
        self.wait_until(&format!("the end of host {host}"), |agents| agents.vm_of(host).is_none())
    }

    /// Signals the VM's process on a host, if there is one; its number. One that is killed has ended when this returns.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn signal_vm(&self, host: u64, signal: Signal) -> Result<Option<u32>, HostsError> {
        let Some(pid) = self.vm_of(host) else { return Ok(None) };
        send(pid, signal).map_err(|error| io_error(format!("signal the VM on host {host}"), error.into()))?;
        if signal == Signal::SIGKILL {
            let ended = format!("the end of the VM's process on host {host}");
            self.wait_until(&ended, |agents| agents.vm_of(host) != Some(pid))?;
        }
        Ok(Some(pid))
    }

    /// The VM's process on a host, if one runs.
    pub fn vm_of(&self, host: u64) -> Option<u32> {
        processes_in(&self.vm_dir(host)).pop()
    }

    /// The VM's processes by host.
    pub fn vms(&self) -> BTreeMap<u64, u32> {
        self.hosts().filter_map(|host| Some((host, self.vm_of(host)?))).collect()
    }

    /// Has the VM started on a host, and kept protected from then on.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn protect(&self, host: u64) -> Result<(), HostsError> {
        let file = VmFile::read(&self.config.dir.join(files::VM_FILE))?;
        let file = toml::to_string(&file).map_err(std::io::Error::other);
        let file = file.map_err(|source| io_error("write the VM's file", source))?;
        let request = Request::Protect { file, again: false, lost: Vec::new() };
        Client::connect(&self.state(host))?.ask(None, request)?;
        Ok(())
    }

    /// What the agent of a host answers; `None` when it does not.
    pub fn ask(&self, host: u64, request: Request) -> Option<Answer> {
        Client::connect(&self.state(host)).ok()?.ask(None, request).ok()
    }

    /// What a host's agent says of its host.
    pub fn describe(&self, host: u64) -> Option<Description> {
        match self.ask(host, Request::Describe)? {
            Answer::Description(description) => Some(*description),
            _ => None,
        }
    }

    /// What has happened on a host.
    pub fn events(&self, host: u64) -> Option<Vec<Event>> {
        match self.ask(host, Request::Events { since: 0, wait_ms: 0 })? {
            Answer::Events { events } => Some(events),
            _ => None,
        }
    }

    /// What a host's agent knows of all hosts.
    pub fn list(&self, host: u64) -> Option<Vec<HostStatus>> {
        match self.ask(host, Request::List)? {
            Answer::Hosts { hosts } => Some(hosts),
            _ => None,
        }
    }

    /// Whether the agent of a host sees another.
    pub fn sees(&self, host: u64, other: u64) -> bool {
        let sees = |status: &HostStatus| status.id == other && status.down.is_none();
        self.list(host).is_some_and(|hosts| hosts.iter().any(sees))
    }

    /// Whether the agent of a host knows that another one, where the VM was live, is back without it and can take copies.
    pub fn sees_back(&self, host: u64, other: u64) -> bool {
        let is_empty = |own: &Description| !own.vms.iter().any(VmStatus::is_live);
        let is_back = |status: &HostStatus| {
            status.id == other && status.down.is_none() && status.description.as_ref().is_some_and(is_empty)
        };
        self.list(host).is_some_and(|hosts| hosts.iter().any(is_back))
    }

    /// The hosts of the live copy and of the other one, as their own agents have it, if there is a pair in step.
    pub fn pair(&self) -> Option<(u64, u64)> {
        let (mut live, mut other) = (None, None);
        for host in self.running.keys() {
            let Some(own) = self.describe(*host) else { continue };
            for vm in own.vms.iter().filter(|vm| vm.running && vm.copy.protected) {
                match vm.copy.role {
                    Role::Live => live = Some(*host),
                    Role::Following => other = Some(*host),
                    _ => {}
                }
            }
        }
        live.zip(other)
    }

    /// Whether the VM is live on a host.
    pub fn is_live(&self, host: u64) -> bool {
        self.describe(host).is_some_and(|own| own.vms.iter().any(|vm| vm.is_live()))
    }

    /// Waits until `is_so`, for three minutes at most.
    ///
    /// # Errors
    /// [`HostsError::Late`], with the last words of all agents, or [`HostsError::Interrupted`].
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), HostsError> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() > deadline {
                return Err(HostsError::Late { what: what.into(), after: PATIENCE, words: self.words() });
            }
            if let Err(RecvTimeoutError::Disconnected) = self.config.stop.recv_timeout(LOOK_EVERY) {
                return Err(HostsError::Interrupted);
            }
        }
        Ok(())
    }

    fn agent_log(&self, host: u64) -> PathBuf {
        self.config.dir.join(format!("agent-{host}.log"))
    }

    /// What all agents have said.
    pub fn words(&self) -> String {
        let words = self.hosts().map(|host| {
            let text = std::fs::read_to_string(self.agent_log(host));
            format!("--- agent {host}\n{}\n", text.unwrap_or_default())
        });
        words.collect()
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        // First the agents: they would start further copies.
        for agent in self.running.values_mut() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        let deadline = Instant::now() + END;
        let copies = || self.hosts().flat_map(|host| processes_in(&self.state(host))).collect::<Vec<_>>();
        // They are other processes' children: what they have open is closed when they are gone. One may only now become what an agent
        // started.
        while let Some(left) = Some(copies()).filter(|left| !left.is_empty() && Instant::now() < deadline) {
            // A stopped process takes no other signal.
            for pid in left {
                let _ = send(pid, Signal::SIGKILL);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn send(pid: u32, signal: Signal) -> nix::Result<()> {
    match kill(Pid::from_raw(pid.cast_signed()), signal) {
        // It has ended by itself meanwhile.
        Err(nix::errno::Errno::ESRCH) => Ok(()),
        sent => sent,
    }
}

/// The processes that run a VM whose file is somewhere below `dir`. One that has ended has no command line any more.
fn processes_in(dir: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let is_ours = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0).map(|word| Path::new(to_os_str(word)));
        let runs_a_copy = matches!(words.nth(1).and_then(Path::to_str), Some("primary" | "secondary"));
        runs_a_copy && words.next().is_some_and(|file| file.starts_with(dir))
    };
    entries.filter_map(Result::ok).filter_map(number).filter(is_ours).collect()
}

fn to_os_str(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}
