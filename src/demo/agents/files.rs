//! What a cluster of agents is set up with: credentials, files of hosts and of the VM, and the LAN.
//!
//! Paths in the files are relative to their directory, as an operator would write them.

use super::super::config::HostsError;
use super::super::hosts::{GUEST, free_address, guest_vm, make_dir, write_toml};
use super::wires::Wires;
use crate::host::config::{Capacity, HostFile};
use crate::lan::{Forward, Notice, Switch, SwitchConfig};
use crate::vm::config::{DiskFile, Host, VmFile};
use crossbeam::channel::{Receiver, never};
use ft_net::identity::DAY;
use ft_net::{ClusterCa, HostName};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

/// The VM's file.
pub(super) const VM_FILE: &str = "vm.toml";

/// The LAN's socket.
const LAN: &str = "lan.sock";

/// Where agents listen, and serve metrics, in namespaces of their own.
const AGENT_PORT: u16 = 7000;
const METRICS_PORT: u16 = 9464;

/// What the cluster is like. [`AgentsConfig::new`] has defaults for all but the program and the directory.
pub struct AgentsConfig {
    /// The `ft` program.
    pub program: PathBuf,
    /// A directory for everything: credentials, arbiter, disk, sockets, state, logs.
    pub dir: PathBuf,
    /// How many hosts there are.
    pub hosts: u64,
    /// The VM's name.
    pub vm: String,
    /// The guest's command line, after its addresses.
    pub command_line: String,
    /// RAM in MiB.
    pub ram_mib: u64,
    /// Size of the disk in MiB.
    pub disk_mib: u64,
    /// Each host has a disk of its own, which the others mirror; otherwise all share one.
    pub mirror: bool,
    /// Milliseconds between two signs of life; `None`: what is usual.
    pub heartbeat_ms: Option<u64>,
    /// What each host has for VMs.
    pub capacity: Capacity,
    /// The arbiter's directory, below `dir`. What is above it must be there.
    pub arbiter: PathBuf,
    /// Networks of the hosts' own; `None`: all are on this machine's loopback.
    pub wires: Option<Wires>,
    /// Where the first copy's log is recorded, until it ends.
    pub record: Option<PathBuf>,
    /// Closed when nothing is to be waited for any more.
    pub stop: Receiver<()>,
}

impl AgentsConfig {
    /// Three hosts on loopback, with room for two VMs each, and a key-value store; nobody stops it.
    pub fn new(program: impl Into<PathBuf>, dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            dir: dir.into(),
            hosts: 3,
            vm: "store".into(),
            command_line: "mode=kv".into(),
            ram_mib: 32,
            disk_mib: 16,
            mirror: false,
            heartbeat_ms: None,
            capacity: Capacity { memory_mib: 64, vms: 2 },
            arbiter: "arbiter".into(),
            wires: None,
            record: None,
            stop: never(),
        }
    }

    /// The file of the disk, as `host` has it.
    pub fn disk(&self, host: u64) -> PathBuf {
        let file = self.disk_file();
        self.dir.join(file.path_on(Some(&name(host))).unwrap_or(file.path))
    }

    fn disk_file(&self) -> DiskFile {
        let path = if self.mirror { "disk-{host}.img" } else { "disk.img" };
        DiskFile { path: path.into(), mib: self.disk_mib, mirror: self.mirror }
    }
}

pub(super) fn host_file(host: u64) -> String {
    format!("{}.toml", name(host))
}

pub(super) fn state(host: u64) -> String {
    format!("state-{host}")
}

fn name(host: u64) -> String {
    format!("host-{host}")
}

/// The LAN, with the guest's service forwarded.
pub(super) fn switch(
    config: &AgentsConfig,
    notice: impl FnMut(Notice) + Send + 'static,
) -> Result<Switch, HostsError> {
    let forwards = vec![Forward { host: SocketAddr::from(([127, 0, 0, 1], 0)), guest: GUEST }];
    Ok(Switch::start(SwitchConfig { forwards, ..SwitchConfig::new(config.dir.join(LAN)) }, notice)?)
}

/// Writes all files.
pub(super) fn write(config: &AgentsConfig) -> Result<(), HostsError> {
    let ca = ClusterCa::generate("agents", 3 * DAY, SystemTime::now())?;
    make_dir(&config.dir.join(&config.arbiter))?;
    let hosts = (1..=config.hosts)
        .map(|id| Ok(Host { id, name: name(id), address: address(config, id)? }))
        .collect::<Result<Vec<Host>, HostsError>>()?;
    for own in &hosts {
        let certified: HostName = own.name.parse()?;
        ca.issue(&certified, 2 * DAY)?.write(&config.dir.join(&own.name))?;
        let file = HostFile {
            id: own.id,
            name: own.name.clone(),
            listen: own.address,
            vm_address: own.address.ip(),
            credentials: own.name.clone().into(),
            arbiter: config.arbiter.clone().into(),
            state: state(own.id).into(),
            domain: None,
            metrics: Some(metrics(config)?),
            draining: false,
            keep_ended_hours: 1,
            peers: hosts.iter().filter(|host| host.id != own.id).cloned().collect(),
            capacity: config.capacity,
        };
        write_toml(&config.dir.join(host_file(own.id)), &file)?;
    }
    write_toml(&config.dir.join(VM_FILE), &vm(config))
}

fn vm(config: &AgentsConfig) -> VmFile {
    VmFile {
        heartbeat_ms: config.heartbeat_ms,
        ..guest_vm((&config.vm, config.ram_mib), &config.command_line, LAN.into(), config.disk_file())
    }
}

fn address(config: &AgentsConfig, host: u64) -> Result<SocketAddr, HostsError> {
    match &config.wires {
        Some(wires) => Ok(SocketAddr::from((wires.address(host), AGENT_PORT))),
        None => free_address(),
    }
}

/// Where an agent's metrics are: on loopback in any case.
fn metrics(config: &AgentsConfig) -> Result<SocketAddr, HostsError> {
    match &config.wires {
        Some(_) => Ok(SocketAddr::from(([127, 0, 0, 1], METRICS_PORT))),
        None => free_address(),
    }
}
