//! The outbox as it is shown: read from a service's answers, or made from the files.

use order_outbox::HeldEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the outbox stands.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Standing {
    pub(super) sink: String,
    pub(super) running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_failure: Option<String>,
    pub(super) pending: u64,
    pub(super) backing_off: u64,
    pub(super) dead: u64,
    /// What only a running service can tell is absent of a stopped one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_waiting_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) oldest_backing_off_seconds: Option<f64>,
    pub(super) partitions: Vec<Partition>,
}

/// How far the outbox is in a partition.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Partition {
    pub(super) partition: u16,
    pub(super) cursor: u64,
    pub(super) end: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trouble: Option<String>,
}

/// A page of dead letters.
#[derive(Debug, Deserialize)]
pub(super) struct Letters {
    pub(super) dead: Vec<Letter>,
    pub(super) next_after: Option<String>,
}

/// One event that is kept aside.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) order_id: String,
    pub(super) version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#type: Option<String>,
    pub(super) appended_at: String,
    pub(super) dead: bool,
    pub(super) attempts: u32,
    pub(super) error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) behind: Option<String>,
    /// The CloudEvent as its receiver would see it; of an event that is inspected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cloud_event: Option<Value>,
}

impl From<HeldEvent> for Letter {
    fn from(held: HeldEvent) -> Self {
        Self {
            id: held.id.to_string(),
            order_id: held.id.order().to_string(),
            version: held.id.version().get(),
            r#type: held.event_type.map(str::to_owned),
            appended_at: held.appended_at.to_string(),
            dead: held.dead,
            attempts: held.attempts,
            error: held.error,
            behind: held.behind.map(|event| event.to_string()),
            cloud_event: None,
        }
    }
}

/// How many events got all their tries again.
#[derive(Debug, Deserialize)]
pub(super) struct Redriven {
    pub(super) redriven: u64,
}
