//! `order-service log dump`: every event as one JSON object a line.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;

use anyhow::{Context, anyhow};
use order_domain::codec::{self, Codec, RecordHeader};
use order_domain::{OrderId, Timestamp};
use order_log::{Frame, Offset, PartitionId, PartitionReader, Record, ScanLimit};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::config::DataDirectoryFlags;
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::print::unless_closed;

/// Print every event as one JSON object a line; also while the service runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u16>,
    /// Begin at this offset, in each partition; one inside a frame begins with its frame
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Only this order
    #[arg(long, value_name = "ID")]
    order: Option<String>,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    partition: u16,
    offset: u64,
    order_id: String,
    version: u32,
    r#type: &'static str,
    time: String,
    data: &'a RawValue,
}

/// Why a scan ended early.
enum Stop {
    Failed(Failure),
    Output(std::io::Error),
}

/// Prints the events, partition by partition, in the order of their offsets.
///
/// # Errors
/// A usage failure for a partition or order there cannot be; a failure where the log is damaged, after everything before
/// it was printed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let manifest = Manifest::read(&config.data_dir)?;
    let order = arguments
        .order
        .as_deref()
        .map(|text| OrderId::parse(text).map_err(|error| usage!("--order {text}: {error}")))
        .transpose()?;
    let partitions = match (arguments.partition, order) {
        (Some(partition), _) if partition >= manifest.partitions => {
            return Err(usage!(
                "--partition {partition}: there are 0 to {}",
                manifest.partitions - 1
            ));
        }
        (Some(partition), _) => partition..partition + 1,
        (None, Some(order)) => {
            let text = order.to_string();
            let partition = manifest.partitioner()?.partition_of(text.as_bytes());
            partition..partition + 1
        }
        (None, None) => 0..manifest.partitions,
    };
    let log = engine::open_read_only(&config.data_dir, &manifest)?;
    let mut output = BufWriter::new(std::io::stdout().lock());
    for partition in partitions {
        let reader = log.reader(PartitionId::new(partition))?;
        let mut stop = None;
        let scanned = scan(&*reader, arguments.from, &mut |frame| {
            if order.is_some_and(|order| order.as_bytes() != frame.key.as_bytes()) {
                return ControlFlow::Continue(());
            }
            match print(partition, frame, &mut output) {
                Ok(()) => ControlFlow::Continue(()),
                Err(reason) => {
                    stop = Some(reason);
                    ControlFlow::Break(())
                }
            }
        });
        match stop {
            Some(Stop::Output(error)) => return unless_closed(Err(error)),
            Some(Stop::Failed(failure)) => return Err(failure),
            None => scanned?,
        }
    }
    unless_closed(output.flush())?;
    engine::damage(&*log, &manifest).map_or(Ok(()), |damage| {
        Err(
            anyhow!("the dump ends before damage: {damage}; `order-service log verify` tells more")
                .into(),
        )
    })
}

/// Visits the frames from `from` on. A scan has to begin at a frame, so one that begins inside is looked for.
fn scan(
    reader: &dyn PartitionReader,
    from: u64,
    visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let start = reader.start();
    reader.scan(start, ScanLimit::NONE, &mut |frame| {
        if frame.end() <= Offset::new(from) {
            ControlFlow::Continue(())
        } else {
            visit(frame)
        }
    })?;
    Ok(())
}

fn print(partition: u16, frame: Frame<'_>, output: &mut impl Write) -> Result<(), Stop> {
    let order_id = OrderId::from_bytes(*frame.key.as_bytes());
    let time = Timestamp::from_micros(frame.appended_at.as_micros()).to_string();
    for record in frame.records() {
        let data = json_of(record).map_err(|error| {
            let place = format!(
                "partition {partition}, offset {}, order {order_id}",
                record.offset
            );
            Stop::Failed(Failure::Failed(error.context(place)))
        })?;
        let line = Line {
            partition,
            offset: record.offset.get(),
            order_id: order_id.to_string(),
            version: record.sequence,
            r#type: data.0,
            time: time.clone(),
            data: &data.1,
        };
        serde_json::to_writer(&mut *output, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(output))
            .map_err(Stop::Output)?;
    }
    Ok(())
}

/// The event's name and its JSON, whatever it is encoded as in the log.
fn json_of(record: Record<'_>) -> anyhow::Result<(&'static str, Box<RawValue>)> {
    let header = RecordHeader {
        event_type: record.tag.event_type,
        schema: record.tag.schema,
        codec: record.tag.codec,
    };
    let recorded = codec::decode(header, record.bytes)?;
    let mut json = Vec::new();
    codec::encode(Codec::Json, &recorded.event, &recorded.context, &mut json);
    let json = String::from_utf8(json).map_err(|_| anyhow!("the JSON codec wrote no UTF-8"))?;
    let data = RawValue::from_string(json).context("the JSON codec wrote no JSON")?;
    Ok((recorded.event.kind().name(), data))
}
