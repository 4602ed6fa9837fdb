//! The service's own messages: for people on a terminal, as JSON for machines; always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogFormat, Logging};
use crate::failure::{Failure, usage};

/// Starts printing messages; panics of worker threads become messages too.
///
/// # Errors
/// A usage failure for a filter that does not read.
pub(crate) fn start(settings: &Logging) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| {
        usage!(
            "configuration: `logging.filter` is `{}`: {error}",
            settings.filter
        )
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let human = match settings.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    if human {
        builder.with_ansi(terminal).with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tracing::error!(thread = thread.name().unwrap_or("unnamed"), "{panic}");
    }));
    Ok(())
}
