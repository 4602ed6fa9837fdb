//! The kinds of values a setting can have, each checked where it is read.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which engine keeps the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// The segmented, memory-mapped log in `log/`.
    Segmented,
    /// One JSON object a line in `events.jsonl`: the baseline to compare with.
    Jsonl,
}

impl fmt::Display for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Segmented => "segmented",
            Self::Jsonl => "jsonl",
        })
    }
}

/// How the service's own messages look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Lines for people on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Something that is on or off; `true` and `false` are read too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase", try_from = "SwitchText")]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// What a switch may be written as: a TOML boolean or a word.
#[derive(Deserialize)]
#[serde(untagged)]
enum SwitchText {
    Boolean(bool),
    Word(String),
}

impl TryFrom<SwitchText> for Switch {
    type Error = String;

    fn try_from(text: SwitchText) -> Result<Self, String> {
        match text {
            SwitchText::Boolean(true) => Ok(Self::On),
            SwitchText::Boolean(false) => Ok(Self::Off),
            SwitchText::Word(word) => match word.as_str() {
                "on" | "true" => Ok(Self::On),
                "off" | "false" => Ok(Self::Off),
                _ => Err(format!("`{word}` is neither `on` nor `off`")),
            },
        }
    }
}

impl Switch {
    /// Whether it is on.
    pub(crate) const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// When a write counts as done: `always`, `interval=<ms>` or `os`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Durability(pub(crate) order_log::Durability);

impl TryFrom<String> for Durability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self)
    }
}

impl From<Durability> for String {
    fn from(durability: Durability) -> Self {
        durability.0.to_string()
    }
}
