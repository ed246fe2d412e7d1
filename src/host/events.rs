//! What has happened on a host: numbered, in bounded space, on disk and in memory.
//!
//! Invariant: numbers grow by one and are never used twice, also when the agent is killed and started again.

use crate::vm::log::{begin_anew, previous};
use ft_net::identity::UtcTime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::sync::watch;

/// Events that can be asked for.
pub const EVENTS_MAX: usize = 1000;

/// At this size the file becomes `events.1`, in place of the one before.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The agent was started.
    AgentStarted,
    /// The agent was stopped; VMs go on.
    AgentStopped,
    /// Another host's agent answers.
    PeerUp,
    /// Another host's agent does not answer any more.
    PeerDown,
    /// A VM's process was started.
    Started,
    /// A VM's process was found again after the agent was started.
    Found,
    /// A copy went live.
    Live,
    /// A pair is in step.
    Protected,
    /// A VM has one copy only.
    Solo,
    /// A copy follows.
    Following,
    /// A copy takes over.
    Promoting,
    /// Something else that a VM's process said.
    Notice,
    /// A VM's process ended.
    Ended,
    /// A secondary is being made on another host.
    Respawn,
    /// A secondary could not be made; another try follows.
    RespawnFailed,
    /// No host can take a secondary.
    NoHost,
    /// A VM is being stopped.
    Stopping,
    /// A guest hung or crashed, and has begun again.
    GuestRestarted,
    /// A VM is handed over because its guest went down again.
    GuestMoved,
    /// A VM's process was killed on purpose, as a test.
    Killed,
    /// This host takes no further copies, or takes them again.
    Draining,
    /// A secondary moves to another host: another is made there, to relieve it.
    Moving,
    /// A secondary has moved.
    Moved,
    /// A secondary could not be moved: it stays.
    MoveFailed,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// When, in UTC.
    pub at: String,
    /// The VM that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// What kind of thing.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

/// The events of a host.
pub struct Events {
    path: PathBuf,
    file: File,
    bytes: u64,
    recent: VecDeque<Event>,
    last: watch::Sender<u64>,
}

impl Events {
    /// Goes on after the events in the file at `path`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut recent = VecDeque::new();
        for path in [previous(path), path.to_owned()] {
            match File::open(&path) {
                Ok(file) => read(file, &mut recent)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        let last = watch::Sender::new(recent.back().map_or(0, |event: &Event| event.seq));
        let mut events = Self { path: path.into(), file, bytes, recent, last };
        if bytes > 0 {
            // An agent that was killed may have left half a line: it must not spoil the next.
            events.write("\n");
        }
        Ok(events)
    }

    /// Adds an event, and hands it back.
    pub fn add(&mut self, vm: Option<&str>, kind: Kind, text: impl Into<String>) -> &Event {
        let seq = *self.last.borrow() + 1;
        let at = UtcTime::from(SystemTime::now()).to_string();
        let event = Event { seq, at, vm: vm.map(str::to_owned), kind, text: text.into() };
        tracing::info!(seq, vm, ?kind, "{}", event.text);
        if let Ok(line) = serde_json::to_string(&event) {
            self.write(&format!("{line}\n"));
        }
        if self.recent.len() == EVENTS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(event);
        self.last.send_replace(seq);
        &self.recent[self.recent.len() - 1]
    }

    /// Those after number `since`, oldest first.
    pub fn since(&self, since: u64) -> Vec<Event> {
        self.recent.iter().filter(|event| event.seq > since).cloned().collect()
    }

    /// Follows the number of the last event.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// What cannot be written is in memory all the same: a full file system stops nothing.
    fn write(&mut self, text: &str) {
        if self.bytes >= FILE_BYTES_MAX
            && let Ok(file) = begin_anew(&self.path)
        {
            (self.file, self.bytes) = (file, 0);
        }
        if let Err(error) = self.file.write_all(text.as_bytes()) {
            tracing::warn!(path = %self.path.display(), %error, "cannot write an event");
        }
        self.bytes += text.len() as u64;
    }
}

/// The events of a file; what is no event is passed over.
fn read(file: File, recent: &mut VecDeque<Event>) -> io::Result<()> {
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(event) = serde_json::from_slice(&line?) {
            if recent.len() == EVENTS_MAX {
                recent.pop_front();
            }
            recent.push_back(event);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_go_on_after_a_crash_in_the_middle_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut events = Events::open(&path).unwrap();
        events.add(None, Kind::AgentStarted, "one");
        events.add(Some("vm"), Kind::Live, "two");
        drop(events);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":3,\"at").unwrap();
        let mut events = Events::open(&path).unwrap();
        events.add(None, Kind::AgentStarted, "three");
        drop(events);
        let events = Events::open(&path).unwrap();
        let texts: Vec<_> = events.since(1).into_iter().map(|event| (event.seq, event.text)).collect();
        assert_eq!(texts, [(2, "two".into()), (3, "three".into())]);
    }

    #[test]
    fn r9_files_and_memory_are_bounded_and_the_latest_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut events = Events::open(&path).unwrap();
        let long = "x".repeat(1000);
        for _ in 0..3 * EVENTS_MAX {
            events.add(None, Kind::Notice, &*long);
        }
        let last = 3 * EVENTS_MAX as u64;
        for events in [&events, &Events::open(&path).unwrap()] {
            let all = events.since(0);
            assert_eq!((all.len(), all[all.len() - 1].seq), (EVENTS_MAX, last));
            assert_eq!(events.since(last - 2).len(), 2);
        }
        for path in [previous(&path), path] {
            assert!(std::fs::metadata(path).unwrap().len() <= FILE_BYTES_MAX + 2000);
        }
    }
}
