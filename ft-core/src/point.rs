//! Where in the execution a record enters the machine.

use crate::units::Tick;
use std::fmt;

/// A position in the execution: a tick count, and what the registers looked like there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Point {
    /// The vCPU backend's clock.
    pub tick: Tick,
    /// What checks the position (R2). A machine always supplies it; the log leaves it out of most
    /// [`Event::Time`](crate::Event::Time) records to save space.
    pub check: Option<PointCheck>,
}

/// Instruction pointer and register digest at a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PointCheck {
    /// Instruction pointer.
    pub rip: u64,
    /// Digest of the general registers and flags, as the backend computes it.
    pub regs: u32,
}

impl Point {
    /// A point with its check.
    pub fn new(tick: Tick, rip: u64, regs: u32) -> Self {
        Self { tick, check: Some(PointCheck { rip, regs }) }
    }

    /// Whether two sides stand at the same point: equal ticks, and equal checks where both have one (R2).
    pub fn agrees(&self, other: &Self) -> bool {
        self.tick == other.tick
            && match (self.check, other.check) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tick)?;
        match self.check {
            Some(check) => write!(f, " rip {:#x} regs {:08x}", check.rip, check.regs),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_points_differ_by_tick_rip_or_registers() {
        let point = Point::new(Tick(7), 0x1000, 9);
        assert!(point.agrees(&point));
        assert!(point.agrees(&Point { tick: Tick(7), check: None }));
        assert!(!point.agrees(&Point { tick: Tick(8), check: None }));
        assert!(!point.agrees(&Point::new(Tick(7), 0x1001, 9)));
        assert!(!point.agrees(&Point::new(Tick(7), 0x1000, 8)));
    }
}
