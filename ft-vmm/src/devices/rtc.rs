//! MC146818 clock at ports 0x70 and 0x71, on IRQ 8. Its time is the machine's clock plus an offset, which setting the time changes.
//!
//! Nothing runs here: times and flags follow from the clock when the guest looks, and an interrupt that is enabled has a deadline. The
//! time updates in no time at all, at full seconds of the machine's clock; UIP announces it 244 us before, as on the chip.

mod calendar;

use super::pic::PicState;
use calendar::{Format, Moment};
use serde::{Deserialize, Serialize};

const IRQ: u8 = 8;

const A: u8 = 0x0a;
const B: u8 = 0x0b;
const C: u8 = 0x0c;
const D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

const A_UPDATING: u8 = 1 << 7;
/// Divider for the 32768 Hz crystal that everybody has.
const A_RUNS: u8 = 0b010 << 4;
const A_DIVIDER: u8 = 0b111 << 4;
const B_SET: u8 = 1 << 7;
const B_UPDATE: u8 = 1 << 4;
const C_PENDING: u8 = 1 << 7;
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATED: u8 = 1 << 4;
const D_VALID: u8 = 1 << 7;

const NS_PER_S: u64 = 1_000_000_000;
const CRYSTAL_HZ: u128 = 32_768;
const UPDATE_NOTICE_NS: u64 = 244_000;

/// The clock and its battery-backed memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtcState {
    index: u8,
    /// Registers by index, in four rows of 32. Those of the time are used only while it is being set.
    memory: [[u8; 32]; 4],
    /// Seconds from the epoch (1970) to 0 of the machine's clock.
    offset_s: i64,
    /// Flags of register C that are set.
    flags: u8,
    /// Up to when of the machine's clock `flags` are complete.
    flags_ns: u64,
}

impl RtcState {
    /// A clock that shows `epoch_s` (seconds since 1970) at 0 of the machine's clock.
    pub fn new(epoch_s: u64) -> Self {
        let offset_s = i64::try_from(epoch_s).unwrap_or(i64::MAX / 2);
        let mut rtc = Self { index: 0, memory: [[0; 32]; 4], offset_s, flags: 0, flags_ns: 0 };
        *rtc.register_mut(A) = A_RUNS | 6;
        *rtc.register_mut(B) = Format::HOURS_24;
        rtc
    }

    /// What a reset of the machine does: interrupts are disabled; time and memory stay.
    pub fn reset(&mut self) {
        *self.register_mut(B) &= !(PERIODIC | ALARM | B_UPDATE);
        self.flags = 0;
    }

    fn register(&self, index: u8) -> u8 {
        self.memory[usize::from(index >> 5 & 3)][usize::from(index & 31)]
    }

    fn register_mut(&mut self, index: u8) -> &mut u8 {
        &mut self.memory[usize::from(index >> 5 & 3)][usize::from(index & 31)]
    }

    /// When the next interrupt is due.
    pub fn deadline_ns(&self) -> Option<u64> {
        if self.interrupt() {
            // Nothing more to say until the guest has read register C.
            return None;
        }
        let enabled = [PERIODIC, ALARM, UPDATED].into_iter().filter(|flag| self.register(B) & flag != 0);
        enabled.filter_map(|flag| self.next_ns(flag, self.flags_ns)).min()
    }

    /// Raises the interrupt if it is due.
    pub fn advance(&mut self, now_ns: u64, pic: &mut PicState) {
        if self.deadline_ns().is_some_and(|deadline| deadline <= now_ns) {
            self.complete_flags(now_ns);
            pic.set_line(IRQ, self.interrupt());
        }
    }

    /// Whether the interrupt line is high.
    fn interrupt(&self) -> bool {
        self.flags & self.register(B) & (PERIODIC | ALARM | UPDATED) != 0
    }

    /// Sets the flags of whatever has happened up to now.
    fn complete_flags(&mut self, now_ns: u64) {
        for flag in [PERIODIC, ALARM, UPDATED] {
            if self.next_ns(flag, self.flags_ns).is_some_and(|ns| ns <= now_ns) {
                self.flags |= flag;
            }
        }
        self.flags_ns = now_ns;
    }

    /// When what a flag stands for happens next.
    fn next_ns(&self, flag: u8, after_ns: u64) -> Option<u64> {
        match flag {
            PERIODIC => self.next_period_ns(after_ns),
            ALARM => self.next_alarm_ns(after_ns),
            _ => self.next_update_ns(after_ns),
        }
    }

    /// Whether the time moves.
    fn runs(&self) -> bool {
        self.register(A) & A_DIVIDER == A_RUNS && self.register(B) & B_SET == 0
    }

