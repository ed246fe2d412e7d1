//! One 8259A. Bit and command names are those of its data sheet.

use serde::{Deserialize, Serialize};

const ICW1: u8 = 1 << 4;
const ICW1_NEEDS_ICW4: u8 = 1 << 0;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW1_LEVEL: u8 = 1 << 3;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const ICW4_NESTED: u8 = 1 << 4;
const OCW3: u8 = 1 << 3;
const OCW3_POLL: u8 = 1 << 2;

/// The initialisation word that the next write to the odd port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Awaits {
    /// None: it is the mask.
    Mask,
    Icw2,
    Icw3,
    Icw4,
}

/// Registers and latches of one controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chip {
    /// Inputs to which another controller is attached.
    slaves: u8,
    /// Inputs as they are now.
    lines: u8,
    /// Requests.
    irr: u8,
    /// In service.
    isr: u8,
    /// Masked.
    imr: u8,
    /// Edge/level register: level where set.
    pub(super) elcr: u8,
    /// ICW1: all inputs are level-triggered.
    all_level: bool,
    single: bool,
    needs_icw4: bool,
    awaits: Awaits,
    vectors: u8,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    /// Special fully nested mode: the cascade input in service does not hold back another request from it.
    nested: bool,
    /// A read of the even port gives ISR instead of IRR.
    reads_isr: bool,
    /// The next read is a poll.
    polled: bool,
    /// The input with the lowest priority, 0 to 7.
    lowest: u8,
}

impl Chip {
    /// As firmware leaves it: initialised, all masked.
    pub(super) fn new(slaves: u8, vectors: u8, elcr: u8) -> Self {
        Self {
            slaves,
            lines: 0,
            irr: 0,
            isr: 0,
            imr: 0xff,
            elcr,
            all_level: false,
            single: false,
            needs_icw4: true,
            awaits: Awaits::Mask,
            vectors,
            auto_eoi: false,
            rotate_on_auto_eoi: false,
            special_mask: false,
            nested: false,
            reads_isr: false,
            polled: false,
            lowest: 7,
        }
    }

    pub(super) fn set_line(&mut self, line: u8, high: bool) {
        let bit = 1 << line;
        let rises = high && self.lines & bit == 0;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        if self.level_lines() & bit != 0 {
            self.sample_levels();
        } else if rises {
            self.irr |= bit;
        }
    }

    /// An input whose request is its level, whatever its trigger mode.
    pub(super) fn follow(&mut self, line: u8, high: bool) {
        let bit = 1 << line;
        self.lines = if high { self.lines | bit } else { self.lines & !bit };
        self.irr = self.irr & !bit | self.lines & bit;
    }

    /// Requests of level-triggered inputs are their lines.
    pub(super) fn sample_levels(&mut self) {
        let level = self.level_lines();
        self.irr = self.irr & !level | self.lines & level;
    }

    /// The input that INT stands for.
    pub(super) fn pending(&self) -> Option<u8> {
        let requested = self.highest(self.irr & !self.imr)?;
        let mut serviced = self.isr;
        if self.special_mask {
            serviced &= !self.imr;
        }
        if self.nested {
            serviced &= !self.slaves;
        }
        match self.highest(serviced) {
            Some(serviced) if self.rank(serviced) <= self.rank(requested) => None,
            _ => Some(requested),
        }
    }

    /// INTA, or a poll. `None`: the request has gone away.
    pub(super) fn acknowledge(&mut self) -> Option<u8> {
        let line = self.pending()?;
        let bit = 1 << line;
        if self.level_lines() & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = line;
        }
        Some(line)
    }

    /// The vector for what was acknowledged.
    pub(super) fn vector(&self, line: Option<u8>) -> u8 {
        self.vectors | line.unwrap_or(7)
    }

    pub(super) fn read(&mut self, odd: bool) -> u8 {
        if std::mem::take(&mut self.polled) {
            return self.acknowledge().map_or(0, |line| 0x80 | line);
        }
        match (odd, self.reads_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    pub(super) fn write(&mut self, odd: bool, value: u8) {
        match (odd, self.awaits) {
            (false, _) if value & ICW1 != 0 => self.initialise(value),
            (false, _) if value & OCW3 != 0 => self.command(value),
            (false, _) => self.end_of_interrupt(value),
            (true, Awaits::Mask) => self.imr = value,
            (true, Awaits::Icw2) => {
                self.vectors = value & 0xf8;
                self.awaits = if !self.single { Awaits::Icw3 } else { self.after_icw3() };
            }
            // The wiring is fixed.
            (true, Awaits::Icw3) => self.awaits = self.after_icw3(),
            (true, Awaits::Icw4) => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.nested = value & ICW4_NESTED != 0;
                self.awaits = Awaits::Mask;
            }
        }
    }

    fn after_icw3(&self) -> Awaits {
        if self.needs_icw4 { Awaits::Icw4 } else { Awaits::Mask }
    }

    /// ICW1. Edges are forgotten; lines that are high must fall before they request again.
    fn initialise(&mut self, value: u8) {
        let (slaves, lines, elcr, vectors) = (self.slaves, self.lines, self.elcr, self.vectors);
        *self = Self {
            lines,
            imr: 0,
            all_level: value & ICW1_LEVEL != 0,
            single: value & ICW1_SINGLE != 0,
            needs_icw4: value & ICW1_NEEDS_ICW4 != 0,
            awaits: Awaits::Icw2,
            ..Self::new(slaves, vectors, elcr)
        };
        self.sample_levels();
    }

    /// OCW3.
    fn command(&mut self, value: u8) {
        if value & OCW3_POLL != 0 {
            self.polled = true;
        }
        match value & 3 {
            2 => self.reads_isr = false,
            3 => self.reads_isr = true,
            _ => {}
        }
        match value >> 5 & 3 {
            2 => self.special_mask = false,
            3 => self.special_mask = true,
            _ => {}
        }
    }

    /// OCW2.
    fn end_of_interrupt(&mut self, value: u8) {
        let named = value & 7;
        // In special mask mode an unspecific end of interrupt passes over what is masked.
        let candidates = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let ended = match value >> 5 {
            0b001 | 0b101 => self.highest(candidates),
            0b011 | 0b111 => Some(named),
            _ => None,
        };
        if let Some(line) = ended {
            self.isr &= !(1 << line);
        }
        match value >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b101 => self.lowest = ended.unwrap_or(self.lowest),
            0b110 | 0b111 => self.lowest = named,
            _ => {}
        }
    }

    fn level_lines(&self) -> u8 {
        if self.all_level { 0xff } else { self.elcr }
    }

    /// 0 for the input with the highest priority.
    fn rank(&self, line: u8) -> u8 {
        line.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    fn highest(&self, lines: u8) -> Option<u8> {
        let first = self.lowest.wrapping_add(1) & 7;
        let rank = lines.rotate_right(u32::from(first)).trailing_zeros() as u8;
        (lines != 0).then_some(first.wrapping_add(rank) & 7)
    }
}
