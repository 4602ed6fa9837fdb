//! Other people's logs and stores behind [`Peer`], each used as its own documentation says, and as an event store would:
//! nothing is thrown away, and everything can be read back in order.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use okaywal::{Configuration, Entry, EntryId, LogManager, SegmentReader, WriteAheadLog};
use order_benches::reference::Sink;
use rusqlite::Connection;

use crate::peer::Peer;

/// okaywal recycles what was checkpointed; an event store keeps everything, so nothing ever is.
struct OkayWal {
    directory: PathBuf,
    log: Option<WriteAheadLog>,
    batch: Vec<Vec<u8>>,
}

/// Preallocated for a segment: what a run of a second writes fits.
const OKAYWAL_SEGMENT_BYTES: u32 = 512 << 20;

/// Counts what is recovered.
#[derive(Debug)]
struct Counting(Arc<AtomicU64>);

impl LogManager for Counting {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        if let Some(chunks) = entry.read_all_chunks()? {
            let count = u64::try_from(chunks.len()).unwrap_or(u64::MAX);
            self.0.fetch_add(count, Ordering::Relaxed);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn okaywal(directory: &Path, _durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    let mut peer = OkayWal {
        directory: directory.join("okaywal"),
        log: None,
        batch: Vec::new(),
    };
    peer.open(Arc::default())?;
    // The first commit pays for the whole preallocated segment: seconds, which are not what is measured here.
    peer.commit()?;
    Ok(Box::new(peer))
}

impl OkayWal {
    fn open(&mut self, recovered: Arc<AtomicU64>) -> anyhow::Result<()> {
        let log = Configuration::default_for(&self.directory)
            .preallocate_bytes(OKAYWAL_SEGMENT_BYTES)
            .checkpoint_after_bytes(u64::MAX)
            .open(Counting(recovered))
            .context("open okaywal")?;
        self.log = Some(log);
        Ok(())
    }
}

impl Sink for OkayWal {
    fn add(&mut self, record: &[u8]) {
        self.batch.push(record.to_vec());
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let log = self.log.as_ref().context("okaywal is open")?;
        let mut entry = log.begin_entry()?;
        for record in self.batch.drain(..) {
            entry.write_chunk(&record)?;
        }
        entry.commit()?;
        Ok(())
    }
}

impl Peer for OkayWal {
    fn read_back(&mut self) -> anyhow::Result<u64> {
        // Its log is read when it is opened.
        if let Some(log) = self.log.take() {
            log.shutdown().context("close okaywal")?;
        }
        let recovered = Arc::new(AtomicU64::new(0));
        self.open(Arc::clone(&recovered))?;
        Ok(recovered.load(Ordering::Relaxed))
    }
}

/// fjall as a log: keys count up.
struct Fjall {
    database: Database,
    events: Keyspace,
    batch: Option<OwnedWriteBatch>,
    next: u64,
    mode: PersistMode,
}

pub(crate) fn fjall(directory: &Path, durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    let database = Database::builder(directory.join("fjall"))
        .open()
        .context("open fjall")?;
    let events = database.keyspace("events", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall {
        database,
        events,
        batch: None,
        next: 0,
        mode: if durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        },
    }))
}

impl Sink for Fjall {
    fn add(&mut self, record: &[u8]) {
        let batch = self.batch.get_or_insert_with(|| {
            let batch = self.database.batch();
            batch.durability(Some(self.mode))
        });
        batch.insert(&self.events, self.next.to_be_bytes(), record);
        self.next += 1;
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        if let Some(batch) = self.batch.take() {
            batch.commit()?;
        }
        Ok(())
    }
}

impl Peer for Fjall {
    fn read_back(&mut self) -> anyhow::Result<u64> {
        let mut count = 0;
        for item in self.events.iter() {
            let (_, value) = item.into_inner()?;
            count += u64::from(!value.is_empty());
        }
        Ok(count)
    }
}

/// commitlog, whose flush hands over to the operating system.
struct Commitlog {
    log: CommitLog,
    batch: MessageBuf,
    refused: bool,
}

/// Bytes of one read; and the largest batch.
const COMMITLOG_BATCH_BYTES: usize = 1 << 20;

pub(crate) fn commitlog(directory: &Path, _durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    let mut options = LogOptions::new(directory.join("commitlog"));
    options.message_max_bytes(COMMITLOG_BATCH_BYTES);
    Ok(Box::new(Commitlog {
        log: CommitLog::new(options).context("open commitlog")?,
        batch: MessageBuf::default(),
        refused: false,
    }))
}

impl Sink for Commitlog {
    fn add(&mut self, record: &[u8]) {
        self.refused |= self.batch.push(record).is_err();
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.refused,
            "commitlog does not take a record of this size"
        );
        let mut batch = std::mem::take(&mut self.batch);
        self.log
            .append(&mut batch)
            .map_err(|error| anyhow::anyhow!("append to commitlog: {error}"))?;
        Ok(())
    }
}

impl Peer for Commitlog {
    fn read_back(&mut self) -> anyhow::Result<u64> {
        self.log.flush().context("flush commitlog")?;
        let mut count = 0;
        loop {
            let messages = self
                .log
                .read(count, ReadLimit::max_bytes(COMMITLOG_BATCH_BYTES))
                .map_err(|error| anyhow::anyhow!("read commitlog: {error}"))?;
            if messages.len() == 0 {
                return Ok(count);
            }
            for message in messages.iter() {
                anyhow::ensure!(message.verify_hash(), "a message of commitlog is damaged");
            }
            count += u64::try_from(messages.len())?;
        }
    }
}

/// SQLite as an event store: a row an event, one event a stream and version.
struct Sqlite {
    connection: Connection,
    batch: Vec<Vec<u8>>,
    next: u64,
}

pub(crate) fn sqlite(directory: &Path, durable: bool) -> anyhow::Result<Box<dyn Peer>> {
    let connection = Connection::open(directory.join("events.db")).context("open SQLite")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the WAL at every commit; OFF leaves it to the operating system.
    connection.pragma_update(None, "synchronous", if durable { "FULL" } else { "OFF" })?;
    connection.execute_batch(
        "CREATE TABLE Event (position INTEGER PRIMARY KEY, stream BLOB NOT NULL, version INTEGER NOT NULL, \
         data BLOB NOT NULL, UNIQUE (stream, version)) STRICT",
    )?;
    Ok(Box::new(Sqlite {
        connection,
        batch: Vec::new(),
        next: 0,
    }))
}

impl Sink for Sqlite {
    fn add(&mut self, record: &[u8]) {
        self.batch.push(record.to_vec());
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO Event (stream, version, data) VALUES (?1, 1, ?2)")?;
            for record in self.batch.drain(..) {
                // Each record starts a stream, as a new order does; ids come in the order of time.
                let mut stream = [0; 16];
                stream[8..].copy_from_slice(&self.next.to_be_bytes());
                self.next += 1;
                insert.execute((stream, record))?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Peer for Sqlite {
    fn read_back(&mut self) -> anyhow::Result<u64> {
        let mut statement = self
            .connection
            .prepare("SELECT data FROM Event ORDER BY position")?;
        let mut rows = statement.query([])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += u64::from(!row.get_ref(0)?.as_blob()?.is_empty());
        }
        Ok(count)
    }
}
