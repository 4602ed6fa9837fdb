//! Short reads: one order, a page of orders, one idempotency key, the digest of a projection.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use order_domain::{CustomerId, OrderId, Status, Timestamp, Version};
use order_log::{Offset, PartitionId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::database::open_reader;
use crate::digest::{ProjectionDigest, digest};
use crate::followed::Followed;
use crate::order_row::{OrderRow, OrderRowRef, ReadRowError, select_orders};
use crate::page::{PageRoom, page_of};
use crate::park::{self, ParkedOrder, is_parked};
use crate::side::{Side, exists};
use crate::sql::from_sql;
use crate::{Projection, ReadModelError};

/// Which orders a page holds, and where it starts.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Only this status.
    pub status: Option<Status>,
    /// Only this customer.
    pub customer_id: Option<CustomerId<'static>>,
    /// Placed at or after.
    pub created_after: Option<Timestamp>,
    /// Placed before.
    pub created_before: Option<Timestamp>,
    /// Start behind this order: newest first, by id.
    pub before: Option<OrderId>,
    /// Most rows.
    pub limit: usize,
    /// Most bytes of the rows' lines and metadata together; a page has one row all the same. `None`: as many as there are.
    pub bytes_max: Option<usize>,
}

/// Some of the orders that a filter finds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderPage {
    /// The orders, newest first.
    pub rows: Vec<OrderRow>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// What an idempotency key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// Digest of the request.
    pub fingerprint: [u8; 16],
    /// The order it made or changed.
    pub order_id: OrderId,
    /// The order's version after it.
    pub version: Version,
    /// Base offset of the frame it made.
    pub frame: Offset,
}

/// Tables of a projection beside the live ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptTables {
    /// Those that were live before the last switch.
    pub old: bool,
    /// Those of a rebuild that runs, or did not come to its end.
    pub unfinished: bool,
}

/// Read-only connections to every file, owned by one thread. Every read is one short transaction: a long one would keep
/// the WAL from starting over.
#[derive(Debug)]
pub struct ReadModelReader {
    files: Vec<File>,
    cache_kib: u32,
    /// What is known of the files if another process writes them.
    followed: Option<Arc<Followed>>,
    /// By partition: what reads rely on. Empty unless another process writes the files.
    relied_on: Vec<Offset>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    connection: Connection,
    /// Which of the files that stood at the path one after another this is.
    generation: u64,
}

impl ReadModelReader {
    pub(crate) fn open(
        paths: Vec<PathBuf>,
        cache_kib: u32,
        followed: Option<Arc<Followed>>,
    ) -> Result<Self, ReadModelError> {
        let open = |(shard, path): (usize, PathBuf)| {
            let (connection, generation) = match &followed {
                None => (open_reader(&path, cache_kib)?, 0),
                Some(followed) => match followed.open(shard, &path, cache_kib) {
                    // The first read looks again.
                    Err(ReadModelError::Replaced { .. }) => followed.open_nothing(shard, &path)?,
                    opened => opened?,
                },
            };
            Ok::<_, ReadModelError>(File {
                path,
                connection,
                generation,
            })
        };
        let files = paths.into_iter().enumerate().map(open);
        Ok(Self {
            files: files.collect::<Result<_, _>>()?,
            cache_kib,
            followed,
            relied_on: Vec::new(),
        })
    }

    /// From now on reads of one order or key of `partition` rely on the rows holding everything before `checkpoint`: a
    /// checkpoint of [`crate::Projection::Orders`] that was looked at before. That is so by itself, unless another process
    /// writes the files: it may have put others in their place, and the read fails with [`ReadModelError::Replaced`].
    pub fn rely_on(&mut self, partition: PartitionId, checkpoint: Offset) {
        if self.followed.is_none() {
            return;
        }
        if self.relied_on.len() <= partition.index() {
            self.relied_on.resize(partition.index() + 1, Offset::ZERO);
        }
        self.relied_on[partition.index()] = checkpoint;
    }

    /// Opens a file anew if another process has put another in its place.
    fn renew(&mut self, index: usize) -> Result<(), ReadModelError> {
        let Some(followed) = &self.followed else {
            return Ok(());
        };
        let file = &mut self.files[index];
        if followed.generation(index) != file.generation {
            (file.connection, file.generation) =
                followed.open(index, &file.path, self.cache_kib)?;
        }
        Ok(())
    }

    fn renew_all(&mut self) -> Result<(), ReadModelError> {
        (0..self.files.len()).try_for_each(|index| self.renew(index))
    }

    fn file_index(&self, partition: PartitionId) -> usize {
        partition.index() % self.files.len()
    }

    fn file(&mut self, partition: PartitionId) -> Result<&mut File, ReadModelError> {
        let index = self.file_index(partition);
        self.renew(index)?;
        Ok(&mut self.files[index])
    }

