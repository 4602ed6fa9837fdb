//! The write side from its door: what is acknowledged, what is refused, and what failures leave behind.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod concurrency;
mod failures;
mod group_commit;
mod idempotency;
mod lag;
mod lifecycle;
mod model;
mod placement;
mod real_logs;
mod support;
