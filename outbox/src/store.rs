//! The outbox's own memory, `data/outbox.db`: how far each partition is told, and the events that are kept aside because
//! their order is being retried or dead.
//!
//! SQLite, and not files of our own, because the three things it must do are what SQLite is for: a cursor and the events
//! kept aside move in one transaction (a crash between the two would lose or double an event for ever), a dead letter is
//! found by its id among a hundred thousand, and an operator reads it with `sqlite3` while the service runs. The read
//! model compiles SQLite in anyway. The cost is one more sync a batch; batches are as large as the backlog.
//!
//! Events kept aside are copied, not pointed to: a dead letter outlives the compaction, archiving or repartitioning of the
//! log it came from. The copies are bounded by `retrying_events_max` and `dead_events_max`.
//!
//! Everything not committed is forgotten by a crash, and then told again: at least once.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use order_domain::{OrderId, Version};
use order_log::{AppendTime, Offset, PartitionId, RecordTag};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::log_event::LogEvent;
use crate::{EventId, OutboxError};

/// The store's file in the data directory.
pub(crate) const FILE_NAME: &str = "outbox.db";

/// Marks the file as an outbox store: "OOut".
const APPLICATION_ID: i64 = 0x4f4f_7574;
/// Version of the layout below.
const LAYOUT: i64 = 1;
/// How long a writer waits for another one, in milliseconds: only an operator's `sqlite3` can be in the way.
const BUSY_TIMEOUT_MS: u64 = 5_000;

const SCHEMA: &str = "
    CREATE TABLE cursor (
        partition INTEGER PRIMARY KEY,
        next_offset INTEGER NOT NULL,
        first_order BLOB
    ) STRICT;
    CREATE TABLE held_order (
        order_id BLOB PRIMARY KEY,
        state TEXT NOT NULL CHECK (state IN ('retrying', 'dead')),
        attempts INTEGER NOT NULL,
        due_at_us INTEGER NOT NULL,
        error TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE held_event (
        order_id BLOB NOT NULL,
        version INTEGER NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        appended_at_us INTEGER NOT NULL,
        event_type INTEGER NOT NULL,
        schema INTEGER NOT NULL,
        codec INTEGER NOT NULL,
        frame_traceparent TEXT,
        bytes BLOB NOT NULL,
        PRIMARY KEY (order_id, version)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE disabled (
        url TEXT PRIMARY KEY,
        reason TEXT NOT NULL
    ) STRICT;
";

/// Whether an order that is kept aside is tried again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldState {
    /// Tried again when its time has come.
    Retrying,
    /// Waits for an operator.
    Dead,
}

impl HeldState {
    const fn name(self) -> &'static str {
        match self {
            Self::Retrying => "retrying",
            Self::Dead => "dead",
        }
    }
}

/// An order that is kept aside: its first event failed, the others queue behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldOrder {
    pub(crate) order: OrderId,
    pub(crate) state: HeldState,
    /// Failed tries of the first event.
    pub(crate) attempts: u32,
    /// When to try again, in microseconds since the Unix epoch; wall-clock time, because it must survive a restart.
    pub(crate) due_at_us: u64,
    /// Why the last try failed.
    pub(crate) error: String,
}

/// What the dispatcher must know of an order that is kept aside, besides [`HeldOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Count of the order's events.
    pub(crate) events: u64,
    /// Append time of the first.
    pub(crate) oldest: AppendTime,
}

/// The one writing connection. Dropping it forgets what is not committed; after an error it must be dropped and opened anew.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Connection,
    path: PathBuf,
    in_transaction: bool,
}

/// How far a partition is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Offset after the last event that is delivered or kept aside.
    pub(crate) next: Offset,
    /// The order of the partition's very first event, once it was read: tells this log from any other.
    pub(crate) first_order: Option<OrderId>,
}