    /// One order.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn order(
        &mut self,
        partition: PartitionId,
        id: OrderId,
    ) -> Result<Option<OrderRow>, ReadModelError> {
        let file = self.file(partition)?;
        order_by_id(&file.connection, id, Side::Live).map_err(|error| error.at(&file.path))
    }

    /// One order for a decision: as [`ReadModelReader::order`], but never a row that lacks events before the checkpoint.
    ///
    /// # Errors
    /// [`ReadModelError::Parked`] if an event of the order could not be applied; otherwise whatever SQLite said.
    pub fn snapshot(
        &mut self,
        partition: PartitionId,
        id: OrderId,
    ) -> Result<Option<OrderRow>, ReadModelError> {
        let relied_on = self.relied_on(partition);
        let file = self.file(partition)?;
        let path = &file.path;
        let read = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            check_holds(&transaction, path, partition, relied_on)?;
            let row = order_by_id(&transaction, id, Side::Live)?;
            let parked = is_parked(&transaction, Projection::Orders, partition, id)?;
            transaction.commit()?;
            Ok((row, parked))
        };
        match read(&mut file.connection) {
            Ok((_, true)) => Err(ReadModelError::Parked(id)),
            Ok((row, false)) => Ok(row),
            Err(error) => Err(ReadRowError::at(error, &file.path)),
        }
    }

    /// Several orders within one transaction a file, in the order asked.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn orders(
        &mut self,
        ids: &[(PartitionId, OrderId)],
    ) -> Result<Vec<Option<OrderRow>>, ReadModelError> {
        let mut rows: Vec<Option<OrderRow>> = ids.iter().map(|_| None).collect();
        self.visit_orders(ids, &mut |at, row, _| rows[at] = row.map(OrderRow::from))?;
        Ok(rows)
    }

    /// Shows several orders within one transaction a file: `visit` gets the place in `ids`, the row as it stands in the
    /// database, and whether the order is parked, so that its row (or that there is none) is not what the log says. Once
    /// a place, in an order of its own. On an error some places may have been shown.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn visit_orders(
        &mut self,
        ids: &[(PartitionId, OrderId)],
        visit: &mut dyn FnMut(usize, Option<OrderRowRef<'_>>, bool),
    ) -> Result<(), ReadModelError> {
        let files = self.files.len();
        for index in 0..files {
            let mut wanted = (0..ids.len())
                .filter(|at| ids[*at].0.index() % files == index)
                .peekable();
            if wanted.peek().is_none() {
                continue;
            }
            self.renew(index)?;
            let relied_on = &self.relied_on;
            let file = &mut self.files[index];
            let path = &file.path;
            let read = || -> Result<(), ReadRowError> {
                let transaction = file.connection.transaction()?;
                for (at, checkpoint) in relied_on.iter().enumerate() {
                    if at % files == index {
                        let partition = PartitionId::new(u16::try_from(at).unwrap_or(u16::MAX));
                        check_holds(&transaction, path, partition, Some(*checkpoint))?;
                    }
                }
                // Nearly always none: one look for all orders of the transaction.
                let any_parked = park::any_parked(&transaction, Projection::Orders)?;
                let mut statement = transaction.prepare_cached(ORDER_BY_ID)?;
                for at in wanted {
                    let (partition, id) = ids[at];
                    let parked =
                        any_parked && is_parked(&transaction, Projection::Orders, partition, id)?;
                    let mut rows = statement.query([id.text(&mut [0; 36])])?;
                    let row = rows.next()?;
                    visit(at, row.map(OrderRowRef::read).transpose()?, parked);
                }
                drop(statement);
                Ok(transaction.commit()?)
            };
            let read = read();
            read.map_err(|error| error.at(&file.path))?;
        }
        Ok(())
    }

    /// A page of orders over all partitions, newest first.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn page(&mut self, filter: &OrderFilter) -> Result<OrderPage, ReadModelError> {
        self.renew_all()?;
        let mut rows = Vec::new();
        for file in &mut self.files {
            page_of(&mut file.connection, filter, &mut rows)
                .map_err(|error| error.at(&file.path))?;
        }
        rows.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
        let mut room = PageRoom::of(filter);
        let fitting = rows.iter().take_while(|row| room.takes(row)).count();
        let more = fitting < rows.len();
        rows.truncate(fitting);
        Ok(OrderPage { rows, more })
    }

    /// Which tables of a projection there are beside the live ones, in any file.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn kept_tables(&mut self, projection: Projection) -> Result<KeptTables, ReadModelError> {
        self.renew_all()?;
        let mut kept = KeptTables::default();
        for file in &self.files {
            let has = |side| {
                exists(&file.connection, projection, side)
                    .map_err(ReadModelError::sqlite(&file.path))
            };
            kept.old |= has(Side::Old)?;
            kept.unfinished |= has(Side::Beside)?;
        }
        Ok(kept)
    }

    /// A page of the orders that a projection has set aside, by id, at most `limit`, behind the order `after`.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn parked(
        &mut self,
        projection: Projection,
        after: Option<OrderId>,
        limit: usize,
    ) -> Result<Vec<ParkedOrder>, ReadModelError> {
        self.renew_all()?;
        let mut orders = Vec::new();
        for file in &mut self.files {
            let found = park::parked_after(&file.connection, projection, after, limit)
                .map_err(|error| error.at(&file.path))?;
            orders.extend(found);
        }
        orders.sort_unstable_by_key(|order| order.id);
        orders.truncate(limit);
        Ok(orders)
    }

    /// What a key was used for, by its digest.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn idempotency(
        &mut self,
        partition: PartitionId,
        key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyRow>, ReadModelError> {
        let relied_on = self.relied_on(partition);
        let file = self.file(partition)?;
        let path = &file.path;
        let read = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            check_holds(&transaction, path, partition, relied_on)?;
            let row = key_by_digest(&transaction, partition, key_digest)?;
            transaction.commit()?;
            Ok(row)
        };
        read(&mut file.connection).map_err(|error: ReadRowError| error.at(path))
    }

    /// What an idempotency key was last used for, in whatever partition. For keys from before a log was rewritten into its
    /// present partitions; looks into every file.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn idempotency_anywhere(
        &mut self,
        key_digest: [u8; 16],
    ) -> Result<Option<(PartitionId, IdempotencyRow)>, ReadModelError> {
        self.renew_all()?;
        let mut newest: Option<(i64, PartitionId)> = None;
        for file in &self.files {
            let found = last_use(&file.connection, key_digest)
                .map_err(ReadModelError::sqlite(&file.path))?;
            newest = newest.max(found);
        }
        let Some((_, partition)) = newest else {
            return Ok(None);
        };
        let row = self.idempotency(partition, key_digest)?;
        Ok(row.map(|row| (partition, row)))
    }

    /// A digest over the rows of one projection and partition in key order, with the checkpoint they stand at: equal for
    /// equal rows, however they are spread over files and in whatever batches they were applied. One transaction over all
    /// of the partition's rows: for tests and drift proofs, not for requests.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn digest(
        &mut self,
        projection: Projection,
        partition: PartitionId,
    ) -> Result<ProjectionDigest, ReadModelError> {
        let file = self.file(partition)?;
        digest(&mut file.connection, projection, partition)
            .map_err(ReadModelError::sqlite(&file.path))
    }

    fn relied_on(&self, partition: PartitionId) -> Option<Offset> {
        self.relied_on.get(partition.index()).copied()
    }

    /// The database files, by shard.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        self.files.iter().map(|file| file.path.as_path()).collect()
    }
}

