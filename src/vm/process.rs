//! One copy of a VM on one host.

mod place;
mod start;

use super::config::{GuestKind, VmFile};
use super::control::Control;
use super::ends::{Ending, HostEnds, Outside};
use super::mirror::files::CopyError;
use super::mirror::machine::Mirrored;
use super::recipe::{Recipe, RecipeError};
use super::report::{Report, Reporter};
use super::transfers::{Transfers, Watched};
use crate::arbiter::ArbiterError;
use crate::driver::{Driver, now};
use crate::recording::{RecordingError, RecordingWriter};
use crate::stamp;
use crossbeam::channel::{Receiver, bounded};
use ft_core::config::Config;
use ft_core::digest::Digester;
use ft_core::error::{HaltReason, Misuse};
use ft_core::frame::LogEnd;
use ft_core::message::{PROTOCOL_VERSION, Profile};
use ft_core::node::Node;
use ft_core::placement::HostTraits;
use ft_core::replica;
use ft_core::segment::SegmentHeader;
use ft_core::units::{HostId, Session, Term, Tick};
use ft_net::NetError;
use ft_net::identity::IdentityError;
use ft_vmm::board::{BoardConfig, DiskConfig};
use ft_vmm::boot::{BootSource, Protocol};
use ft_vmm::guest_image::BUILT_IN;
use ft_vmm::machine::{Vm, VmConfig, VmError};
use ft_vmm::soft::SoftVcpu;
use ft_vmm::vcpu::Vcpu as _;
use place::Place;
use start::Start;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Events of the host ends that wait for the machine's thread.
const EVENTS_MAX: usize = 4096;

/// Commands that wait for the machine's thread.
const COMMANDS_MAX: usize = 16;

/// What a copy begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The only copy there is, with nobody to share it with.
    Alone,
    /// The first copy, on this host.
    Primary {
        /// This host's number.
        host: u64,
        /// An old copy of a mirrored disk will do, or none.
        again: bool,
    },
    /// A further copy.
    Secondary {
        /// This host's number.
        host: u64,
        /// Where the primary is; `None`: where the arbiter says that the last term's owner is.
        primary: Option<u64>,
    },
}

/// How a copy is run.
pub struct Options {
    /// What it begins as.
    pub begin: Begin,
    /// Limits and intervals of the pair.
    pub config: Config,
    /// Where a recording of the live log is made, if one is.
    pub record: Option<PathBuf>,
    /// Who is told what happens.
    pub reporter: Reporter,
    /// Closed when the copy is to end.
    pub stop: Receiver<()>,
    /// The socket of whoever started the process and looks after it.
    pub control: Option<Control>,
}

/// Why a copy cannot be run.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file that it needs.
    #[error("cannot {doing} {path}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The VM's file has no hosts.
    #[error("the VM's file has no [cluster]: add one, or use `ft run`, which does not protect it")]
    NoCluster,
    /// This host is not in the VM's file.
    #[error("host {id} is not among the cluster's hosts: {known}")]
    NoSuchHost {
        /// Which was asked for.
        id: u64,
        /// Which there are.
        known: String,
    },
    /// A host's name is not one.
    #[error("host {id}: {reason}")]
    HostName {
        /// Which.
        id: u64,
        /// What is wrong.
        reason: String,
    },
    /// Nobody has run the VM yet.
    #[error("nobody owns a term of this VM: start its primary first, or name it with --primary")]
    NoPrimary,
    /// The arbiter.
    #[error(transparent)]
    Arbiter(#[from] ArbiterError),
    /// This host's credentials.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The machine.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The recording.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The machine's description for the recording.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The configuration of the pair.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// This host's copy of a mirrored disk is not one to start from.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A disk that each host has somewhere else, and no host.
    #[error(
        "the disk {path} is each host's own, and `ft run` knows of no hosts: give it a path without {{host}}"
    )]
    NoHost {
        /// As it is in the VM's file.
        path: PathBuf,
    },
    /// No random numbers.
    #[error("this host gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What a VM file stands for, with its images read.
///
/// # Errors
/// [`RunError::File`].
pub fn vm_config(file: &VmFile) -> Result<VmConfig, RunError> {
    let read = |path: &Path| {
        let bytes =
            std::fs::read(path).map_err(|source| RunError::File { doing: "read", path: path.into(), source });
        bytes.map(Arc::<[u8]>::from)
    };
    let image = file.guest.image.as_deref().map(read).transpose()?;
    let initrd = file.guest.initrd.as_deref().map(read).transpose()?;
    let protocol = if file.guest.kind == GuestKind::Linux { Protocol::Linux } else { Protocol::Flat };
    let boot = BootSource {
        protocol,
        image: image.unwrap_or_else(|| BUILT_IN.into()),
        initrd,
        command_line: file.guest.command_line.clone(),
    };
    let board = BoardConfig {
        mac: file.net.as_ref().map(|net| net.mac.0),
        disk: file.disk.as_ref().map(|disk| DiskConfig { sectors: disk.mib << 11, read_only: false }),
        console: true,
        entropy: true,
        ..BoardConfig::default()
    };
    Ok(VmConfig { ram_bytes: file.ram_mib << 20, boot, board, on_crash: file.guest.on_crash })
}

