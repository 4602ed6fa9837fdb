//! How far the rows are behind the log. Finding it reads the log, so only threads that may wait for a disk do; what they
//! found is kept, for answers that have no time to look: those of reads that waited in vain.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use order_projector_workers::{LagClock, Offset, PartitionReader};

/// The lag of every partition's rows.
#[derive(Debug)]
pub(crate) struct ReadModelLag {
    clock: LagClock,
    /// By partition: the last that was behind when somebody looked.
    found: Box<[Mutex<Option<Found>>]>,
}

/// How old the record at a position was.
#[derive(Debug, Clone, Copy)]
struct Found {
    position: Offset,
    age: Duration,
    when: Instant,
}

impl ReadModelLag {
    /// For this many partitions, numbered from 0.
    pub(crate) fn new(partitions: usize) -> Self {
        Self {
            clock: LagClock::new(partitions),
            found: (0..partitions).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// How far rows at `position` are behind their partition, in milliseconds. Reads the log. While that cannot be done, the
    /// time since nothing was behind, as far as is known: never a healthy 0.
    pub(crate) fn look_ms(&self, reader: &dyn PartitionReader, position: Offset) -> u64 {
        let partition = reader.partition().index();
        let lag = self.clock.lag(partition, reader, position);
        if let Some(error) = &lag.unreadable {
            tracing::debug!(error, "the age of the oldest event not applied is a bound");
        }
        // Rows that have everything, as most have most of the time, take no lock.
        if !lag.age.is_zero() {
            *self.found(partition) = Some(Found {
                position,
                age: lag.age,
                when: Instant::now(),
            });
        }
        millis(lag.age)
    }

    /// The same, if it is known without reading the log: nothing is behind, or somebody looked since the rows came to
    /// `position`.
    pub(crate) fn known_ms(&self, reader: &dyn PartitionReader, position: Offset) -> Option<u64> {
        if position >= reader.durable_end() {
            return Some(0);
        }
        let found = (*self.found(reader.partition().index()))?;
        (found.position == position).then(|| millis(found.age + found.when.elapsed()))
    }

    fn found(&self, partition: usize) -> impl std::ops::DerefMut<Target = Option<Found>> {
        // Nothing that can panic is done under the lock; and a value is whole or not there.
        self.found[partition]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}
