//! What is recorded of deliveries, in memory and in the store, in step: cursors, and orders that are kept aside.
//!
//! An order is kept aside as a whole. Its first event is tried again when due, or waits for an operator when dead; its
//! later events queue behind it, so that nobody ever sees an order's events in another order than its own. All other
//! orders go on.
//!
//! Changes are in memory at once and in the store's open transaction; [`Ledger::commit`] makes them last. After any error
//! the ledger must be dropped and opened anew: what was not committed is told again.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use order_domain::{OrderId, Version};
use order_log::{AppendTime, Offset, PartitionId};

use crate::log_event::LogEvent;
use crate::progress::{Progress, now_us};
use crate::store::{Cursor, HeldOrder, HeldState, Queue, Store};
use crate::{EventId, OutboxError};

/// Longest text of a failure that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 500;

/// What becomes of an order whose first event failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again after this time.
    Retry(Duration),
    /// Wait for an operator.
    Dead,
}

/// An order that is kept aside. The counts of the ledger are the sums over these.
#[derive(Debug)]
struct Held {
    state: HeldState,
    attempts: u32,
    /// When to try again; `None` while dead or being tried.
    due: Option<Instant>,
    queue: Queue,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    store: Store,
    cursors: Vec<Cursor>,
    orders: HashMap<OrderId, Held>,
    /// Orders to be tried again, by time.
    due: BTreeSet<(Instant, OrderId)>,
    /// Orders being retried, by the age of their first event.
    oldest: BTreeSet<(AppendTime, OrderId)>,
    retrying_events: u64,
    dead_events: u64,
}

impl Ledger {
    /// Opens the store and proves that it takes writes. No order is due later than `delay_max` from `now`, whatever the
    /// clock did since the time was written.
    pub(crate) fn open(
        directory: &Path,
        partitions: u16,
        now: Instant,
        delay_max: Duration,
    ) -> Result<Self, OutboxError> {
        Self::of_store(Store::open(directory, partitions)?, now, delay_max)
    }

    /// Opens the store if there is one, of whatever partition count, to look at it and redrive; nothing is sent.
    pub(crate) fn open_existing(directory: &Path) -> Result<Option<Self>, OutboxError> {
        let store = Store::open_existing(directory)?;
        store
            .map(|store| Self::of_store(store, Instant::now(), Duration::ZERO))
            .transpose()
    }

    fn of_store(mut store: Store, now: Instant, delay_max: Duration) -> Result<Self, OutboxError> {
        store.prove_writable()?;
        let mut ledger = Self {
            cursors: store.cursors()?,
            orders: HashMap::new(),
            due: BTreeSet::new(),
            oldest: BTreeSet::new(),
            retrying_events: 0,
            dead_events: 0,
            store,
        };
        let wall_now = now_us();
        for (order, queue) in ledger.store.held()? {
            let delay =
                Duration::from_micros(order.due_at_us.saturating_sub(wall_now)).min(delay_max);
            let due = (order.state == HeldState::Retrying).then(|| now + delay);
            let held = Held {
                state: order.state,
                attempts: order.attempts,
                due,
                queue,
            };
            ledger.put(order.order, held);
        }
        Ok(ledger)
    }

    /// Offset after the last event of a partition that is delivered or kept aside.
    pub(crate) fn cursor(&self, partition: PartitionId) -> Offset {
        self.cursors[partition.index()].next
    }

    /// The cursors, by partition.
    pub(crate) fn cursors(&self) -> &[Cursor] {
        &self.cursors
    }

    /// Remembers an event that is the very first of its partition, so that another log in this one's place is noticed.
    pub(crate) fn witness(&mut self, event: &LogEvent<'_>) -> Result<(), OutboxError> {
        let cursor = &mut self.cursors[event.partition.index()];
        if event.offset != Offset::ZERO || cursor.first_order.is_some() {
            return Ok(());
        }
        cursor.first_order = Some(event.id.order());
        self.store
            .set_first_order(event.partition, event.id.order())
    }

    /// Why this ledger is not one of the log, if `first` is the order of a partition's very first event.
    ///
    /// # Errors
    /// [`OutboxError::Incompatible`].
    pub(crate) fn check_log(
        &self,
        partition: PartitionId,
        first: OrderId,
    ) -> Result<(), OutboxError> {
        match self.cursors[partition.index()].first_order {
            Some(expected) if expected != first => Err(self.store.incompatible(format!(
                "belongs to another log: partition {partition} began with order {expected}, this log's with {first}; \
                 restore the one that belongs to this log, or move it away and every event is told again"
            ))),
            _ => Ok(()),
        }
    }

