//! Host processes, and what they report.
//!
//! Invariant: every process that was started is ended, by its own id, when [`Hosts`] is dropped.

use super::config::{HostsConfig, HostsError};
use crate::lan::{Forward, Mac, Switch, SwitchConfig};
use crate::vm::config::{Cluster, DiskFile, Guest, Host, Net, VmFile};
use crate::vm::report::Report;
use crossbeam::channel::{Receiver, Sender, at, select_biased, unbounded};
use ft_net::identity::DAY;
use ft_net::{ClusterCa, HostName};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// Where the guest's service is, in the guest's network.
pub(super) const GUEST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 6379);

/// The address of its network card.
pub(super) const GUEST_MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// A report, from whom, and when it was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The host's number.
    pub host: u64,
    /// When.
    pub at: Instant,
    /// What.
    pub report: Report,
}

/// A host's process as far as it is known.
#[derive(Debug)]
pub struct HostState {
    child: Child,
    /// Its last status.
    pub status: Option<Report>,
    /// What it said last, status reports left out.
    pub words: Vec<String>,
    /// It has been live since then.
    pub live_since: Option<Instant>,
    /// It is in step with another.
    pub protected: bool,
}

/// A live host that was killed, and who took its place.
#[derive(Clone, Copy, Debug)]
pub struct Failover {
    /// Which was killed.
    pub victim: u64,
    /// Which is live now.
    pub heir: u64,
    /// From the kill to the heir being live.
    pub took: Duration,
}

/// A host's life, and what it said.
type Said = (u64, Heard);

/// The cluster.
pub struct Hosts {
    config: HostsConfig,
    switch: Switch,
    service: SocketAddr,
    running: BTreeMap<u64, HostState>,
    heard: (Sender<Said>, Receiver<Said>),
    /// Tells reports of a host's lives apart.
    lives: u64,
    addresses: BTreeMap<u64, SocketAddr>,
    life: BTreeMap<u64, u64>,
    console: String,
}

