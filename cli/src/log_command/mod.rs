//! `order-service log …`: look at the events without a service, and take care of the files they are in.
//!
//! `ls` and `dump` change nothing and need no lock: beside a running service they show what was in the files when they
//! were opened, the last records of which a crash might still take. `verify` wants the log to stand still, so it takes
//! the data directory's lock like a service does, and so do those that change something: `repair`, `repartition`,
//! `archive`, `compact`, and `rotate` unless it asks a running service.

mod archive;
mod compact;
mod dump;
mod export;
mod import;
mod list;
mod repair;
mod repartition;
mod rotate;
mod verify;

use clap::Subcommand;

use crate::failure::Failure;

/// Look at the events without a service, and take care of the files they are in
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Ls(list::Arguments),
    Dump(dump::Arguments),
    Verify(verify::Arguments),
    Repair(repair::Arguments),
    Repartition(repartition::Arguments),
    Export(export::Arguments),
    Import(import::Arguments),
    Rotate(rotate::Arguments),
    Archive(archive::Arguments),
    Compact(compact::Arguments),
}

/// Runs the subcommand.
///
/// # Errors
/// As the subcommand says.
pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Ls(arguments) => list::run(arguments),
        Command::Dump(arguments) => dump::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Repair(arguments) => repair::run(arguments),
        Command::Repartition(arguments) => repartition::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Rotate(arguments) => rotate::run(arguments),
        Command::Archive(arguments) => archive::run(arguments),
        Command::Compact(arguments) => compact::run(arguments),
    }
}
