//! The dispatcher's thread: runs the sink's dispatcher, starts it anew when it failed, catches its panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::OutboxError;
use crate::backoff::Backoff;
use crate::config::{RetryConfig, SinkKind};
use crate::file_dispatcher::FileDispatcher;
use crate::inbox::{Inbox, Wake};
use crate::shared::Shared;
use crate::webhook::{SystemLookup, Target, WebhookDispatcher};

/// When a run that failed as a whole (a full disk, a store that is locked) starts anew: soon, because the cause often
/// passes, and for ever, because no event is to blame.
const RESTART: RetryConfig = RetryConfig {
    attempts: u32::MAX,
    base_ms: 200,
    cap_ms: 10_000,
};

/// A run that lasted this long was sound: the next failure is a new one.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// The thread's body: returns when told to stop, or after a panic.
pub(crate) fn run(shared: &Arc<Shared>, inbox: &mut Inbox) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            return shared.report(Some(format!("making the dispatcher's runtime: {error}")));
        }
    };
    let caught = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(supervise(shared, inbox));
    }));
    // Not by dropping it, which would wait for the lookup of a name that nobody answers.
    runtime.shutdown_background();
    if let Err(panic) = caught {
        shared.report(Some(format!(
            "the dispatcher panicked: {}; restart the outbox, and report this",
            message(&*panic)
        )));
    }
}

async fn supervise(shared: &Arc<Shared>, inbox: &mut Inbox) {
    let mut backoff = Backoff::new(RESTART, fastrand::Rng::new());
    let mut failures = 0;
    loop {
        let started = std::time::Instant::now();
        let Err(error) = run_sink(shared, inbox).await else {
            return;
        };
        if started.elapsed() > SOUND_AFTER {
            failures = 0;
        }
        failures += 1;
        let reason = error.to_string();
        shared.report(Some(reason.clone()));
        let restart = tokio::time::Instant::now() + backoff.delay(failures);
        loop {
            let left = restart.saturating_duration_since(tokio::time::Instant::now());
            match inbox.wait(left).await {
                Wake::Elapsed => break,
                Wake::Request(request) => request.refuse(&reason),
                Wake::Stop => return,
            }
        }
    }
}

async fn run_sink(shared: &Arc<Shared>, inbox: &mut Inbox) -> Result<(), OutboxError> {
    match shared.config.sink {
        SinkKind::File => FileDispatcher::open(Arc::clone(shared))?.run(inbox).await,
        SinkKind::Webhook => {
            let target = Target::new(&shared.config, Arc::new(SystemLookup))?;
            let dispatcher = WebhookDispatcher::open(Arc::clone(shared), Arc::new(target))?;
            dispatcher.run(inbox).await
        }
        SinkKind::None => Ok(()),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
