//! Two 8259A interrupt controllers, the second on input 2 of the first, with edge/level registers as south bridges have them.
//!
//! Beyond the data sheet: an edge stays latched when its line falls again (as in every chipset since), so that a timer needs no event for
//! its falling edge; and the first controller's input 2 follows the second's INT, so that no request of the second can be lost in edge mode.
//!
//! After reset the controllers are as firmware leaves them: vectors 0x08 and 0x70, all lines masked, and the lines of the virtio slots
//! level-triggered.

mod chip;

use chip::Chip;
use serde::{Deserialize, Serialize};

/// The input of the first controller to which the second is attached.
const CASCADE: u8 = 2;

/// Lines whose trigger mode is fixed: timer, keyboard and cascade; clock and coprocessor.
const ELCR_FIXED: [u8; 2] = [0b0000_0111, 0b0010_0001];

/// Lines of the virtio slots: 5; 9, 10, 11.
const ELCR_RESET: [u8; 2] = [0b0010_0000, 0b0000_1110];

/// Both controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    chips: [Chip; 2],
}

impl Default for PicState {
    fn default() -> Self {
        Self { chips: [Chip::new(1 << CASCADE, 0x08, ELCR_RESET[0]), Chip::new(0, 0x70, ELCR_RESET[1])] }
    }
}

impl PicState {
    /// Sets an interrupt line, 0 to 15.
    pub fn set_line(&mut self, line: u8, high: bool) {
        self.chips[usize::from(line >> 3 & 1)].set_line(line & 7, high);
        self.cascade();
    }

    /// A line that rises and falls: an interrupt when it is edge-triggered.
    pub fn pulse(&mut self, line: u8) {
        self.set_line(line, true);
        self.set_line(line, false);
    }

    /// Whether INTR is asserted.
    pub fn interrupt(&self) -> bool {
        self.chips[0].pending().is_some()
    }

    /// INTA: the vector of the interrupt that the processor takes; that of line 7 or 15 when the request has gone away.
    pub fn acknowledge(&mut self) -> u8 {
        let line = self.chips[0].acknowledge();
        let vector = if line == Some(CASCADE) {
            let line = self.chips[1].acknowledge();
            self.chips[1].vector(line)
        } else {
            self.chips[0].vector(line)
        };
        self.cascade();
        vector
    }

    /// A byte read from one of the controllers' ports.
    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            0x20 | 0x21 => self.chips[0].read(port & 1 == 1),
            0xa0 | 0xa1 => self.chips[1].read(port & 1 == 1),
            _ => self.chips[usize::from(port & 1)].elcr,
        };
        self.cascade();
        value
    }

    /// A byte written to one of the controllers' ports.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x20 | 0x21 => self.chips[0].write(port & 1 == 1, value),
            0xa0 | 0xa1 => self.chips[1].write(port & 1 == 1, value),
            _ => {
                let chip = usize::from(port & 1);
                self.chips[chip].elcr = value & !ELCR_FIXED[chip];
                self.chips[chip].sample_levels();
            }
        }
        self.cascade();
    }

    fn cascade(&mut self) {
        let requested = self.chips[1].pending().is_some();
        self.chips[0].follow(CASCADE, requested);
    }
}

#[cfg(test)]
mod tests;
