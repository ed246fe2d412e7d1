//! What can be wrong with a reply or a key.

use serde::Serialize;
use std::ops::AddAssign;

/// Numbers of faults; the module's documentation defines them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Acknowledged writes whose effect is not there.
    pub lost: u64,
    /// Effects that are there once too often.
    pub duplicated: u64,
    /// Replies or effects in another order than their requests.
    pub misordered: u64,
    /// Replies or values that are nothing that anybody ever wrote.
    pub corrupted: u64,
}

impl Faults {
    pub(super) const NONE: Self = Self { lost: 0, duplicated: 0, misordered: 0, corrupted: 0 };
    pub(super) const CORRUPTED: Self = Self { corrupted: 1, ..Self::NONE };
    pub(super) const MISORDERED: Self = Self { misordered: 1, ..Self::NONE };

    pub(super) fn lost(count: u64) -> Self {
        Self { lost: count, ..Self::NONE }
    }

    pub(super) fn duplicated(count: u64) -> Self {
        Self { duplicated: count, ..Self::NONE }
    }

    /// A number that should be `expected` and is `actual`, where each effect adds one.
    pub(super) fn of_count(expected: u64, actual: u64) -> Self {
        match actual < expected {
            true => Self::lost(expected - actual),
            false => Self::duplicated(actual - expected),
        }
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.lost + self.duplicated + self.misordered + self.corrupted
    }

    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.misordered += other.misordered;
        self.corrupted += other.corrupted;
    }
}
