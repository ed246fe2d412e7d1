//! The Gregorian calendar as the clock's registers have it.

use super::CENTURY;

/// Registers that hold the time.
pub(super) const REGISTERS: [u8; 8] = [0, 2, 4, 6, 7, 8, 9, CENTURY];

const SECONDS_PER_DAY: i64 = 86_400;

/// Hours with this bit are in the afternoon, in 12-hour format.
const AFTERNOON: u8 = 1 << 7;

/// An alarm register at least this matches always.
const ALWAYS: u8 = 0xc0;

/// Register B: how numbers are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format(pub(super) u8);

impl Format {
    pub(super) const HOURS_24: u8 = 1 << 1;
    pub(super) const BINARY: u8 = 1 << 2;

    fn encode(self, value: u8) -> u8 {
        if self.0 & Self::BINARY != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(self, byte: u8) -> u8 {
        if self.0 & Self::BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 15) }
    }

    fn encode_hour(self, hour: u8) -> u8 {
        if self.0 & Self::HOURS_24 != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { AFTERNOON } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    fn decode_hour(self, byte: u8) -> u8 {
        if self.0 & Self::HOURS_24 != 0 {
            return self.decode(byte);
        }
        let afternoon = if byte & AFTERNOON != 0 { 12 } else { 0 };
        self.decode(byte & !AFTERNOON) % 12 + afternoon
    }
}

/// A moment, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    /// 1 on Sundays.
    weekday: u8,
}

impl Moment {
    /// From seconds since 1970.
    pub(super) fn from_seconds(seconds: i64) -> Self {
        let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
        let (year, month, day) = date(days);
        Self {
            year,
            month,
            day,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
            // 1970 began on a Thursday.
            weekday: (days + 4).rem_euclid(7) as u8 + 1,
        }
    }

    /// From the registers; what no calendar has becomes the nearest that it has.
    pub(super) fn from_registers(register: impl Fn(u8) -> u8, format: Format) -> Self {
        let value = |index| format.decode(register(index));
        Self {
            year: i64::from(value(CENTURY).min(99)) * 100 + i64::from(value(9).min(99)),
            month: value(8).clamp(1, 12),
            day: value(7).clamp(1, 31),
            hour: format.decode_hour(register(4)).min(23),
            minute: value(2).min(59),
            second: value(0).min(59),
            weekday: value(6),
        }
    }

    /// Seconds since 1970. The weekday is of no account.
    pub(super) fn seconds(&self) -> i64 {
        let time = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        days(self.year, self.month, self.day) * SECONDS_PER_DAY + time
    }

    /// What a register of the time shows.
    pub(super) fn register(&self, index: u8, format: Format) -> u8 {
        let value = match index {
            0 => self.second,
            2 => self.minute,
            4 => return format.encode_hour(self.hour),
            6 => self.weekday,
            7 => self.day,
            8 => self.month,
            9 => self.year.rem_euclid(100) as u8,
            _ => self.year.div_euclid(100).rem_euclid(100) as u8,
        };
        format.encode(value)
    }
}

/// The first second after `after` that the alarm registers (hour, minute, second) match.
pub(super) fn next_alarm(alarm: [u8; 3], format: Format, after: i64) -> Option<i64> {
    let wanted = |byte: u8, value: u8| (byte < ALWAYS).then_some(value);
    let hour = wanted(alarm[0], format.decode_hour(alarm[0]));
    let (minute, second) =
        (wanted(alarm[1], format.decode(alarm[1])), wanted(alarm[2], format.decode(alarm[2])));
    let mut at = after.checked_add(1)?;
    // A day of hours, an hour of minutes and a minute of seconds, each perhaps begun in its middle.
    for _ in 0..2 * (24 + 60 + 60) {
        let moment = Moment::from_seconds(at);
        let step = if hour.is_some_and(|hour| hour != moment.hour) {
            3600 - at.rem_euclid(3600)
        } else if minute.is_some_and(|minute| minute != moment.minute) {
            60 - at.rem_euclid(60)
        } else if second.is_some_and(|second| second != moment.second) {
            1
        } else {
            return Some(at);
        };
        at = at.checked_add(step)?;
    }
    None
}

/// Days since 1970 of a date. Years begin in March here, so that the leap day is the last of its year.
fn days(year: i64, month: u8, day: u8) -> i64 {
    let (year, month) =
        if month > 2 { (year, i64::from(month) - 3) } else { (year - 1, i64::from(month) + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970: year, month, day.
fn date(days: i64) -> (i64, u8, u8) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u8;
    let month = if month < 10 { month + 3 } else { month - 9 } as u8;
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_back() {
        for day in (-800_000..800_000).step_by(37) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(19_783), (2024, 3, 1));
        assert_eq!(Moment::from_seconds(19_782 * 86_400).weekday, 5, "a Thursday");
    }

    #[test]
    fn hours_have_two_formats() {
        let half = Format(0);
        let bytes: Vec<u8> = [0, 1, 11, 12, 13, 23].into_iter().map(|hour| half.encode_hour(hour)).collect();
        assert_eq!(bytes, [0x12, 0x01, 0x11, 0x92, 0x81, 0x91]);
        for hour in 0..24 {
            for format in [Format(0), Format(Format::HOURS_24), Format(Format::BINARY)] {
                assert_eq!(format.decode_hour(format.encode_hour(hour)), hour);
            }
        }
    }

    #[test]
    fn alarms_are_found() {
        let format = Format(Format::HOURS_24 | Format::BINARY);
        assert_eq!(next_alarm([1, 2, 3], format, 0), Some(3723));
        assert_eq!(next_alarm([1, 2, 3], format, 3723), Some(86_400 + 3723));
        assert_eq!(next_alarm([0xff, 0xff, 0xff], format, 59), Some(60));
        assert_eq!(next_alarm([0xff, 0xff, 7], format, 7), Some(67));
        assert_eq!(next_alarm([0, 0xc0, 0xc0], format, 3599), Some(86_400));
        assert_eq!(next_alarm([24, 0, 0], format, 0), None);
    }
}
