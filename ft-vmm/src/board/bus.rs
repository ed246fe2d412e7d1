//! Which device a port or an address belongs to.
//!
//! An access wider than a device's registers is split into bytes at successive ports, as on an ISA bus.

use super::{Board, irq};
use crate::devices::virtio::Device;
use crate::devices::virtio::mmio::{SLOT_BYTES, Slot, read_empty};
use crate::devices::watchdog;
use crate::ram::GuestRam;
use crate::vcpu::Platform;
use ft_core::units::Tick;

/// Address of virtio slot 0.
pub const SLOTS_GPA: u64 = 0xd000_0000;

/// How many slots there are.
pub const SLOT_COUNT: u64 = 4;

/// What a vCPU sees of a [`Board`] while it runs.
#[derive(Debug)]
pub struct View<'a> {
    board: &'a mut Board,
    memory: &'a GuestRam,
}

impl<'a> View<'a> {
    pub(super) fn new(board: &'a mut Board, memory: &'a GuestRam) -> Self {
        Self { board, memory }
    }
}

impl Platform for View<'_> {
    fn pio_read(&mut self, at: Tick, port: u16, data: &mut [u8]) {
        self.board.catch_up(at);
        let now = self.board.clock.now(at);
        for (port, byte) in (port..=u16::MAX).zip(data.iter_mut()) {
            *byte = self.board.read_port(port, now);
        }
        // Beyond the last port there is nothing.
        let inside = usize::from(u16::MAX - port) + 1;
        data.iter_mut().skip(inside).for_each(|byte| *byte = 0xff);
    }

    fn pio_write(&mut self, at: Tick, port: u16, data: &[u8]) {
        self.board.catch_up(at);
        let now = self.board.clock.now(at);
        for (port, byte) in (port..=u16::MAX).zip(data) {
            self.board.write_port(port, *byte, now);
        }
    }

    fn mmio_read(&mut self, at: Tick, gpa: u64, data: &mut [u8]) {
        self.board.catch_up(at);
        self.board.read_slot(gpa, data);
    }

    fn mmio_write(&mut self, at: Tick, gpa: u64, data: &[u8]) {
        self.board.catch_up(at);
        self.board.write_slot(gpa, data, self.memory);
    }

    fn tsc(&mut self, at: Tick) -> u64 {
        // 1 GHz: the machine's clock.
        self.board.clock.now(at)
    }

    fn interrupt(&self) -> bool {
        self.board.pic.interrupt()
    }

    fn acknowledge(&mut self) -> u8 {
        self.board.pic.acknowledge()
    }

    fn wants_stop(&self) -> bool {
        self.board.wants_stop()
    }
}

impl Board {
    fn read_port(&mut self, port: u16, now: u64) -> u8 {
        let value = match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => return self.pic.read(port),
            0x40..=0x43 | 0x61 => return self.pit.read(port, now),
            0x600..=0x60b => return self.acpi.read(port - 0x600, now),
            0x64 | 0xcf9 => return self.reset.read(port),
            0x70 | 0x71 => self.rtc.read(port, now, &mut self.pic),
            0x3f8..=0x3ff => {
                let value = self.serial.read((port - 0x3f8) as u8);
                self.pic.set_line(irq::SERIAL, self.serial.interrupt());
                return value;
            }
            _ => return 0xff,
        };
        self.settle_deadline();
        value
    }

    fn write_port(&mut self, port: u16, value: u8, now: u64) {
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => return self.pic.write(port, value),
            0x40..=0x43 | 0x61 => self.pit.write(port, value, now, &mut self.pic),
            0x70 | 0x71 => self.rtc.write(port, value, now, &mut self.pic),
            0x3f8..=0x3ff => self.serial.write((port - 0x3f8) as u8, value, now, &mut self.outbox),
            0x600..=0x60b => {
                if let Some(request) = self.acpi.write(port - 0x600, value) {
                    self.ask(request);
                }
            }
            0x64 | 0xcf9 => {
                if let Some(request) = self.reset.write(port, value) {
                    self.ask(request);
                }
            }
            watchdog::STOP | watchdog::START => self.watchdog.write(port, value, now),
            _ => return,
        }
        self.settle();
    }

    fn read_slot(&mut self, gpa: u64, data: &mut [u8]) {
        let Some((slot, offset)) = slot_of(gpa, data.len()) else { return data.fill(0xff) };
        match slot {
            0 => read(&self.net, offset, data),
            1 => read(&self.block, offset, data),
            2 => read(&self.console, offset, data),
            _ => read(&self.entropy, offset, data),
        }
    }

    fn write_slot(&mut self, gpa: u64, data: &[u8], memory: &GuestRam) {
        let Some((slot, offset)) = slot_of(gpa, data.len()) else { return };
        let outbox = &mut self.outbox;
        match slot {
            0 => self.net.iter_mut().for_each(|slot| slot.write(offset, data, memory, outbox)),
            1 => self.block.iter_mut().for_each(|slot| slot.write(offset, data, memory, outbox)),
            2 => self.console.iter_mut().for_each(|slot| slot.write(offset, data, memory, outbox)),
            _ => self.entropy.iter_mut().for_each(|slot| slot.write(offset, data, memory, outbox)),
        }
        self.settle();
    }
}

/// Slot and offset of an access that lies within one.
fn slot_of(gpa: u64, len: usize) -> Option<(u64, u64)> {
    let offset = gpa.checked_sub(SLOTS_GPA)?;
    let (slot, offset) = (offset / SLOT_BYTES, offset % SLOT_BYTES);
    (slot < SLOT_COUNT && offset + len as u64 <= SLOT_BYTES).then_some((slot, offset))
}

fn read<D: Device>(slot: &Option<Slot<D>>, offset: u64, data: &mut [u8]) {
    match slot {
        Some(slot) => slot.read(offset, data),
        None => {
            data.fill(0);
            if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
                *register = read_empty(offset).to_le_bytes();
            }
        }
    }
}