    /// Puts cursors of a log that was rewritten in place of those there are, and makes it last.
    pub(crate) fn relocate(&mut self, cursors: &[Offset]) -> Result<(), OutboxError> {
        self.store.replace_cursors(cursors)?;
        self.store.commit()?;
        self.cursors = self.store.cursors()?;
        Ok(())
    }

    /// Moves a cursor forward.
    pub(crate) fn advance(
        &mut self,
        partition: PartitionId,
        next: Offset,
    ) -> Result<(), OutboxError> {
        let cursor = &mut self.cursors[partition.index()].next;
        assert!(
            *cursor <= next,
            "the cursor of partition {partition} moved back from {cursor} to {next}"
        );
        if *cursor < next {
            *cursor = next;
            self.store.set_cursor(partition, next)?;
        }
        Ok(())
    }

    /// Whether an order is kept aside: its events must queue.
    pub(crate) fn holds(&self, order: OrderId) -> bool {
        self.orders.contains_key(&order)
    }

    /// Events kept aside that will be tried again.
    pub(crate) fn retrying_events(&self) -> u64 {
        self.retrying_events
    }

    /// Events that wait for an operator.
    pub(crate) fn dead_events(&self) -> u64 {
        self.dead_events
    }

    /// Failed tries of the first event of an order; 0 if the order is not kept aside.
    pub(crate) fn attempts(&self, order: OrderId) -> u32 {
        self.orders.get(&order).map_or(0, |held| held.attempts)
    }

    /// Keeps aside an event whose order is not, while it is on its way or just failed: what follows is
    /// [`Ledger::deliver`], [`Ledger::fail`] or [`Ledger::put_back`].
    pub(crate) fn set_aside(&mut self, event: &LogEvent<'_>) -> Result<(), OutboxError> {
        let order = event.id.order();
        assert!(!self.holds(order), "order {order} is kept aside already");
        self.store.hold_event(event)?;
        let queue = Queue {
            events: 1,
            oldest: event.appended_at,
        };
        let held = Held {
            state: HeldState::Retrying,
            attempts: 0,
            due: None,
            queue,
        };
        self.put(order, held);
        self.store.set_order(&HeldOrder {
            order,
            state: HeldState::Retrying,
            attempts: 0,
            due_at_us: now_us(),
            error: "on its way".to_owned(),
        })
    }

    /// Queues an event behind those of its order that are kept aside.
    pub(crate) fn queue(&mut self, event: &LogEvent<'_>) -> Result<(), OutboxError> {
        let order = event.id.order();
        if self.store.hold_event(event)? {
            self.change(order, |held| held.queue.events += 1);
        }
        Ok(())
    }

    /// Records that the first event of an order that is kept aside failed once more.
    pub(crate) fn fail(
        &mut self,
        order: OrderId,
        verdict: Verdict,
        error: &str,
        now: Instant,
    ) -> Result<(), OutboxError> {
        let (state, delay) = match verdict {
            Verdict::Retry(delay) => (HeldState::Retrying, delay),
            Verdict::Dead => (HeldState::Dead, Duration::ZERO),
        };
        let attempts = self.change(order, |held| {
            held.state = state;
            held.attempts = held.attempts.saturating_add(1);
            held.due = (state == HeldState::Retrying).then(|| now + delay);
            held.attempts
        });
        let delay_us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.store.set_order(&HeldOrder {
            order,
            state,
            attempts,
            due_at_us: now_us().saturating_add(delay_us),
            error: shortened(error).to_owned(),
        })
    }

    /// Records that the first event of an order that is kept aside was delivered. The next one, if there is one, is due
    /// at once with all its tries; otherwise the order is kept aside no more.
    pub(crate) fn deliver(&mut self, id: EventId, now: Instant) -> Result<(), OutboxError> {
        let order = id.order();
        self.store.drop_event(id)?;
        let Some(next) = self.store.first_event(order, Version::NONE)? else {
            self.take(order);
            return self.store.drop_order(order);
        };
        self.change(order, |held| {
            held.queue.events -= 1;
            held.queue.oldest = next.appended_at;
            held.attempts = 0;
            held.due = Some(now);
        });
        self.store.set_order(&HeldOrder {
            order,
            state: HeldState::Retrying,
            attempts: 0,
            due_at_us: now_us(),
            error: String::new(),
        })
    }

