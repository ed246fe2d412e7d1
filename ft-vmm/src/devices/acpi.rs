//! ACPI fixed hardware: PM1a event block at 0x600, PM1a control at 0x604, PM timer at 0x608. Always in ACPI mode.
//!
//! The only event is the power button. The timer's own event (its highest bit changes) is never signalled: its status bit stays 0.

use super::reset::Request;
use serde::{Deserialize, Serialize};

/// Counts of the PM timer in a second.
const TIMER_HZ: u128 = 3_579_545;

const POWER_BUTTON: u16 = 1 << 8;
/// Events that can be enabled: timer, global lock, power button, sleep button, clock.
const ENABLES: u16 = 0b0111_0010_0001;
const SCI_ENABLE: u16 = 1 << 0;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE: u16 = 7 << 10;
const SLEEP_TYPE_S5: u16 = 5 << 10;

/// PM1a registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiState {
    status: u16,
    enable: u16,
    control: u16,
}

impl AcpiState {
    /// The power button is pressed.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// Whether the system control interrupt is asserted.
    pub fn interrupt(&self) -> bool {
        self.status & self.enable != 0
    }

    /// A byte read at an offset from 0x600.
    pub fn read(&self, offset: u16, now_ns: u64) -> u8 {
        let register = |value: u16| value.to_le_bytes()[usize::from(offset & 1)];
        match offset {
            0 | 1 => register(self.status),
            2 | 3 => register(self.enable),
            4 | 5 => register(self.control | SCI_ENABLE),
            8..=11 => timer(now_ns).to_le_bytes()[usize::from(offset - 8)],
            _ => 0xff,
        }
    }

    /// A byte written at an offset from 0x600. The byte that has the sleep enable bit takes effect with the type that it has itself.
    pub fn write(&mut self, offset: u16, value: u8) -> Option<Request> {
        let shift = 8 * (offset & 1);
        let (byte, mask) = (u16::from(value) << shift, 0xff << shift);
        match offset {
            // Writing a one clears.
            0 | 1 => self.status &= !byte,
            2 | 3 => self.enable = (self.enable & !mask | byte) & ENABLES,
            4 | 5 => {
                self.control = (self.control & !mask | byte) & !SLEEP_ENABLE;
                let off = byte & SLEEP_ENABLE != 0 && byte & SLEEP_TYPE == SLEEP_TYPE_S5;
                return off.then_some(Request::PowerOff);
            }
            _ => {}
        }
        None
    }
}

/// The PM timer, which wraps at 32 bits.
fn timer(now_ns: u64) -> u32 {
    (u128::from(now_ns) * TIMER_HZ / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_u16(acpi: &AcpiState, offset: u16) -> u16 {
        u16::from_le_bytes([acpi.read(offset, 0), acpi.read(offset + 1, 0)])
    }

    #[test]
    fn the_power_button_interrupts_when_enabled() {
        let mut acpi = AcpiState::default();
        acpi.press_power_button();
        assert!(!acpi.interrupt());
        assert_eq!(read_u16(&acpi, 0), POWER_BUTTON);
        acpi.write(3, 1);
        assert!(acpi.interrupt());
        acpi.write(0, 0xff);
        assert!(acpi.interrupt(), "the low byte has no power button");
        acpi.write(1, 1);
        assert!(!acpi.interrupt());
        assert_eq!(read_u16(&acpi, 0), 0);
        assert_eq!(read_u16(&acpi, 2), POWER_BUTTON);
    }

    #[test]
    fn only_s5_turns_off() {
        let mut acpi = AcpiState::default();
        assert_eq!(acpi.write(4, 0), None);
        assert_eq!(acpi.write(5, 0x20 | 1 << 2), None, "S1");
        assert_eq!(acpi.write(5, 5 << 2), None, "not enabled");
        assert_eq!(acpi.write(5, 0x20 | 5 << 2), Some(Request::PowerOff));
        assert_eq!(read_u16(&acpi, 4), 5 << 10 | SCI_ENABLE, "sleep enable reads as zero");
    }

    #[test]
    fn the_timer_counts_exactly() {
        assert_eq!(timer(1_000_000_000), 3_579_545);
        assert_eq!(timer(999_999_999), 3_579_544);
        // 2^32 counts take 1199.864 s.
        let wrap = ((1u128 << 32) * 1_000_000_000).div_ceil(TIMER_HZ) as u64;
        assert_eq!((timer(wrap - 1), timer(wrap)), (u32::MAX, 0));
        let acpi = AcpiState::default();
        let bytes: Vec<u8> = (8..12).map(|offset| acpi.read(offset, 1_000_000_000)).collect();
        assert_eq!(bytes, 3_579_545u32.to_le_bytes());
    }
}
