//! `order-service projector`: the read side in a process of its own, beside an `order-service api`.
//!
//! Owns `data/PROJECTOR.LOCK` and the SQLite files. Follows the log that the other process writes, never beyond what is
//! synced, and is woken within microseconds of a sync. May be started before there is a log, and waits for it then.

use std::path::Path;
use std::sync::Arc;

use order_api::{ApiConfig, Check, Projector};
use order_log::segmented::FollowedLog;
use order_log::{DataLock, EventLog, LogError};
use tracing::info;

use crate::config::{Config, ProjectorFlags};
use crate::data_directory::{PROJECTOR_LOCK, create_durably};
use crate::engine;
use crate::failure::Failure;
use crate::front::{self, Sockets, StopSignals};
use crate::manifest::Manifest;
use crate::rooms::{self, Below};

/// Run the projector alone, beside an `order-service api`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    projector: ProjectorFlags,
}

/// Runs until SIGTERM or SIGINT, then stops.
///
/// # Errors
/// A usage failure for a configuration or data directory that does not fit; a failure if another projector runs or a room
/// cannot be opened.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.projector.load()?.config;
    crate::logging::start(&config.logging)?;
    if let Some(store) = config.store {
        engine::check_splits(store)?;
    }
    let begun = rooms::begin("projector");
    crate::file_limit::raise(config.api.connections_max);
    // Before anything is made: what does not fit should leave nothing behind.
    let api_config = ApiConfig {
        // It serves scrapes and operators, not the load of reads.
        reader_threads: 1,
        ..config.api()?
    };
    create_durably(&config.data_dir)?;
    let lock = DataLock::acquire_named(&config.data_dir, PROJECTOR_LOCK)?;
    let sockets = Sockets::of_projector(&config)?;

    let runtime = front::runtime()?;
    let mut signals = front::signals(&runtime)?;
    let Some((manifest, log)) = runtime.block_on(wait_for_log(&config, &mut signals))? else {
        info!("stopped: there is no log yet");
        return Ok(());
    };
    let registry = rooms::registry()?;
    let (read_model, projector) =
        rooms::open_read_model(&config, &manifest, &*log, &registry, |read_model| {
            Ok(read_model.let_follow()?)
        })?;
    let checked = Arc::clone(&log);
    let below = Below {
        config: &config,
        manifest: &manifest,
        log: &*log,
        read_model,
        projector: Projector::Here(Arc::clone(&projector)),
        write_side: None,
        registry,
        checks: Box::new(move || vec![log_check(&*checked)]),
    };
    let scheme = front::scheme(&api_config);
    let api = below.api(api_config)?;
    lock.tell(&format!("{scheme}://{}", sockets.first_address()?))?;
    let served = front::serve(&runtime, signals, sockets, api, &config, scheme, begun);
    projector.stop();
    served?;
    info!("stopped: the checkpoints are in the read model");
    Ok(())
}

/// How far the log is known.
fn log_check(log: &dyn EventLog) -> Check {
    let ends = log.status();
    let ends: Vec<_> = ends.iter().map(|it| it.durable_end.to_string()).collect();
    Check {
        name: "log".to_owned(),
        ok: true,
        required: false,
        detail: format!("known up to {}", ends.join(" ")),
    }
}

/// Waits until another process has made the data directory's log; `None` if a signal came first.
async fn wait_for_log(
    config: &Config,
    signals: &mut StopSignals,
) -> Result<Option<(Manifest, Arc<FollowedLog>)>, Failure> {
    let mut told = false;
    loop {
        if let Some((manifest, log)) = find_log(config)? {
            return Ok(Some((manifest, Arc::new(log))));
        }
        if !told {
            info!(
                "waiting for a log in {}: start `order-service api`",
                config.data_dir.display()
            );
            told = true;
        }
        tokio::select! {
            _ = signals.next() => return Ok(None),
            () = tokio::time::sleep(rooms::LOOK_AGAIN) => {}
        }
    }
}

/// The log, if all of it is there.
fn find_log(config: &Config) -> Result<Option<(Manifest, FollowedLog)>, Failure> {
    let directory: &Path = &config.data_dir;
    let Some(manifest) = Manifest::find(directory)? else {
        return Ok(None);
    };
    manifest.check(directory, config.partitions, config.store)?;
    engine::check_splits(manifest.store)?;
    rooms::read_model_config(config, &manifest)?;
    match engine::follow(directory, &manifest) {
        Ok(log) => Ok(Some((manifest, log))),
        Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(LogError::Incompatible { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
