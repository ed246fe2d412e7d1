//! Time: the timer's ticks say when to look, the ACPI timer says what time it is, and the clock on the board where that began.

use super::cpu::{in8, in32, out8};
use ft_guest::calendar::unix_seconds;
use ft_guest::service::Now;

/// Ticks of the timer in a second.
const TICK_HZ: u32 = 100;
const PIT_HZ: u32 = 1_193_182;
const PIT_CHANNEL_0: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;
/// Channel 0, both bytes, mode 2.
const PIT_RATE: u8 = 0x34;

const PM_TIMER: u16 = 0x608;
const PM_TIMER_HZ: u64 = 3_579_545;

const RTC_INDEX: u16 = 0x70;
const RTC_DATA: u16 = 0x71;
const RTC_STATUS_A: u8 = 0x0a;
const RTC_STATUS_B: u8 = 0x0b;
const RTC_UPDATING: u8 = 1 << 7;
const RTC_BINARY: u8 = 1 << 2;
/// Seconds, minutes, hours, day, month, year, century.
const RTC_FIELDS: [u8; 7] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32];

/// The guest's clock. It stands still between calls of [`Clock::update`].
pub(crate) struct Clock {
    start_us: u64,
    /// Of the ACPI timer, since the start.
    ticks: u64,
    last: u32,
}

impl Clock {
    /// Starts the timer and the clock.
    pub(crate) fn start() -> Self {
        let divisor = PIT_HZ.div_ceil(TICK_HZ);
        out8(PIT_COMMAND, PIT_RATE);
        out8(PIT_CHANNEL_0, divisor as u8);
        out8(PIT_CHANNEL_0, (divisor >> 8) as u8);
        Self { start_us: rtc_seconds() * 1_000_000, ticks: 0, last: in32(PM_TIMER) }
    }

    /// Looks at the ACPI timer, which must happen more often than every 20 minutes.
    pub(crate) fn update(&mut self) {
        let now = in32(PM_TIMER);
        self.ticks += u64::from(now.wrapping_sub(self.last));
        self.last = now;
    }

    /// The time of the last update.
    pub(crate) fn now(&self) -> Now {
        let up_us = (u128::from(self.ticks) * 1_000_000 / u128::from(PM_TIMER_HZ)) as u64;
        Now { unix_us: self.start_us + up_us, up_us }
    }
}

/// Seconds since 1970, by the clock on the board.
fn rtc_seconds() -> u64 {
    loop {
        let fields = rtc_fields();
        // Twice the same, and not in the middle of an update: these belong together.
        if rtc_read(RTC_STATUS_A) & RTC_UPDATING == 0 && fields == rtc_fields() {
            let [second, minute, hour, day, month, year, century] = fields.map(u64::from);
            let century = if (19..=21).contains(&century) { century } else { 20 };
            return unix_seconds(century * 100 + year, month, day) + (hour * 60 + minute) * 60 + second;
        }
    }
}

fn rtc_fields() -> [u8; 7] {
    let binary = rtc_read(RTC_STATUS_B) & RTC_BINARY != 0;
    RTC_FIELDS.map(|register| {
        let value = rtc_read(register);
        if binary { value } else { (value >> 4) * 10 + (value & 0xf) }
    })
}

fn rtc_read(register: u8) -> u8 {
    out8(RTC_INDEX, register);
    in8(RTC_DATA)
}
