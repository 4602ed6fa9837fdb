//! Three sets of the same tables in one file: the live ones, those of a rebuild beside them, and the old ones that a
//! rebuild has replaced.
//!
//! They differ in their names alone, so that all of them are written and read by the same statements, and one
//! transaction of renames switches between them.

use std::borrow::Cow;

use rusqlite::{Connection, params};

use crate::Projection;
use crate::schema::{CREATE, SHARED_TABLES, tables_of};

/// Which set of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// What readers see.
    Live,
    /// What a rebuild makes.
    Beside,
    /// What was live before the last switch.
    Old,
}

impl Side {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Live => "",
            Self::Beside => "_rebuild",
            Self::Old => "_old",
        }
    }

    /// The name of a table on this side.
    pub(crate) fn name(self, table: &str) -> String {
        format!("{table}{}", self.suffix())
    }

    /// A statement on live tables, for the tables of this side.
    pub(crate) fn on(self, sql: &str) -> Cow<'_, str> {
        if self == Self::Live {
            return Cow::Borrowed(sql);
        }
        let own = Projection::ALL.iter().flat_map(|one| tables_of(*one));
        let mut text = sql.to_owned();
        // No table's name is within another's.
        for table in own.chain(SHARED_TABLES) {
            if text.contains(table) {
                text = text.replace(table, &self.name(table));
            }
        }
        Cow::Owned(text)
    }
}

/// Whether a file has a projection's tables of a side.
pub(crate) fn exists(
    connection: &Connection,
    projection: Projection,
    side: Side,
) -> rusqlite::Result<bool> {
    let [first, ..] = tables_of(projection) else {
        return Ok(false);
    };
    has_table(connection, &side.name(first))
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)",
        )?
        .query_row([name], |row| row.get(0))
}

/// Makes a projection's empty tables beside the live ones, with a checkpoint of 0 for every partition.
pub(crate) fn create_beside(
    connection: &mut Connection,
    projection: Projection,
    partitions: impl Iterator<Item = u16>,
) -> rusqlite::Result<()> {
    let side = Side::Beside;
    let transaction = connection.transaction()?;
    make_shared(&transaction, side)?;
    for table in tables_of(projection) {
        transaction.execute_batch(&renamed_table(table, side))?;
        for (index, rest) in indexes_of(table) {
            let kind = rest.0;
            let name = free_index_name(&transaction, index)?;
            let on = side.name(table);
            transaction.execute_batch(&format!("{kind} {name} ON {on} {}", rest.1))?;
        }
    }
    forget_shared(&transaction, side, projection)?;
    for partition in partitions {
        transaction.execute(
            &side.on("INSERT INTO Checkpoint VALUES (?1, ?2, 0, 0, 0, 0, 0, 0)"),
            params![projection.name(), partition],
        )?;
    }
    transaction.commit()
}

/// The tables that all projections share, on a side other than the live one.
fn make_shared(connection: &Connection, side: Side) -> rusqlite::Result<()> {
    for table in SHARED_TABLES {
        if !has_table(connection, &side.name(table))? {
            connection.execute_batch(&renamed_table(table, side))?;
        }
    }
    Ok(())
}

fn forget_shared(
    connection: &Connection,
    side: Side,
    projection: Projection,
) -> rusqlite::Result<()> {
    for table in SHARED_TABLES {
        let name = side.name(table);
        if has_table(connection, &name)? {
            let delete = format!("DELETE FROM {name} WHERE projection = ?1");
            connection.execute(&delete, [projection.name()])?;
        }
    }
    Ok(())
}

/// Drops the tables that all projections share if nothing is left in them.
fn drop_shared_if_empty(connection: &Connection, side: Side) -> rusqlite::Result<()> {
    for table in SHARED_TABLES {
        let name = side.name(table);
        if !has_table(connection, &name)? {
            continue;
        }
        let empty = format!("SELECT NOT EXISTS (SELECT 1 FROM {name})");
        if connection.query_row(&empty, [], |row| row.get(0))? {
            connection.execute_batch(&format!("DROP TABLE {name}"))?;
        }
    }
    Ok(())
}

