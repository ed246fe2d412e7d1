//! How a guest turns itself off or asks for a reset.

use super::Outbox;
use bytes::Bytes;
use ft_core::effect::EffectKind;
use serde::{Deserialize, Serialize};

/// What somebody asked of the whole machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Begin again from the start.
    Reset,
    /// Turn off.
    PowerOff,
}

impl Request {
    /// Emits it, so that the outside hears of it: an [`EffectKind::Power`] whose payload is 1 for a reset and 2 for off.
    pub(crate) fn emit(self, outbox: &mut Outbox) {
        let payload: &'static [u8] = match self {
            Self::Reset => &[1],
            Self::PowerOff => &[2],
        };
        outbox.emit(EffectKind::Power, 0, Bytes::from_static(payload));
    }
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
