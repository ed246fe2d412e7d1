//! What happens around an agent: conversations with other hosts, with people and with VM processes, on tokio.
//!
//! It turns what comes in into [`Input`]s, and carries out what the agent wants of others. It decides nothing.

use super::agent::{Input, Protect, Reply, Seeding, TICK};
use super::config::HostFile;
use super::message::{Answer, Ask, Request, Retire};
use crate::arbiter::OwnedTerm;
use crate::error::in_one_line;
use crate::vm::config::VmFile;
use crate::vm::control::{Command, Line};
use bytes::Bytes;
use ft_net::control::{Call, ControlEndpoint, QUESTION_BYTES_MAX};
use ft_net::{HostName, Peer};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How often other hosts are asked what they are like, and how long they may take to say it.
const DESCRIBE_EVERY: Duration = Duration::from_secs(1);
const DESCRIBE_WITHIN: Duration = Duration::from_secs(2);

/// How long somebody who wants to see all hosts waits for them to say what they are like.
const REFRESH_WITHIN: Duration = Duration::from_millis(300);

/// How long another host's agent may take to have a secondary listen, and to end a copy.
const SEED_WITHIN: Duration = Duration::from_secs(20);
const RETIRE_WITHIN: Duration = Duration::from_secs(20);

/// The longest that somebody may wait for an event.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Connections of people at a time.
const PEOPLE_MAX: usize = 64;

/// The longest line of a VM's process: a report of what its guest wrote.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// Pause between two tries to reach a VM's process.
const RECONNECT: Duration = Duration::from_millis(50);

/// Commands that wait for a VM's process.
const COMMANDS_MAX: usize = 64;

/// The rim of an agent.
#[derive(Clone)]
pub(super) struct Rim {
    pub(super) runtime: Handle,
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) file: Arc<HostFile>,
    pub(super) peers: BTreeMap<u64, Peer>,
    pub(super) control: Arc<ControlEndpoint>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) last_event: watch::Receiver<u64>,
}

impl Rim {
    /// Listens to the process of a VM until the returned end is dropped.
    pub(super) fn watch(&self, vm: &str, life: u64, socket: PathBuf) -> mpsc::Sender<Command> {
        let (commands, told) = mpsc::channel(COMMANDS_MAX);
        let (vm, inputs) = (vm.to_owned(), self.shared.inputs.clone());
        self.runtime.spawn(watch_vm((vm, life), socket, told, inputs));
        commands
    }

    /// Has a secondary of a VM made on another host.
    pub(super) fn seed(&self, (vm, what_for): (&str, Seeding), host: u64, request: Request) {
        let (vm, shared) = (vm.to_owned(), Arc::clone(&self.shared));
        self.runtime.spawn(async move {
            let outcome = match shared.ask(host, &request, SEED_WITHIN).await {
                Ok(Answer::Seeded { address }) => Ok(address),
                Ok(other) => Err(unexpected(other)),
                Err(reason) => Err(reason),
            };
            shared.tell(Input::Seeded((vm, what_for), outcome)).await;
        });
    }

    /// Has what is left of a secondary on another host ended. Whether that works is seen in what the host says of itself.
    pub(super) fn discard(&self, vm: &str, host: u64) {
        let (vm, shared) = (vm.to_owned(), Arc::clone(&self.shared));
        self.runtime.spawn(async move {
            if let Err(error) = shared.ask(host, &Request::Discard { vm }, DESCRIBE_WITHIN).await {
                tracing::debug!(error, host, "a copy could not be discarded");
            }
        });
    }

    /// Has a VM that is live here change roles with its secondary.
    pub(super) fn switch_over(&self, vm: &str) {
        let (vm, shared) = (vm.to_owned(), Arc::clone(&self.shared));
        self.runtime.spawn(async move {
            let request = Request::Switchover { vm: vm.clone() };
            if let Answer::Refused { reason } = shared.answer(None, request).await {
                tracing::warn!(vm, reason, "a VM is not handed over");
            }
        });
    }

