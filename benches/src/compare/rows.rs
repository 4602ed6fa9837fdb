//! What the read model says, over all its files: how many orders, what they add up to, and a digest of every row.
//!
//! The digest does not depend on how the rows are spread over partitions and files, so that two layouts, and two engines,
//! can be held against each other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};

/// Everything of an order's row but where its events lie.
const ROWS: &str = "SELECT order_id, version, status, customer_id, currency, total, paid, refunded, next_line_id, lines, \
                    metadata, placed_at, updated_at FROM OrderView";

/// What the rows add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rows {
    /// Orders.
    pub(super) rows: u64,
    /// Sum of their versions: the events that were applied.
    pub(super) events: u64,
    /// Sum of their totals, in minor units.
    pub(super) ordered: i64,
    /// Sum of the rows' SHA-256, modulo 2^128: the same rows, in whatever order, give the same.
    pub(super) digest: u128,
    /// Bytes of the files.
    pub(super) bytes: u64,
}

/// Reads every row of the read model in `data`. To be called when the service has ended.
pub(super) fn rows_of(data: &Path) -> anyhow::Result<Rows> {
    let mut sum = Rows::default();
    for path in files(data)? {
        sum.bytes += fs::metadata(&path)
            .with_context(|| format!("look at {}", path.display()))?
            .len();
        add_file(&path, &mut sum).with_context(|| format!("read {}", path.display()))?;
    }
    Ok(sum)
}

/// The files of the read model.
fn files(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(data).with_context(|| format!("list {}", data.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("read") && name.ends_with(".db") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Deletes the read model, so that the next start rebuilds it.
pub(super) fn forget_rows(data: &Path) -> anyhow::Result<()> {
    for file in files(data)? {
        for end in ["", "-wal", "-shm"] {
            let mut path = file.clone().into_os_string();
            path.push(end);
            let path = PathBuf::from(path);
            if path.exists() {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

fn add_file(path: &Path, sum: &mut Rows) -> anyhow::Result<()> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut statement = connection.prepare(ROWS)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut bytes = Vec::new();
    while let Some(row) = rows.next()? {
        bytes.clear();
        for column in 0..columns {
            put(row.get_ref(column)?, &mut bytes);
        }
        let hash = Sha256::digest(&bytes);
        let (head, _) = hash
            .split_first_chunk()
            .context("a SHA-256 has more than 16 bytes")?;
        sum.digest = sum.digest.wrapping_add(u128::from_le_bytes(*head));
        sum.rows += 1;
        sum.events += u64::try_from(row.get::<_, i64>("version")?)?;
        sum.ordered += row.get::<_, i64>("total")?;
    }
    Ok(())
}

/// A value with its kind and length, so that no two rows run together.
fn put(value: ValueRef<'_>, bytes: &mut Vec<u8>) {
    match value {
        ValueRef::Null => bytes.push(0),
        ValueRef::Integer(number) => {
            bytes.push(1);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        ValueRef::Real(number) => {
            bytes.push(2);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        ValueRef::Text(text) => {
            bytes.push(3);
            bytes.extend_from_slice(&text.len().to_le_bytes());
            bytes.extend_from_slice(text);
        }
        ValueRef::Blob(blob) => {
            bytes.push(4);
            bytes.extend_from_slice(&blob.len().to_le_bytes());
            bytes.extend_from_slice(blob);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(data: &Path, file: &str, orders: &[(&str, i64)]) {
        let connection = Connection::open(data.join(file)).unwrap();
        connection
            .execute_batch(
                "create table OrderView (order_id, version, status, customer_id, currency, total, paid, refunded, \
                 next_line_id, lines, metadata, placed_at, updated_at)",
            )
            .unwrap();
        for (id, total) in orders {
            connection
                .execute(
                    "insert into OrderView values (?1, 2, 'paid', 'c', 'EUR', ?2, 0, 0, 1, '[]', '{}', 1, 1)",
                    (id, total),
                )
                .unwrap();
        }
    }

    #[test]
    fn the_digest_is_that_of_the_rows_wherever_they_lie_and_of_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, other] = ["one", "two", "other"].map(|name| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        write(&one, "read.db", &[("a", 1), ("b", 2), ("c", 3)]);
        write(&two, "read-000.db", &[("c", 3), ("a", 1)]);
        write(&two, "read-001.db", &[("b", 2)]);
        write(&two, "outbox.db", &[("x", 9)]);
        write(&other, "read.db", &[("a", 1), ("b", 3), ("c", 2)]);
        let [one, two, other] = [one, two, other].map(|data| rows_of(&data).unwrap());
        assert_eq!((one.rows, one.events, one.ordered), (3, 6, 6));
        assert_eq!((two.rows, two.digest), (one.rows, one.digest));
        assert_eq!(other.ordered, one.ordered);
        assert_ne!(other.digest, one.digest);
    }

    #[test]
    fn a_forgotten_read_model_is_gone_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "read.db", &[("a", 1)]);
        fs::write(directory.path().join("read.db-wal"), b"").unwrap();
        fs::write(directory.path().join("events.jsonl"), b"x").unwrap();
        forget_rows(directory.path()).unwrap();
        assert_eq!(rows_of(directory.path()).unwrap().rows, 0);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
