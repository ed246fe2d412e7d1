//! Network namespaces of a run's own, made and removed with iproute2: for benchmarks and tests on one machine.
//!
//! Invariant: only what was added is removed, and it is removed however the run ends, short of SIGKILL. Interfaces, addresses and queues
//! live inside namespaces and go with them.

use std::io;
use std::ops::Index;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use thiserror::Error;

/// Why iproute2 did not do what it was told.
#[derive(Debug, Error)]
pub enum ToolError {
    /// It is missing.
    #[error("`{0}` is not installed: install iproute2")]
    Missing(String),
    /// It, or the kernel, refuses.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// What was run.
        command: String,
        /// The first line of what it said.
        said: String,
    },
}

/// Namespaces, in the order in which they were added. Dropping them removes them; processes in them must have ended.
#[derive(Debug, Default)]
pub struct Namespaces(Vec<String>);

impl Namespaces {
    /// Makes one more.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn add(&mut self, name: String) -> Result<(), ToolError> {
        tool("ip", &["netns", "add", &name])?;
        self.0.push(name);
        Ok(())
    }

    /// Their names.
    pub fn iter(&self) -> std::slice::Iter<'_, String> {
        self.0.iter()
    }
}

impl Index<usize> for Namespaces {
    type Output = str;

    fn index(&self, at: usize) -> &str {
        &self.0[at]
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            if let Err(error) = tool("ip", &["netns", "delete", name]) {
                eprintln!(
                    "ft: namespace {name} is left behind ({error}); remove it with `ip netns delete {name}`"
                );
            }
        }
    }
}

/// Runs `ip` or `tc`, out of reach of Ctrl-C: cleaning up must not be cut short. Returns what it printed.
///
/// # Errors
/// [`ToolError`].
pub fn tool(program: &str, arguments: &[&str]) -> Result<String, ToolError> {
    let failed =
        |said: String| ToolError::Failed { command: format!("{program} {}", arguments.join(" ")), said };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).process_group(0).output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(said.lines().next().unwrap_or("no message").to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ToolError::Missing(program.to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}
