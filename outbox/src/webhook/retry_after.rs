//! `Retry-After`: a count of seconds or a date (RFC 9110, 10.2.3). A target that asks for a year gets the cap.

use std::time::{Duration, SystemTime};

/// How long to wait from `now`, if the header says something that can be understood.
pub(crate) fn retry_after(value: &str, now: SystemTime, cap: Duration) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that do not fit are a long time, not nonsense.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(3_600);

    /// 1994-11-06T08:49:37Z, the date of RFC 9110's examples.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn seconds(value: &str) -> Option<u64> {
        retry_after(value, now(), CAP).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_all_three_forms_of_a_date_are_understood() {
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds(" 0 "), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:51:37 GMT"), Some(120));
        assert_eq!(seconds("Sun Nov  6 08:51:37 1994"), Some(120));
    }

    #[test]
    fn a_date_that_has_passed_is_now() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    }

    #[test]
    fn nobody_can_ask_for_more_than_the_cap() {
        assert_eq!(seconds("99999999999999999999999999"), Some(3_600));
        assert_eq!(seconds("31536000"), Some(3_600));
        assert_eq!(seconds("Fri, 31 Dec 9999 23:59:59 GMT"), Some(3_600));
    }

    #[test]
    fn nonsense_is_as_good_as_no_header() {
        for value in [
            "",
            "soon",
            "-1",
            "1.5",
            "0x10",
            "1 2",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(seconds(value), None, "{value:?}");
        }
    }
}
