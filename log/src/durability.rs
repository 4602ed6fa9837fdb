//! When an append counts as done.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What has happened to a batch when its append returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on stable storage: `fdatasync` returned.
    Always,
    /// The operating system has it; it is synced within this time. A power loss can take the last interval.
    Interval(Duration),
    /// The operating system has it; it is synced in the background, without a promise when.
    Os,
}

impl fmt::Display for Durability {
    /// `always`, `interval=<ms>`, `os`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => formatter.write_str("always"),
            Self::Interval(interval) => write!(formatter, "interval={}", interval.as_millis()),
            Self::Os => formatter.write_str("os"),
        }
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self::Always),
            "os" => Ok(Self::Os),
            _ => text
                .strip_prefix("interval=")
                .and_then(|ms| ms.parse::<u64>().ok())
                .filter(|ms| (1..=60_000).contains(ms))
                .map(|ms| Self::Interval(Duration::from_millis(ms)))
                .ok_or_else(|| {
                    format!("`{text}` is not a durability: use `always`, `interval=<1 to 60000 ms>` or `os`")
                }),
        }
    }
}
