//! RFC 3339 text of a time, cheaply: two of them are in every answer.

use order_domain::Timestamp;

/// Length of `2026-11-22T19:00:00.000Z`.
pub(crate) const TEXT_BYTES: usize = 24;

const MICROS_A_MILLI: u64 = 1000;
const MICROS_A_DAY: u64 = 86_400_000_000;
/// The last microsecond of the year 9999: later times have no RFC 3339 text.
const LAST_MICRO: u64 = 253_402_300_799_999_999;

/// What `Timestamp`'s `Display` writes, without a calendar library in the way.
pub(crate) fn text(time: Timestamp) -> [u8; TEXT_BYTES] {
    let micros = time.as_micros().min(LAST_MICRO);
    let (days, in_day) = (micros / MICROS_A_DAY, micros % MICROS_A_DAY);
    let (year, month, day) = civil(days);
    let millis = in_day / MICROS_A_MILLI;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], seconds / 3600);
    digits(&mut text[14..16], seconds / 60 % 60);
    digits(&mut text[17..19], seconds % 60);
    digits(&mut text[20..23], millis);
    text
}

/// The latest time that is shown with the same text: the end of the millisecond.
pub(crate) fn last_shown_as(time: Timestamp) -> Timestamp {
    let begin = time.as_micros() - time.as_micros() % MICROS_A_MILLI;
    Timestamp::from_micros(begin.saturating_add(MICROS_A_MILLI - 1))
}

fn digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar: eras of 400 years, years that
/// begin in March, so that the leap day is the last. (Howard Hinnant, "chrono-compatible low-level date algorithms".)
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn as_string(micros: u64) -> String {
        String::from_utf8(text(Timestamp::from_micros(micros)).to_vec()).unwrap()
    }

    #[test]
    fn well_known_times_read_as_people_write_them() {
        assert_eq!(as_string(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(as_string(951_782_400_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(as_string(1_795_374_000_123_999), "2026-11-22T19:00:00.123Z");
        assert_eq!(as_string(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn a_millisecond_ends_with_the_last_time_of_its_text(micros in 0..LAST_MICRO) {
            let last = last_shown_as(Timestamp::from_micros(micros)).as_micros();
            prop_assert!(last >= micros);
            prop_assert_eq!(as_string(last), as_string(micros));
            if last < LAST_MICRO {
                prop_assert_ne!(as_string(last + 1), as_string(micros));
            }
        }

        #[test]
        fn every_time_is_what_the_calendar_library_says(micros in 0..=LAST_MICRO) {
            prop_assert_eq!(as_string(micros), Timestamp::from_micros(micros).to_string());
        }
    }
}
