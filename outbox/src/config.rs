//! What can be set, with defaults that need no thought and limits that keep a typing error from doing harm.
//!
//! Names fit the environment: `ORDER_SERVICE__OUTBOX__WEBHOOK__URL`, `ORDER_SERVICE__OUTBOX__RETRY__BASE_MS`, and so on.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::OutboxError;
use crate::webhook::{Secrets, Target};

/// Where events go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// One CloudEvent a line in a file.
    #[default]
    File,
    /// HTTP POST to the configured target.
    Webhook,
    /// Nowhere. The cursors stand still, so that a sink chosen later goes on where the last one ended.
    None,
}

impl fmt::Display for SinkKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::File => "file",
            Self::Webhook => "webhook",
            Self::None => "none",
        })
    }
}

impl FromStr for SinkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "file" => Ok(Self::File),
            "webhook" => Ok(Self::Webhook),
            "none" => Ok(Self::None),
            _ => Err(format!(
                "`{text}` is not a sink: use `file`, `webhook` or `none`"
            )),
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
    /// The `webhook` sink.
    pub webhook: WebhookConfig,
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
            webhook: WebhookConfig::default(),
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

/// The `webhook` sink.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where to POST: `https://…`, or `http://…` where nobody listens in.
    pub url: Option<String>,
    /// What requests are signed with: `whsec_` and the base64 of 24 to 64 random bytes. While a secret is rotated, the new
    /// and the old one, in a list or with a space between.
    pub secret: Secrets,
    /// Whether the target may be on this host or a private network. Off, no name that resolves there is connected to.
    pub allow_private: bool,
    /// Longest wait for an answer, connecting included, in milliseconds.
    pub timeout_ms: u64,
    /// Longest wait for a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Most requests on their way at once; at most one of each order.
    pub in_flight_max: usize,
    /// Longest wait that a target's `Retry-After` can ask for, in milliseconds.
    pub retry_after_max_ms: u64,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: None,
            secret: Secrets::default(),
            allow_private: false,
            timeout_ms: 20_000,
            connect_timeout_ms: 5_000,
            in_flight_max: 64,
            retry_after_max_ms: 3_600_000,
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

    /// Longest wait for an answer: 5 minutes.
    const TIMEOUT_MS_MAX: u64 = 300_000;
    /// Most requests at once: each is a connection and its buffers.
    const IN_FLIGHT_MAX: usize = 1_024;

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
        let webhook = &self.webhook;
        if !(1..=Self::TIMEOUT_MS_MAX).contains(&webhook.timeout_ms) {
            return refuse("webhook.timeout_ms", "must be 1 to 300000");
        }
        if !(1..=Self::TIMEOUT_MS_MAX).contains(&webhook.connect_timeout_ms) {
            return refuse("webhook.connect_timeout_ms", "must be 1 to 300000");
        }
        if !(1..=Self::IN_FLIGHT_MAX).contains(&webhook.in_flight_max) {
            return refuse("webhook.in_flight_max", "must be 1 to 1024");
        }
        if webhook.retry_after_max_ms > Self::CAP_MS_MAX {
            return refuse(
                "webhook.retry_after_max_ms",
                "must be at most 604800000, a week",
            );
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
        if self.sink == SinkKind::Webhook {
            Target::check_what_is_set(self)?;
        }
        Ok(())
    }

    /// Checks what only a dispatcher needs: that there is a target, and something to sign with. Both may be set in the
    /// environment of the service alone, so other commands do without.
    ///
    /// # Errors
    /// [`OutboxError::Config`] naming the setting.
    pub fn check_target(&self) -> Result<(), OutboxError> {
        if self.sink == SinkKind::Webhook {
            Target::check(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_names_that_the_environment_gives_them() {
        let config: OutboxConfig = serde_json::from_str(
            r#"{"sink": "webhook",
                "webhook": {"url": "https://example.com/", "secret": "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "allow_private": true},
                "retry": {"attempts": 3, "base_ms": 5, "cap_ms": 50},
                "file": {"linger_ms": 1}}"#,
        )
        .unwrap();
        assert_eq!(config.sink, SinkKind::Webhook);
        assert_eq!(config.webhook.url.as_deref(), Some("https://example.com/"));
        assert!(config.webhook.allow_private);
        assert_eq!((config.retry.attempts, config.retry.base_ms), (3, 5));
        assert_eq!(
            config.webhook.timeout_ms, 20_000,
            "what is not set keeps its default"
        );
        config.validate().unwrap();
    }

    #[test]
    fn a_setting_that_does_not_exist_is_refused() {
        for unknown in [
            r#"{"sinks": "file"}"#,
            r#"{"webhook": {"uri": "https://example.com/"}}"#,
            r#"{"retry": {"base": 5}}"#,
            r#"{"file": {"name": "x"}}"#,
            r#"{"sink": "kafka"}"#,
        ] {
            assert!(
                serde_json::from_str::<OutboxConfig>(unknown).is_err(),
                "{unknown} was taken"
            );
        }
    }

    #[test]
    fn the_defaults_are_valid_and_a_setting_out_of_range_is_refused_by_its_name() {
        OutboxConfig::default().validate().unwrap();
        type Spoil = fn(&mut OutboxConfig);
        let cases: [(&str, Spoil); 9] = [
            ("source", |config| config.source = "with space".to_owned()),
            ("file.linger_ms", |config| config.file.linger_ms = 60_001),
            ("webhook.timeout_ms", |config| config.webhook.timeout_ms = 0),
            ("webhook.connect_timeout_ms", |config| {
                config.webhook.connect_timeout_ms = 300_001
            }),
            ("webhook.in_flight_max", |config| {
                config.webhook.in_flight_max = 0
            }),
            ("retry.attempts", |config| config.retry.attempts = 0),
            ("retry.base_ms", |config| {
                config.retry.base_ms = config.retry.cap_ms + 1
            }),
            ("retrying_events_max", |config| {
                config.retrying_events_max = 0
            }),
            ("dead_events_max", |config| config.dead_events_max = 0),
        ];
        for (name, spoil) in cases {
            let mut config = OutboxConfig::default();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert!(
                matches!(error, OutboxError::Config { field, .. } if field == name),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn printed_settings_show_no_secret() {
        let mut config = OutboxConfig::default();
        config.webhook.secret = Secrets::new(["whsec_hidden".to_owned()]);
        let printed = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!printed.contains("hidden"), "{printed}");
    }
}
