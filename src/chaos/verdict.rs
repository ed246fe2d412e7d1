//! What a chaos test ends with.

use crate::load::LoadReport;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// How it went.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Whether nobody could have noticed, and all rules were kept.
    pub passed: bool,
    /// Decided on the faults.
    pub seed: u64,
    /// Hosts.
    pub hosts: u64,
    /// Seconds during which faults struck.
    pub seconds: f64,
    /// Faults that struck.
    pub faults: u64,
    /// Faults that were drawn and cannot be had here.
    pub skipped: u64,
    /// How often another copy went live.
    pub failovers: u64,
    /// How often the VM came to be protected again.
    pub heals: u64,
    /// The last term.
    pub terms: u64,
    /// Frames that a copy which had been stopped sent after another had taken over.
    pub last_words: u64,
    /// What is wrong, in words.
    pub violations: Vec<String>,
    /// What clients saw.
    pub load: LoadReport,
    /// The history, if it is kept.
    pub history: Option<PathBuf>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, failovers, heals, load, .. } = self;
        let word = if self.passed { "passed" } else { "failed" };
        write!(
            f,
            "verdict: {word}, {faults} faults, {failovers} failovers, {heals} heals, lost {}, duplicated {}, longest gap {:.0} ms",
            load.faults.lost, load.faults.duplicated, load.longest_gap_ms
        )
    }
}
