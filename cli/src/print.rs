//! Standard output of the commands: a reader that goes away early is no failure.

use std::io::{ErrorKind, Write};

use crate::failure::Failure;

/// Prints one line, or several.
///
/// # Errors
/// Whatever the operating system says, but for a closed pipe.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    unless_closed(writeln!(std::io::stdout().lock(), "{text}"))
}

/// Turns the failure to write to a closed pipe into success: `order-service log dump | head` has seen what it wanted.
///
/// # Errors
/// Every other failure.
pub(crate) fn unless_closed(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(anyhow::Error::new(error)
            .context("write to standard output")
            .into()),
        _ => Ok(()),
    }
}
