//! Everything around the vCPU: the devices that docs/guest.md describes, the clock, and how accesses, records and deadlines reach them.
//!
//! How a machine uses a [`Board`]:
//!
//! ```text
//! run:    let until = board.next_deadline(tick), or the tick asked for if that is earlier
//!         vcpu.run(ram, &mut board.attach(ram), until)
//!         board.advance(tick)                            after every return, at the tick where the vCPU stands
//!         board.take_effect(), board.take_request()      until both are empty
//! apply:  board.apply(event, ram, tick), then the same two
//! idle:   board.next_deadline_ns()                       when a Time record should come at the latest
//! ```
//!
//! Invariant: state changes by guest accesses, records and deadlines only; [`Board::advance`] at a tick where nothing is due changes nothing.
//! Two boards that see the same of these at the same ticks are equal, however often somebody looked in between (R1).
//!
//! Invariant: [`Board::state`] is complete once all effects and requests have been taken.

mod bus;
mod state;

pub use bus::{SLOT_COUNT, SLOTS_GPA, View};
pub use state::{BoardState, SlotState};

use crate::clock::Clock;
use crate::devices::Outbox;
use crate::devices::acpi::AcpiState;
use crate::devices::pic::PicState;
use crate::devices::pit::PitState;
pub use crate::devices::reset::Request;
use crate::devices::reset::ResetState;
use crate::devices::rtc::RtcState;
use crate::devices::serial::Serial;
use crate::devices::virtio::block::Block;
use crate::devices::virtio::console::{self, Console};
use crate::devices::virtio::entropy::Entropy;
use crate::devices::virtio::mmio::Slot;
use crate::devices::virtio::net::Net;
use crate::devices::watchdog::WatchdogState;
use crate::ram::{GuestRam, Ram};
use ft_core::Event;
use ft_core::effect::Effect;
use ft_core::error::Fault;
use ft_core::units::{Tick, VirtualTime};
use serde::{Deserialize, Serialize};

/// Lines of the interrupt controllers.
mod irq {
    pub(super) const SERIAL: u8 = 4;
    pub(super) const NET: u8 = 5;
    /// The entropy device, and ACPI's system control interrupt.
    pub(super) const ENTROPY_AND_SCI: u8 = 9;
    pub(super) const BLOCK: u8 = 10;
    pub(super) const CONSOLE: u8 = 11;
}

/// Which devices there are, and what they are like. Equal on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardConfig {
    /// Nanoseconds by which the clock runs with each tick: 1 on the software vCPU, 0 on KVM.
    pub ns_per_tick: u64,
    /// What the MC146818 shows at 0 of the machine's clock, in seconds since 1970.
    pub epoch_s: u64,
    /// The network card's address, if there is one.
    pub mac: Option<[u8; 6]>,
    /// The disk, if there is one.
    pub disk: Option<DiskConfig>,
    /// Whether there is a virtio console.
    pub console: bool,
    /// Whether there is an entropy device.
    pub entropy: bool,
}

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskConfig {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// Whether writes are refused.
    pub read_only: bool,
}

impl Default for BoardConfig {
    /// For the software vCPU: serial port only, the clock at 1970.
    fn default() -> Self {
        Self { ns_per_tick: 1, epoch_s: 0, mac: None, disk: None, console: false, entropy: false }
    }
}

/// The machine without vCPU and RAM.
#[derive(Debug)]
pub struct Board {
    clock: Clock,
    pic: PicState,
    pit: PitState,
    rtc: RtcState,
    serial: Serial,
    acpi: AcpiState,
    reset: ResetState,
    watchdog: WatchdogState,
    net: Option<Slot<Net>>,
    block: Option<Slot<Block>>,
    console: Option<Slot<Console>>,
    entropy: Option<Slot<Entropy>>,
    outbox: Outbox,
    request: Option<Request>,
    /// The earliest deadline, or `u64::MAX`. Follows from the devices.
    deadline_ns: u64,
    /// The deadline that the machine could see when it attached: an earlier one has to stop the vCPU.
    seen_ns: u64,
}

