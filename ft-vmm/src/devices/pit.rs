//! 8254 timer: channel 0 on IRQ 0, channel 1 of no effect, channel 2 gated by port 0x61, where its output is read.
//!
//! Counters are never decremented: what they show, and when outputs rise, follows from when they were started. Time comes in as nanoseconds
//! of the machine's clock; one count takes 1/1.193182 us, and all arithmetic on it is exact.
//!
//! Invariant: state changes only when the guest accesses a register or an interrupt is due, never because somebody looked (R1).
//!
//! Modes 0, 2, 3 and 4 are exact, but for one thing: a count that is written while modes 2 and 3 run takes effect at the end of the period,
//! in mode 3 also where the data sheet has it at the end of the half. Modes 1 and 5 wait for a trigger that never comes: their output stays
//! high. A count of 1, which the data sheet forbids in modes 2 and 3, counts as 2. Interrupts that would come while the clock leaps over
//! several periods are one interrupt, as they are for a processor that does not take them in time.

mod channel;

use super::pic::PicState;
use channel::Channel;
use serde::{Deserialize, Serialize};

/// Counts in a microsecond are this many millionths.
const HZ: u128 = 1_193_182;
const NS_PER_S: u128 = 1_000_000_000;

const IRQ: u8 = 0;

/// Counts that have passed at a time.
fn counts_at(ns: u64) -> u64 {
    // Less than 2^64 for any u64 of nanoseconds, because a count takes longer than one.
    (u128::from(ns) * HZ / NS_PER_S) as u64
}

/// The first nanosecond at which that many counts have passed.
fn ns_at(counts: u64) -> u64 {
    u64::try_from((u128::from(counts) * NS_PER_S).div_ceil(HZ)).unwrap_or(u64::MAX)
}

/// The timer, and port 0x61.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PitState {
    channels: [Channel; 3],
    /// Bits 0 (gate of channel 2) and 1 (speaker) of port 0x61.
    port_61: u8,
    /// Counts at which channel 0's output rises next.
    rises: Option<u64>,
}

impl Default for PitState {
    fn default() -> Self {
        let channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        Self { channels, port_61: 0, rises: None }
    }
}

impl PitState {
    /// When the next interrupt is due.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.rises.map(ns_at)
    }

    /// Raises the interrupt if it is due.
    pub fn advance(&mut self, now_ns: u64, pic: &mut PicState) {
        let now = counts_at(now_ns);
        if self.rises.is_some_and(|rises| rises <= now) {
            pic.pulse(IRQ);
            self.rises = self.channels[0].next_rise(now);
        }
    }

    /// A byte read from ports 0x40 to 0x43 or 0x61.
    pub fn read(&mut self, port: u16, now_ns: u64) -> u8 {
        let now = counts_at(now_ns);
        match port {
            0x40..=0x42 => self.channels[usize::from(port & 3)].read(now),
            0x61 => {
                // Bit 4 toggles with each refresh of memory that channel 1 would have asked for.
                let refresh = ((now / 18) & 1) as u8;
                self.port_61 | refresh << 4 | u8::from(self.channels[2].output(now)) << 5
            }
            _ => 0xff,
        }
    }

    /// A byte written to ports 0x40 to 0x43 or 0x61.
    pub fn write(&mut self, port: u16, value: u8, now_ns: u64, pic: &mut PicState) {
        let now = counts_at(now_ns);
        let was_high = self.channels[0].output(now);
        match port {
            0x40..=0x42 => self.channels[usize::from(port & 3)].write_count(value, now),
            0x43 => self.control(value, now),
            _ => {
                self.port_61 = value & 3;
                self.channels[2].set_gate(value & 1 != 0, now);
            }
        }
        if !was_high && self.channels[0].output(now) {
            pic.pulse(IRQ);
        }
        self.rises = self.channels[0].next_rise(now);
    }

    fn control(&mut self, value: u8, now: u64) {
        if value >> 6 < 3 {
            return self.channels[usize::from(value >> 6)].control(value, now);
        }
        // Read-back: bits 1-3 choose channels; bits 4 and 5, when zero, latch status and count.
        for (n, channel) in self.channels.iter_mut().enumerate() {
            if value & 2 << n == 0 {
                continue;
            }
            if value & 0x20 == 0 {
                channel.latch_count(now);
            }
            if value & 0x10 == 0 {
                channel.latch_status(now);
            }
        }
    }
}

#[cfg(test)]
mod tests;
