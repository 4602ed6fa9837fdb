//! Append times as RFC 3339 text with microseconds, and back, without loss.
//!
//! Proleptic Gregorian civil dates by the arithmetic of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms",
//! restricted to 1970 and later. Years beyond 9999 have more digits than RFC 3339 allows; they are still read back.

use crate::AppendTime;

const MICROS_A_SECOND: u64 = 1_000_000;
const SECONDS_A_DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_EPOCH: u64 = 719_468;
const DAYS_A_CYCLE: u64 = 146_097;
const YEARS_A_CYCLE: u64 = 400;

/// Appends `2026-11-22T19:00:00.000000Z`.
pub(super) fn write(time: AppendTime, text: &mut Vec<u8>) {
    let micros = time.as_micros();
    let (seconds, fraction) = (micros / MICROS_A_SECOND, micros % MICROS_A_SECOND);
    let (days, second) = (seconds / SECONDS_A_DAY, seconds % SECONDS_A_DAY);
    let (year, month, day) = civil_from_days(days);
    digits(year, 4, text);
    text.push(b'-');
    digits(month, 2, text);
    text.push(b'-');
    digits(day, 2, text);
    text.push(b'T');
    digits(second / 3600, 2, text);
    text.push(b':');
    digits(second / 60 % 60, 2, text);
    text.push(b':');
    digits(second % 60, 2, text);
    text.push(b'.');
    digits(fraction, 6, text);
    text.push(b'Z');
}

/// Reads what [`write`] wrote; a fraction of 0 to 6 digits is accepted, another offset than `Z` is not.
pub(super) fn parse(text: &str) -> Option<AppendTime> {
    let (year, rest) = text.split_once('-')?;
    if !(4..=6).contains(&year.len()) {
        return None;
    }
    let year = number(year.as_bytes())?;
    let rest = rest.as_bytes().strip_suffix(b"Z")?;
    let (fixed, fraction) = rest.split_at_checked(b"11-22T19:00:00".len())?;
    let [
        mo1,
        mo2,
        b'-',
        da1,
        da2,
        b'T',
        ho1,
        ho2,
        b':',
        mi1,
        mi2,
        b':',
        se1,
        se2,
    ] = *fixed
    else {
        return None;
    };
    let (month, day) = (number(&[mo1, mo2])?, number(&[da1, da2])?);
    let (hour, minute) = (number(&[ho1, ho2])?, number(&[mi1, mi2])?);
    let second = number(&[se1, se2])?;
    let micros = match fraction {
        [] => 0,
        [b'.', fraction @ ..] if (1..=6).contains(&fraction.len()) => {
            let scale = 6 - u32::try_from(fraction.len()).ok()?;
            number(fraction)? * 10_u64.pow(scale)
        }
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    let seconds = days * SECONDS_A_DAY + hour * 3600 + minute * 60 + second;
    seconds
        .checked_mul(MICROS_A_SECOND)?
        .checked_add(micros)
        .map(AppendTime::from_micros)
}

/// Year, month, day of a count of days since 1970-01-01.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let (cycle, day_of_cycle) = (days / DAYS_A_CYCLE, days % DAYS_A_CYCLE);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
        - day_of_cycle / 146_096)
        / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // Months count from March, so that the leap day is the year's last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = cycle * YEARS_A_CYCLE + year_of_cycle + u64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to a date on or after it; `None` if there is no such date.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let shifted = year - u64::from(month <= 2);
    let (cycle, year_of_cycle) = (shifted / YEARS_A_CYCLE, shifted % YEARS_A_CYCLE);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_cycle = 365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    let days = (cycle * DAYS_A_CYCLE + day_of_cycle).checked_sub(DAYS_TO_EPOCH)?;
    // A day the month does not have comes back as a day of the next month.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Appends `value` with at least `width` digits.
fn digits(mut value: u64, width: usize, text: &mut Vec<u8>) {
    // 20 digits hold every u64.
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    while value > 0 {
        at -= 1;
        buffer[at] += u8::try_from(value % 10).expect("a decimal digit");
        value /= 10;
    }
    text.extend_from_slice(&buffer[at.min(buffer.len() - width)..]);
}

/// The value of a few decimal digits, and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        digit
            .is_ascii_digit()
            .then(|| value * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(micros: u64) -> String {
        let mut text = Vec::new();
        write(AppendTime::from_micros(micros), &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn known_moments_have_their_known_text() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_795_374_000_000_001, "2026-11-22T19:00:00.000001Z"),
            (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
            (253_402_300_800_000_000, "10000-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(text(micros), expected);
            assert_eq!(parse(expected), Some(AppendTime::from_micros(micros)));
        }
    }

    #[test]
    fn a_shorter_fraction_is_read() {
        let second = 1_795_374_000_000_000;
        for (fraction, micros) in [("", 0), (".5", 500_000), (".250", 250_000)] {
            let text = format!("2026-11-22T19:00:00{fraction}Z");
            assert_eq!(
                parse(&text),
                Some(AppendTime::from_micros(second + micros)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "Z",
            "2026-11-22",
            "2026-11-22T19:00:00",
            "2026-11-22T19:00:00+00:00",
            "2026-11-22 19:00:00Z",
            "2026-11-22T19:00:00.Z",
            "2026-11-22T19:00:00.1234567Z",
            "2026-13-22T19:00:00Z",
            "2026-00-22T19:00:00Z",
            "2026-02-29T19:00:00Z",
            "2026-04-31T19:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T19:60:00Z",
            "2026-11-22T19:00:60Z",
            "1969-12-31T23:59:59Z",
            "999999-01-01T00:00:00Z",
            "2026-11-22T19:00:0éZ",
            "+026-11-22T19:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_append_time_survives_its_text(micros: u64) {
            prop_assert_eq!(parse(&text(micros)), Some(AppendTime::from_micros(micros)));
        }

        #[test]
        fn no_text_is_worth_a_panic(text in "\\PC*") {
            let _time = parse(&text);
        }
    }
}
