//! The tables, in one place: what each column means, what is indexed, and which file belongs to whom.
//!
//! All tables are `STRICT`: a sum that leaves the range of 64 bits is refused by SQLite instead of turning into a float.
//! Times are microseconds since the Unix epoch, amounts are minor units.

use crate::Projection;

/// "OrdS" in the header of every read-model file, so that `file` and a wrong path are told apart.
pub(crate) const APPLICATION_ID: i32 = 0x4f72_6453;

/// Version of the tables below; a file of another version is rebuilt, never migrated: the log has everything.
pub(crate) const LAYOUT_VERSION: i32 = 1;

/// Earlier versions of SQLite can lose committed pages when a WAL is reset: 3.51.3 mended it.
pub(crate) const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Tables of one projection alone.
pub(crate) const fn tables_of(projection: Projection) -> &'static [&'static str] {
    match projection {
        Projection::Orders => &["OrderView", "IdempotencyKey"],
        Projection::CustomerSummary => &["CustomerSummaryByPartition"],
        Projection::SkuDemand => &["SkuDemandByPartition"],
    }
}

/// Tables with rows of every projection, which a column `projection` tells apart.
pub(crate) const SHARED_TABLES: &[&str] = &["Checkpoint", "ParkedEvent"];

/// Makes the tables of an empty file.
pub(crate) const CREATE: &str = "
CREATE TABLE Meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a projection and partition of this file, moved in the transaction that changes the rows.
CREATE TABLE Checkpoint (
  projection TEXT NOT NULL,
  partition INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,    -- offset after the last applied record
  appended_at INTEGER NOT NULL,    -- append time of the last applied record
  paused INTEGER NOT NULL,         -- 1 while the projection stands still on request
  keys_since INTEGER NOT NULL,     -- idempotency keys appended before this are forgotten
  id_ahead INTEGER NOT NULL,       -- most an order's id was made before it was placed
  id_behind INTEGER NOT NULL,      -- most an order's id was made after it was placed (a clock stepped back)
  PRIMARY KEY (projection, partition)
) STRICT, WITHOUT ROWID;

-- Orders as they are. Ids are UUIDv7, so that new rows go to the end of the table and order by id is order of creation.
CREATE TABLE OrderView (
  order_id TEXT NOT NULL PRIMARY KEY,
  partition INTEGER NOT NULL,
  version INTEGER NOT NULL,        -- count of events
  status TEXT NOT NULL,
  customer_id TEXT NOT NULL,
  currency TEXT NOT NULL,
  total INTEGER NOT NULL,
  paid INTEGER NOT NULL,
  refunded INTEGER NOT NULL,
  next_line_id INTEGER NOT NULL,   -- the id the next added line gets
  lines TEXT NOT NULL,             -- JSON, see OrderLineView
  metadata TEXT NOT NULL,          -- JSON object of strings
  placed_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  last_frame INTEGER NOT NULL      -- where the order's history starts in the log, walking back
) STRICT, WITHOUT ROWID;
-- Each ends with the primary key: a page of one customer or status is one range, newest first.
CREATE INDEX OrderByCustomer ON OrderView (customer_id);
CREATE INDEX OrderByStatus ON OrderView (status);

CREATE VIEW OrderLineView AS
  SELECT o.order_id,
         json_extract(l.value, '$.line_id') AS line_id,
         json_extract(l.value, '$.sku') AS sku,
         json_extract(l.value, '$.quantity') AS quantity,
         json_extract(l.value, '$.unit_price') AS unit_price,
         o.currency
  FROM OrderView AS o, json_each(o.lines) AS l;

-- What idempotency keys were used for. In the order of the log, so that old ones are forgotten from the front.
CREATE TABLE IdempotencyKey (
  partition INTEGER NOT NULL,
  frame INTEGER NOT NULL,          -- base offset of the frame the command made
  key_digest BLOB NOT NULL,
  fingerprint BLOB NOT NULL,       -- digest of the request
  order_id TEXT NOT NULL,
  version INTEGER NOT NULL,        -- the order's version after the command
  appended_at INTEGER NOT NULL,
  PRIMARY KEY (partition, frame)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IdempotencyKeyByDigest ON IdempotencyKey (key_digest, partition);

-- Frames that could not be applied, and the later ones of the same order, waiting behind them.
CREATE TABLE ParkedEvent (
  projection TEXT NOT NULL,
  partition INTEGER NOT NULL,
  order_id TEXT NOT NULL,
  offset INTEGER NOT NULL,         -- base offset of the frame
  records INTEGER NOT NULL,        -- events in the frame
  reason TEXT NOT NULL,
  PRIMARY KEY (projection, partition, order_id, offset)
) STRICT, WITHOUT ROWID;

-- What each customer ordered, by the partition of the order: a worker touches the rows of its partition alone.
CREATE TABLE CustomerSummaryByPartition (
  customer_id TEXT NOT NULL,
  currency TEXT NOT NULL,
  partition INTEGER NOT NULL,
  orders_placed INTEGER NOT NULL,    -- orders ever placed
  orders_cancelled INTEGER NOT NULL, -- of these, cancelled
  ordered INTEGER NOT NULL,          -- sum of the orders' totals, cancelled ones included
  paid INTEGER NOT NULL,             -- sum of payments
  refunded INTEGER NOT NULL,         -- sum of refunds
  last_placed_at INTEGER NOT NULL,   -- when the latest order was placed
  PRIMARY KEY (customer_id, currency, partition)
) STRICT, WITHOUT ROWID;

-- Halves are summed apart: a sum beyond 64 bits turns into a float instead of failing the query.
CREATE VIEW CustomerSummary AS
  SELECT customer_id, currency,
         sum(orders_placed) AS orders_placed,
         sum(orders_cancelled) AS orders_cancelled,
         sum(ordered >> 32) * 4294967296 + sum(ordered & 4294967295) AS ordered,
         sum(paid >> 32) * 4294967296 + sum(paid & 4294967295) AS paid,
         sum(refunded >> 32) * 4294967296 + sum(refunded & 4294967295) AS refunded,
         max(last_placed_at) AS last_placed_at
  FROM CustomerSummaryByPartition GROUP BY customer_id, currency;

-- What is wanted of each SKU, by the partition of the order.
CREATE TABLE SkuDemandByPartition (
  sku TEXT NOT NULL,
  partition INTEGER NOT NULL,
  units_ordered INTEGER NOT NULL,    -- units of lines placed and added, less lines removed
  units_cancelled INTEGER NOT NULL,  -- of these, units of orders that were cancelled
  last_ordered_at INTEGER NOT NULL,  -- when a line was last placed or added
  PRIMARY KEY (sku, partition)
) STRICT, WITHOUT ROWID;

CREATE VIEW SkuDemand AS
  SELECT sku,
         sum(units_ordered) AS units_ordered,
         sum(units_cancelled) AS units_cancelled,
         sum(units_ordered) - sum(units_cancelled) AS units_wanted,
         max(last_ordered_at) AS last_ordered_at
  FROM SkuDemandByPartition GROUP BY sku;
";
