//! A cluster of agents, and what is heard of the VM in it.

use super::{Healing, Heard, Picture, Witness};
use crate::demo::{Agents, AgentsConfig, HostsError};
use crate::lan::Notice;
use crossbeam::channel::{Receiver, at, select_biased, unbounded};
use std::time::{Duration, Instant};

/// The cluster. Its order matters: the witnesses end before what they hear.
pub struct Observed {
    _witnesses: Vec<Witness>,
    agents: Agents,
    heard: Receiver<Heard>,
    stop: Receiver<()>,
    picture: Picture,
    healing: Option<Healing>,
}

impl Observed {
    /// Starts the agents, as [`Agents::start`] does, and listens.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn start(
        config: AgentsConfig,
        notice: impl FnMut(Notice) + Send + 'static,
    ) -> Result<Self, HostsError> {
        let stop = config.stop.clone();
        let agents = Agents::start(config, notice)?;
        let (hears, heard) = unbounded();
        let witness = |host| Witness::start(host, agents.control_socket(host), hears.clone());
        let witnesses = agents.hosts().map(witness).collect::<Result<_, _>>()?;
        let picture = Picture::default();
        Ok(Self { _witnesses: witnesses, agents, heard, stop, picture, healing: None })
    }

    /// The agents.
    pub fn agents(&self) -> &Agents {
        &self.agents
    }

    /// The agents, to be started and killed.
    pub fn agents_mut(&mut self) -> &mut Agents {
        &mut self.agents
    }

    /// Who is well, by what was listened to so far.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// What has followed from the last host that was killed.
    pub fn healing(&self) -> Option<&Healing> {
        self.healing.as_ref()
    }

    /// Kills the host where the VM is live: its agent and the VM's process.
    ///
    /// # Errors
    /// [`HostsError`].
    pub fn kill_live_host(&mut self) -> Result<(), HostsError> {
        let (victim, _) = self.picture.live().ok_or(HostsError::NoneLive)?;
        self.healing = Some(Healing::begin(victim, Instant::now()));
        self.agents.kill_host(victim)
    }

    /// Takes in the next thing that is said, if something is within `wait`.
    ///
    /// # Errors
    /// [`HostsError::Interrupted`].
    pub fn listen(&mut self, wait: Duration) -> Result<Option<Heard>, HostsError> {
        let over = at(Instant::now() + wait);
        let heard = select_biased! {
            recv(self.stop) -> _ => return Err(HostsError::Interrupted),
            recv(self.heard) -> heard => heard.ok(),
            recv(over) -> _ => None,
        };
        if let Some(heard) = &heard {
            self.picture.take_in(heard);
            self.healing.iter_mut().for_each(|healing| healing.take_in(heard));
        }
        self.picture.look(Instant::now());
        Ok(heard)
    }

    /// The error for what did not come about, with the last words of all agents.
    pub fn late(&self, what: &str, after: Duration) -> HostsError {
        HostsError::Late { what: what.to_owned(), after, words: self.agents.words() }
    }
}
