//! `order-service api`: the write side, HTTP and the outbox, beside a projector in a process of its own.
//!
//! Owns `data/LOCK`, the log and the outbox. Rows come from the projector's files, which it reads and never writes, and
//! so do the checkpoints: while no projector runs, reads go on and grow old, and commands are refused once the rows are
//! too far behind. Either process may be started first, killed, and started again.

use std::path::Path;
use std::sync::Arc;

use order_api::{Check, Projector};
use order_log::DataLock;
use order_projector_workers::{ProjectorWatch, ReadModel};
use tracing::info;

use crate::config::ServiceFlags;
use crate::data_directory::{DataDirectory, PROJECTOR_LOCK};
use crate::engine::{self, Followers};
use crate::failure::Failure;
use crate::front::{self, Sockets};
use crate::readiness::{self, Disk};
use crate::rooms::{self, Below, OpenLog, WriteSide};

/// Run the write side and the API, beside an `order-service projector`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: ServiceFlags,
}

/// Runs until SIGTERM or SIGINT, then drains and stops.
///
/// # Errors
/// A usage failure for a configuration or data directory that does not fit; a failure if a room cannot be opened.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.service.load()?.config;
    crate::logging::start(&config.logging)?;
    if let Some(store) = config.store {
        engine::check_splits(store)?;
    }
    let begun = rooms::begin("api");
    crate::file_limit::raise(config.api.connections_max);
    // Before anything is made: what does not fit should leave nothing behind.
    let api_config = config.api()?;
    rooms::refuse_before_anything_is_made(&config)?;
    let directory = DataDirectory::own_log(&config)?;
    let manifest = &directory.manifest;
    engine::check_splits(manifest.store)?;
    let sockets = Sockets::of_service(&config)?;

    let read_model = ReadModel::follow(rooms::read_model_config(&config, manifest)?)?;
    let registry = rooms::registry()?;
    let OpenLog { log, scrub } =
        rooms::open_log(&config, &directory, Followers::Projector, &registry)?;
    let watch = ProjectorWatch::start(&*log, Arc::clone(&read_model))?;
    let write_side = WriteSide::start(&config, &directory, &*log, &read_model, &registry)?;

    let (checked_log, checked_outbox) = (Arc::clone(&log), Arc::clone(&write_side.outbox));
    let disk = Disk::of(&config);
    let (watched, path) = (Arc::clone(&watch), directory.path.clone());
    let asked = directory.path.clone();
    let below = Below {
        config: &config,
        manifest,
        log: &*log,
        read_model,
        projector: Projector::Elsewhere {
            watch: Arc::clone(&watch),
            asked_at: Box::new(move || asked_at(&asked)),
        },
        write_side: Some(&write_side),
        registry,
        checks: Box::new(move || {
            let mut checks =
                readiness::checks(&*checked_log, &disk, scrub.as_deref(), &checked_outbox);
            checks.push(projector_check(&watched, &path));
            checks
        }),
    };
    let scheme = front::scheme(&api_config);
    let api = below.api(api_config)?;
    let runtime = front::runtime()?;
    let signals = front::signals(&runtime)?;
    let served = front::serve(&runtime, signals, sockets, api, &config, scheme, begun);
    write_side.stop();
    watch.stop();
    served?;
    info!("stopped: everything acknowledged is in the log");
    Ok(())
}

/// Whether the projector runs, and what its files are like. Without it the service is of use: reads go on, and writes
/// for a while.
fn projector_check(watch: &ProjectorWatch, directory: &Path) -> Check {
    let (running, standing) = match DataLock::holder(directory, PROJECTOR_LOCK) {
        Ok(Some(holder)) => {
            let told = holder.told.unwrap_or_else(|| "starting".to_owned());
            (true, format!("process {}, {told}", holder.process))
        }
        Ok(None) => (false, "not running: rows grow old".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    let trouble = watch.trouble();
    Check {
        name: "projector".to_owned(),
        ok: running && trouble.is_none(),
        required: false,
        detail: match trouble {
            Some(trouble) => format!("{standing}; {trouble}"),
            None => standing,
        },
    }
}

/// Where to ask for what only the projector can do.
fn asked_at(directory: &Path) -> String {
    match DataLock::holder(directory, PROJECTOR_LOCK) {
        Ok(Some(holder)) => {
            let url = holder.told.unwrap_or_else(|| "its own address".to_owned());
            format!(
                "the projector is process {}: ask it, at {url}",
                holder.process
            )
        }
        Ok(None) => format!(
            "no projector runs: start `order-service projector --data-dir {}` and ask it",
            directory.display()
        ),
        Err(error) => format!("ask the projector; where it is, is not known ({error})"),
    }
}
