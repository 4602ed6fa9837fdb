//! The read side against a real log in a temporary directory.
//!
//! Method: a [`World`](world::World) plays the write side (decides commands, appends frames, keeps every order as
//! decided); workers are stepped by hand, so that a test says when what happens, or run on their threads. What the rows
//! should be is never written down twice: they are compared with the decided orders, or by digest with the same log
//! folded another way.

mod coalescing;
mod compacted;
mod crashes;
mod files;
mod gathering;
mod joint;
mod keys;
mod lag;
mod metrics;
mod mutants;
mod parking;
mod pausing;
mod reading;
mod rebuild;
mod summaries;
mod wal;
mod world;
