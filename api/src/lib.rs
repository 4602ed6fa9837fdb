//! HTTP, JSON shapes, status codes and metrics: the costume of the service.
//!
//! This room decides nothing about orders: commands go to the command workers, reads come from the read model. Status
//! codes are known to `error` alone. What it reads of the log (history, feed, lag) it reads through the log's reading
//! ends that the wiring hands in; it never writes a byte of it.

#![forbid(unsafe_code)]

mod admin;
mod answer;
mod answer_stream;
mod api;
mod auth;
mod body;
mod bulk;
mod bulk_lines;
mod conditions;
mod config;
mod connection_clock;
mod connection_metrics;
mod dispatch;
mod door;
mod error;
mod event_json;
mod farewell;
mod feed;
mod feed_position;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod health;
mod history;
mod http_metrics;
mod lag;
mod list;
mod openapi;
mod order_body;
mod order_json;
mod order_path;
mod projections;
mod projector;
mod query;
mod readers;
mod reads;
mod request_body;
mod request_headers;
mod route;
mod router;
mod serve;
mod sync_token;
mod time_text;
mod tls;
mod writes;

pub use api::{Api, ApiParts, Check, StartError};
pub use auth::{BearerToken, InvalidToken, PublicBind, Scope, check_listen};
pub use config::ApiConfig;
pub use projector::Projector;
pub use serve::{Endpoints, Listener, serve};
pub use tls::{Tls, TlsError};
