//! How people, and programs on the same host, talk to its agent.

use super::message::{Answer, Ask, Request};
use super::state::agent_socket;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A connection to the agent of this host.
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Why the agent gives no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error(
        "cannot reach this host's agent at {path}; is `ft host` running, and are you its user? --state names its state directory"
    )]
    Connect {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It went away.
    #[error("the agent ended in the middle of the conversation")]
    Lost(#[source] io::Error),
    /// It does not do what was asked.
    #[error("{0}")]
    Refused(String),
    /// It said something that this program does not know.
    #[error("the agent's answer is not one that this build knows; run the same build of ft")]
    Answer(#[source] io::Error),
}

impl Client {
    /// Connects to the agent whose state directory this is.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(state: &Path) -> Result<Self, ClientError> {
        let path = agent_socket(state);
        let stream = UnixStream::connect(&path).map_err(|source| ClientError::Connect { path, source })?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks the agent, or through it that of the host `on`. A refusal is an error.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ask(&mut self, on: Option<&str>, request: Request) -> Result<Answer, ClientError> {
        let ask = Ask { on: on.map(str::to_owned), request };
        let mut line = serde_json::to_vec(&ask).map_err(|error| ClientError::Answer(error.into()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Lost)?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer).map_err(ClientError::Lost)? == 0 {
            return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&answer).map_err(|error| ClientError::Answer(error.into()))? {
            Answer::Refused { reason } => Err(ClientError::Refused(reason)),
            answer => Ok(answer),
        }
    }
}
