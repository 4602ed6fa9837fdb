//! What the worker remembers: every order and idempotency key touched beyond the read model's checkpoint.
//!
//! **Why forgetting is sound.** An entry carries `end`, the offset after the last frame that touched it, and is dropped
//! only by [`Tail::evict`] with a checkpoint at or beyond that end. The read model commits its rows together with the
//! checkpoint and says so only afterwards, so from then on its row holds every frame up to `end`; and there is no later
//! frame, or the entry would carry that one's end. So what is not in memory is, whole, in the read model; what is in
//! memory is newer than the read model or equal to it. The read model's rows may run ahead of the checkpoint that was
//! looked at, never behind.
//!
//! **Why a failed append leaves no trace.** Between [`Tail::keep`] or [`Tail::roll_back`] and the next one, every entry
//! that is written over is first put aside; orders themselves are never changed in place.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use order_domain::{Order, OrderId, Timestamp};
use order_log::Offset;

use crate::hash::RandomKeys;

/// Digest of an idempotency key within its scope.
pub(crate) type KeyDigest = [u8; 16];

/// An order as its last command left it.
#[derive(Debug, Clone)]
pub(crate) struct OrderTail {
    pub(crate) order: Arc<Order>,
    /// Base offset of its last frame: what its next frame names as the previous one.
    pub(crate) last_frame: Offset,
    /// Offset after its last frame.
    pub(crate) end: Offset,
}

/// What an idempotency key was used for.
#[derive(Debug, Clone)]
pub(crate) struct KeyTail {
    pub(crate) fingerprint: [u8; 16],
    /// The order right after the command: kept for its own sake, since a later command makes another.
    pub(crate) order: Arc<Order>,
    /// Offset after the frame.
    pub(crate) end: Offset,
}

impl KeyTail {
    /// When the key was used: the append time of the frame.
    pub(crate) fn used_at(&self) -> Timestamp {
        self.order.updated_at
    }
}

/// Which entries a frame touched, for eviction in offset order.
#[derive(Debug)]
struct Touch {
    end: Offset,
    order: OrderId,
    key: Option<KeyDigest>,
}

/// An entry as it was before the open batch wrote over it.
#[derive(Debug)]
enum Undo {
    Order(OrderId, Option<OrderTail>),
    Key(KeyDigest, Option<KeyTail>),
}

#[derive(Debug, Default)]
pub(crate) struct Tail {
    orders: HashMap<OrderId, OrderTail, RandomKeys>,
    keys: HashMap<KeyDigest, KeyTail, RandomKeys>,
    /// One entry a frame, ends strictly ascending.
    touched: VecDeque<Touch>,
    /// What the open batch wrote over, in that order.
    undo: Vec<Undo>,
    /// The highest checkpoint that was evicted up to.
    evicted_to: Offset,
}

impl Tail {
    /// Empty, as of a checkpoint: everything before it is in the read model.
    pub(crate) fn at(checkpoint: Offset) -> Self {
        Self {
            evicted_to: checkpoint,
            ..Self::default()
        }
    }

    /// Everything before this offset may have been forgotten.
    pub(crate) fn evicted_to(&self) -> Offset {
        self.evicted_to
    }

    pub(crate) fn order(&self, id: OrderId) -> Option<&OrderTail> {
        self.orders.get(&id)
    }

    pub(crate) fn key(&self, digest: KeyDigest) -> Option<&KeyTail> {
        self.keys.get(&digest)
    }

    /// Remembers a frame: the order after it, and the fingerprint of the idempotency key that made it. Frames come in
    /// offset order.
    pub(crate) fn write(&mut self, after: OrderTail, key: Option<(KeyDigest, [u8; 16])>) {
        let (end, id) = (after.end, after.order.id);
        debug_assert!(self.touched.back().is_none_or(|last| last.end < end));
        if let Some((digest, fingerprint)) = key {
            let entry = KeyTail {
                fingerprint,
                order: Arc::clone(&after.order),
                end,
            };
            let before = self.keys.insert(digest, entry);
            self.undo.push(Undo::Key(digest, before));
        }
        let before = self.orders.insert(id, after);
        self.undo.push(Undo::Order(id, before));
        self.touched.push_back(Touch {
            end,
            order: id,
            key: key.map(|(digest, _)| digest),
        });
    }

