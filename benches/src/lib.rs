//! Benches: what the machine can do, what the service does, side by side in one run.
//!
//! A figure alone says little, for it moves from machine to machine and from minute to minute. So this room keeps, for
//! every figure of the service, a [`mod@reference`] that does nothing but the bare work; both run in turn, and what is
//! reported is the ratio. Nothing here asserts a time, and nothing outside this room depends on it.
//!
//! - [`mod@reference`]: the bare work, each a small program.
//! - [`rooms`]: the rooms, driven by the same loops.
//! - [`measure`]: contestants in turn, medians, ratios.
//! - [`load`]: the open-loop load generator behind the `loadtest` binary.
//! - [`compare`]: the service and the bare reference under the same load, as processes.
//! - [`plot`]: pictures of figures.
//! - [`report`] and [`machine`]: Markdown and JSON, with the machine, its file system and how disturbed it was.

#![forbid(unsafe_code)]

pub mod compare;
pub mod load;
pub mod machine;
pub mod measure;
pub mod plot;
pub mod reference;
pub mod report;
pub mod rooms;
pub mod sample;
