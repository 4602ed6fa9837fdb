//! The outbox through its door, on a real log.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests may unwrap; the support file serves the unit tests too"
)]

#[path = "../support/order_log.rs"]
mod order_log;

mod door;
