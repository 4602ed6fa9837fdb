//! Ctrl-C for commands that work in steps: the step at hand is finished, the next one is not begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Whether SIGINT or SIGTERM came. The second one ends the process at once, as a crash would.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches from now on, until the process ends.
    ///
    /// # Errors
    /// If the thread or the handlers cannot be set up.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("watch for signals")?;
        let came = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&came);
        let (mut interrupt, mut terminate) = {
            let _entered = runtime.enter();
            let watch = |kind| signal(kind).context("watch for signals");
            (
                watch(SignalKind::interrupt())?,
                watch(SignalKind::terminate())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    loop {
                        tokio::select! {
                            _ = interrupt.recv() => {}
                            _ = terminate.recv() => {}
                        }
                        if seen.swap(true, Ordering::SeqCst) {
                            std::process::exit(130);
                        }
                    }
                });
            })
            .context("watch for signals")?;
        Ok(Self(came))
    }

    /// To be called between two steps.
    ///
    /// # Errors
    /// A failure that says how to go on, if the signal came.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::SeqCst) {
            return Err(anyhow!(
                "interrupted between two steps: nothing is half-done; run the command again to go on"
            )
            .into());
        }
        Ok(())
    }
}
