//! One SQLite file: made, checked or set aside at open; one writer connection, any number of readers.
//!
//! A file of another log or layout is refused, because it may be somebody's mistake; a file SQLite cannot read is set
//! aside and made anew, because the log has everything that was in it.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};

use crate::error::is_corrupt;
use crate::schema::{APPLICATION_ID, CREATE, LAYOUT_VERSION, SQLITE_VERSION_MIN};
use crate::sql::to_sql;
use crate::wal::LENGTHS;
use crate::{Projection, ReadModelError};

/// What one statement cache must hold: all statements of a worker or a reader.
const STATEMENTS_MAX: usize = 48;

/// How long a writer waits for another process inside SQLite before the worker backs off and counts it.
const WRITER_BUSY: Duration = Duration::from_millis(200);

/// How long a reader waits: in WAL mode it does so only while a file is being opened or recovered.
const READER_BUSY: Duration = Duration::from_secs(5);

/// Page cache of all writers together, in KiB: a batch of updates spread over a large table finds its pages again when
/// it writes them.
const WRITER_CACHE_KIB: u32 = 32 * 1024;

/// WAL size at which a commit moves the pages into the file itself, in pages of 4 KiB: far beyond what [`crate::wal`]
/// lets come together, for when nothing drains it or it cannot keep up.
const WAL_AUTOCHECKPOINT_PAGES: u64 = 8 * LENGTHS.to_start_over;

/// What the WAL file is cut to when it starts over, in bytes: what it needs between two drains while batches are large.
const WAL_BYTES_KEPT: u64 = 2 * LENGTHS.to_start_over * 4096;

/// What a file must say about itself to be this model's shard.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The log its rows come from.
    pub(crate) log_id: String,
    /// Partitions of the log.
    pub(crate) partitions: u16,
    /// Count of files.
    pub(crate) shards: u16,
    /// Which of them this is.
    pub(crate) shard: u16,
}

impl Identity {
    /// The partitions whose rows live in this file.
    pub(crate) fn partitions_here(&self) -> impl Iterator<Item = u16> + use<> {
        (self.shard..self.partitions).step_by(usize::from(self.shards))
    }

    fn entries(&self) -> [(&'static str, String); 4] {
        [
            ("log_id", self.log_id.clone()),
            ("partitions", self.partitions.to_string()),
            ("shards", self.shards.to_string()),
            ("shard", self.shard.to_string()),
        ]
    }
}

/// Opens the writer connection of a file; makes the file if it is missing, sets it aside if it is damaged.
pub(crate) fn open_writer(path: &Path, identity: &Identity) -> Result<Connection, ReadModelError> {
    let found = rusqlite::version_number();
    if found < SQLITE_VERSION_MIN {
        return Err(incompatible(
            path,
            format!(
                "SQLite {} can lose committed rows; 3.51.3 or newer is needed",
                rusqlite::version()
            ),
        ));
    }
    if damage_note(path).exists() {
        set_aside(path, "it was found damaged while the service ran")?;
    }
    match try_open_writer(path, identity) {
        Err(ReadModelError::Sqlite { source, .. }) if is_corrupt(&source) => {
            set_aside(path, &source.to_string())?;
            try_open_writer(path, identity)
        }
        opened => opened,
    }
}

/// Opens a connection that cannot write, with a page cache of `cache_kib`.
pub(crate) fn open_reader(path: &Path, cache_kib: u32) -> Result<Connection, ReadModelError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(READER_BUSY)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(connection)
    };
    open().map_err(ReadModelError::sqlite(path))
}

/// Whether a file is a whole read model of this layout and identity; changes nothing.
pub(crate) fn check_readable(
    connection: &Connection,
    path: &Path,
    identity: &Identity,
) -> Result<(), ReadModelError> {
    let (application_id, layout, _) = header(connection).map_err(ReadModelError::sqlite(path))?;
    if application_id != APPLICATION_ID || layout != LAYOUT_VERSION {
        return Err(incompatible(
            path,
            format!(
                "has application id {application_id} and layout {layout}, this version reads {APPLICATION_ID} and \
                 {LAYOUT_VERSION}"
            ),
        ));
    }
    check_identity(connection, path, identity)
}

/// Opens a file that another process writes, with a page cache of `cache_kib`, if it is a whole read model of this layout
/// and identity.
pub(crate) fn open_followed(
    path: &Path,
    identity: &Identity,
    cache_kib: u32,
) -> Result<Connection, ReadModelError> {
    let connection = open_reader(path, cache_kib)?;
    check_readable(&connection, path, identity)?;
    Ok(connection)
}

/// A read model without rows, in memory: what a file is like that is not there yet.
pub(crate) fn open_nothing(path: &Path, identity: &Identity) -> Result<Connection, ReadModelError> {
    let open = || {
        let mut connection = Connection::open_in_memory()?;
        create(&mut connection, identity)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(connection)
    };
    open().map_err(ReadModelError::sqlite(path))
}