    /// Begins to serve people, other hosts and the clock.
    pub(super) fn start(&self, people: UnixListener) {
        let (calls, called) = mpsc::channel(PEOPLE_MAX);
        self.runtime.spawn(Arc::clone(&self.shared.control).serve(calls));
        self.runtime.spawn(Arc::clone(&self.shared).serve_hosts(called));
        self.runtime.spawn(Arc::clone(&self.shared).serve_people(people));
        for id in self.shared.peers.keys() {
            self.runtime.spawn(Arc::clone(&self.shared).describe_for_ever(*id));
        }
        let inputs = self.shared.inputs.clone();
        self.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if inputs.send(Input::Tick).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Shared {
    async fn tell(&self, input: Input) {
        // An agent that has ended needs to know nothing.
        let _ = self.inputs.send(input).await;
    }

    /// Asks the agent itself.
    async fn ask_agent(&self, input: impl FnOnce(Reply) -> Input) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.tell(input(reply)).await;
        answer.await.unwrap_or_else(|_| Answer::refused("the agent is being stopped"))
    }

    /// Asks another host's agent.
    async fn ask(&self, host: u64, request: &Request, within: Duration) -> Result<Answer, String> {
        let peer = self.peers.get(&host).ok_or_else(|| format!("host {host} is not among the peers"))?;
        let question = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let answer =
            self.control.ask(peer, question.into(), within).await.map_err(|error| in_one_line(&error))?;
        serde_json::from_slice(&answer)
            .map_err(|error| format!("{} answers what this build does not know: {error}", peer.name))
    }

    async fn serve_hosts(self: Arc<Self>, mut called: mpsc::Receiver<Call>) {
        while let Some(Call { from, question, answer }) = called.recv().await {
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let answered = match serde_json::from_slice(&question) {
                    Ok(request) => shared.answer(Some(from), request).await,
                    Err(error) => Answer::refused(format!("not a request that this build knows: {error}")),
                };
                // Whoever asked may not wait any more.
                let _ = answer.send(encode(&answered));
            });
        }
    }

    async fn serve_people(self: Arc<Self>, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(PEOPLE_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                // Out of file descriptors, most likely: some will be free again.
                tokio::time::sleep(RECONNECT).await;
                continue;
            };
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                // Somebody who leaves in the middle is no fault.
                let _ = shared.serve_person(stream).await;
                drop(place);
            });
        }
    }

    async fn serve_person(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        while let Some(line) = read_line(&mut read, QUESTION_BYTES_MAX as u64).await? {
            let answer = match serde_json::from_slice::<Ask>(&line) {
                Ok(Ask { on, request }) => self.answer_person(on.as_deref(), request).await,
                Err(error) => Answer::refused(format!("not a request that this build knows: {error}")),
            };
            write.write_all(&encode(&answer)).await?;
            write.write_all(b"\n").await?;
        }
        Ok(())
    }

    async fn answer_person(self: &Arc<Self>, on: Option<&str>, request: Request) -> Answer {
        match on {
            Some(name) if name != self.file.name => {
                let Some((id, _)) = self.peers.iter().find(|(_, peer)| peer.name.as_str() == name) else {
                    return Answer::refused(format!("{name} is no host of this cluster: see `ft list`"));
                };
                self.ask(*id, &request, SEED_WITHIN).await.unwrap_or_else(Answer::refused)
            }
            _ => self.answer(None, request).await,
        }
    }

    async fn answer(self: &Arc<Self>, from: Option<HostName>, request: Request) -> Answer {
        match request {
            Request::Protect { file, again, lost } => {
                // What was said a moment ago may be out of date.
                self.describe_all().await;
                self.describe_all().await;
                let protect =
                    self.look_up(&file).await.map(|(file, last)| Protect { file, again, lost, last });
                match protect {
                    Ok(protect) => self.ask_agent(|reply| Input::Protect(Box::new(protect), reply)).await,
                    Err(reason) => Answer::refused(reason),
                }
            }
            Request::Stop { vm } => self.stop_everywhere(&vm).await,
            Request::Switchover { ref vm } | Request::Relieve { ref vm, .. } => {
                match self.last_term(vm).await {
                    // Until the arbiter has answered the machine stands still, between two live copies and when it has lost one.
                    Err(reason) => {
                        Answer::refused(format!("{reason}; copies are moved only while it answers"))
                    }
                    Ok(_) => {
                        let answer = self.ask_agent(|reply| Input::Asked(None, request, reply)).await;
                        self.describe_all().await;
                        answer
                    }
                }
            }
            request => {
                match request {
                    Request::Events { since, wait_ms } => {
                        self.await_event(since, Duration::from_millis(wait_ms).min(WAIT_MAX)).await;
                    }
                    Request::List | Request::Status { .. } | Request::Why { .. } => {
                        // What a host does not say in time is as it last said it.
                        let _ = tokio::time::timeout(REFRESH_WITHIN, self.describe_all()).await;
                    }
                    _ => {}
                }
                let from = from.map(|name| name.to_string());
                self.ask_agent(|reply| Input::Asked(from, request, reply)).await
            }
        }
    }

    /// A VM's file, and what the arbiter says of the VM.
    async fn look_up(&self, file: &str) -> Result<(VmFile, Option<OwnedTerm>), String> {
        let file = VmFile::from_text(file)?;
        if file.cluster.is_some() {
            return Err("the VM's file has a [cluster]: leave it out, agents know the hosts".into());
        }
        let last = self.last_term(&file.name).await?;
        Ok((file, last))
    }

    /// The last term of a VM that anybody owns.
    async fn last_term(&self, vm: &str) -> Result<Option<OwnedTerm>, String> {
        let (arbiter, name) = (self.file.arbiter.clone(), vm.to_owned());
        let last = tokio::task::spawn_blocking(move || {
            let last = arbiter.open(&name).and_then(|mut arbiter| arbiter.last());
            last.map_err(|error| format!("cannot ask the arbiter: {}", in_one_line(&error)))
        });
        last.await.map_err(|error| error.to_string())?
    }

    /// Ends all copies of a VM: those that would take over first.
    async fn stop_everywhere(self: &Arc<Self>, vm: &str) -> Answer {
        let status = Request::Status { vm: vm.to_owned() };
        let known = self.ask_agent(|reply| Input::Asked(None, status, reply)).await;
        if let Answer::Refused { .. } = known {
            return known;
        }
        let mut remarks: BTreeMap<String, String> = BTreeMap::new();
        for end in [Retire::None, Retire::Followers, Retire::All] {
            let request = Request::Retire { vm: vm.to_owned(), end };
            let mut outcomes = Vec::new();
            let own = self.ask_agent(|reply| Input::Asked(None, request.clone(), reply)).await;
            outcomes.push((self.file.name.clone(), Ok(own)));
            for (id, peer) in &self.peers {
                outcomes.push((peer.name.to_string(), self.ask(*id, &request, RETIRE_WITHIN).await));
            }
            for (host, outcome) in outcomes {
                match outcome {
                    Ok(Answer::Done { .. }) => {}
                    Ok(other) => drop(remarks.insert(host, unexpected(other))),
                    Err(reason) => drop(remarks.insert(host, reason)),
                }
            }
        }
        self.describe_all().await;
        let unsure = |(host, reason)| format!("{host}: a copy there may still run, and go live: {reason}");
        Answer::Done { remarks: remarks.into_iter().map(unsure).collect() }
    }

    async fn await_event(&self, since: u64, wait: Duration) {
        let mut last = self.last_event.clone();
        let news = last.wait_for(|last| *last > since);
        // Nothing new is an answer too.
        let _ = tokio::time::timeout(wait, news).await;
    }

    async fn describe_for_ever(self: Arc<Self>, host: u64) {
        while !self.inputs.is_closed() {
            Arc::clone(&self).describe(host).await;
            tokio::time::sleep(DESCRIBE_EVERY).await;
        }
    }

    /// Has the agent hear what another host is like now.
    async fn describe(self: Arc<Self>, host: u64) {
        let outcome = match self.ask(host, &Request::Describe, DESCRIBE_WITHIN).await {
            Ok(Answer::Description(description)) => Ok(description),
            Ok(other) => Err(unexpected(other)),
            Err(reason) => Err(reason),
        };
        self.tell(Input::Described(host, outcome)).await;
    }

    /// Has the agent hear what all other hosts are like now.
    async fn describe_all(self: &Arc<Self>) {
        let all: JoinSet<()> = self.peers.keys().map(|host| Arc::clone(self).describe(*host)).collect();
        all.join_all().await;
    }
}