impl Store {
    /// Opens the store in `directory` and makes it if it is missing, with cursors at 0.
    ///
    /// # Errors
    /// [`OutboxError::Incompatible`] for a file of another layout or of a log with another partition count; otherwise
    /// whatever SQLite said.
    pub(crate) fn open(directory: &Path, partitions: u16) -> Result<Self, OutboxError> {
        let mut store = Self::connect(directory)?;
        if store.layout()? == (0, 0) {
            store.create(partitions)?;
        }
        store.check_layout()?;
        let found = store.cursors()?.len();
        if found != usize::from(partitions) {
            return Err(store.incompatible(format!(
                "knows {found} partitions, the log has {partitions}: it belongs to another log; \
                 restore the one that belongs to this log, or move it away and every event is told again"
            )));
        }
        Ok(store)
    }

    /// Opens the store in `directory` if there is one, of whatever partition count.
    ///
    /// # Errors
    /// [`OutboxError::Incompatible`] for a file of another layout; otherwise whatever SQLite said.
    pub(crate) fn open_existing(directory: &Path) -> Result<Option<Self>, OutboxError> {
        let path = directory.join(FILE_NAME);
        let exists = path.try_exists().map_err(|source| OutboxError::Io {
            action: "looking for",
            path,
            source,
        })?;
        if !exists {
            return Ok(None);
        }
        let store = Self::connect(directory)?;
        store.check_layout()?;
        Ok(Some(store))
    }

