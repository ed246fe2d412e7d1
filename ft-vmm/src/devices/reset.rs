//! How a guest turns itself off or asks for a reset.

use serde::{Deserialize, Serialize};

/// What somebody asked of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The guest wants to begin again from the start.
    Reset,
    /// Somebody outside wants it to.
    ResetFromOutside,
    /// The guest hangs: its watchdog has expired.
    Watchdog,
    /// The guest crashed: its processor is shut down.
    Crash,
    /// The guest turned itself off.
    PowerOff,
}

/// Status of the keyboard controller: self-test passed, buffers empty.
const KEYBOARD_IDLE: u8 = 1 << 2;
const KEYBOARD_RESET: u8 = 0xfe;
const CF9_CPU: u8 = 1 << 2;
/// Bits of port 0xCF9 that are kept: the kind of reset.
const CF9_KIND: u8 = 0b1010;

/// The reset control register at 0xCF9; the keyboard controller at 0x64 has no state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetState {
    control: u8,
}

impl ResetState {
    /// A byte read from port 0x64 or 0xCF9.
    pub fn read(&self, port: u16) -> u8 {
        if port == 0x64 { KEYBOARD_IDLE } else { self.control }
    }

    /// A byte written to port 0x64 or 0xCF9.
    pub fn write(&mut self, port: u16, value: u8) -> Option<Request> {
        if port == 0x64 {
            return (value == KEYBOARD_RESET).then_some(Request::Reset);
        }
        // It is bit 2 that resets when it becomes 1, and it does not stay so.
        self.control = value & CF9_KIND;
        (value & CF9_CPU != 0).then_some(Request::Reset)
    }
}