    fn next_period_ns(&self, after_ns: u64) -> Option<u64> {
        let rate = self.register(A) & 15;
        if rate == 0 || self.register(A) & A_DIVIDER != A_RUNS {
            return None;
        }
        // Rates 1 and 2 are those of 8 and 9.
        let rate = if rate < 3 { rate + 7 } else { rate };
        let period = 1u128 << (rate - 1);
        let oscillations = u128::from(after_ns) * CRYSTAL_HZ / u128::from(NS_PER_S);
        let next = (oscillations / period + 1) * period;
        u64::try_from((next * u128::from(NS_PER_S)).div_ceil(CRYSTAL_HZ)).ok()
    }

    fn next_update_ns(&self, after_ns: u64) -> Option<u64> {
        self.runs().then_some((after_ns / NS_PER_S).saturating_add(1).saturating_mul(NS_PER_S))
    }

    fn next_alarm_ns(&self, after_ns: u64) -> Option<u64> {
        if !self.runs() {
            return None;
        }
        let alarm = [self.register(5), self.register(3), self.register(1)];
        let second = calendar::next_alarm(alarm, self.format(), self.seconds(after_ns))?;
        let ahead = u64::try_from(second.checked_sub(self.seconds(after_ns))?).ok()?;
        (after_ns / NS_PER_S).checked_add(ahead)?.checked_mul(NS_PER_S)
    }

    /// Seconds since 1970 that it shows.
    fn seconds(&self, now_ns: u64) -> i64 {
        self.offset_s.saturating_add((now_ns / NS_PER_S) as i64)
    }

    fn format(&self) -> Format {
        Format(self.register(B))
    }

    /// A byte read from port 0x70 or 0x71.
    pub fn read(&mut self, port: u16, now_ns: u64, pic: &mut PicState) -> u8 {
        if port == 0x70 {
            return 0xff;
        }
        match self.index {
            0 | 2 | 4 | 6..=9 | CENTURY => self.time_register(self.index, now_ns),
            A => {
                let updating = self.runs() && now_ns % NS_PER_S >= NS_PER_S - UPDATE_NOTICE_NS;
                self.register(A) | if updating { A_UPDATING } else { 0 }
            }
            C => {
                self.complete_flags(now_ns);
                let pending = if self.interrupt() { C_PENDING } else { 0 };
                let flags = std::mem::take(&mut self.flags);
                pic.set_line(IRQ, false);
                flags | pending
            }
            D => D_VALID,
            index => self.register(index),
        }
    }

    /// A byte written to port 0x70 or 0x71.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64, pic: &mut PicState) {
        if port == 0x70 {
            // Bit 7 masks NMI, of which there is none.
            self.index = value & 0x7f;
            return;
        }
        // What has happened so far happened under the old settings.
        self.complete_flags(now_ns);
        match self.index {
            0 | 2 | 4 | 6..=9 | CENTURY => self.set_time_register(self.index, value, now_ns),
            A => *self.register_mut(A) = value & !A_UPDATING,
            B => self.set_b(value, now_ns),
            C | D => {}
            index => *self.register_mut(index) = value,
        }
        pic.set_line(IRQ, self.interrupt());
    }

    fn time_register(&self, index: u8, now_ns: u64) -> u8 {
        if self.register(B) & B_SET != 0 {
            return self.register(index);
        }
        Moment::from_seconds(self.seconds(now_ns)).register(index, self.format())
    }

    fn set_time_register(&mut self, index: u8, value: u8, now_ns: u64) {
        let setting = self.register(B) & B_SET != 0;
        if !setting {
            self.hold_time(now_ns);
        }
        *self.register_mut(index) = value;
        if !setting {
            self.take_time(now_ns);
        }
    }

    fn set_b(&mut self, value: u8, now_ns: u64) {
        let (was, is) = (self.register(B) & B_SET != 0, value & B_SET != 0);
        // Time registers are held, and taken, in the format of their moment.
        if is && !was {
            self.hold_time(now_ns);
        }
        *self.register_mut(B) = if is { value & !B_UPDATE } else { value };
        if was && !is {
            self.take_time(now_ns);
        }
    }

    /// Writes the time into its registers.
    fn hold_time(&mut self, now_ns: u64) {
        let (moment, format) = (Moment::from_seconds(self.seconds(now_ns)), self.format());
        for index in calendar::REGISTERS {
            *self.register_mut(index) = moment.register(index, format);
        }
    }

    /// Goes on from the time in the registers.
    fn take_time(&mut self, now_ns: u64) {
        let moment = Moment::from_registers(|index| self.register(index), self.format());
        self.offset_s = moment.seconds().saturating_sub((now_ns / NS_PER_S) as i64);
    }
}

#[cfg(test)]
mod tests;
