//! Reading a log back, as deep as asked.

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::ControlFlow;

use order_domain::codec::{RecordHeader, decode};
use order_domain::{Order, OrderId, Timestamp, fold_owned};
use order_log::{Frame, Key, PartitionReader, Record, ScanLimit};

/// How much is done with each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The frame is verified.
    Verify,
    /// The event is decoded, borrowing from the log.
    Decode,
    /// The event is folded into its order.
    Fold,
}

impl Depth {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Verify, Self::Decode, Self::Fold];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "scan + verify",
            Self::Decode => "scan + verify + decode",
            Self::Fold => "scan + verify + decode + fold",
        }
    }
}

/// Records after which the folded orders are let go, as a projector lets them go with its transaction.
const FOLD_RECORDS: u64 = 1_000;

/// Reads a partition from its start to its durable end; returns how many records there were.
///
/// # Errors
/// Whatever does not verify, decode or fold. An order that goes on in another transaction than it began is left out of
/// folding: its beginning would come from the read model.
pub fn replay(reader: &dyn PartitionReader, depth: Depth) -> anyhow::Result<u64> {
    let mut records = 0;
    let mut bytes = 0;
    let mut orders = HashMap::new();
    let mut failure = None;
    let end = reader.scan(reader.start(), ScanLimit::NONE, &mut |frame| {
        for record in frame.records() {
            records += 1;
            bytes += record.bytes.len();
            if let Err(error) = visit(&frame, &record, depth, &mut orders) {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        if records % FOLD_RECORDS == 0 {
            black_box(&orders);
            orders.clear();
        }
        ControlFlow::Continue(())
    })?;
    black_box((end, bytes));
    failure.map_or(Ok(records), Err)
}

fn visit(
    frame: &Frame<'_>,
    record: &Record<'_>,
    depth: Depth,
    orders: &mut HashMap<Key, Option<Order>>,
) -> anyhow::Result<()> {
    if depth == Depth::Verify {
        return Ok(());
    }
    let header = RecordHeader {
        event_type: record.tag.event_type,
        schema: record.tag.schema,
        codec: record.tag.codec,
    };
    let recorded = decode(header, record.bytes)?;
    if depth == Depth::Decode {
        black_box(&recorded);
        return Ok(());
    }
    if record.sequence > 1 && !orders.contains_key(&frame.key) {
        return Ok(());
    }
    let id = OrderId::from_bytes(*frame.key.as_bytes());
    let at = Timestamp::from_micros(frame.appended_at.as_micros());
    fold_owned(
        orders.entry(frame.key).or_insert(None),
        id,
        recorded.event,
        at,
    )?;
    Ok(())
}
