//! The outbox while nothing runs: for tools that look at it, redrive, or rewrite the log under it.

use std::path::Path;
use std::time::Instant;

use order_log::{Frame, Offset, PartitionId};
use rusqlite::{Connection, OpenFlags};

use crate::dead_letters::{DeadLetters, HeldEvent, Inspection};
use crate::ledger::Ledger;
use crate::log_event::events_of;
use crate::store::{Store, unsigned};
use crate::{EventId, OutboxError};

/// The cursors in a copy of an outbox's store, by partition; changes nothing.
///
/// # Errors
/// [`OutboxError::Store`] if it does not read as one.
pub fn stored_cursors(path: &Path) -> Result<Vec<Offset>, OutboxError> {
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let mut statement =
            connection.prepare("SELECT next_offset FROM cursor ORDER BY partition")?;
        let cursors = statement.query_map([], |row| Ok(Offset::new(unsigned(row, 0)?)))?;
        cursors.collect::<Result<_, _>>()
    };
    read().map_err(|source| OutboxError::Store {
        path: path.to_owned(),
        source,
    })
}

/// The outbox's store in a data directory whose lock the caller holds.
#[derive(Debug)]
pub struct OfflineOutbox {
    ledger: Ledger,
    dead_letters: DeadLetters,
}

impl OfflineOutbox {
    /// Opens the store of `data_dir`; `None` if there is none. `source` is [`crate::OutboxConfig::source`].
    ///
    /// # Errors
    /// [`OutboxError::Incompatible`] for a file of another layout; otherwise whatever SQLite said.
    pub fn open(data_dir: &Path, source: &str) -> Result<Option<Self>, OutboxError> {
        let Some(ledger) = Ledger::open_existing(data_dir)? else {
            return Ok(None);
        };
        let dead_letters = DeadLetters::open(data_dir, source)?;
        Ok(Some(Self {
            ledger,
            dead_letters,
        }))
    }

    /// Makes the store of a log that was told before it came here: each partition is read from its cursor on. Durable on
    /// return.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn create(data_dir: &Path, cursors: &[Offset]) -> Result<(), OutboxError> {
        let partitions = u16::try_from(cursors.len()).unwrap_or(u16::MAX);
        let mut store = Store::open(data_dir, partitions)?;
        store.replace_cursors(cursors)?;
        store.commit()
    }

    /// The cursors, by partition: the offset after the last event that is delivered, being retried or dead.
    #[must_use]
    pub fn cursors(&self) -> Vec<Offset> {
        self.ledger
            .cursors()
            .iter()
            .map(|cursor| cursor.next)
            .collect()
    }

    /// Events that are kept aside and will be tried again when the service runs.
    #[must_use]
    pub fn backing_off(&self) -> u64 {
        self.ledger.retrying_events()
    }

    /// Count of dead events.
    #[must_use]
    pub fn dead_events(&self) -> u64 {
        self.ledger.dead_events()
    }

    /// As [`crate::Outbox::dead`].
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn dead(
        &self,
        limit: usize,
        after: Option<EventId>,
    ) -> Result<Vec<HeldEvent>, OutboxError> {
        self.dead_letters.page(limit, after)
    }

    /// As [`crate::Outbox::inspect`].
    ///
    /// # Errors
    /// [`OutboxError::NotHeld`]; otherwise whatever SQLite said.
    pub fn inspect(&self, id: EventId) -> Result<Inspection, OutboxError> {
        self.dead_letters
            .inspect(id)?
            .ok_or(OutboxError::NotHeld(id))
    }

    /// As [`crate::Outbox::redrive`]; sent when the service runs again.
    ///
    /// # Errors
    /// [`OutboxError::NotHeld`], [`OutboxError::NotDead`]; otherwise whatever SQLite said.
    pub fn redrive(&mut self, id: EventId) -> Result<u64, OutboxError> {
        self.redrive_which(Some(id))
    }

    /// As [`crate::Outbox::redrive_all`]; sent when the service runs again.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn redrive_all(&mut self) -> Result<u64, OutboxError> {
        self.redrive_which(None)
    }

    fn redrive_which(&mut self, which: Option<EventId>) -> Result<u64, OutboxError> {
        let events = self.ledger.redrive(which, Instant::now())?;
        self.ledger.keep()?;
        Ok(events)
    }

    /// Keeps aside the events of a frame of the new log, because the cursor it will get is beyond it and nobody told them:
    /// they are tried when the service runs, those of one order in their order. Frames of a partition come in their order;
    /// [`OfflineOutbox::relocate`] makes it last.
    ///
    /// # Errors
    /// Whatever SQLite said; the store must be given up then.
    pub fn hold(&mut self, partition: PartitionId, frame: &Frame<'_>) -> Result<(), OutboxError> {
        for event in events_of(partition, frame) {
            let order = event.id.order();
            if self.ledger.holds(order) {
                self.ledger.queue(&event)?;
            } else {
                self.ledger.set_aside(&event)?;
                self.ledger.put_back(order, Instant::now());
            }
        }
        Ok(())
    }

    /// Follows a log that was rewritten: from now on partition `p` is read from `cursors[p]`, durably. The partition count
    /// may be another one. Events kept aside stay as they are: they are copies.
    ///
    /// Only whoever rewrote the log knows where it must go on. If the old log was told to its end
    /// ([`OfflineOutbox::cursors`] at the ends), that is the ends of the new one.
    ///
    /// # Errors
    /// Whatever SQLite said; nothing changed then.
    pub fn relocate(&mut self, cursors: &[Offset]) -> Result<(), OutboxError> {
        self.ledger.relocate(cursors)
    }
}
