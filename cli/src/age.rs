//! How old something is, as a flag says it: `90d`, `12h`, `30m`, `45s`.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A length of time, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    seconds: u64,
}

impl Age {
    /// In microseconds; longer than any log is old where it does not fit.
    pub(crate) const fn as_micros(self) -> u64 {
        self.seconds.saturating_mul(1_000_000)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(24 * 60 * 60, 'd'), (60 * 60, 'h'), (60, 'm')];
        let whole = units
            .into_iter()
            .find(|(seconds, _)| self.seconds > 0 && self.seconds.is_multiple_of(*seconds));
        let (seconds, unit) = whole.unwrap_or((1, 's'));
        write!(formatter, "{}{unit}", self.seconds / seconds)
    }
}

/// The wall clock, in microseconds since the Unix epoch.
pub(crate) fn now_micros() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no age: use a whole number and d, h, m or s, as in 90d");
        let unit = text.chars().next_back().ok_or_else(wrong)?;
        let seconds = match unit {
            'd' => 24 * 60 * 60,
            'h' => 60 * 60,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let number = &text[..text.len() - 1];
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
        Ok(Self { seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_and_a_unit() {
        for (text, seconds) in [
            ("0s", 0),
            ("45s", 45),
            ("30m", 1_800),
            ("12h", 43_200),
            ("90d", 7_776_000),
        ] {
            let age = Age { seconds };
            assert_eq!(text.parse(), Ok(age));
            assert_eq!(age.to_string(), text);
        }
        for wrong in [
            "",
            "d",
            "90",
            "-1d",
            "+1d",
            "1.5h",
            "1 d",
            "1w",
            "99999999999999999d",
            "1é",
        ] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong}");
        }
    }
}
