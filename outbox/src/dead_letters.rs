//! Looking at what is kept aside, without being in the dispatcher's way: a read-only connection of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use order_domain::{Timestamp, Version};
use order_log::{Offset, PartitionId};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::cloud_event::CloudEvent;
use crate::log_event::LogEvent;
use crate::store::{FILE_NAME, read_event};
use crate::{EventId, OutboxError};

/// Most dead letters of one page.
pub const DEAD_PAGE_MAX: usize = 1_000;

/// An event that is kept aside because its order is being retried or dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEvent {
    /// The event.
    pub id: EventId,
    /// Its CloudEvents type; `None` if the event does not decode.
    pub event_type: Option<&'static str>,
    /// Where it stood in the log when it was read.
    pub partition: PartitionId,
    /// Where it stood in the log when it was read.
    pub offset: Offset,
    /// When it was appended.
    pub appended_at: Timestamp,
    /// Whether it waits for an operator; otherwise it is tried again by itself.
    pub dead: bool,
    /// Failed tries of the order's first event that is kept aside.
    pub attempts: u32,
    /// Why the last try failed.
    pub error: String,
    /// The event of the same order that must be delivered first, if there is one.
    pub behind: Option<EventId>,
}

/// One event that is kept aside, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What stands in the list.
    pub held: HeldEvent,
    /// The CloudEvent in JSON format, or why it cannot be made.
    pub cloud_event: Result<String, String>,
}

const COLUMNS: &str = "
    SELECT e.order_id, e.version, e.partition, e.offset, e.appended_at_us, e.event_type, e.schema, e.codec,
           e.frame_traceparent, e.bytes, o.state = 'dead', o.attempts, o.error,
           (SELECT min(version) FROM held_event WHERE order_id = e.order_id)
    FROM held_event e JOIN held_order o USING (order_id)";

/// A read-only view of the store.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    connection: Connection,
    path: PathBuf,
    source: String,
}

impl DeadLetters {
    /// Opens the store of `directory`, which must exist.
    pub(crate) fn open(directory: &Path, source: &str) -> Result<Self, OutboxError> {
        let path = directory.join(FILE_NAME);
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            Ok(connection)
        };
        match open() {
            Ok(connection) => Ok(Self {
                connection,
                path,
                source: source.to_owned(),
            }),
            Err(source) => Err(OutboxError::Store { path, source }),
        }
    }

    /// Dead events by order and version, beginning behind `after`.
    pub(crate) fn page(
        &self,
        limit: usize,
        after: Option<EventId>,
    ) -> Result<Vec<HeldEvent>, OutboxError> {
        let limit = i64::try_from(limit.min(DEAD_PAGE_MAX)).unwrap_or(i64::MAX);
        // No order has the nil id, so that a page without a start begins before all.
        let (order, version) = after.map_or(([0; 16], 0), |id| {
            (*id.order().as_bytes(), id.version().get())
        });
        let sql = format!(
            "{COLUMNS} WHERE o.state = 'dead' AND (e.order_id, e.version) > (?1, ?2) \
             ORDER BY e.order_id, e.version LIMIT ?3"
        );
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut select| {
                select
                    .query_map(params![order, version, limit], |row| {
                        Ok(self.inspection(row)?.held)
                    })?
                    .collect()
            })
            .map_err(|source| self.failed(source))
    }

    /// One event that is kept aside, dead or not.
    pub(crate) fn inspect(&self, id: EventId) -> Result<Option<Inspection>, OutboxError> {
        let sql = format!("{COLUMNS} WHERE e.order_id = ?1 AND e.version = ?2");
        self.connection
            .prepare_cached(&sql)
            .and_then(|mut select| {
                let (order, version) = (id.order(), id.version().get());
                select
                    .query_row(params![order.as_bytes(), version], |row| {
                        self.inspection(row)
                    })
                    .optional()
            })
            .map_err(|source| self.failed(source))
    }

    fn inspection(&self, row: &Row<'_>) -> rusqlite::Result<Inspection> {
        let event: LogEvent<'static> = read_event(row)?;
        let first = Version::new(row.get(13)?);
        let decoded = CloudEvent::decode(&event, &self.source);
        let held = HeldEvent {
            id: event.id,
            event_type: decoded.as_ref().ok().map(CloudEvent::event_type),
            partition: event.partition,
            offset: event.offset,
            appended_at: Timestamp::from_micros(event.appended_at.as_micros()),
            dead: row.get(10)?,
            attempts: row.get(11)?,
            error: row.get(12)?,
            behind: (first < event.id.version()).then(|| EventId::new(event.id.order(), first)),
        };
        let cloud_event = match &decoded {
            Ok(decoded) => serde_json::to_string(decoded).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        Ok(Inspection { held, cloud_event })
    }

    fn failed(&self, source: rusqlite::Error) -> OutboxError {
        OutboxError::Store {
            path: self.path.clone(),
            source,
        }
    }
}