    /// Starts a try of the order that is due for longest: returns its first event, which is due no more. What follows is
    /// [`Ledger::deliver`], [`Ledger::fail`] or [`Ledger::put_back`].
    pub(crate) fn start_due(
        &mut self,
        now: Instant,
    ) -> Result<Option<LogEvent<'static>>, OutboxError> {
        let Some((_, order)) = self.due.first().copied().filter(|(due, _)| *due <= now) else {
            return Ok(None);
        };
        self.change(order, |held| held.due = None);
        let event = self.store.first_event(order, Version::NONE)?;
        Ok(Some(
            event.expect("an order that is kept aside has an event"),
        ))
    }

    /// Ends a try that came to nothing and is not the event's fault: it is due again.
    pub(crate) fn put_back(&mut self, order: OrderId, now: Instant) {
        self.change(order, |held| held.due = Some(now));
    }

    /// Why a target wants nothing any more, if it said so.
    pub(crate) fn disabled(&self, url: &str) -> Result<Option<String>, OutboxError> {
        self.store.disabled(url)
    }

    /// Remembers that a target wants nothing any more, or forgets it, with the next commit.
    pub(crate) fn set_disabled(
        &mut self,
        url: &str,
        reason: Option<&str>,
    ) -> Result<(), OutboxError> {
        self.store.set_disabled(url, reason)
    }

    /// Gives dead orders all their tries again, due at once: the order of `id`, or all. Returns the count of events, those
    /// that queue behind the dead ones included.
    ///
    /// # Errors
    /// [`OutboxError::NotHeld`] and [`OutboxError::NotDead`] for such an `id`.
    pub(crate) fn redrive(
        &mut self,
        which: Option<EventId>,
        now: Instant,
    ) -> Result<u64, OutboxError> {
        let dead: Vec<OrderId> = match which {
            Some(id) => {
                let held = self.orders.get(&id.order());
                let first = self.store.first_event(id.order(), id.version())?;
                match held {
                    Some(held) if first.is_some_and(|first| first.id == id) => {
                        if held.state != HeldState::Dead {
                            return Err(OutboxError::NotDead(id));
                        }
                        vec![id.order()]
                    }
                    _ => return Err(OutboxError::NotHeld(id)),
                }
            }
            None => {
                let dead = self
                    .orders
                    .iter()
                    .filter(|(_, held)| held.state == HeldState::Dead);
                dead.map(|(order, _)| *order).collect()
            }
        };
        let mut events = 0;
        for order in dead {
            events += self.change(order, |held| {
                held.state = HeldState::Retrying;
                held.attempts = 0;
                held.due = Some(now);
                held.queue.events
            });
            self.store.set_order(&HeldOrder {
                order,
                state: HeldState::Retrying,
                attempts: 0,
                due_at_us: now_us(),
                error: "redriven".to_owned(),
            })?;
        }
        Ok(events)
    }

    /// Makes all changes last. On return they are on stable storage, and shown, with the count of events beyond the cursor
    /// of each partition that need nothing more.
    pub(crate) fn commit(
        &mut self,
        progress: &Progress,
        settled: impl Fn(usize) -> u64,
    ) -> Result<(), OutboxError> {
        self.keep()?;
        for (partition, cursor) in self.cursors.iter().enumerate() {
            progress.set_cursor(partition, cursor.next, settled(partition));
        }
        let oldest = self.oldest.first().map(|(oldest, _)| *oldest);
        progress.set_held(self.retrying_events, oldest, self.dead_events);
        Ok(())
    }

    /// Makes all changes last without showing them: nothing runs that could be looked at.
    pub(crate) fn keep(&mut self) -> Result<(), OutboxError> {
        self.store.commit()
    }

    /// Changes an order that is kept aside; indexes and counts follow.
    fn change<T>(&mut self, order: OrderId, change: impl FnOnce(&mut Held) -> T) -> T {
        let mut held = self
            .take(order)
            .expect("only an order that is kept aside is changed");
        let result = change(&mut held);
        self.put(order, held);
        result
    }

    fn put(&mut self, order: OrderId, held: Held) {
        if let Some(due) = held.due {
            self.due.insert((due, order));
        }
        match held.state {
            HeldState::Retrying => {
                self.oldest.insert((held.queue.oldest, order));
                self.retrying_events += held.queue.events;
            }
            HeldState::Dead => self.dead_events += held.queue.events,
        }
        self.orders.insert(order, held);
    }

    fn take(&mut self, order: OrderId) -> Option<Held> {
        let held = self.orders.remove(&order)?;
        if let Some(due) = held.due {
            self.due.remove(&(due, order));
        }
        match held.state {
            HeldState::Retrying => {
                self.oldest.remove(&(held.queue.oldest, order));
                self.retrying_events -= held.queue.events;
            }
            HeldState::Dead => self.dead_events -= held.queue.events,
        }
        Some(held)
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