/// Hands on what the process of a VM says, and what it is told, until it is told no more.
async fn watch_vm(
    (vm, life): (String, u64),
    socket: PathBuf,
    mut told: mpsc::Receiver<Command>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            let (read, mut write) = stream.into_split();
            let mut read = BufReader::new(read);
            let hear = async {
                while let Ok(Some(line)) = read_line(&mut read, LINE_BYTES_MAX).await {
                    match serde_json::from_slice::<Line>(&line) {
                        Ok(line) => drop(inputs.send(Input::Heard(vm.clone(), life, line)).await),
                        Err(error) => {
                            tracing::warn!(vm, %error, "a VM's process says what this build does not know")
                        }
                    }
                }
            };
            let tell = async {
                while let Some(command) = told.recv().await {
                    let Ok(mut line) = serde_json::to_vec(&command) else { continue };
                    line.push(b'\n');
                    if write.write_all(&line).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = hear => {}
                () = tell => {}
            }
        }
        if told.is_closed() {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// The next line; `None` at the end, or where a line is too long.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin), max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.take(max).read_until(b'\n', &mut line).await?;
    Ok((line.last() == Some(&b'\n')).then_some(line))
}

fn encode(answer: &Answer) -> Bytes {
    let text = serde_json::to_vec(answer);
    text.unwrap_or_else(|error| format!("{{\"answer\":\"refused\",\"reason\":\"{error}\"}}").into()).into()
}

/// What an answer says that is not the one hoped for.
fn unexpected(answer: Answer) -> String {
    match answer {
        Answer::Refused { reason } => reason,
        other => format!("it answered something else: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn r9_lines_are_bounded() {
        let mut text: &[u8] = b"one\ntwo\nthree";
        for line in [Some("one\n"), Some("two\n"), None] {
            let read = read_line(&mut text, 4).await.unwrap();
            assert_eq!(read.as_deref(), line.map(str::as_bytes));
        }
    }
}
