//! What the dispatcher shows of itself: written by its thread alone, read by metrics and status at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use order_log::{AppendTime, Offset, PartitionReader, ScanLimit};

/// No append time: nothing is being retried.
const NOTHING: u64 = u64::MAX;

/// How far the dispatcher is.
#[derive(Debug)]
pub(crate) struct Progress {
    partitions: Vec<PartitionProgress>,
    retrying: AtomicU64,
    retrying_oldest_us: AtomicU64,
    dead: AtomicU64,
    trouble: Mutex<Option<String>>,
    last_failure: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct PartitionProgress {
    cursor: AtomicU64,
    /// Events beyond the cursor that need nothing more.
    settled: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
}

/// Why nothing more is read of a partition.
#[derive(Debug)]
struct Trouble {
    reason: String,
    since_us: u64,
}

/// How old the oldest event is that is neither delivered nor dead, in seconds; 0 when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Ages {
    pub(crate) waiting: f64,
    pub(crate) backing_off: f64,
}

impl Progress {
    pub(crate) fn new(cursors: &[Offset]) -> Self {
        let partitions = cursors.iter().map(|cursor| PartitionProgress {
            cursor: AtomicU64::new(cursor.get()),
            ..PartitionProgress::default()
        });
        Self {
            partitions: partitions.collect(),
            retrying: AtomicU64::new(0),
            retrying_oldest_us: AtomicU64::new(NOTHING),
            dead: AtomicU64::new(0),
            trouble: Mutex::new(None),
            last_failure: Mutex::new(None),
        }
    }

    /// Where a partition's cursor is, as committed.
    pub(crate) fn cursor(&self, partition: usize) -> Offset {
        Offset::new(self.partitions[partition].cursor.load(Ordering::Acquire))
    }

    pub(crate) fn set_cursor(&self, partition: usize, cursor: Offset, settled: u64) {
        let shown = &self.partitions[partition];
        // Settled first: together they may show an event too many for a moment, never one too few.
        shown.settled.store(settled, Ordering::Release);
        shown.cursor.store(cursor.get(), Ordering::Release);
    }

    pub(crate) fn set_held(&self, retrying: u64, retrying_oldest: Option<AppendTime>, dead: u64) {
        self.retrying.store(retrying, Ordering::Release);
        let oldest = retrying_oldest.map_or(NOTHING, AppendTime::as_micros);
        self.retrying_oldest_us.store(oldest, Ordering::Release);
        self.dead.store(dead, Ordering::Release);
    }

    /// Events that are kept aside and will be tried again.
    pub(crate) fn retrying(&self) -> u64 {
        self.retrying.load(Ordering::Acquire)
    }

    /// Events that wait for an operator.
    pub(crate) fn dead(&self) -> u64 {
        self.dead.load(Ordering::Acquire)
    }

    /// Why nothing is delivered at all, if so; logged where it is set.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Says why nothing is delivered, or that it is again. `true` if that is news.
    pub(crate) fn set_trouble(&self, trouble: Option<String>) -> bool {
        replace(&self.trouble, trouble)
    }

    /// The last try that failed, and why.
    pub(crate) fn last_failure(&self) -> Option<String> {
        lock(&self.last_failure).clone()
    }

    /// Shows a try that failed, and why.
    pub(crate) fn set_last_failure(&self, failure: String) {
        *lock(&self.last_failure) = Some(failure);
    }

    /// Why nothing more is read of one partition, if so.
    pub(crate) fn partition_trouble(&self, partition: usize) -> Option<String> {
        let trouble = lock(&self.partitions[partition].trouble);
        trouble.as_ref().map(|trouble| trouble.reason.clone())
    }

    /// Says why nothing more is read of a partition, or that it is again. `true` if that is news.
    pub(crate) fn set_partition_trouble(&self, partition: usize, reason: Option<String>) -> bool {
        let mut trouble = lock(&self.partitions[partition].trouble);
        if trouble.as_ref().map(|before| &before.reason) == reason.as_ref() {
            return false;
        }
        let since_us = trouble
            .as_ref()
            .map_or_else(now_us, |before| before.since_us);
        *trouble = reason.map(|reason| Trouble { reason, since_us });
        true
    }

    /// Events neither delivered nor dead.
    pub(crate) fn pending(&self, readers: &[Box<dyn PartitionReader>]) -> u64 {
        let waiting = self.partitions.iter().zip(readers).map(|(shown, reader)| {
            // The cursor before the end: the end moves on by itself, and the other way round it could fall behind.
            let cursor = shown.cursor.load(Ordering::Acquire);
            let settled = shown.settled.load(Ordering::Acquire);
            reader
                .durable_end()
                .get()
                .saturating_sub(cursor)
                .saturating_sub(settled)
        });
        waiting.sum::<u64>() + self.retrying()
    }

    /// The ages as of now: taken from the log and the clock, not from what the dispatcher last said, so that they grow
    /// when it is stuck.
    pub(crate) fn ages(&self, readers: &[Box<dyn PartitionReader>]) -> Ages {
        let now = now_us();
        let age =
            |since: u64| std::time::Duration::from_micros(now.saturating_sub(since)).as_secs_f64();
        let waiting = (0..readers.len())
            .filter_map(|partition| self.oldest_us(partition, &*readers[partition]))
            .min();
        let backing_off = self.retrying_oldest_us.load(Ordering::Acquire);
        Ages {
            waiting: waiting.map_or(0.0, age),
            backing_off: if backing_off == NOTHING {
                0.0
            } else {
                age(backing_off)
            },
        }
    }

    /// Since when the oldest event of a partition waits. Where it cannot be read, at least since that was met: an age that
    /// stays 0 because the log is damaged would wake nobody.
    fn oldest_us(&self, partition: usize, reader: &dyn PartitionReader) -> Option<u64> {
        let appended = append_time(reader, self.cursor(partition)).map(AppendTime::as_micros);
        let trouble = lock(&self.partitions[partition].trouble);
        appended.or_else(|| trouble.as_ref().map(|trouble| trouble.since_us))
    }
}

/// When the frame at `offset` was appended; `None` at the end of the log, or if the frame does not verify.
fn append_time(reader: &dyn PartitionReader, offset: Offset) -> Option<AppendTime> {
    if reader.durable_end() <= offset {
        return None;
    }
    let one = ScanLimit {
        records: 1,
        ..ScanLimit::NONE
    };
    let mut found = None;
    let scanned = reader.scan(offset, one, &mut |frame| {
        found = Some(frame.appended_at);
        std::ops::ControlFlow::Break(())
    });
    scanned.ok().and(found)
}

/// Wall-clock time, in microseconds since the Unix epoch.
pub(crate) fn now_us() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

fn replace(place: &Mutex<Option<String>>, trouble: Option<String>) -> bool {
    let mut place = lock(place);
    let news = *place != trouble;
    *place = trouble;
    news
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