impl Board {
    /// A board after power-on.
    pub fn new(config: &BoardConfig) -> Self {
        Self {
            clock: Clock::new(config.ns_per_tick),
            pic: PicState::default(),
            pit: PitState::default(),
            rtc: RtcState::new(config.epoch_s),
            serial: Serial::default(),
            acpi: AcpiState::default(),
            reset: ResetState::default(),
            watchdog: WatchdogState::default(),
            net: config.mac.map(|mac| Slot::new(Net::new(mac))),
            block: config.disk.map(|disk| Slot::new(Block::new(disk.sectors, disk.read_only))),
            console: config.console.then(|| Slot::new(Console::default())),
            entropy: config.entropy.then(|| Slot::new(Entropy::default())),
            outbox: Outbox::default(),
            request: None,
            deadline_ns: u64::MAX,
            seen_ns: u64::MAX,
        }
    }

    /// The view that a vCPU runs with. From here on [`Platform::wants_stop`](crate::vcpu::Platform::wants_stop) is true once there is an
    /// effect or a request to take, or a deadline before the one that [`Board::next_deadline`] names now.
    pub fn attach<'a>(&'a mut self, ram: &'a Ram) -> View<'a> {
        self.seen_ns = self.deadline_ns;
        View::new(self, ram.memory())
    }

    /// The machine's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes in a record that enters at tick `at`. Effects may come of it.
    ///
    /// A completion that nobody waits for, and input for a device that is not there or that has no room, are lost: nothing is wrong with
    /// them. [`Event::Reset`] becomes a request of the machine.
    ///
    /// # Errors
    /// When the record is not one for devices at all.
    pub fn apply(&mut self, event: &Event, ram: &Ram, at: Tick) -> Result<(), Fault> {
        let memory = ram.memory();
        self.catch_up(at);
        match event {
            Event::Time(time) => self.set_clock(at, *time),
            Event::Net { device, frame } => {
                if let (0, Some(net)) = (device, &mut self.net) {
                    net.work(memory, &mut self.outbox, |net, io| net.receive(frame.clone(), io));
                }
            }
            Event::BlockDone { device, id, status, data } => {
                if *device == 0 {
                    self.complete_block(*id, *status, data, memory);
                }
            }
            Event::Console { device, bytes } => self.type_in(*device, bytes, memory),
            Event::Entropy(bytes) => {
                if let Some(entropy) = &mut self.entropy {
                    entropy.work(memory, &mut self.outbox, |entropy, io| entropy.fill(bytes, io));
                }
            }
            Event::Shutdown => self.acpi.press_power_button(),
            Event::Reset => self.ask(Request::ResetFromOutside),
            // Marks, not inputs.
            Event::Emit { .. } | Event::Digest(_) => {}
            Event::Checkpoint { .. } | Event::Vendor { .. } => {
                return Err(Fault(format!(
                    "a {} record is nothing for this machine's devices",
                    event.name()
                )));
            }
        }
        self.catch_up(at);
        self.settle();
        Ok(())
    }

    fn set_clock(&mut self, at: Tick, time: VirtualTime) {
        let before = self.clock.now(at);
        self.clock.set(at, time);
        self.watchdog.handle_step(self.clock.now(at) - before);
    }

    fn complete_block(&mut self, id: u64, status: u8, data: &[u8], memory: &GuestRam) {
        let Some(block) = &mut self.block else { return };
        if let Some(operation) = block.device_mut().take(id) {
            block.work(memory, &mut self.outbox, |block, io| block.complete(&operation, status, data, io));
        }
    }

    fn type_in(&mut self, device: u8, bytes: &[u8], memory: &GuestRam) {
        match (device, &mut self.console) {
            (0, _) => self.serial.receive(bytes),
            (console::DEVICE, Some(console)) => {
                console.device_mut().receive(bytes);
                console.work(memory, &mut self.outbox, Console::deliver);
            }
            _ => {}
        }
    }

    /// Fires what is due at tick `at`. Effects may come of it.
    pub fn advance(&mut self, at: Tick) {
        self.catch_up(at);
    }

