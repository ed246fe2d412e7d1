//! Days and seconds since 1970.

/// Seconds from 1970 to the start of a day of the Gregorian calendar; 0 for what is no date from then on.
pub fn unix_seconds(year: u64, month: u64, day: u64) -> u64 {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return 0;
    }
    // Years from March on: the leap day is the last one.
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    const DAYS_TO_1970: u64 = 719_468;
    (days - DAYS_TO_1970) * 86_400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_where_they_belong() {
        for (date, seconds) in [
            ((1970, 1, 1), 0),
            ((1970, 3, 1), 5_097_600),
            ((2000, 2, 29), 951_782_400),
            ((2000, 3, 1), 951_868_800),
            ((2023, 11, 14), 1_699_920_000),
            ((2024, 12, 31), 1_735_603_200),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            let (year, month, day) = date;
            assert_eq!(unix_seconds(year, month, day), seconds, "{date:?}");
        }
        assert_eq!(unix_seconds(0, 0, 0), 0);
    }
}
