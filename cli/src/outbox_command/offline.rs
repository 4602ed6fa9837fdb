//! A data directory's outbox while no service tells it.

use order_log::PartitionId;
use order_outbox::{DEAD_PAGE_MAX, EventId, OfflineOutbox, OutboxError, SinkKind};

use super::view::{Letter, Partition, Standing};
use crate::config::{Config, DataDirectoryFlags};
use crate::data_directory::{DataDirectory, ask_its_owner};
use crate::engine;
use crate::failure::{Failure, usage};

/// An outbox whose data directory's log this process owns, so that nobody else sends.
pub(super) struct Offline {
    outbox: OfflineOutbox,
    config: Config,
    directory: DataDirectory,
}

impl Offline {
    /// Locks the directory and opens the outbox's store.
    ///
    /// # Errors
    /// A usage failure for a directory that is none, that a service owns, or in which no outbox ever ran.
    pub(super) fn open(flags: &DataDirectoryFlags) -> Result<Self, Failure> {
        let config = flags.load()?.config;
        crate::logging::start(&config.logging)?;
        let directory = DataDirectory::own_existing_log(&config.data_dir)
            .map_err(|failure| ask_its_owner(failure, &config))?;
        let outbox = OfflineOutbox::open(&config.data_dir, &config.outbox.source)?;
        let outbox = outbox.ok_or_else(|| {
            usage!(
                "{} has no outbox yet: start `order-service serve` once",
                config.data_dir.display()
            )
        })?;
        Ok(Self {
            outbox,
            config,
            directory,
        })
    }

    pub(super) fn standing(&self) -> Result<Standing, Failure> {
        let log = engine::open_read_only(&self.config.data_dir, &self.directory.manifest)?;
        let cursors = self.outbox.cursors();
        let partitions = (0..log.partition_count()).zip(cursors);
        let partitions = partitions
            .map(|(partition, cursor)| {
                let reader = log.reader(PartitionId::new(partition))?;
                Ok(Partition {
                    partition,
                    cursor: cursor.get(),
                    end: reader.durable_end().get(),
                    trouble: None,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let behind = partitions.iter().map(|it| it.end.saturating_sub(it.cursor));
        let waiting = match self.config.outbox.sink {
            SinkKind::None => 0,
            SinkKind::File | SinkKind::Webhook => behind.sum(),
        };
        Ok(Standing {
            sink: self.config.outbox.sink.to_string(),
            running: false,
            trouble: None,
            last_failure: None,
            pending: waiting + self.outbox.backing_off(),
            backing_off: self.outbox.backing_off(),
            dead: self.outbox.dead_events(),
            oldest_waiting_seconds: None,
            oldest_backing_off_seconds: None,
            partitions,
        })
    }

    pub(super) fn dead(
        &self,
        after: Option<&str>,
    ) -> Result<(Vec<Letter>, Option<String>), Failure> {
        let after = after.map(event_id).transpose()?;
        let page = self.outbox.dead(DEAD_PAGE_MAX, after)?;
        let full = page.len() == DEAD_PAGE_MAX;
        let next = page.last().filter(|_| full).map(|held| held.id.to_string());
        Ok((page.into_iter().map(Letter::from).collect(), next))
    }

    pub(super) fn inspect(&self, event: &str) -> Result<Letter, Failure> {
        let inspection = self.outbox.inspect(event_id(event)?).map_err(unfit)?;
        let mut letter = Letter::from(inspection.held);
        match inspection.cloud_event {
            Ok(event) => letter.cloud_event = Some(serde_json::from_str(&event)?),
            Err(reason) => letter.error = format!("{}; {reason}", letter.error),
        }
        Ok(letter)
    }

    pub(super) fn redrive(&mut self, event: Option<&str>) -> Result<u64, Failure> {
        match event {
            None => Ok(self.outbox.redrive_all()?),
            Some(event) => self.outbox.redrive(event_id(event)?).map_err(unfit),
        }
    }
}

fn event_id(text: &str) -> Result<EventId, Failure> {
    text.parse().map_err(unfit)
}

/// What does not fit is the asker's to change.
fn unfit(error: OutboxError) -> Failure {
    match error {
        OutboxError::InvalidEventId(_) | OutboxError::NotHeld(_) | OutboxError::NotDead(_) => {
            Failure::Usage(error.into())
        }
        other => other.into(),
    }
}
