//! What can be set, with defaults that need no thought and limits that keep a typing error from doing harm.
//!
//! Names fit the environment: `ORDER_SERVICE__OUTBOX__WEBHOOK__URL`, `ORDER_SERVICE__OUTBOX__RETRY__BASE_MS`, and so on.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::OutboxError;

/// Where events go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// One CloudEvent a line in a file.
    #[default]
    File,
    /// Nowhere. The cursors stand still, so that a sink chosen later goes on where the last one ended.
    None,
}

impl fmt::Display for SinkKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File => "file",
            Self::None => "none",
        })
    }
}

impl FromStr for SinkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "file" => Ok(Self::File),
            "none" => Ok(Self::None),
            _ => Err(format!("`{text}` is not a sink: use `file` or `none`")),
        }
    }
}

/// How the outbox behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// Where events go.
    pub sink: SinkKind,
    /// The CloudEvents `source` of every event: a URI reference that tells this service from others.
    pub source: String,
    /// The `file` sink.
    pub file: FileConfig,
    /// When failed deliveries are tried again.
    pub retry: RetryConfig,
    /// Most events kept aside because their order is being retried. Beyond it nothing new is read from the log until
    /// some are delivered or dead: a target that is down costs this much of the store, never the whole log.
    pub retrying_events_max: u64,
    /// Most dead events kept. Beyond it nothing new is read from the log: an outbox that fails everything stops, and says
    /// so, instead of declaring all of it dead.
    pub dead_events_max: u64,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            sink: SinkKind::default(),
            source: "/order-service".to_owned(),
            file: FileConfig::default(),
            retry: RetryConfig::default(),
            retrying_events_max: 10_000,
            dead_events_max: 100_000,
        }
    }
}

/// The `file` sink.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    /// The file; `outbox.jsonl` in the data directory if not set.
    pub path: Option<PathBuf>,
    /// Pause between two batches, in milliseconds: each costs two syncs of the disk that the log is on.
    pub linger_ms: u64,
}

impl Default for FileConfig {
    fn default() -> Self {
        Self {
            path: None,
            linger_ms: 25,
        }
    }
}

/// When failed deliveries are tried again. The defaults try for about six hours before an event is dead.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Tries, the first one included, before an event is dead.
    pub attempts: u32,
    /// Longest delay after the first failure, in milliseconds; doubled by every further one.
    pub base_ms: u64,
    /// Longest delay at all, in milliseconds.
    pub cap_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 24,
            base_ms: 500,
            cap_ms: 3_600_000,
        }
    }
}

impl OutboxConfig {
    /// Longest `source`, in bytes: it is repeated in every event.
    const SOURCE_BYTES_MAX: usize = 255;
    /// Longest pause between two batches of the file sink.
    const LINGER_MS_MAX: u64 = 60_000;
    /// Longest delay between two tries: a week.
    const CAP_MS_MAX: u64 = 7 * 24 * 3_600_000;

    /// Checks every setting, before anything is opened.
    ///
    /// # Errors
    /// [`OutboxError::Config`] names the first setting that cannot be.
    pub fn validate(&self) -> Result<(), OutboxError> {
        let refuse = |field, reason: &str| {
            Err(OutboxError::Config {
                field,
                reason: reason.to_owned(),
            })
        };
        let graphic = self.source.bytes().all(|byte| byte.is_ascii_graphic());
        if self.source.is_empty() || self.source.len() > Self::SOURCE_BYTES_MAX || !graphic {
            return refuse(
                "source",
                "must be a URI reference of 1 to 255 ASCII characters",
            );
        }
        if self.file.linger_ms > Self::LINGER_MS_MAX {
            return refuse("file.linger_ms", "must be at most 60000");
        }
        if self.retry.attempts == 0 {
            return refuse("retry.attempts", "must be at least 1");
        }
        if self.retry.base_ms == 0 || self.retry.base_ms > self.retry.cap_ms {
            return refuse(
                "retry.base_ms",
                "must be at least 1 and at most retry.cap_ms",
            );
        }
        if self.retry.cap_ms > Self::CAP_MS_MAX {
            return refuse("retry.cap_ms", "must be at most 604800000, a week");
        }
        if self.retrying_events_max == 0 {
            return refuse("retrying_events_max", "must be at least 1");
        }
        if self.dead_events_max == 0 {
            return refuse("dead_events_max", "must be at least 1");
        }
        Ok(())
    }
}
