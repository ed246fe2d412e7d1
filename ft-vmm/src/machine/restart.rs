//! What a machine does when its guest brings it down: it begins again, or is off, and says so.
//!
//! Invariant: all of it follows from records and ticks (R1). A restart happens while the vCPU stands at a tick that has just been reached, or in
//! a record; never where a run begins, because nobody could name that point.

use super::Vm;
use crate::board::Request;
use crate::power::{Cause, OnCrash, PowerEvent};
use crate::vcpu::{CpuState, Vcpu};
use ft_core::effect::{Effect, EffectKind};
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};

/// A guest that brings its machine down sooner than this after its last start has to wait for the rest of it: one that does so at once, each
/// time, neither takes the host's time nor floods the log.
const RESTART_EVERY_NS: u64 = 1_000_000_000;

/// Whether the machine has power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Power {
    #[default]
    On,
    /// Off, and why.
    Off { cause: Cause, rip: u64 },
}

/// What is neither vCPU nor device nor memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rest {
    pub(super) power: Power,
    /// How often it has begun again.
    pub(super) restarts: u64,
    /// When the processor has begun, or begins, on the machine's clock. Until then it is held.
    pub(super) starts_ns: u64,
}

impl<V: Vcpu> Vm<V> {
    /// The guest has brought the machine down, or is found to hang: it begins again, and says so.
    fn restart(&mut self, cause: Cause) -> Result<(), Fault> {
        let rip = self.vcpu.state().rip;
        self.rest.starts_ns = self.clock_ns().max(self.rest.starts_ns.saturating_add(RESTART_EVERY_NS));
        self.reset()?;
        let event = PowerEvent { cause, goes_on: true, restarts: self.rest.restarts, rip };
        self.effects.push_back(power(&event));
        Ok(())
    }

    fn turn_off(&mut self, cause: Cause) {
        self.rest.power = Power::Off { cause, rip: self.vcpu.state().rip };
        self.effects.extend(self.ending());
    }

    /// Why it is off, if it is.
    pub(super) fn ending(&self) -> Option<Effect> {
        let Power::Off { cause, rip } = self.rest.power else { return None };
        Some(power(&PowerEvent { cause, goes_on: false, restarts: self.rest.restarts, rip }))
    }

    /// The processor cannot go on: the guest's fault.
    pub(super) fn shut_down(&mut self) -> Result<(), Fault> {
        let state = self.vcpu.state();
        tracing::warn!(rip = state.rip, cr2 = state.cr2, "triple fault: the guest's processor is shut down");
        // What the machine does takes a tick, and the fault itself took none.
        self.vcpu.set_state(&CpuState { tick: state.tick + 1, ..state })?;
        self.board.handle_shutdown();
        Ok(())
    }

    /// Takes what the devices have for the outside, and does what was asked of the machine itself.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        let request = self.board.take_request();
        self.effects.extend(std::iter::from_fn(|| self.board.take_effect()));
        match (request, self.config.on_crash) {
            (None, _) => Ok(()),
            (Some(Request::Reset), _) => self.restart(Cause::Reset),
            (Some(Request::Watchdog), _) => self.restart(Cause::Watchdog),
            (Some(Request::Crash), OnCrash::Restart) => self.restart(Cause::Crash),
            (Some(Request::Crash), OnCrash::Stop) => {
                self.turn_off(Cause::Crash);
                Ok(())
            }
            (Some(Request::PowerOff), _) => {
                self.turn_off(Cause::PowerOff);
                Ok(())
            }
            (Some(Request::ResetFromOutside), _) => {
                // Nobody has to wait who asks from there.
                self.rest.starts_ns = self.clock_ns();
                self.reset()
            }
        }
    }

    /// Whether the processor waits to begin. Only records end that: the tick stands still.
    pub(super) fn is_held(&self) -> bool {
        self.clock_ns() < self.rest.starts_ns
    }
}

/// What the outside is told of the machine's power.
fn power(event: &PowerEvent) -> Effect {
    Effect { kind: EffectKind::Power, device: 0, op: None, payload: event.encode() }
}
