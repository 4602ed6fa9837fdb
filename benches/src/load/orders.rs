//! The orders a run knows: made by it, acknowledged to it. Bounded, whatever the run's length.

use std::collections::VecDeque;

use super::operation::Operation;
use crate::sample::Chance;

/// Most orders that reads choose from; beyond it a new one takes a random place.
const READABLE_MAX: usize = 100_000;
/// Most orders that wait for their next step; beyond it new ones are only read.
const OPEN_MAX: usize = 100_000;

/// Most orders looked at to find one that can be cancelled.
const LOOKED_AT_MAX: usize = 64;

/// An order that can go a step further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenOrder {
    pub(super) id: String,
    pub(super) version: u32,
    /// Minor units: what has to be paid.
    pub(super) total: i64,
    /// The step that comes next.
    pub(super) step: Operation,
}

/// The known orders. An open order is taken out while a request about it is on its way, so that no two steps of one order
/// race.
#[derive(Debug, Default)]
pub(super) struct KnownOrders {
    readable: Vec<String>,
    open: VecDeque<OpenOrder>,
}

impl KnownOrders {
    /// These, of which nothing is known but that they can be read.
    pub(super) fn of(mut readable: Vec<String>) -> Self {
        readable.truncate(READABLE_MAX);
        Self {
            readable,
            open: VecDeque::new(),
        }
    }

    /// Remembers a new order.
    pub(super) fn made(&mut self, order: OpenOrder, chance: &mut Chance) {
        if self.readable.len() < READABLE_MAX {
            self.readable.push(order.id.clone());
        } else {
            self.readable[chance.below(READABLE_MAX)].clone_from(&order.id);
        }
        self.reopen(order);
    }

    /// Gives back an order with the step that comes next.
    pub(super) fn reopen(&mut self, order: OpenOrder) {
        if self.open.len() < OPEN_MAX {
            self.open.push_back(order);
        }
    }

    /// Takes the order that waited longest for its next step.
    pub(super) fn take_open(&mut self) -> Option<OpenOrder> {
        self.open.pop_front()
    }

    /// Takes an order that was not shipped, of those that waited longest.
    pub(super) fn take_cancellable(&mut self) -> Option<OpenOrder> {
        let place = self
            .open
            .iter()
            .take(LOOKED_AT_MAX)
            .position(|order| order.step != Operation::Deliver)?;
        self.open.remove(place)
    }

    /// Any known order.
    pub(super) fn any(&self, chance: &mut Chance) -> Option<String> {
        self.readable
            .get(chance.below(self.readable.len()))
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: usize) -> OpenOrder {
        OpenOrder {
            id: id.to_string(),
            version: 1,
            total: 1,
            step: Operation::Confirm,
        }
    }

    #[test]
    fn an_order_on_its_way_is_not_given_out_twice() {
        let mut orders = KnownOrders::default();
        let mut chance = Chance::new(1);
        assert_eq!(orders.any(&mut chance), None);
        orders.made(order(1), &mut chance);
        assert_eq!(orders.take_open(), Some(order(1)));
        assert_eq!(orders.take_open(), None);
        assert_eq!(orders.any(&mut chance), Some("1".to_owned()));
        orders.reopen(order(1));
        assert_eq!(orders.take_open(), Some(order(1)));
    }

    #[test]
    fn an_order_that_was_shipped_is_not_cancelled() {
        let mut orders = KnownOrders::default();
        orders.reopen(OpenOrder {
            step: Operation::Deliver,
            ..order(1)
        });
        assert_eq!(orders.take_cancellable(), None);
        orders.reopen(order(2));
        assert_eq!(orders.take_cancellable(), Some(order(2)));
        assert_eq!(orders.open.len(), 1);
    }

    #[test]
    fn an_order_that_was_there_before_is_read_and_not_taken_further() {
        let mut orders = KnownOrders::of(vec!["7".to_owned()]);
        let mut chance = Chance::new(1);
        assert_eq!(orders.any(&mut chance), Some("7".to_owned()));
        assert_eq!(orders.take_open(), None);
        let many = (0..=READABLE_MAX).map(|id| id.to_string()).collect();
        assert_eq!(KnownOrders::of(many).readable.len(), READABLE_MAX);
    }

    #[test]
    fn memory_stays_bounded() {
        let mut orders = KnownOrders::default();
        let mut chance = Chance::new(1);
        for number in 0..READABLE_MAX + 1_000 {
            orders.made(order(number), &mut chance);
        }
        assert_eq!(orders.readable.len(), READABLE_MAX);
        assert_eq!(orders.open.len(), OPEN_MAX);
    }
}
