//! Whole-service tests: the binary as its users run it, over HTTP and over its files; and the rules of the house.

mod backup;
mod bad_input;
mod client;
mod configuration;
mod documents;
mod failing_disk;
mod history;
mod import_export;
mod killed;
mod life;
mod log_tools;
mod metrics;
mod projections;
mod refusals;
mod renames;
mod repartition;
mod restart;
mod rooms;
mod runbook;
mod service;
mod sql_command;
mod stores;
mod tidy;
mod waits;
mod workspace;
mod writers;
