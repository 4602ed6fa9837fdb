//! `order-service serve`: the whole pipeline in one process.
//!
//! Opened from the bottom up: log, read model, projector workers, command workers, outbox, API. Closed from the top
//! down: the API stops taking requests and answers those it has, the command workers work off their queues and sync, the
//! readers of the log end where they are and go on from their checkpoints at the next start.

use std::sync::Arc;

use order_api::Projector;
use tracing::info;

use crate::config::ServiceFlags;
use crate::data_directory::DataDirectory;
use crate::engine::Followers;
use crate::failure::Failure;
use crate::front::{self, Sockets};
use crate::readiness::{self, Disk};
use crate::rooms::{self, Below, OpenLog, WriteSide};

/// Run the service
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
    let begun = rooms::begin("serve");
    crate::file_limit::raise(config.api.connections_max);
    // Before anything is made: what does not fit should leave nothing behind.
    let api_config = config.api()?;
    rooms::refuse_before_anything_is_made(&config)?;
    let directory = DataDirectory::own(&config)?;
    let sockets = Sockets::of_service(&config)?;

    let manifest = &directory.manifest;
    // Before the log is opened: a mistake here should cost nothing.
    rooms::read_model_config(&config, manifest)?;
    let registry = rooms::registry()?;
    let OpenLog { log, scrub } = rooms::open_log(&config, &directory, Followers::None, &registry)?;
    let (read_model, projector) =
        rooms::open_read_model(&config, manifest, &*log, &registry, |_| Ok(()))?;
    let write_side = WriteSide::start(&config, &directory, &*log, &read_model, &registry)?;

    let (checked_log, checked_outbox) = (Arc::clone(&log), Arc::clone(&write_side.outbox));
    let disk = Disk::of(&config);
    let below = Below {
        config: &config,
        manifest,
        log: &*log,
        read_model,
        projector: Projector::Here(Arc::clone(&projector)),
        write_side: Some(&write_side),
        registry,
        checks: Box::new(move || {
            readiness::checks(&*checked_log, &disk, scrub.as_deref(), &checked_outbox)
        }),
    };
    let scheme = front::scheme(&api_config);
    let api = below.api(api_config)?;
    let runtime = front::runtime()?;
    let signals = front::signals(&runtime)?;
    let served = front::serve(&runtime, signals, sockets, api, &config, scheme, begun);
    write_side.stop();
    projector.stop();
    served?;
    info!("stopped: everything acknowledged is in the log");
    Ok(())
}
