//! The board as plain data: what snapshots hold, one section for each field.

use super::Board;
use crate::clock::ClockState;
use crate::devices::Outbox;
use crate::devices::acpi::AcpiState;
use crate::devices::pic::PicState;
use crate::devices::pit::PitState;
use crate::devices::reset::ResetState;
use crate::devices::rtc::RtcState;
use crate::devices::serial::{Serial, SerialState};
use crate::devices::virtio::Device;
use crate::devices::virtio::block::BlockState;
use crate::devices::virtio::console::ConsoleState;
use crate::devices::virtio::entropy::EntropyState;
use crate::devices::virtio::mmio::{Slot, TransportState};
use crate::devices::virtio::net::NetState;
use crate::devices::watchdog::WatchdogState;
use ft_core::digest::Digester;
use ft_core::error::Fault;
use serde::{Deserialize, Serialize};

/// A virtio slot: transport and device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotState<S> {
    /// Registers and queues.
    pub transport: TransportState,
    /// What the device keeps beside them.
    pub device: S,
}

/// Everything that determines a board's future. What a [`BoardConfig`](super::BoardConfig) says is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardState {
    /// The machine's clock.
    pub clock: ClockState,
    /// Interrupt controllers.
    pub pic: PicState,
    /// Timer.
    pub pit: PitState,
    /// MC146818.
    pub rtc: RtcState,
    /// Serial port.
    pub serial: SerialState,
    /// PM registers.
    pub acpi: AcpiState,
    /// Reset control.
    pub reset: ResetState,
    /// Watchdog.
    pub watchdog: WatchdogState,
    /// Network card.
    pub net: Option<SlotState<NetState>>,
    /// Disk.
    pub block: Option<SlotState<BlockState>>,
    /// Console.
    pub console: Option<SlotState<ConsoleState>>,
    /// Entropy.
    pub entropy: Option<SlotState<EntropyState>>,
    /// Number of the last operation.
    pub last_op: u64,
}

impl Board {
    /// All of its state. Effects and requests that have not been taken are not in it.
    pub fn state(&self) -> BoardState {
        BoardState {
            clock: self.clock.state(),
            pic: self.pic.clone(),
            pit: self.pit.clone(),
            rtc: self.rtc.clone(),
            serial: self.serial.state(),
            acpi: self.acpi.clone(),
            reset: self.reset.clone(),
            watchdog: self.watchdog.clone(),
            net: save(&self.net, |device| device.state()),
            block: save(&self.block, |device| device.state()),
            console: save(&self.console, |device| device.state()),
            entropy: save(&self.entropy, |device| device.state()),
            last_op: self.outbox.last_op(),
        }
    }

    /// Goes on from a state. Effects and requests that have not been taken are forgotten.
    ///
    /// # Errors
    /// When the state is of a board with other devices, or is none that a board can have. The board must then not be used.
    pub fn set_state(&mut self, state: &BoardState) -> Result<(), Fault> {
        self.clock.set_state(&state.clock);
        self.pic = state.pic.clone();
        self.pit = state.pit.clone();
        self.rtc = state.rtc.clone();
        self.serial = Serial::from_state(&state.serial)?;
        self.acpi = state.acpi.clone();
        self.reset = state.reset.clone();
        self.watchdog = state.watchdog.clone();
        restore("network card", &mut self.net, &state.net, |device, state| device.set_state(state))?;
        restore("disk", &mut self.block, &state.block, |device, state| device.set_state(state))?;
        restore("console", &mut self.console, &state.console, |device, state| device.set_state(state))?;
        restore("entropy device", &mut self.entropy, &state.entropy, |device, state| {
            device.set_state(state)
        })?;
        self.outbox = Outbox::new(state.last_op);
        self.request = None;
        self.settle_deadline();
        Ok(())
    }

    /// Digests its state (R11).
    pub fn digest(&self, digester: &mut Digester) {
        let bytes = postcard::to_allocvec(&self.state()).expect("plain data in memory always serializes");
        digester.u64(bytes.len() as u64).bytes(&bytes);
    }
}

fn save<D: Device, S>(slot: &Option<Slot<D>>, state: impl FnOnce(&D) -> S) -> Option<SlotState<S>> {
    slot.as_ref().map(|slot| SlotState { transport: slot.state(), device: state(slot.device()) })
}

fn restore<D: Device, S>(
    what: &str,
    slot: &mut Option<Slot<D>>,
    state: &Option<SlotState<S>>,
    set_state: impl FnOnce(&mut D, &S) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match (slot, state) {
        (Some(slot), Some(state)) => {
            slot.set_state(&state.transport)?;
            set_state(slot.device_mut(), &state.device)
        }
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Fault(format!("the state has a {what}, this machine has none"))),
        (Some(_), None) => Err(Fault(format!("the state has no {what}, this machine has one"))),
    }
}
