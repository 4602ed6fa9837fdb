//! `order-service log ls`: the files of the log.

use order_domain::Timestamp;
use serde_json::json;

use crate::config::{DataDirectoryFlags, Store};
use crate::engine;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::print;

/// List the partitions and their files; also while the service runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// One JSON object a file instead of columns
    #[arg(long)]
    json: bool,
}

/// One file with what it holds.
struct File {
    partition: u16,
    path: String,
    base: u64,
    end: u64,
    bytes: u64,
    sealed_at: Option<String>,
    archived: bool,
}

/// Prints a line for each file.
///
/// # Errors
/// A usage failure for a directory without a log; a failure if a file does not read.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let manifest = Manifest::read(&config.data_dir)?;
    let files: Vec<File> = match manifest.store {
        Store::Segmented => engine::open_segments(&config.data_dir, &manifest)?
            .segments()?
            .into_iter()
            .map(|segment| File {
                partition: segment.partition.get(),
                path: segment.path.display().to_string(),
                base: segment.base.get(),
                end: segment.end.get(),
                bytes: segment.bytes,
                sealed_at: segment
                    .sealed_at
                    .map(|time| Timestamp::from_micros(time.as_micros()).to_string()),
                archived: segment.archived,
            })
            .collect(),
        Store::Jsonl => {
            let path = engine::jsonl_file(&config.data_dir).display().to_string();
            let log = engine::open_read_only(&config.data_dir, &manifest)?;
            log.status()
                .into_iter()
                .map(|status| File {
                    partition: status.partition.get(),
                    path: path.clone(),
                    base: status.start.get(),
                    end: status.durable_end.get(),
                    bytes: status.active_segment_bytes,
                    sealed_at: None,
                    archived: false,
                })
                .collect()
        }
    };
    if !arguments.json {
        print::line(
            "partition  base offset            end offset             bytes       sealed at                 file",
        )?;
    }
    for file in files {
        let File {
            partition,
            path,
            base,
            end,
            bytes,
            sealed_at,
            archived,
        } = file;
        print::line(&if arguments.json {
            json!({
                "partition": partition, "base_offset": base, "end_offset": end, "bytes": bytes,
                "sealed_at": sealed_at, "archived": archived, "file": path,
            })
            .to_string()
        } else {
            let sealed_at = sealed_at.unwrap_or_else(|| "-".to_owned());
            format!("{partition:<9}  {base:<21}  {end:<21}  {bytes:<10}  {sealed_at:<24}  {path}")
        })?;
    }
    Ok(())
}