/// What both sides must have in common to be a pair (R10).
pub fn profile(file: &VmFile, vm: &VmConfig) -> Profile {
    let HostTraits { protocol, machine, cpu, tick } = host_traits();
    let mut config = vm.digest();
    if file.disk.as_ref().is_some_and(|disk| disk.mirror) {
        // The pieces of its state are others.
        config = Digester::new().u64(config).bytes(b"mirror").finish().0;
    }
    let (build, vm) = (stamp::build().into(), file.name.clone());
    Profile { protocol, build, machine, vm, config, cpu, tick, ..Profile::default() }
}

/// What of that comes from this build and this host.
pub fn host_traits() -> HostTraits {
    HostTraits {
        protocol: PROTOCOL_VERSION,
        machine: stamp::machine(),
        cpu: SoftVcpu::model(),
        tick: "soft".into(),
    }
}

/// How a copy ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// The pair's protocol ended it.
    Over(HaltReason),
    /// There was nothing left to be run.
    Ending(Ending),
}

/// Runs a copy until it ends, and says how.
///
/// # Errors
/// [`RunError`]: nothing was begun, or nothing is left of what was.
pub fn run(file: &VmFile, options: Options) -> Result<Ended, RunError> {
    let Options { begin, mut config, record, reporter, mut stop, control } = options;
    config.record = record.is_some();
    let vm = vm_config(file)?;
    let profile = profile(file, &vm);
    let place = Place::of(file, begin)?;
    let (network, net_events) = place.network()?;
    let (tell, commands) = bounded(COMMANDS_MAX);
    if let Some(control) = &control {
        control.name(&file.name, place.node.host.0);
        control.attach(network.peers(), tell);
        stop = either(stop, control.stop()).map_err(RunError::Thread)?;
    }
    reporter.say(Report::Listening { address: network.address().to_string() });
    let id = place.node;
    let identity = replica::Identity { node: id, profile: profile.clone(), config };
    let mut arbiter = place.arbiter(&file.name)?;
    let last = arbiter.last()?;
    let (events, inputs) = bounded(EVENTS_MAX);
    let start =
        Start { begin, host: place.host_name(), life: id.incarnation, last: last.as_ref(), events: &events };
    let disk = file.disk.as_ref().map(|disk| start.open(disk)).transpose()?;
    let outside = Outside { net: file.net.as_ref().map(|net| (net.switch.clone(), net.mac.0)), disk };
    let store = outside.mirror();
    let machine = |vm| Mirrored::new(vm, store);
    let recording = record.map(|path| RecordingWriter::create(path, &header(profile))).transpose()?;
    let transfers = Transfers::default();
    let node = match begin {
        Begin::Alone | Begin::Primary { .. } => {
            let after = last.map_or(Term(0), |last| last.term);
            let machine = Watched::new(machine(Vm::new(vm, SoftVcpu::new())?), &transfers);
            Node::create(now(), identity, after, machine)?
        }
        Begin::Secondary { primary, .. } => {
            let owner = primary.map(HostId).or(last.map(|last| last.owner.host));
            let primary = owner.ok_or(RunError::NoPrimary)?;
            let blank = Watched::new(machine(Vm::blank(vm, SoftVcpu::new())?), &transfers);
            Node::join(now(), identity, primary, Session(id.incarnation), blank)?
        }
    };
    if recording.is_some() && !matches!(begin, Begin::Secondary { .. }) {
        // There is room: nobody else has the channel yet.
        let _ = events.send(Recipe::event(file)?);
    }
    let (running, off) = bounded(0);
    let ends = HostEnds::new(outside, events, reporter, recording, running).with_transfers(transfers);
    let ending = ends.ending();
    let driver =
        Driver::new(node, id, ends, (network, net_events), inputs, arbiter).map_err(RunError::Thread)?;
    let mut driver = driver.with_commands(commands);
    Ok(match driver.run(&either(stop, off).map_err(RunError::Thread)?)? {
        Some(reason) => Ended::Over(reason),
        None => ending.get().cloned().map_or(Ended::Stopped, Ended::Ending),
    })
}

/// Leaves the session of whoever started this process, and the terminal's hang-up with it: their end is not ours.
///
/// # Errors
/// The operating system's.
pub fn detach() -> io::Result<()> {
    match nix::unistd::setsid() {
        // The first of a process group, as when a shell has started it: it has a group of its own already.
        Ok(_) | Err(nix::errno::Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default())?;
    Ok(())
}

/// A channel that is closed when either of two is.
fn either(a: Receiver<()>, b: Receiver<()>) -> io::Result<Receiver<()>> {
    let (open, closed) = bounded::<()>(0);
    let wait = move || {
        crossbeam::channel::select! {
            recv(a) -> _ => {}
            recv(b) -> _ => {}
        }
        drop(open);
    };
    std::thread::Builder::new().name("ft-stop".into()).spawn(wait)?;
    Ok(closed)
}

fn header(profile: Profile) -> SegmentHeader {
    SegmentHeader { profile, start: LogEnd::default(), start_tick: Tick(0) }
}
