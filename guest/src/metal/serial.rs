//! The serial port, for a few short lines.

use super::cpu::{in8, out8};
use core::fmt;

const DATA: u16 = 0x3f8;
const FIFO_CONTROL: u16 = DATA + 2;
const LINE_STATUS: u16 = DATA + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const FIFO_BYTES: usize = 16;

/// The port.
pub(crate) struct Serial;

impl Serial {
    /// Turns its queues on.
    pub(crate) fn set_up() {
        out8(FIFO_CONTROL, 0x07);
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The status is asked for once for each fill of the queue: every access leaves the machine.
        for bytes in text.as_bytes().chunks(FIFO_BYTES) {
            while in8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            bytes.iter().for_each(|byte| out8(DATA, *byte));
        }
        Ok(())
    }
}
