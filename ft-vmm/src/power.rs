//! What the outside is told of the machine's power: the payload of an [`EffectKind::Power`](ft_core::effect::EffectKind::Power).
//!
//! ```text
//! cause     u8: 1 reset, 2 power off, 3 watchdog, 4 crash
//! goes on   u8: 1 when the machine begins again, 0 when it is off
//! restarts  u64, little-endian: how often it has begun again, this time included
//! rip       u64, little-endian: where the processor stood
//! ```
//!
//! The count is part of the machine's state, so it goes on counting on the next host.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Bytes of a payload.
const LEN: usize = 18;

/// What a machine does when its guest's processor is shut down (a triple fault). Equal on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnCrash {
    /// It begins again, as after a reset.
    #[default]
    Restart,
    /// It is off.
    Stop,
}

/// Why the machine begins again or is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The guest asked for a reset.
    Reset,
    /// The guest turned the machine off.
    PowerOff,
    /// The guest hung: its watchdog expired.
    Watchdog,
    /// The guest crashed: its processor is shut down.
    Crash,
}

impl Cause {
    fn code(self) -> u8 {
        match self {
            Self::Reset => 1,
            Self::PowerOff => 2,
            Self::Watchdog => 3,
            Self::Crash => 4,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Reset, Self::PowerOff, Self::Watchdog, Self::Crash].into_iter().find(|one| one.code() == code)
    }
}

/// What has happened to the machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerEvent {
    /// Why.
    pub cause: Cause,
    /// Whether the machine begins again; else it is off.
    pub goes_on: bool,
    /// How often it has begun again, this time included.
    pub restarts: u64,
    /// Where the processor stood.
    pub rip: u64,
}

impl PowerEvent {
    /// The payload of the effect.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(LEN);
        bytes.put_u8(self.cause.code());
        bytes.put_u8(self.goes_on.into());
        bytes.put_u64_le(self.restarts);
        bytes.put_u64_le(self.rip);
        bytes.freeze()
    }

    /// The event in a payload; `None` when it is none.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let (head, rest) = payload.split_first_chunk::<2>()?;
        let (restarts, rest) = rest.split_first_chunk()?;
        let rip = rest.try_into().ok()?;
        let goes_on = match head[1] {
            0 => false,
            1 => true,
            _ => return None,
        };
        let (restarts, rip) = (u64::from_le_bytes(*restarts), u64::from_le_bytes(rip));
        Some(Self { cause: Cause::of(head[0])?, goes_on, restarts, rip })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back_as_they_went() {
        for cause in [Cause::Reset, Cause::PowerOff, Cause::Watchdog, Cause::Crash] {
            for goes_on in [false, true] {
                let event = PowerEvent { cause, goes_on, restarts: 7, rip: 0xffff_ffff_8100_0000 };
                assert_eq!(event.encode().len(), LEN);
                assert_eq!(PowerEvent::decode(&event.encode()), Some(event));
            }
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let event = PowerEvent { cause: Cause::Reset, goes_on: true, restarts: 1, rip: 2 };
        let good = event.encode();
        for len in 0..LEN {
            assert_eq!(PowerEvent::decode(&good[..len]), None, "{len} bytes");
        }
        assert_eq!(PowerEvent::decode(&[&good[..], &[0]].concat()), None, "one too many");
        for (at, byte) in [(0, 0), (0, 5), (1, 2)] {
            let mut bad = good.to_vec();
            bad[at] = byte;
            assert_eq!(PowerEvent::decode(&bad), None, "byte {at} is {byte}");
        }
    }
}
