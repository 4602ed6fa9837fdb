//! `order-service`: the binary. One file a subcommand; this one only chooses between them and sets the exit code.
//!
//! This room decides nothing about orders or files: it reads the configuration, opens the rooms in order, joins them,
//! and closes them in the opposite order.

#![forbid(unsafe_code)]

mod age;
mod api_command;
mod backup;
mod byte_progress;
mod config;
mod config_command;
mod data_directory;
mod engine;
mod failure;
mod file_limit;
mod front;
mod interrupt;
mod log_command;
mod log_metrics;
mod logging;
mod manifest;
mod outbox_command;
mod print;
mod projections_command;
mod projector_command;
mod readiness;
mod restore;
mod rewrite;
mod rooms;
mod serve;
mod service_client;
mod snapshots;
mod sql;
mod staging;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Orders are many small allocations made in one thread and freed in another, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Kafka-style, log-partitioned order pipeline: REST in, durable events, SQLite out.
///
/// Settings come from defaults, a TOML file (--config), the environment (ORDER_SERVICE__OUTBOX__SINK=none sets `sink` of
/// the table `outbox`) and flags; the later of these wins. Exit codes: 0 done, 1 tried and failed or found something,
/// 2 the flags, the configuration or the data directory do not fit what was asked.
#[derive(Debug, Parser)]
#[command(name = "order-service", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Api(api_command::Arguments),
    Projector(projector_command::Arguments),
    #[command(subcommand)]
    Log(log_command::Command),
    Backup(backup::Arguments),
    Restore(restore::Arguments),
    #[command(subcommand)]
    Projections(projections_command::Command),
    #[command(subcommand)]
    Outbox(outbox_command::Command),
    Sql(sql::Arguments),
    Config(config_command::Arguments),
}

fn main() -> ExitCode {
    data_directory::keep_files_private();
    let outcome = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Api(arguments) => api_command::run(&arguments),
        Command::Projector(arguments) => projector_command::run(&arguments),
        Command::Log(command) => log_command::run(&command),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Projections(command) => projections_command::run(&command),
        Command::Outbox(command) => outbox_command::run(&command),
        Command::Sql(arguments) => sql::run(&arguments),
        Command::Config(arguments) => config_command::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("order-service: {failure}");
            failure.exit_code()
        }
    }
}
