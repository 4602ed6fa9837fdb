//! `order-service log rotate`: seals the active segments, so that the next append begins new ones.
//!
//! Sealed segments are what `archive` works on. A service seals by itself when a segment is full; this is
//! for before that. Offline it takes the data directory's lock like a service does; a running one is asked through its
//! operators' endpoint.

use anyhow::anyhow;
use order_log::segmented::{SegmentedConfig, SegmentedLog};
use order_log::{DataLock, EventLog, PartitionId};
use serde_json::Value;

use crate::config::{DataDirectoryFlags, Store};
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::print;
use crate::service_client::{ServiceClient, ServiceFlags};

/// Seal the active segments, so that the next append begins new ones
///
/// Without --url the service must be stopped. Running it again changes nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    #[command(flatten)]
    service: ServiceFlags,
}

/// Prints a line for each partition.
///
/// # Errors
/// A usage failure for a log of one file; a failure naming the process that runs the service, or what the disk said.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match ServiceClient::new(&arguments.service)? {
        Some(service) => online(&service),
        None => offline(&arguments.data_directory),
    }
}

fn online(service: &ServiceClient) -> Result<(), Failure> {
    let answer = service.post("/log/rotate")?;
    let partitions = answer["partitions"]
        .as_array()
        .ok_or_else(|| anyhow!("the service answered something else than a rotation"))?;
    for partition in partitions {
        let number = partition["partition"].as_u64().unwrap_or_default();
        told(number, partition["sealed"] == Value::Bool(true))?;
    }
    Ok(())
}

fn offline(flags: &DataDirectoryFlags) -> Result<(), Failure> {
    let config = flags.load()?.config;
    let manifest = Manifest::read(&config.data_dir)?;
    refuse_jsonl(&manifest, "rotate")?;
    let _lock = DataLock::acquire(&config.data_dir)?;
    let segmented = SegmentedConfig {
        segment_bytes_max: config.log.segment_bytes_max,
        ..engine::segmented_config(&config.data_dir, &manifest)
    };
    let log = SegmentedLog::open(segmented, engine::disk())?;
    let mut failed = None;
    for partition in (0..manifest.partitions).map(PartitionId::new) {
        let mut writer = log.writer(partition)?;
        match writer.rotate() {
            Ok(sealed) => told(u64::from(partition.get()), sealed)?,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        None => Ok(()),
        Some(error) => Err(error.into()),
    }
}

fn told(partition: u64, sealed: bool) -> Result<(), Failure> {
    print::line(&if sealed {
        format!("partition {partition}: sealed, the next append begins a new segment")
    } else {
        format!("partition {partition}: nothing to seal, its segment is empty")
    })
}

/// Refuses what needs segments on a log that has none.
///
/// # Errors
/// A usage failure that says what to do instead.
pub(crate) fn refuse_jsonl(manifest: &Manifest, command: &str) -> Result<(), Failure> {
    match manifest.store {
        Store::Segmented => Ok(()),
        Store::Jsonl => Err(usage!(
            "`log {command}` needs the segmented store: the jsonl store keeps every event in one file, for ever; move the \
             events into a segmented log with `order-service log import`"
        )),
    }
}