/// Fails unless the rows hold everything before `relied_on`.
fn check_holds(
    connection: &Connection,
    path: &Path,
    partition: PartitionId,
    relied_on: Option<Offset>,
) -> Result<(), ReadRowError> {
    let Some(relied_on) = relied_on else {
        return Ok(());
    };
    let next: i64 = connection
        .prepare_cached(
            "SELECT next_offset FROM Checkpoint WHERE projection = ?1 AND partition = ?2",
        )?
        .query_row(params![Projection::Orders.name(), partition.get()], |row| {
            row.get(0)
        })?;
    if from_sql(next) >= relied_on.get() {
        return Ok(());
    }
    Err(ReadRowError::Malformed(ReadModelError::Replaced {
        path: path.to_owned(),
    }))
}

/// One row by primary key.
const ORDER_BY_ID: &str = select_orders!("WHERE order_id = ?1");

/// One row by primary key.
pub(crate) fn order_by_id(
    connection: &Connection,
    id: OrderId,
    side: Side,
) -> Result<Option<OrderRow>, ReadRowError> {
    let mut statement = connection.prepare_cached(&side.on(ORDER_BY_ID))?;
    let mut rows = statement.query([id.text(&mut [0; 36])])?;
    rows.next()?.map(OrderRow::read).transpose()
}

/// When and in which partition of a file a key was used last.
fn last_use(
    connection: &Connection,
    key_digest: [u8; 16],
) -> rusqlite::Result<Option<(i64, PartitionId)>> {
    connection
        .prepare_cached(
            "SELECT appended_at, partition FROM IdempotencyKey WHERE key_digest = ?1 ORDER BY appended_at DESC LIMIT 1",
        )?
        .query_row([key_digest], |row| Ok((row.get(0)?, PartitionId::new(row.get(1)?))))
        .optional()
}

fn key_by_digest(
    connection: &Connection,
    partition: PartitionId,
    key_digest: [u8; 16],
) -> Result<Option<IdempotencyRow>, ReadRowError> {
    let mut statement = connection.prepare_cached(
        "SELECT fingerprint, order_id, version, frame FROM IdempotencyKey WHERE key_digest = ?1 AND partition = ?2",
    )?;
    let found = statement
        .query_row(params![key_digest, partition.get()], |row| {
            Ok((
                row.get::<_, [u8; 16]>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, u32>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })
        .optional()?;
    let Some((fingerprint, order_id, version, frame)) = found else {
        return Ok(None);
    };
    let id = OrderId::parse(&order_id).map_err(|_| {
        ReadRowError::Malformed(ReadModelError::MalformedRow {
            order_id,
            reason: "an idempotency key names what is no order id".to_owned(),
        })
    })?;
    Ok(Some(IdempotencyRow {
        fingerprint,
        order_id: id,
        version: Version::new(version),
        frame: Offset::new(from_sql(frame)),
    }))
}