/// Opens a connection that moves pages from the WAL into the file, and does nothing else.
pub(crate) fn open_drain(path: &Path) -> Result<Connection, ReadModelError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(WRITER_BUSY)?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(connection)
    };
    open().map_err(ReadModelError::sqlite(path))
}

/// Leaves a note beside a file that was found damaged while in use, so that the next open sets it aside.
pub(crate) fn note_damage(path: &Path) -> Result<(), ReadModelError> {
    let note = damage_note(path);
    std::fs::write(&note, b"").map_err(ReadModelError::io("write", &note))
}

fn try_open_writer(path: &Path, identity: &Identity) -> Result<Connection, ReadModelError> {
    // SQLite would make the file readable by everybody; its -wal and -shm take their mode from it.
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(ReadModelError::io("create", path)(error)),
    }
    let at = || ReadModelError::sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(at())?;
    let (application_id, layout, tables) = header(&connection).map_err(at())?;
    if tables == 0 && application_id == 0 && layout == 0 {
        create(&mut connection, identity).map_err(at())?;
    } else if application_id != APPLICATION_ID {
        return Err(incompatible(
            path,
            "is a SQLite file, but no read model; move it away or use another data directory"
                .to_owned(),
        ));
    } else if layout != LAYOUT_VERSION {
        return Err(incompatible(
            path,
            format!(
                "has layout {layout}, this version needs {LAYOUT_VERSION}; delete it (with its -wal and -shm), it is \
                 rebuilt from the log at the next start"
            ),
        ));
    } else {
        check_identity(&connection, path, identity)?;
    }
    tune(&connection, identity).map_err(at())?;
    Ok(connection)
}

/// Application id, layout version and count of tables.
fn header(connection: &Connection) -> rusqlite::Result<(i32, i32, i64)> {
    connection.busy_timeout(READER_BUSY)?;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok((number("application_id")?, number("user_version")?, tables))
}

fn create(connection: &mut Connection, identity: &Identity) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    transaction.execute_batch(CREATE)?;
    for (key, value) in identity.entries() {
        transaction.execute("INSERT INTO Meta VALUES (?1, ?2)", params![key, value])?;
    }
    for projection in Projection::ALL {
        for partition in identity.partitions_here() {
            transaction.execute(
                "INSERT INTO Checkpoint VALUES (?1, ?2, 0, 0, 0, 0, 0, 0)",
                params![projection.name(), partition],
            )?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", LAYOUT_VERSION)?;
    transaction.commit()
}

fn check_identity(
    connection: &Connection,
    path: &Path,
    identity: &Identity,
) -> Result<(), ReadModelError> {
    for (key, wanted) in identity.entries() {
        let found: Option<String> = connection
            .query_row("SELECT value FROM Meta WHERE key = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
            .map_err(ReadModelError::sqlite(path))?;
        if found.as_deref() != Some(wanted.as_str()) {
            return Err(incompatible(
                path,
                format!(
                    "was made for {key} {}, not {wanted}; start with that again, or delete the read model's files (with \
                     their -wal and -shm): they are rebuilt from the log at the next start",
                    found.as_deref().unwrap_or("unknown"),
                ),
            ));
        }
    }
    Ok(())
}

fn tune(connection: &Connection, identity: &Identity) -> rusqlite::Result<()> {
    connection.busy_timeout(WRITER_BUSY)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // A power loss may take the last transactions, never the file: they are applied again from the log.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    let cache = WRITER_CACHE_KIB / u32::from(identity.shards);
    connection.pragma_update(None, "cache_size", -i64::from(cache.max(2048)))?;
    for (pragma, value) in [
        ("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES),
        ("journal_size_limit", WAL_BYTES_KEPT),
    ] {
        connection.pragma_update_and_check(None, pragma, to_sql(value), |_| Ok(()))?;
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    plan_once(connection)
}

/// Has statements planned once: SQLite would plan some of them anew at every other value that is bound, to see whether
/// another plan fits it better. A worker's have one plan that is right; those that list orders do not.
pub(crate) fn plan_once(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Renames the file with its -wal and -shm to the first free `<name>.corrupt-<n>`.
fn set_aside(path: &Path, reason: &str) -> Result<(), ReadModelError> {
    let aside = (1_u32..)
        .map(|number| with_suffix(path, &format!(".corrupt-{number}")))
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| with_suffix(path, ".corrupt"));
    tracing::error!(
        file = %path.display(),
        aside = %aside.display(),
        reason,
        "the read model is damaged: set aside, its rows are rebuilt from the log"
    );
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&aside, suffix));
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ReadModelError::io("set aside", &from)(error)),
        }
    }
    let note = damage_note(path);
    match std::fs::remove_file(&note) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ReadModelError::io("remove", &note)(error)),
    }
}

fn damage_note(path: &Path) -> PathBuf {
    with_suffix(path, ".damaged")
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn incompatible(path: &Path, reason: String) -> ReadModelError {
    ReadModelError::Incompatible {
        path: path.to_owned(),
        reason,
    }
}