    /// The tick by which the vCPU must return and [`Board::advance`] be called, so that whatever is due happens exactly then; not before
    /// `at`. None when nothing is due unless a record comes.
    pub fn next_deadline(&self, at: Tick) -> Option<Tick> {
        self.clock.tick_at(self.next_deadline_ns()?).map(|tick| tick.max(at))
    }

    /// When something is due, on the machine's clock. A guest chooses how often that is: whoever makes Time records for an idle machine
    /// bounds it.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        (self.deadline_ns < u64::MAX).then_some(self.deadline_ns)
    }

    /// Takes the oldest effect.
    pub fn take_effect(&mut self) -> Option<Effect> {
        self.outbox.take()
    }

    /// The vCPU is shut down, as after a triple fault. It becomes a request of the machine, as on a board whose chipset resets the
    /// processor then.
    pub fn handle_shutdown(&mut self) {
        self.ask(Request::Crash);
        self.settle();
    }

    /// Takes what somebody asked of the whole machine. What the guest said before that is among the effects.
    pub fn take_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// Operations that were emitted and have not completed, oldest first, as they were emitted (R7).
    pub fn in_flight(&self) -> Vec<Effect> {
        let block = self.block.iter().flat_map(|slot| slot.device().in_flight());
        let entropy = self.entropy.iter().flat_map(|slot| slot.device().in_flight());
        let mut operations: Vec<Effect> = block.chain(entropy).collect();
        operations.sort_by_key(|effect| effect.op);
        operations
    }

    /// Resets all devices. The clock goes on, as do the time and memory of the MC146818 and the numbers of operations; output that has
    /// not left yet leaves.
    pub fn reset(&mut self) {
        self.serial.flush(&mut self.outbox);
        self.serial = Serial::default();
        self.pic = PicState::default();
        self.pit = PitState::default();
        self.rtc.reset();
        self.acpi = AcpiState::default();
        self.reset = ResetState::default();
        self.watchdog = WatchdogState::default();
        self.net.iter_mut().for_each(Slot::reset);
        self.block.iter_mut().for_each(Slot::reset);
        self.console.iter_mut().for_each(Slot::reset);
        self.entropy.iter_mut().for_each(Slot::reset);
        self.request = None;
        self.settle();
    }

    /// Fires what is due.
    fn catch_up(&mut self, at: Tick) {
        if self.deadline_ns == u64::MAX {
            return;
        }
        let now = self.clock.now(at);
        if self.deadline_ns > now {
            return;
        }
        self.pit.advance(now, &mut self.pic);
        self.rtc.advance(now, &mut self.pic);
        self.serial.advance(now, &mut self.outbox);
        if self.watchdog.advance(now) {
            self.ask(Request::Watchdog);
        }
        self.settle();
    }

    /// After a change: interrupt lines and the deadline follow from the devices.
    fn settle(&mut self) {
        self.pic.set_line(irq::SERIAL, self.serial.interrupt());
        let entropy = self.entropy.as_ref().is_some_and(Slot::interrupt);
        self.pic.set_line(irq::ENTROPY_AND_SCI, entropy || self.acpi.interrupt());
        self.pic.set_line(irq::NET, self.net.as_ref().is_some_and(Slot::interrupt));
        self.pic.set_line(irq::BLOCK, self.block.as_ref().is_some_and(Slot::interrupt));
        self.pic.set_line(irq::CONSOLE, self.console.as_ref().is_some_and(Slot::interrupt));
        self.settle_deadline();
    }

    fn settle_deadline(&mut self) {
        let timers = [self.pit.deadline_ns(), self.rtc.deadline_ns()];
        let others = [self.serial.deadline_ns(), self.watchdog.deadline_ns()];
        self.deadline_ns = timers.into_iter().chain(others).flatten().min().unwrap_or(u64::MAX);
    }

    fn ask(&mut self, request: Request) {
        // What the guest said before it went is heard before.
        self.serial.flush(&mut self.outbox);
        // Whoever is gone needs no watching, least of all a machine that is off: it would be turned on again.
        self.watchdog.stop();
        self.request = Some(request);
    }

    fn wants_stop(&self) -> bool {
        !self.outbox.is_empty() || self.request.is_some() || self.deadline_ns < self.seen_ns
    }
}

#[cfg(test)]
mod tests;
