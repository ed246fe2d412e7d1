//! Ctrl-C. The run notices it at its next wait and unwinds, so that every guard drops.

use super::error::{Doing, Error};
use crate::signals::on_signal;
use crossbeam::channel::{Receiver, TryRecvError};

/// Whether somebody wants this run to end.
pub(super) struct Interrupt(Receiver<()>);

impl Interrupt {
    /// Watches from now on.
    pub(super) fn watch() -> Result<Self, Error> {
        on_signal().map(Self).doing("watch for signals")
    }

    /// An error once a signal has arrived.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.0.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            _ => Err(Error::Interrupted),
        }
    }
}
