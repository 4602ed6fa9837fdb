//! How far each projection is, a partition: known to everybody, moved by the workers alone, forward only.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use order_log::{Offset, PartitionId};
use tokio::sync::Notify;

use crate::bell::Bell;

/// A set of tables with a checkpoint of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// `OrderView`, its lines and the idempotency keys: core, what reads and decisions need.
    Orders,
    /// Totals a customer.
    CustomerSummary,
    /// Units a SKU.
    SkuDemand,
}

impl Projection {
    /// All of them, core first.
    pub const ALL: [Self; 3] = [Self::Orders, Self::CustomerSummary, Self::SkuDemand];

    /// The name in metrics, tables and the API: `orders`, `customer_summary`, `sku_demand`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::CustomerSummary => "customer_summary",
            Self::SkuDemand => "sku_demand",
        }
    }

    /// The projection of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    /// Position in [`Projection::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// One checkpoint and who waits for it.
#[derive(Debug, Default)]
struct Entry {
    next: AtomicU64,
    moved: Notify,
    /// How many wait for it: a hint, for whoever would rather let more come together.
    awaited: AtomicUsize,
}

/// One that waits, for as long as it lives.
struct Awaiting<'e>(&'e AtomicUsize);

impl<'e> Awaiting<'e> {
    fn new(awaited: &'e AtomicUsize) -> Self {
        awaited.fetch_add(1, Ordering::Relaxed);
        Self(awaited)
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The checkpoints of all projections and partitions: the offset after the last applied record.
#[derive(Debug)]
pub struct Checkpoints {
    partitions: usize,
    /// By partition, then projection.
    entries: Box<[Entry]>,
    /// Rung for other processes when the core projection moved; none if nobody follows.
    bell: OnceLock<Bell>,
}

impl Checkpoints {
    pub(crate) fn new(partitions: u16) -> Self {
        let partitions = usize::from(partitions);
        Self {
            partitions,
            entries: (0..partitions * Projection::ALL.len())
                .map(|_| Entry::default())
                .collect(),
            bell: OnceLock::new(),
        }
    }

    fn entry(&self, projection: Projection, partition: PartitionId) -> &Entry {
        assert!(
            partition.index() < self.partitions,
            "partition {partition} of {}",
            self.partitions
        );
        &self.entries[partition.index() * Projection::ALL.len() + projection.index()]
    }

    /// The checkpoint. One atomic load: whoever sees an offset finds the rows before it in SQLite.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn load(&self, projection: Projection, partition: PartitionId) -> Offset {
        Offset::new(
            self.entry(projection, partition)
                .next
                .load(Ordering::Acquire),
        )
    }

    /// Whether another process follows.
    pub(crate) fn is_followed(&self) -> bool {
        self.bell.get().is_some()
    }

    /// Whether somebody in this process waits for the checkpoint to move.
    pub(crate) fn is_awaited(&self, projection: Projection, partition: PartitionId) -> bool {
        self.entry(projection, partition)
            .awaited
            .load(Ordering::Relaxed)
            > 0
    }

    /// Waits until the checkpoint is at or beyond `offset`; `false` if `timeout` passed first. Needs a runtime with a
    /// timer.
    ///
    /// # Panics
    /// If there is no such partition.
    pub async fn wait_for(
        &self,
        projection: Projection,
        partition: PartitionId,
        offset: Offset,
        timeout: Duration,
    ) -> bool {
        let entry = self.entry(projection, partition);
        let reached = || entry.next.load(Ordering::Acquire) >= offset.get();
        if reached() {
            return true;
        }
        let _awaiting = Awaiting::new(&entry.awaited);
        let wait = async {
            loop {
                let mut moved = pin!(entry.moved.notified());
                // Listed among the waiters before the look: a move between the two wakes it.
                moved.as_mut().enable();
                if reached() {
                    return;
                }
                moved.await;
            }
        };
        tokio::time::timeout(timeout, wait).await.is_ok() || reached()
    }

    /// Rings `bell` from now on whenever the core projection moved.
    pub(crate) fn ring(&self, bell: Bell) {
        // The second bell of a life would be a mistake that costs followers some milliseconds.
        let first = self.bell.set(bell);
        debug_assert!(first.is_ok(), "checkpoints have one bell");
    }

    /// Sets the checkpoint to that of tables which have taken the place of others, maybe an earlier one, and wakes who
    /// waits.
    pub(crate) fn replace(&self, projection: Projection, partition: PartitionId, next: Offset) {
        let entry = self.entry(projection, partition);
        entry.next.store(next.get(), Ordering::Release);
        entry.moved.notify_waiters();
    }

    /// Moves the checkpoint, after its transaction was committed, and wakes who waits.
    pub(crate) fn publish(&self, projection: Projection, partition: PartitionId, next: Offset) {
        let entry = self.entry(projection, partition);
        let before = entry.next.swap(next.get(), Ordering::AcqRel);
        assert!(
            before <= next.get(),
            "the checkpoint of {} in partition {partition} moved back from {before} to {next}",
            projection.name()
        );
        entry.moved.notify_waiters();
        if let (Projection::Orders, Some(bell)) = (projection, self.bell.get()) {
            bell.ring();
        }
    }
}
