//! Tell the outside world: integration events off the log, at least once, each order's in order.
//!
//! The log is the outbox. A dispatcher reads it behind the durable end, turns each event into a CloudEvent, hands it to
//! the configured sink, and then moves a durable cursor. Nothing is written twice on the way in, and rebuilding a read
//! model tells nobody anything.
//!
//! This room never writes the log, never delays the pipeline, and never skips an event silently: one that fails is tried
//! again, then dead until somebody redrives it, and its order's later events wait behind it. `data/outbox.db` holds the
//! cursors and what is kept aside; losing it means telling everything again, losing nothing.
//!
//! `docs/integration-events.md` is what consumers can rely on.

#![forbid(unsafe_code)]

mod backoff;
mod cloud_event;
mod config;
mod dead_letters;
mod dispatcher;
mod error;
mod event_id;
mod file_dispatcher;
mod file_sink;
mod inbox;
mod ledger;
mod log_event;
mod metrics;
mod offline;
mod outbox;
mod progress;
mod shared;
mod store;
#[cfg(test)]
#[path = "../tests/support/receiver.rs"]
mod test_receiver;
#[cfg(test)]
#[path = "../tests/support/order_log.rs"]
mod test_support;
mod webhook;

pub use config::{FileConfig, OutboxConfig, RetryConfig, SinkKind, WebhookConfig};
pub use dead_letters::{DEAD_PAGE_MAX, HeldEvent, Inspection};
pub use error::OutboxError;
pub use event_id::EventId;
pub use offline::{OfflineOutbox, stored_cursors};
pub use outbox::{Outbox, OutboxPartition, OutboxStatus};
pub use webhook::Secrets;
