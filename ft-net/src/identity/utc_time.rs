//! Points in time as certificates have them: whole seconds, in UTC.

use rustls_pki_types::UnixTime;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// Whole seconds since 1970-01-01 00:00:00 UTC; printed as RFC 3339, `2026-08-01T12:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(i64);

impl UtcTime {
    /// From seconds since 1970-01-01 00:00:00 UTC; negative before it.
    pub fn from_unix_secs(secs: i64) -> Self {
        Self(secs)
    }

    /// Seconds since 1970-01-01 00:00:00 UTC; negative before it.
    pub fn unix_secs(self) -> i64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is the later of the two.
    pub fn since(self, earlier: UtcTime) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0).try_into().unwrap_or(0))
    }

    /// What rustls asks for. Times before 1970 become 1970: no certificate is valid that early.
    pub(super) fn to_unix_time(self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0.try_into().unwrap_or(0)))
    }
}

impl From<SystemTime> for UtcTime {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(after.as_secs().try_into().unwrap_or(i64::MAX)),
            Err(before) => Self(-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX)),
        }
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(t) = OffsetDateTime::from_unix_timestamp(self.0) else {
            return write!(f, "{} seconds after 1970", self.0);
        };
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", t.hour(), t.minute(), t.second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(UtcTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(UtcTime(1_709_210_096).to_string(), "2024-02-29T12:34:56Z");
        assert_eq!(UtcTime(-1).to_string(), "1969-12-31T23:59:59Z");
        assert_eq!(UtcTime(i64::MAX).to_string(), "9223372036854775807 seconds after 1970");
    }

    #[test]
    fn a_system_time_loses_its_fraction_only() {
        assert_eq!(UtcTime::from(UNIX_EPOCH + Duration::from_millis(1_999)), UtcTime(1));
        assert_eq!(UtcTime::from(UNIX_EPOCH - Duration::from_secs(7)), UtcTime(-7));
    }

    #[test]
    fn a_difference_never_is_negative() {
        assert_eq!(UtcTime(5).since(UtcTime(2)), Duration::from_secs(3));
        assert_eq!(UtcTime(2).since(UtcTime(5)), Duration::ZERO);
        assert_eq!(UtcTime(i64::MIN).since(UtcTime(i64::MAX)), Duration::ZERO);
    }
}