    /// The frames written since the last `keep` are in the log: from now on they stay.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// The frames written since the last `keep` are not in the log: forgets them, the last one first.
    pub(crate) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Order(id, before) => {
                    put_back(&mut self.orders, id, before);
                    // Each frame wrote one order and was remembered by one touch.
                    self.touched.pop_back();
                }
                Undo::Key(digest, before) => put_back(&mut self.keys, digest, before),
            }
        }
    }

    /// Forgets what the read model holds, at most so many frames of it. To be called between batches.
    pub(crate) fn evict(&mut self, checkpoint: Offset, frames_max: usize) {
        debug_assert!(self.undo.is_empty(), "a batch is open");
        self.evicted_to = self.evicted_to.max(checkpoint);
        for _ in 0..frames_max {
            let Some(touch) = self.touched.pop_front_if(|first| first.end <= checkpoint) else {
                return;
            };
            // A later frame may have touched the same entry; it then carries that frame's end.
            if let Entry::Occupied(entry) = self.orders.entry(touch.order)
                && entry.get().end == touch.end
            {
                entry.remove();
            }
            if let Some(digest) = touch.key
                && let Entry::Occupied(entry) = self.keys.entry(digest)
                && entry.get().end == touch.end
            {
                entry.remove();
            }
        }
    }
}

fn put_back<K: Eq + Hash, V>(map: &mut HashMap<K, V, RandomKeys>, key: K, before: Option<V>) {
    match before {
        Some(before) => drop(map.insert(key, before)),
        None => drop(map.remove(&key)),
    }
}

#[cfg(test)]
mod tests {
    use order_domain::{
        Amount, Command, Currency, CustomerId, Metadata, NewLine, PlaceOrder, Quantity, Sku,
        decide, fold,
    };

    use super::*;

    const KEY: KeyDigest = [7; 16];

    fn id(number: u8) -> OrderId {
        OrderId::from_bytes([number; 16])
    }

    /// An order of the given number whose last frame is the record before `end`.
    fn order(number: u8, end: u64) -> OrderTail {
        let place = Command::Place(PlaceOrder {
            customer_id: CustomerId::new("c").unwrap(),
            currency: Currency::parse("EUR").unwrap(),
            lines: vec![NewLine {
                sku: Sku::new("s").unwrap(),
                quantity: Quantity::new(1).unwrap(),
                unit_price: Amount::ZERO,
            }],
            metadata: Metadata::new(),
        });
        let mut order = None;
        for event in decide(None, &place).unwrap() {
            fold(&mut order, id(number), &event, Timestamp::from_micros(end)).unwrap();
        }
        OrderTail {
            order: Arc::new(order.unwrap()),
            last_frame: Offset::new(end - 1),
            end: Offset::new(end),
        }
    }

    fn end_of(tail: &Tail, number: u8) -> Option<u64> {
        tail.order(id(number)).map(|order| order.end.get())
    }

    fn key_end_of(tail: &Tail) -> Option<u64> {
        tail.key(KEY).map(|key| key.end.get())
    }

    #[test]
    fn what_the_read_model_holds_is_forgotten_and_nothing_else() {
        let mut tail = Tail::default();
        for (number, end) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
            tail.write(order(number, end), (number == 1).then_some((KEY, [0; 16])));
        }
        tail.keep();

        tail.evict(Offset::new(2), 1);
        assert_eq!(
            [1, 2, 3].map(|number| end_of(&tail, number)),
            [Some(3), Some(2), Some(4)]
        );
        tail.evict(Offset::new(2), 100);
        assert_eq!(
            [1, 2, 3].map(|number| end_of(&tail, number)),
            [Some(3), None, Some(4)]
        );
        assert_eq!(key_end_of(&tail), Some(3));

        tail.evict(Offset::new(4), 100);
        assert_eq!(
            (tail.orders.len(), tail.keys.len(), tail.touched.len()),
            (0, 0, 0)
        );
        assert_eq!(tail.evicted_to(), Offset::new(4));
    }

    #[test]
    fn a_rolled_back_batch_leaves_what_was_there_before_it() {
        let mut tail = Tail::default();
        tail.write(order(1, 1), Some((KEY, [1; 16])));
        tail.keep();

        tail.write(order(1, 2), Some((KEY, [2; 16])));
        tail.write(order(2, 3), None);
        tail.write(order(1, 4), Some((KEY, [3; 16])));
        tail.roll_back();

        assert_eq!([1, 2].map(|number| end_of(&tail, number)), [Some(1), None]);
        assert_eq!(tail.key(KEY).map(|key| key.fingerprint), Some([1; 16]));
        // The next batch begins where the failed one did, and all of it can be forgotten.
        tail.write(order(2, 2), None);
        tail.keep();
        tail.evict(Offset::new(2), 100);
        assert_eq!(
            (tail.orders.len(), tail.keys.len(), tail.touched.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn rolling_back_nothing_changes_nothing() {
        let mut tail = Tail::default();
        tail.write(order(1, 1), None);
        tail.keep();

        tail.roll_back();

        assert_eq!(end_of(&tail, 1), Some(1));
        tail.evict(Offset::new(1), 100);
        assert_eq!(end_of(&tail, 1), None);
    }
}
