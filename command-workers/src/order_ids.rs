//! Where order ids come from: UUIDv7, made without a lock or a system call beyond the clock's.
//!
//! RFC 9562 §5.7 with the time's fraction of a millisecond in `rand_a` (§6.2, method 3), so that ids sort by the quarter
//! of a microsecond they were made in: the read model's keys then arrive almost in order. Ids are unique, not secret.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use order_domain::OrderId;
use order_partitioner::Partitioner;

/// Draws a partition that is hit by none of them once in e⁶⁴ times: such a hash is broken, not unlucky.
const DRAWS_PER_PARTITION_MAX: u32 = 64;

/// A source of order ids, shared by all submitters.
#[derive(Debug)]
pub(crate) struct OrderIds {
    /// SipHash under a key from the operating system: a keyed hash of a counter is as good as a random number, costs
    /// some ten nanoseconds and needs no lock.
    random: RandomState,
    drawn: AtomicU64,
}

impl OrderIds {
    pub(crate) fn new() -> Self {
        Self {
            random: RandomState::new(),
            drawn: AtomicU64::new(0),
        }
    }

    /// A new id, in whatever partition.
    pub(crate) fn draw(&self) -> OrderId {
        self.draw_at(now())
    }

    /// A new id that the partitioner puts into `partition`: as many draws as there are partitions, on average. `None`
    /// if the hash never goes there.
    pub(crate) fn draw_in(&self, partitioner: Partitioner, partition: u16) -> Option<OrderId> {
        let now = now();
        (0..u32::from(partitioner.partitions()) * DRAWS_PER_PARTITION_MAX)
            .map(|_| self.draw_at(now))
            .find(|id| partition_of(partitioner, *id) == partition)
    }

    fn draw_at(&self, since_epoch: Duration) -> OrderId {
        let random = self
            .random
            .hash_one(self.drawn.fetch_add(1, Ordering::Relaxed));
        let nanos_of_milli = u64::from(since_epoch.subsec_nanos() % 1_000_000);
        // Twelve bits of fraction stand above the 62 that the variant leaves of `random`.
        let fraction = (nanos_of_milli << 12) / 1_000_000;
        let mut low = [0; 10];
        low[..2].copy_from_slice(&fraction.to_be_bytes()[6..]);
        low[2..].copy_from_slice(&random.to_be_bytes());
        let millis = since_epoch.as_secs() * 1_000 + u64::from(since_epoch.subsec_millis());
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &low).into_uuid();
        OrderId::from_bytes(id.into_bytes())
    }
}

/// The partition of an order: the partitioner over its id's text.
pub(crate) fn partition_of(partitioner: Partitioner, id: OrderId) -> u16 {
    partitioner.partition_of(id.text(&mut [0; 36]).as_bytes())
}

fn now() -> Duration {
    // A clock before 1970 gives ids of 1970: still unique, only not in order.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_that_says_when_it_was_made() {
        let made_at = Duration::new(1_795_374_000, 123_750_000);

        let id = uuid::Uuid::from_bytes(*OrderIds::new().draw_at(made_at).as_bytes());

        assert_eq!(id.get_version(), Some(uuid::Version::SortRand));
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        let (seconds, nanos) = id.get_timestamp().expect("version 7 has a time").to_unix();
        assert_eq!((seconds, nanos), (1_795_374_000, 123_000_000));
        // Three quarters of a millisecond.
        assert_eq!(id.as_bytes()[6..8], [0x7c, 0x00]);
    }

    #[test]
    fn ids_made_a_microsecond_apart_sort_by_time() {
        let ids = OrderIds::new();
        let drawn: Vec<_> = (0..5_000)
            .map(|micros| ids.draw_at(Duration::from_micros(1_795_374_000_000_000 + micros)))
            .collect();

        assert!(drawn.is_sorted());
    }

    #[test]
    fn ids_made_at_the_same_instant_differ() {
        let ids = OrderIds::new();
        let drawn: HashSet<_> = (0..100_000).map(|_| ids.draw_at(Duration::ZERO)).collect();

        assert_eq!(drawn.len(), 100_000);
    }

    #[test]
    fn an_id_can_be_drawn_for_every_partition() {
        let ids = OrderIds::new();
        for count in [1, 2, 7, 64] {
            let partitioner = Partitioner::new(count).unwrap();
            for partition in 0..count {
                let id = ids.draw_in(partitioner, partition).unwrap();
                assert_eq!(partition_of(partitioner, id), partition);
            }
        }
    }
}
