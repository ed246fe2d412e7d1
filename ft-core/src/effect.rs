//! What leaves the machine.

use crate::digest::digest64;
use crate::units::EffectSeq;
use bytes::Bytes;

/// What an effect does to the outside world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EffectKind {
    /// A packet to the network.
    Net,
    /// A disk read. It changes nothing outside, so it leaves without waiting for the gate.
    BlockRead,
    /// A disk write.
    BlockWrite,
    /// A disk flush.
    BlockFlush,
    /// Bytes to the console.
    Console,
    /// A request for random bytes. Like a read, it changes nothing outside.
    EntropyRead,
    /// The machine begins again or is off, through its guest.
    Power,
    /// An embedder's own device.
    Vendor(u32),
}

impl EffectKind {
    /// Whether it only asks, so that nobody outside can tell whether it happened.
    pub fn is_query(self) -> bool {
        matches!(self, Self::BlockRead | Self::EntropyRead)
    }

    fn code(self) -> u64 {
        match self {
            Self::Net => 1,
            Self::BlockRead => 2,
            Self::BlockWrite => 3,
            Self::BlockFlush => 4,
            Self::Console => 5,
            Self::Power => 6,
            Self::EntropyRead => 7,
            Self::Vendor(id) => 1 << 32 | u64::from(id),
        }
    }
}

/// Names an operation whose completion comes back as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// An effect as the machine emits it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Effect {
    /// What it does.
    pub kind: EffectKind,
    /// Which of the machine's devices of that kind.
    pub device: u8,
    /// For operations: the id with which the completion comes back. Unique on its device among those in flight.
    pub op: Option<OpId>,
    /// The packet, the request or the bytes.
    pub payload: Bytes,
}

/// An effect with its place in the machine's history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numbered {
    /// Its number: backends that can, drop one they have already seen. [`EffectSeq`]`(0)` is an operation that its [`OpId`]
    /// identifies: a query, or one issued again by a machine that has just gone live (R7).
    pub seq: EffectSeq,
    /// The effect.
    pub effect: Effect,
}

/// Folds effects into the digest that an [`Event::Emit`](crate::Event::Emit) record carries, so that both sides compare
/// what they emit, byte for byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EmitDigest(u64);

impl EmitDigest {
    /// Takes in the next effect.
    pub fn fold(&mut self, effect: &Effect) {
        let op = effect.op.map_or(0, |op| op.0.wrapping_add(1));
        let head = effect.kind.code() ^ u64::from(effect.device) << 40;
        self.0 = digest64(digest64(self.0 ^ head, &op.to_le_bytes()), &effect.payload);
    }

    /// The digest of all that went in.
    pub fn value(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(effect: &Effect) -> u32 {
        let mut digest = EmitDigest::default();
        digest.fold(effect);
        digest.value()
    }

    #[test]
    fn every_part_of_an_effect_counts() {
        let base =
            Effect { kind: EffectKind::Net, device: 0, op: None, payload: Bytes::from_static(b"payload") };
        let others = [
            Effect { kind: EffectKind::Console, ..base.clone() },
            Effect { kind: EffectKind::Vendor(1), ..base.clone() },
            Effect { device: 1, ..base.clone() },
            Effect { op: Some(OpId(0)), ..base.clone() },
            Effect { payload: Bytes::from_static(b"payloae"), ..base.clone() },
        ];
        for other in &others {
            assert_ne!(digest(&base), digest(other), "{other:?}");
        }
    }
}