impl Hosts {
    /// Sets everything up; no host runs yet. The hosts are numbered from 1.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn new(config: HostsConfig) -> Result<Self, HostsError> {
        let socket = config.dir.join("lan.sock");
        let forwards = vec![Forward { host: SocketAddr::from(([127, 0, 0, 1], 0)), guest: GUEST }];
        let switch = Switch::start(SwitchConfig { forwards, ..SwitchConfig::new(&socket) }, |notice| {
            tracing::debug!(?notice, "the LAN");
        })?;
        let service = switch.forward_addresses()[0];
        let ca = ClusterCa::generate("demo", 3 * DAY, SystemTime::now())?;
        let arbiter = config.dir.join("arbiter");
        make_dir(&arbiter)?;
        let hosts = (1..=config.hosts as u64).map(|id| {
            let name = format!("host-{id}");
            Ok(Host { id, name, address: free_address()? })
        });
        let hosts: Vec<Host> = hosts.collect::<Result<_, HostsError>>()?;
        for host in &hosts {
            let credentials = config.dir.join(&host.name);
            let name: HostName = host.name.parse()?;
            ca.issue(&name, 2 * DAY)?.write(&credentials)?;
            let disk = DiskFile { path: config.disk(host.id), mib: config.disk_mib, mirror: config.mirror };
            let file = VmFile {
                heartbeat_ms: config.heartbeat_ms,
                cluster: Some(Cluster { arbiter: arbiter.clone().into(), credentials, hosts: hosts.clone() }),
                ..guest_vm(("demo", config.ram_mib), &config.command_line, socket.clone(), disk)
            };
            write_toml(&vm_file(&config.dir, host.id), &file)?;
        }
        let addresses = hosts.iter().map(|host| (host.id, host.address)).collect();
        let (running, life) = (BTreeMap::new(), BTreeMap::new());
        let (heard, console) = (unbounded(), String::new());
        Ok(Self { config, switch, service, running, heard, lives: 0, addresses, life, console })
    }

    /// Where clients reach the guest's service.
    pub fn service(&self) -> SocketAddr {
        self.service
    }

    /// The LAN.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The hosts that run.
    pub fn running(&self) -> &BTreeMap<u64, HostState> {
        &self.running
    }

    /// All that the guest has written to its serial port, as far as any host let it out.
    pub fn console(&self) -> &str {
        &self.console
    }

    /// Where a host listens; `None` for a number that no host has.
    pub fn address(&self, host: u64) -> Option<SocketAddr> {
        self.addresses.get(&host).copied()
    }

    /// Makes host `from` reach host `to` at another address: that of a relay. Call it before `from` is started.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn route(&mut self, from: u64, to: u64, via: SocketAddr) -> Result<(), HostsError> {
        let path = vm_file(&self.config.dir, from);
        let failed = |source| io_error(format!("change {}", path.display()), source);
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let mut file: VmFile = toml::from_str(&text).map_err(|error| failed(io::Error::other(error)))?;
        for host in file.cluster.iter_mut().flat_map(|cluster| &mut cluster.hosts) {
            if host.id == to {
                host.address = via;
            }
        }
        let text = toml::to_string(&file).map_err(|error| failed(io::Error::other(error)))?;
        std::fs::write(&path, text).map_err(failed)
    }

    /// Starts the first copy on `host`.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn start_primary(&mut self, host: u64) -> Result<(), HostsError> {
        let args = self.config.primary_args.clone();
        self.spawn("primary", host, &args)
    }

    /// Starts a further copy on `host`, of the one on `primary`.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn start_secondary(&mut self, host: u64, primary: u64) -> Result<(), HostsError> {
        self.spawn("secondary", host, &["--primary".into(), primary.to_string()])
    }

    fn spawn(&mut self, role: &str, host: u64, args: &[String]) -> Result<(), HostsError> {
        let log = self.config.dir.join(format!("host-{host}.log"));
        let doing = || format!("start {} {role}", self.config.program.display());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let log = log.map_err(|source| io_error(doing(), source))?;
        let mut child = Command::new(&self.config.program)
            .arg(role)
            .arg(vm_file(&self.config.dir, host))
            .args(["--json", "--host", &host.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|source| io_error(doing(), source))?;
        self.lives += 1;
        let (life, heard) = (self.lives, self.heard.0.clone());
        if let Some(out) = child.stdout.take() {
            let listen = move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let Ok(report) = serde_json::from_str(&line) else { continue };
                    if heard.send((life, Heard { host, at: Instant::now(), report })).is_err() {
                        return;
                    }
                }
            };
            let started = std::thread::Builder::new().name(format!("hear-{host}")).spawn(listen);
            started.map_err(|source| io_error(doing(), source))?;
        }
        let state = HostState { child, status: None, words: Vec::new(), live_since: None, protected: false };
        self.running.insert(host, state);
        self.life.insert(host, life);
        Ok(())
    }

    /// Sends a signal to a host's process. One that is killed is waited for, and is not [`Hosts::running`] any more.
    ///
    /// # Errors
    /// [`HostsError::Io`].
    pub fn signal(&mut self, host: u64, signal: Signal) -> Result<(), HostsError> {
        let Some(state) = self.running.get_mut(&host) else { return Ok(()) };
        let pid = Pid::from_raw(state.child.id().cast_signed());
        kill(pid, signal).map_err(|error| io_error(format!("signal host {host}"), error.into()))?;
        if signal == Signal::SIGKILL {
            self.life.remove(&host);
            if let Some(mut state) = self.running.remove(&host) {
                state.child.wait().map_err(|source| io_error(format!("wait for host {host}"), source))?;
            }
        }
        Ok(())
    }

    /// Kills the live host, and waits until another one is live.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn fail_over(&mut self, patience: Duration) -> Result<Failover, HostsError> {
        let victim = self.live().ok_or(HostsError::NoneLive)?;
        let killed = Instant::now();
        self.signal(victim, Signal::SIGKILL)?;
        let is_live = |heard: &Heard| matches!(heard.report, Report::Live { .. });
        let heard = self.wait_for("another host going live", patience, is_live)?;
        Ok(Failover { victim, heir: heard.host, took: heard.at.saturating_duration_since(killed) })
    }

    /// Waits until a host's process has ended by itself.
    ///
    /// # Errors
    /// [`HostsError::Late`] or [`HostsError::Interrupted`].
    pub fn wait_for_end(&mut self, host: u64, patience: Duration) -> Result<(), HostsError> {
        let started = Instant::now();
        loop {
            let state = self.running.get_mut(&host);
            if state.is_none_or(|state| matches!(state.child.try_wait(), Ok(Some(_)))) {
                while let Ok((life, heard)) = self.heard.1.try_recv() {
                    self.take_in(life, &heard);
                }
                self.running.remove(&host);
                self.life.remove(&host);
                return Ok(());
            }
            if started.elapsed() > patience {
                return Err(self.late(format!("the end of host {host}"), patience));
            }
            self.listen(Duration::from_millis(20))?;
        }
    }

    /// The next report, if one comes within `wait`.
    ///
    /// # Errors
    /// [`HostsError::Interrupted`].
    pub fn listen(&mut self, wait: Duration) -> Result<Option<Heard>, HostsError> {
        let over = at(Instant::now() + wait);
        loop {
            let said = select_biased! {
                recv(self.config.stop) -> _ => return Err(HostsError::Interrupted),
                recv(self.heard.1) -> said => said.ok(),
                recv(over) -> _ => None,
            };
            let Some((life, heard)) = said else { return Ok(None) };
            if self.take_in(life, &heard) {
                return Ok(Some(heard));
            }
        }
    }

    /// Waits for a report.
    ///
    /// # Errors
    /// [`HostsError::Late`] or [`HostsError::Interrupted`].
    pub fn wait_for(
        &mut self,
        what: &str,
        patience: Duration,
        mut is_it: impl FnMut(&Heard) -> bool,
    ) -> Result<Heard, HostsError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.listen(left)? {
                Some(heard) if is_it(&heard) => return Ok(heard),
                Some(_) => {}
                None => return Err(self.late(what.to_owned(), patience)),
            }
        }
    }

    /// Waits until `is_so`.
    ///
    /// # Errors
    /// [`HostsError::Late`] or [`HostsError::Interrupted`].
    pub fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<(), HostsError> {
        let deadline = Instant::now() + patience;
        while !is_so(self) {
            self.listen(Duration::from_millis(10))?;
            if Instant::now() > deadline {
                return Err(self.late(what.to_owned(), patience));
            }
        }
        Ok(())
    }

    /// Whether there is a pair, and both sides say that they are in step.
    pub fn is_protected(&self) -> bool {
        self.running.len() == 2 && self.running.values().all(|host| host.protected)
    }

    /// The process of a host that runs.
    pub fn pid(&self, host: u64) -> Option<u32> {
        self.running.get(&host).map(|state| state.child.id())
    }

    /// Which host is live, as far as is known.
    pub fn live(&self) -> Option<u64> {
        let since = |state: &HostState| state.live_since;
        let live = self.running.iter().filter_map(|(host, state)| Some((since(state)?, *host)));
        live.max().map(|(_, host)| host)
    }

    /// The error for what did not happen in time, with the hosts' last words.
    pub fn late(&self, what: String, after: Duration) -> HostsError {
        let words = self.running.iter().map(|(host, state)| {
            let last = state.words.iter().rev().take(5).rev().map(|word| format!("  host {host}: {word}\n"));
            last.collect::<String>()
        });
        HostsError::Late { what, after, words: words.collect() }
    }

    /// Keeps up what is known of hosts. `false` for the words of an earlier life.
    fn take_in(&mut self, life: u64, heard: &Heard) -> bool {
        if let Report::Console { device: 0, text } = &heard.report {
            self.console.push_str(text);
        }
        if self.life.get(&heard.host) != Some(&life) {
            return false;
        }
        let Some(state) = self.running.get_mut(&heard.host) else { return false };
        match &heard.report {
            Report::Status { protected, .. } => {
                state.protected = *protected;
                state.status = Some(heard.report.clone());
                return true;
            }
            Report::Live { .. } => state.live_since = Some(heard.at),
            Report::Protected { .. } => state.protected = true,
            Report::Solo { .. } => state.protected = false,
            Report::Halted { .. } => (state.live_since, state.protected) = (None, false),
            _ => {}
        }
        state.words.push(format!("{:?}", heard.report));
        true
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for state in self.running.values_mut() {
            // A stopped process takes no other signal.
            let _ = state.child.kill();
            let _ = state.child.wait();
        }
    }
}