/// Makes the tables of `from` the live ones and the live ones the old ones, in one transaction: a reader sees the one or
/// the other. The checkpoints and parked events of the projection go with their tables; a pause stays.
pub(crate) fn switch(
    connection: &mut Connection,
    projection: Projection,
    from: Side,
) -> rusqlite::Result<()> {
    // Otherwise views would follow the tables they were defined on instead of the names.
    connection.pragma_update(None, "legacy_alter_table", true)?;
    let transaction = connection.transaction()?;
    make_shared(&transaction, Side::Old)?;
    for table in tables_of(projection) {
        let (source, old) = (from.name(table), Side::Old.name(table));
        let rename = |one: &str, other: &str| {
            transaction.execute_batch(&format!("ALTER TABLE {one} RENAME TO {other}"))
        };
        let passing = format!("{table}_passing");
        rename(&source, &passing)?;
        rename(table, &old)?;
        rename(&passing, table)?;
    }
    let name = projection.name();
    for table in SHARED_TABLES {
        let (source, old) = (from.name(table), Side::Old.name(table));
        // The source's rows step aside under a name that no projection has.
        let aside = format!("UPDATE {source} SET projection = '' WHERE projection = ?1");
        transaction.execute(&aside, [name])?;
        let keep = format!("INSERT INTO {old} SELECT * FROM {table} WHERE projection = ?1");
        transaction.execute(&keep, [name])?;
        let clear = format!("DELETE FROM {table} WHERE projection = ?1");
        transaction.execute(&clear, [name])?;
        let put = format!("INSERT INTO {table} SELECT * FROM {source} WHERE projection = ''");
        transaction.execute(&put, [])?;
        let set_name = format!("UPDATE {table} SET projection = ?1 WHERE projection = ''");
        transaction.execute(&set_name, [name])?;
        let gone = format!("DELETE FROM {source} WHERE projection = ''");
        transaction.execute(&gone, [])?;
    }
    transaction.execute(
        &format!(
            "UPDATE Checkpoint SET paused = (SELECT old.paused FROM {} AS old \
             WHERE old.projection = Checkpoint.projection AND old.partition = Checkpoint.partition) \
             WHERE projection = ?1",
            Side::Old.name("Checkpoint")
        ),
        [name],
    )?;
    if from == Side::Beside {
        drop_shared_if_empty(&transaction, from)?;
    }
    transaction.commit()
}

/// Deletes some of a projection's rows of a side other than the live one, then its tables; `true` when nothing is left.
/// To be called again and again: each call is a short transaction.
pub(crate) fn discard_some(
    connection: &mut Connection,
    projection: Projection,
    side: Side,
    rows: u32,
) -> rusqlite::Result<bool> {
    debug_assert_ne!(side, Side::Live, "the live tables are never discarded");
    let transaction = connection.transaction()?;
    for table in tables_of(projection) {
        let name = side.name(table);
        if !has_table(&transaction, &name)? {
            continue;
        }
        // An index would be searched for every row that is deleted.
        for index in index_names(&transaction, &name)? {
            transaction.execute_batch(&format!("DROP INDEX \"{index}\""))?;
        }
        let key = key_of(table);
        let delete = format!(
            "DELETE FROM {name} WHERE ({key}) IN (SELECT {key} FROM {name} ORDER BY {key} LIMIT ?1)"
        );
        let deleted = transaction.execute(&delete, [rows])?;
        if u32::try_from(deleted).is_ok_and(|deleted| deleted == rows) {
            transaction.commit()?;
            return Ok(false);
        }
        transaction.execute_batch(&format!("DROP TABLE {name}"))?;
    }
    forget_shared(&transaction, side, projection)?;
    drop_shared_if_empty(&transaction, side)?;
    transaction.commit()?;
    Ok(true)
}

/// Makes the indexes of a projection's live tables anew and gathers what the planner knows of them.
pub(crate) fn reindex(connection: &Connection, projection: Projection) -> rusqlite::Result<()> {
    for table in tables_of(projection) {
        connection.execute_batch(&format!("REINDEX {table}; ANALYZE {table}"))?;
    }
    Ok(())
}

/// The statement that makes a table, under its name of a side.
fn renamed_table(table: &str, side: Side) -> String {
    let begin = format!("CREATE TABLE {table} (");
    let (_, rest) = CREATE.split_once(&begin).unwrap_or_default();
    let body = rest.split(';').next().unwrap_or_default();
    format!("CREATE TABLE {} ({body}", side.name(table))
}

/// The indexes of a table: name, how its statement begins, and the columns.
fn indexes_of(table: &str) -> Vec<(&'static str, (&'static str, &'static str))> {
    let mut found = Vec::new();
    for kind in ["CREATE INDEX", "CREATE UNIQUE INDEX"] {
        for statement in CREATE.split(';') {
            let Some((_, rest)) = statement.split_once(&format!("{kind} ")) else {
                continue;
            };
            let Some((name, on)) = rest.split_once(" ON ") else {
                continue;
            };
            if let Some((of, columns)) = on.split_once(' ')
                && of == table
            {
                found.push((name, (kind, columns)));
            }
        }
    }
    found
}

/// An index keeps its name when its table is renamed: the next one needs another.
fn free_index_name(connection: &Connection, wanted: &str) -> rusqlite::Result<String> {
    let mut taken = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1)",
    )?;
    // Live, beside and old: with four names one is free.
    let mut name = wanted.to_owned();
    for number in 2..=4 {
        if !taken.query_row([&name], |row| row.get::<_, bool>(0))? {
            break;
        }
        name = format!("{wanted}{number}");
    }
    Ok(name)
}

fn index_names(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL",
        )?
        .query_map([table], |row| row.get(0))?
        .collect()
}

/// The columns of a table's primary key.
fn key_of(table: &str) -> &'static str {
    match table {
        "OrderView" => "order_id",
        "IdempotencyKey" => "partition, frame",
        "CustomerSummaryByPartition" => "customer_id, currency, partition",
        _ => "sku, partition",
    }
}
