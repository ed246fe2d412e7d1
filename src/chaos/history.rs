//! What happened, in order: told to whoever watches, and kept in a file of JSON lines.

use super::config::ChaosError;
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// What kind of thing.
    pub what: What,
    /// The host that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<u64>,
    /// In words.
    pub text: String,
    /// In particular.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The test itself.
    Test,
    /// A kind of fault that cannot be had here.
    Skipped,
    /// A fault strikes.
    Fault,
    /// A fault is over.
    Over,
    /// Something that a copy said.
    Said,
    /// Something that a copy said that is of interest only afterwards.
    Detail,
    /// What the LAN saw.
    Lan,
    /// The rules are broken.
    Violation,
    /// How it ended.
    Verdict,
}

/// The history.
pub(super) struct History<'a> {
    started: Instant,
    path: PathBuf,
    file: File,
    tell: &'a mut dyn FnMut(&Entry),
    /// The first error: a history with a hole in it says so.
    broken: Option<std::io::Error>,
}

impl<'a> History<'a> {
    pub(super) fn create(dir: &Path, tell: &'a mut dyn FnMut(&Entry)) -> Result<Self, ChaosError> {
        let path = dir.join("history.jsonl");
        let file = File::create_new(&path).map_err(ChaosError::io(format!("make {}", path.display())))?;
        Ok(Self { started: Instant::now(), path, file, tell, broken: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn add(&mut self, what: What, host: Option<u64>, text: impl Into<String>) {
        self.add_at(Instant::now(), what, host, text, serde_json::Value::Null);
    }

    pub(super) fn add_at(
        &mut self,
        at: Instant,
        what: What,
        host: Option<u64>,
        text: impl Into<String>,
        details: serde_json::Value,
    ) {
        let at_ms = at.saturating_duration_since(self.started).as_millis() as u64;
        let entry = Entry { at_ms, what, host, text: text.into(), details };
        let written = serde_json::to_string(&entry).map_err(std::io::Error::other);
        let written = written.and_then(|line| writeln!(self.file, "{line}"));
        if let Err(error) = written {
            self.broken.get_or_insert(error);
        }
        (self.tell)(&entry);
    }

    /// # Errors
    /// When something could not be written.
    pub(super) fn check(&mut self) -> Result<(), ChaosError> {
        let broken = self.broken.take().map_or(Ok(()), Err);
        broken.map_err(ChaosError::io(format!("write {}", self.path.display())))
    }
}