    fn connect(directory: &Path) -> Result<Self, OutboxError> {
        let path = directory.join(FILE_NAME);
        let connect = || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // FULL: after a power loss no more is told twice than one batch.
            connection.pragma_update(None, "synchronous", "FULL")?;
            Ok(connection)
        };
        match connect() {
            Ok(connection) => Ok(Self {
                connection,
                path,
                in_transaction: false,
            }),
            Err(source) => Err(failed(&path, source)),
        }
    }

    /// Whose file it is, and of which layout; zeros for a new one.
    fn layout(&self) -> Result<(i64, i64), OutboxError> {
        let pragma = |name| {
            let value = self
                .connection
                .pragma_query_value(None, name, |row| row.get(0));
            value.map_err(|source| failed(&self.path, source))
        };
        Ok((pragma("application_id")?, pragma("user_version")?))
    }

    fn check_layout(&self) -> Result<(), OutboxError> {
        match self.layout()? {
            (APPLICATION_ID, LAYOUT) => Ok(()),
            (APPLICATION_ID, other) => Err(self.incompatible(format!(
                "has layout {other}, this version reads {LAYOUT}; run the version that wrote it"
            ))),
            _ => Err(self.incompatible("is not an outbox store; move it away".to_owned())),
        }
    }

    fn create(&mut self, partitions: u16) -> Result<(), OutboxError> {
        self.begin()?;
        let create = |connection: &Connection| {
            connection.execute_batch(SCHEMA)?;
            for partition in 0..partitions {
                let insert = "INSERT INTO cursor VALUES (?1, 0, NULL)";
                connection.execute(insert, params![partition])?;
            }
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
            connection.pragma_update(None, "user_version", LAYOUT)
        };
        create(&self.connection).map_err(|source| failed(&self.path, source))?;
        self.commit()
    }

    pub(crate) fn incompatible(&self, reason: String) -> OutboxError {
        OutboxError::Incompatible {
            path: self.path.clone(),
            reason,
        }
    }

    /// Proves that the store takes writes, before anything is told that it could then not record.
    pub(crate) fn prove_writable(&mut self) -> Result<(), OutboxError> {
        self.execute("UPDATE cursor SET next_offset = next_offset", params![])?;
        self.commit()
    }

    /// The cursors, by partition.
    pub(crate) fn cursors(&self) -> Result<Vec<Cursor>, OutboxError> {
        self.rows(
            "SELECT next_offset, first_order FROM cursor ORDER BY partition",
            params![],
            |row| {
                let first_order: Option<[u8; 16]> = row.get(1)?;
                Ok(Cursor {
                    next: Offset::new(unsigned(row, 0)?),
                    first_order: first_order.map(OrderId::from_bytes),
                })
            },
        )
    }

    /// Puts cursors of a log that was rewritten in place of those there are, with the next commit.
    pub(crate) fn replace_cursors(&mut self, cursors: &[Offset]) -> Result<(), OutboxError> {
        self.execute("DELETE FROM cursor", params![])?;
        for (partition, next) in cursors.iter().enumerate() {
            let partition = i64::try_from(partition).unwrap_or(i64::MAX);
            self.execute(
                "INSERT INTO cursor VALUES (?1, ?2, NULL)",
                params![partition, signed(next.get())],
            )?;
        }
        Ok(())
    }

    /// Remembers the order of a partition's very first event, with the next commit.
    pub(crate) fn set_first_order(
        &mut self,
        partition: PartitionId,
        order: OrderId,
    ) -> Result<(), OutboxError> {
        self.execute(
            "UPDATE cursor SET first_order = ?2 WHERE partition = ?1",
            params![partition.get(), order.as_bytes()],
        )
    }

    /// Moves a cursor, with the next commit.
    pub(crate) fn set_cursor(
        &mut self,
        partition: PartitionId,
        next: Offset,
    ) -> Result<(), OutboxError> {
        self.execute(
            "UPDATE cursor SET next_offset = ?2 WHERE partition = ?1",
            params![partition.get(), signed(next.get())],
        )
    }

    /// Keeps an event aside, with the next commit. `false` if it was already.
    pub(crate) fn hold_event(&mut self, event: &LogEvent<'_>) -> Result<bool, OutboxError> {
        self.begin()?;
        let mut insert = self.cached(
            "INSERT INTO held_event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
        )?;
        let changed = insert.execute(params![
            event.id.order().as_bytes(),
            event.id.version().get(),
            event.partition.get(),
            signed(event.offset.get()),
            signed(event.appended_at.as_micros()),
            event.tag.event_type,
            event.tag.schema,
            event.tag.codec,
            event.frame_traceparent.as_deref(),
            event.bytes.as_ref(),
        ]);
        Ok(changed.map_err(|source| failed(&self.path, source))? > 0)
    }

    /// Writes how an order that is kept aside stands, with the next commit.
    pub(crate) fn set_order(&mut self, held: &HeldOrder) -> Result<(), OutboxError> {
        self.execute(
            "INSERT INTO held_order VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE \
             SET state = excluded.state, attempts = excluded.attempts, due_at_us = excluded.due_at_us, \
                 error = excluded.error",
            params![
                held.order.as_bytes(),
                held.state.name(),
                held.attempts,
                signed(held.due_at_us),
                held.error
            ],
        )
    }

    /// Drops an event that was delivered, with the next commit.
    pub(crate) fn drop_event(&mut self, id: EventId) -> Result<(), OutboxError> {
        self.execute(
            "DELETE FROM held_event WHERE order_id = ?1 AND version = ?2",
            params![id.order().as_bytes(), id.version().get()],
        )
    }

    /// Ends keeping an order aside, with the next commit; its events are gone already or go with it.
    pub(crate) fn drop_order(&mut self, order: OrderId) -> Result<(), OutboxError> {
        self.execute(
            "DELETE FROM held_event WHERE order_id = ?1",
            params![order.as_bytes()],
        )?;
        self.execute(
            "DELETE FROM held_order WHERE order_id = ?1",
            params![order.as_bytes()],
        )
    }

    /// All orders that are kept aside, with what is queued.
    pub(crate) fn held(&self) -> Result<Vec<(HeldOrder, Queue)>, OutboxError> {
        self.rows(
            "SELECT o.order_id, o.state, o.attempts, o.due_at_us, o.error, count(*), min(e.appended_at_us) \
             FROM held_order o JOIN held_event e USING (order_id) GROUP BY o.order_id",
            params![],
            |row| {
                let queue = Queue {
                    events: unsigned(row, 5)?,
                    oldest: AppendTime::from_micros(unsigned(row, 6)?),
                };
                Ok((read_order(row)?, queue))
            },
        )
    }

    /// The first event of an order that is kept aside, at or after a version.
    pub(crate) fn first_event(
        &self,
        order: OrderId,
        from: Version,
    ) -> Result<Option<LogEvent<'static>>, OutboxError> {
        let mut select = self.cached(
            "SELECT order_id, version, partition, offset, appended_at_us, event_type, schema, codec, \
             frame_traceparent, bytes FROM held_event WHERE order_id = ?1 AND version >= ?2 ORDER BY version LIMIT 1",
        )?;
        select
            .query_row(params![order.as_bytes(), from.get()], read_event)
            .optional()
            .map_err(|source| failed(&self.path, source))
    }

    /// Why a target wants nothing any more, if it said so.
    pub(crate) fn disabled(&self, url: &str) -> Result<Option<String>, OutboxError> {
        self.cached("SELECT reason FROM disabled WHERE url = ?1")?
            .query_row(params![url], |row| row.get(0))
            .optional()
            .map_err(|source| failed(&self.path, source))
    }

    /// Remembers that a target wants nothing any more, or forgets it, with the next commit.
    pub(crate) fn set_disabled(
        &mut self,
        url: &str,
        reason: Option<&str>,
    ) -> Result<(), OutboxError> {
        match reason {
            Some(reason) => self.execute(
                "INSERT INTO disabled VALUES (?1, ?2) ON CONFLICT DO UPDATE SET reason = excluded.reason",
                params![url, reason],
            ),
            None => self.execute("DELETE FROM disabled WHERE url = ?1", params![url]),
        }
    }

    /// Begins a transaction unless one is open. Everything written belongs to it.
    fn begin(&mut self) -> Result<(), OutboxError> {
        if !self.in_transaction {
            self.connection
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(|source| failed(&self.path, source))?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Commits what was written since the last commit; on return it is on stable storage.
    pub(crate) fn commit(&mut self) -> Result<(), OutboxError> {
        if self.in_transaction {
            self.connection
                .execute_batch("COMMIT")
                .map_err(|source| failed(&self.path, source))?;
            self.in_transaction = false;
        }
        Ok(())
    }

    fn execute(&mut self, sql: &str, values: impl rusqlite::Params) -> Result<(), OutboxError> {
        self.begin()?;
        self.cached(sql)?
            .execute(values)
            .map(drop)
            .map_err(|source| failed(&self.path, source))
    }

    fn cached(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, OutboxError> {
        self.connection
            .prepare_cached(sql)
            .map_err(|source| failed(&self.path, source))
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, OutboxError> {
        self.cached(sql)?
            .query_map(values, read)
            .and_then(Iterator::collect)
            .map_err(|source| failed(&self.path, source))
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> OutboxError {
    OutboxError::Store {
        path: path.to_owned(),
        source,
    }
}

/// SQLite's integers are signed; offsets, times and counts never come near 2⁶³.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// Reads `order_id, state, attempts, due_at_us, error`.
fn read_order(row: &Row<'_>) -> rusqlite::Result<HeldOrder> {
    let state: String = row.get(1)?;
    Ok(HeldOrder {
        order: OrderId::from_bytes(row.get(0)?),
        state: if state == HeldState::Dead.name() {
            HeldState::Dead
        } else {
            HeldState::Retrying
        },
        attempts: row.get(2)?,
        due_at_us: unsigned(row, 3)?,
        error: row.get(4)?,
    })
}

/// Reads the columns of `held_event`, in order.
pub(crate) fn read_event(row: &Row<'_>) -> rusqlite::Result<LogEvent<'static>> {
    let traceparent: Option<String> = row.get(8)?;
    Ok(LogEvent {
        id: EventId::new(OrderId::from_bytes(row.get(0)?), Version::new(row.get(1)?)),
        partition: PartitionId::new(row.get(2)?),
        offset: Offset::new(unsigned(row, 3)?),
        appended_at: AppendTime::from_micros(unsigned(row, 4)?),
        tag: RecordTag {
            event_type: row.get(5)?,
            schema: row.get(6)?,
            codec: row.get(7)?,
        },
        bytes: Cow::Owned(row.get(9)?),
        frame_traceparent: traceparent.map(Cow::Owned),
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