fn vm_file(dir: &Path, host: u64) -> PathBuf {
    dir.join(format!("host-{host}.toml"))
}

/// A VM with the built-in guest, on the LAN that is at the socket `switch`.
pub(super) fn guest_vm(
    (name, ram_mib): (&str, u64),
    command_line: &str,
    switch: PathBuf,
    disk: DiskFile,
) -> VmFile {
    VmFile {
        name: name.to_owned(),
        ram_mib,
        heartbeat_ms: None,
        guest: Guest {
            command_line: format!("ip={}/24 gw=10.0.2.2 {command_line}", GUEST.ip()),
            ..Guest::default()
        },
        net: Some(Net { mac: GUEST_MAC, switch }),
        disk: Some(disk),
        placement: Default::default(),
        cluster: None,
    }
}

pub(super) fn write_toml(path: &Path, file: &impl Serialize) -> Result<(), HostsError> {
    let write = || std::fs::write(path, toml::to_string(file).map_err(io::Error::other)?);
    write().map_err(|source| io_error(format!("write {}", path.display()), source))
}

pub(super) fn make_dir(path: &Path) -> Result<(), HostsError> {
    std::fs::create_dir(path).map_err(|source| io_error(format!("make {}", path.display()), source))
}

pub(super) fn io_error(doing: impl Into<String>, source: io::Error) -> HostsError {
    HostsError::Io { doing: doing.into(), source }
}

/// An address on this machine whose port nobody uses, neither for UDP nor for TCP.
pub(super) fn free_address() -> Result<SocketAddr, HostsError> {
    let failed = |source| io_error("find a free port", source);
    loop {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
}
