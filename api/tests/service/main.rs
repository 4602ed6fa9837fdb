//! The API on real rooms, within one process: what needs a look at single frames of an answer, at limits that are set
//! small, or at connections. The life of an order over a running binary is told in the workspace's `tests/`.

#![expect(
    clippy::unwrap_used,
    reason = "in a test, a failure to set it up is a failure of it"
)]

mod bulk;
mod bulk_streams;
mod connections;
mod document;
mod farewells;
mod feed;
mod forged;
mod gate;
mod guards;
mod held_up;
mod history;
mod long_lists;
mod malformed;
mod methods;
mod operators;
mod raw;
mod reads;
mod slow_readers;
mod tls;
mod world;
