//! What can go wrong in a benchmark, by who is at fault: the host, a peer process, or the person who stopped it.

use ft::netns::ToolError;
use std::process::ExitStatus;

/// Why a benchmark ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call, a certificate or a connection failed while something was being done.
    #[error("cannot {doing}")]
    Failed { doing: String, source: Box<dyn std::error::Error + Send + Sync> },
    /// `ip` or `tc` refused.
    #[error("`{command}` failed: {said}")]
    Tool { command: String, said: String },
    /// The shaped link needs something this host does not give.
    #[error("{0}")]
    Obstacle(String),
    /// A peer reported an error of its own.
    #[error("the {who} failed: {said}")]
    PeerFailed { who: String, said: String },
    /// A peer ended without a result.
    #[error("the {who} (process {pid}) ended without a result: {status}")]
    PeerDied { who: String, pid: u32, status: ExitStatus },
    /// Neither a result nor an end.
    #[error("no result from the {who} after {seconds} s; both processes were killed")]
    PeerSilent { who: String, seconds: u64 },
    /// The other end stopped early.
    #[error("the stream ended after {got} of {expected} bytes")]
    Truncated { got: u64, expected: u64 },
    /// The receiver's count, sent back to the sender, differs from what was sent.
    #[error("{sent} bytes were sent but the receiver counted {counted}")]
    Miscounted { sent: u64, counted: u64 },
    /// A contender that this build does not have.
    #[error("this build has no channel named {0} to measure")]
    NotBuilt(String),
    /// Every link was skipped.
    #[error("nothing was measured: every link was skipped")]
    NothingMeasured,
    /// Ctrl-C, SIGTERM or SIGHUP.
    #[error("interrupted; processes and namespaces of this run are removed")]
    Interrupted,
}

/// Says what was being done when something failed.
pub(super) trait Doing<T> {
    /// Wraps the error; `doing` completes the sentence "cannot ...".
    fn doing(self, doing: impl Into<String>) -> Result<T, Error>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl Into<String>) -> Result<T, Error> {
        self.map_err(|error| Error::Failed { doing: doing.into(), source: error.into() })
    }
}
impl From<ToolError> for Error {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Missing(_) => Self::Obstacle(error.to_string()),
            ToolError::Failed { command, said } => Self::Tool { command, said },
        }
    }
}
