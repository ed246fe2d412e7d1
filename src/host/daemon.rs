//! An agent as a process: what it needs is opened, and closed in order.

use super::agent::{Agent, Input};
use super::config::HostFile;
use super::events::Events;
use super::rim::{Rim, Shared};
use super::state::StateDir;
use super::telemetry::{self, Health};
use crate::arbiter::ArbiterConfig;
use crossbeam::channel::Receiver;
use ft_net::control::ControlEndpoint;
use ft_net::identity::IdentityError;
use ft_net::{HostName, Identity, NetError};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// Inputs that wait for the agent. Whoever has more to say waits.
const INPUTS_MAX: usize = 1024;

/// How long conversations may take to end when the agent does.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why a host's agent cannot run.
#[derive(Debug, Error)]
pub enum HostError {
    /// The state directory.
    #[error("{0}")]
    State(String),
    /// A file, a socket or a thread.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The credentials are another host's.
    #[error(
        "the certificate in {dir} is for {found}, and the host's file is for {expected}: copy the directory that `ft ca issue {expected}` made"
    )]
    OtherHost {
        /// The credentials.
        dir: PathBuf,
        /// Whose they are.
        found: HostName,
        /// Who this host is.
        expected: String,
    },
    /// The credentials.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Runs the agent of a host until `stop` is closed. VMs are run with `program`, an `ft`.
///
/// # Errors
/// [`HostError`]: nothing was begun.
pub fn run(file: HostFile, program: PathBuf, stop: Receiver<()>) -> Result<(), HostError> {
    let state = StateDir::open(&file.state).map_err(HostError::State)?;
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| HostError::Io { doing, path, source }
    };
    let events = Events::open(&state.events()).map_err(failed("read", &state.events()))?;
    let identity = Identity::load(&file.credentials)?;
    if identity.host().as_str() != file.name {
        let (dir, found, expected) = (file.credentials, identity.host().clone(), file.name);
        return Err(HostError::OtherHost { dir, found, expected });
    }
    if let ArbiterConfig::Dir(dir) = &file.arbiter
        && !dir.is_dir()
    {
        tracing::warn!(arbiter = %dir.display(), "the arbiter's directory is not there: VMs cannot be started or taken over");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("ft-host")
        .enable_all()
        .build();
    let runtime = runtime.map_err(failed("start threads for", &file.state))?;
    let context = runtime.enter();
    let peers = file.peers();
    let allowed: BTreeSet<HostName> = peers.values().map(|peer| peer.name.clone()).collect();
    let control = Arc::new(ControlEndpoint::bind(file.listen, identity, Some(allowed))?);
    let people = listen(&state.socket()).map_err(failed("listen at", &state.socket()))?;
    let health = Health::default();
    if let Some(address) = file.metrics {
        let serve = telemetry::serve(address, health.clone());
        serve.map_err(|source| NetError::Bind { address, source })?;
    }
    drop(context);
    let (inputs, queue) = mpsc::channel(INPUTS_MAX);
    let (file, last_event, socket) = (Arc::new(file), events.last(), state.socket());
    let shared = Shared { file: Arc::clone(&file), peers, control: Arc::clone(&control), inputs, last_event };
    let rim = Rim { runtime: runtime.handle().clone(), shared: Arc::new(shared) };
    end_with(stop, rim.shared.inputs.clone()).map_err(failed("start a thread for", &file.state))?;
    let agent = Agent::new(Arc::clone(&file), program, (state, events), rim.clone(), health);
    let agent = agent.map_err(failed("read", &file.state))?;
    rim.start(people);
    agent.run(queue);
    let _ = std::fs::remove_file(socket);
    runtime.block_on(control.close());
    runtime.shutdown_timeout(FAREWELL);
    Ok(())
}

/// Listens for people: those who may use the state directory. Nobody else has it, so what is at the path was left behind.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells the agent to end when `stop` is closed.
fn end_with(stop: Receiver<()>, inputs: mpsc::Sender<Input>) -> io::Result<()> {
    let wait = move || {
        // Nothing is ever sent.
        let _ = stop.recv();
        let _ = inputs.blocking_send(Input::Stop);
    };
    std::thread::Builder::new().name("ft-host-stop".into()).spawn(wait).map(drop)
}
