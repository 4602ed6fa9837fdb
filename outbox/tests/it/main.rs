//! The outbox through its door, on a real log.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests may unwrap; the support files serve the unit tests too"
)]

#[path = "../support/order_log.rs"]
mod orders;
#[path = "../support/receiver.rs"]
mod receiver;

mod child;
mod door;
mod kill;
mod offline;
mod published_libraries;
mod support;
mod tls;
mod webhook;
