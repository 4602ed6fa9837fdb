//! HTTP, JSON shapes, status codes and metrics: the costume of the service.
//!
//! This room decides nothing about orders: commands go to the command workers, reads come from the read model. Status
//! codes are known to `error` alone. What it reads of the log (history, feed, lag) it reads through the log's reading
//! ends that the wiring hands in; it never writes a byte of it.

#![forbid(unsafe_code)]

mod api;
mod config;
mod serve;

pub use api::{Api, ApiParts, Check, StartError};
pub use config::ApiConfig;
pub use serve::serve;
