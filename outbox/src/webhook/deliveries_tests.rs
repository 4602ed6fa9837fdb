//! Every schedule of failures, crashes and restarts, played with a clock and a target that exist only here.

use std::collections::BTreeSet;

use super::*;
use crate::config::WebhookConfig;
use crate::test_support::{OrderLog, line_added, order, placed};
use crate::webhook::test_world::{World, config, failed, id, refused};

/// Orders 0, 1, 2 … with versions 1 to `events` each, all in one partition.
fn interleaved(orders: u16, events: usize) -> OrderLog {
    let mut log = OrderLog::new(1);
    log.append_interleaved(orders, events);
    log
}

#[test]
fn one_event_of_an_order_is_on_its_way_at_a_time() {
    let mut world = World::new(interleaved(3, 2), config());
    assert_eq!(world.send(), [id(0, 1), id(1, 1), id(2, 1)]);
    world.settle(id(1, 1), &Outcome::Delivered);
    assert_eq!(world.send(), [id(1, 2)]);
}

#[test]
fn a_failing_order_waits_alone_and_goes_on_in_order() {
    let mut world = World::new(interleaved(3, 3), config());
    let mut delivered = Vec::new();
    for _ in 0..3 {
        for sent in world.send() {
            if sent.order() == order(0) {
                world.settle(sent, &failed());
            } else {
                world.settle(sent, &Outcome::Delivered);
                delivered.push(sent);
            }
        }
    }
    world.commit();
    assert_eq!(delivered.len(), 6, "the other orders are told in full");
    assert_eq!(world.cursor(), 9, "no cursor waits for the failing order");
    assert_eq!(
        world.progress.retrying(),
        3,
        "its later events queue behind the first"
    );
    world.log.append(order(0), &[line_added(9)]);
    assert_eq!(world.drain(), [id(0, 1), id(0, 2), id(0, 3), id(0, 4)]);
    assert_eq!(world.cursor(), 10);
}

#[test]
fn retries_follow_the_schedule_of_the_seed_to_the_millisecond() {
    let mut log = OrderLog::new(1);
    log.append(order(0), &[placed()]);
    let mut world = World::new(log, config());
    let mut expected = Backoff::new(config().retry, fastrand::Rng::with_seed(world.seed));
    assert_eq!(world.send(), [id(0, 1)]);
    for failures in 1..4 {
        assert!(matches!(
            world.settle(id(0, 1), &failed()),
            Some(Verdict::Retry(_))
        ));
        let delay = expected.delay(failures);
        if delay > Duration::ZERO {
            world.pass(delay - Duration::from_millis(1));
            assert_eq!(world.next(), None, "not before {delay:?}");
            world.pass(Duration::from_millis(1));
        }
        assert_eq!(world.next(), Some(id(0, 1)), "after {delay:?}");
    }
    assert_eq!(
        world.settle(id(0, 1), &failed()),
        Some(Verdict::Dead),
        "the 4th try is the last"
    );
}

#[test]
fn an_order_is_dead_after_its_tries_and_redriven_in_order_with_all_of_them() {
    let mut world = World::new(interleaved(1, 3), config());
    for _ in 0..4 {
        assert_eq!(world.send(), [id(0, 1)]);
        world.settle(id(0, 1), &failed());
        world.pass(Duration::from_secs(1));
    }
    world.commit();
    assert_eq!(world.send(), []);
    assert_eq!((world.progress.retrying(), world.progress.dead()), (0, 3));
    world.log.append(order(0), &[line_added(9)]);
    assert_eq!(world.send(), [], "what comes later queues behind the dead");

    let now = world.now();
    assert!(matches!(
        world.deliveries().redrive(Some(id(0, 9)), now),
        Err(OutboxError::NotHeld(_))
    ));
    assert_eq!(world.deliveries().redrive(Some(id(0, 2)), now).unwrap(), 4);
    assert!(matches!(
        world.deliveries().redrive(Some(id(0, 2)), now),
        Err(OutboxError::NotDead(_))
    ));
    assert_eq!(world.send(), [id(0, 1)]);
    assert!(matches!(
        world.settle(id(0, 1), &failed()),
        Some(Verdict::Retry(_))
    ));
    assert_eq!(world.drain(), [id(0, 1), id(0, 2), id(0, 3), id(0, 4)]);
    assert_eq!(world.progress.dead(), 0);
}

#[test]
fn what_does_not_decode_is_dead_at_once() {
    let mut world = World::new(interleaved(2, 1), config());
    world.send();
    let unreadable = Outcome::Unreadable {
        reason: "event type 999 is unknown".to_owned(),
    };
    assert_eq!(world.settle(id(0, 1), &unreadable), Some(Verdict::Dead));
}

#[test]
fn retry_after_is_waited_for_when_it_is_longer_than_the_backoff() {
    let mut world = World::new(interleaved(2, 1), config());
    assert_eq!(world.send(), [id(0, 1), id(1, 1)]);
    world.settle(id(0, 1), &refused(5_000, false));
    world.pass(Duration::from_millis(4_999));
    assert_eq!(world.next(), None);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.next(), Some(id(0, 1)));
}

#[test]
fn a_target_that_asks_to_be_left_alone_is_left_alone_with_everything() {
    let mut world = World::new(interleaved(3, 2), config());
    assert_eq!(world.send().len(), 3);
    world.settle(id(0, 1), &refused(5_000, true));
    world.settle(id(1, 1), &Outcome::Delivered);
    world.settle(id(2, 1), &refused(1_000, true));
    world.pass(Duration::from_millis(4_999));
    assert_eq!(world.send(), [], "the longest wish counts");
    world.pass(Duration::from_millis(1));
    let sent: BTreeSet<_> = world.send().into_iter().collect();
    assert_eq!(sent, BTreeSet::from([id(0, 1), id(1, 2), id(2, 1)]));
}

#[test]
fn a_target_that_is_gone_gets_nothing_until_it_is_enabled_across_restarts() {
    let gone = Outcome::Gone {
        reason: "answered 410 Gone".to_owned(),
    };
    let mut world = World::new(interleaved(2, 1), config());
    assert_eq!(world.send().len(), 2);
    world.settle(id(0, 1), &failed());
    world.settle(id(1, 1), &gone);
    world.deliveries().record_disabled("http://one").unwrap();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.send(), []);
    world.commit();
    assert_eq!(
        (world.progress.dead(), world.progress.retrying()),
        (0, 1),
        "410 uses no try up"
    );

    world.restart();
    world
        .deliveries()
        .recall_disabled("http://another")
        .unwrap();
    assert_eq!(
        world.deliveries().disabled(),
        None,
        "another target is another matter"
    );
    world.deliveries().recall_disabled("http://one").unwrap();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.send(), []);
    world.deliveries().enable();
    world.deliveries().record_disabled("http://one").unwrap();
    let sent: BTreeSet<_> = world.send().into_iter().collect();
    assert_eq!(sent, BTreeSet::from([id(0, 1), id(1, 1)]));
    world.commit();
    world.restart();
    world.deliveries().recall_disabled("http://one").unwrap();
    assert_eq!(world.deliveries().disabled(), None);
}

#[test]
fn an_event_that_hangs_holds_up_its_order_and_no_cursor() {
    let mut world = World::new(interleaved(3, 2), config());
    for sent in world.send() {
        if sent != id(0, 1) {
            world.settle(sent, &Outcome::Delivered);
        }
    }
    for sent in world.send() {
        world.settle(sent, &Outcome::Delivered);
    }
    world.commit();
    assert_eq!(world.cursor(), 0);
    assert_eq!(
        world.progress.pending(&world.readers),
        2,
        "four of six are delivered beyond the cursor"
    );
    world.pass(SLOW_AFTER);
    let now = world.now();
    world.deliveries().move_slow(now).unwrap();
    world.commit();
    assert_eq!(world.cursor(), 6);
    assert_eq!(world.progress.pending(&world.readers), 2);
    assert_eq!(world.send(), [], "it is on its way still");
    world.settle(id(0, 1), &Outcome::Delivered);
    assert_eq!(world.drain(), [id(0, 2)]);
}

#[test]
fn what_was_on_its_way_in_a_crash_is_sent_again() {
    let mut world = World::new(interleaved(2, 2), config());
    world.send();
    world.pass(SLOW_AFTER);
    let now = world.now();
    world.deliveries().move_slow(now).unwrap();
    world.commit();
    world.restart();
    let sent: BTreeSet<_> = world.send().into_iter().collect();
    assert_eq!(sent, BTreeSet::from([id(0, 1), id(1, 1)]));
}

#[test]
fn each_event_of_an_order_has_all_its_tries() {
    let mut world = World::new(interleaved(1, 2), config());
    for _ in 0..3 {
        assert_eq!(world.send(), [id(0, 1)]);
        world.settle(id(0, 1), &failed());
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.send(), [id(0, 1)]);
    world.settle(id(0, 1), &Outcome::Delivered);
    for tries in 1..4 {
        assert_eq!(world.send(), [id(0, 2)]);
        let verdict = world.settle(id(0, 2), &failed());
        assert!(matches!(verdict, Some(Verdict::Retry(_))), "try {tries}");
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.send(), [id(0, 2)]);
    assert_eq!(world.settle(id(0, 2), &failed()), Some(Verdict::Dead));
}

#[test]
fn retries_leave_half_of_the_room_to_what_is_new() {
    let mut config = config();
    config.webhook = WebhookConfig {
        in_flight_max: 4,
        ..WebhookConfig::default()
    };
    let mut world = World::new(interleaved(8, 1), config);
    for _ in 0..2 {
        for sent in world.send() {
            world.settle(sent, &failed());
        }
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.send().len(),
        2,
        "eight are due, and nothing is new yet"
    );
    for number in 8..12 {
        world.log.append(order(number), &[placed()]);
    }
    assert_eq!(world.send(), [id(8, 1), id(9, 1)]);
}

#[test]
fn nothing_new_is_read_while_too_much_is_kept_aside() {
    let mut config = config();
    config.retrying_events_max = 5;
    let mut world = World::new(interleaved(0, 0), config);
    for number in 0..200 {
        world.log.append(order(number), &[placed()]);
    }
    for sent in world.send() {
        world.settle(sent, &failed());
    }
    world.commit();
    let read = world.deliveries().windows[0].read_to;
    assert!(world.progress.retrying() >= 5);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.deliveries().room(PartitionId::new(0)), None);
    world.read();
    assert_eq!(world.deliveries().windows[0].read_to, read);
    assert_eq!(
        world.drain().len(),
        200,
        "once the target is well again, all of it"
    );
}

#[test]
fn the_window_is_bounded_whatever_the_backlog() {
    let mut world = World::new(interleaved(1_000, 3), config());
    world.read();
    assert!(world.deliveries().window_events <= WINDOW_EVENTS_MAX);
    assert!(world.deliveries().window_events > WINDOW_EVENTS_MAX - 2 * TURN_EVENTS_MAX);
    assert_eq!(world.drain().len(), 3_000);
    assert_eq!(
        (
            world.deliveries().window_events,
            world.deliveries().window_bytes
        ),
        (0, 0)
    );
    assert!(
        world.deliveries().waiting.is_empty() && world.deliveries().windows[0].frames.is_empty()
    );
}

/// What the other side has seen, and whether it was in order.
#[derive(Default)]
struct Receiver {
    latest: HashMap<OrderId, u32>,
}

impl Receiver {
    /// Takes an event: a repetition is fine, a gap is not.
    fn take(&mut self, id: EventId, seed: u64) {
        let latest = self.latest.entry(id.order()).or_default();
        let version = id.version().get();
        assert!(
            version <= *latest + 1,
            "seed {seed}: {id} was told after version {latest}"
        );
        *latest = version.max(*latest);
    }
}

/// Runs one random life: targets that fail, lie and hang, commits and crashes at any moment, time in jumps. In the end the
/// target is well, and what is dead is redriven.
fn live(seed: u64) {
    const ORDERS: u16 = 5;
    const EVENTS: u32 = 4;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut log = OrderLog::new(2);
    log.append_interleaved(ORDERS, EVENTS as usize);
    let mut world = World::new(log, config());
    let mut receiver = Receiver::default();
    let mut on_their_way = Vec::new();
    for _ in 0..80 {
        match random.u8(0..20) {
            0 => {
                world.seed = random.u64(..);
                world.restart();
                // Some of what was on its way arrives all the same.
                on_their_way.retain(|_| random.bool());
                on_their_way
                    .drain(..)
                    .for_each(|id| receiver.take(id, seed));
            }
            1..=3 => world.commit(),
            4 => {
                let now = world.now();
                world.deliveries().move_slow(now).unwrap();
            }
            5 => {
                let now = world.now();
                world.deliveries().redrive(None, now).unwrap();
            }
            6..=8 => world.pass(Duration::from_millis(random.u64(0..1_500))),
            9..=13 => on_their_way.extend(world.send()),
            _ if on_their_way.is_empty() => {}
            _ => {
                let id = on_their_way.swap_remove(random.usize(..on_their_way.len()));
                let outcome = match random.u8(0..10) {
                    0..=4 => Outcome::Delivered,
                    5..=7 => failed(),
                    8 => refused(random.u64(0..2_000), random.bool()),
                    _ => Outcome::Unreadable {
                        reason: "made up".to_owned(),
                    },
                };
                // A failure is no proof that nothing arrived.
                if outcome == Outcome::Delivered || (outcome == failed() && random.bool()) {
                    receiver.take(id, seed);
                }
                world.settle(id, &outcome);
            }
        }
    }
    for id in on_their_way {
        world.settle(id, &failed());
    }
    let now = world.now();
    world.deliveries().redrive(None, now).unwrap();
    world.commit();
    world.pass(Duration::from_secs(3));
    for id in world.drain() {
        receiver.take(id, seed);
    }
    for number in 0..ORDERS {
        assert_eq!(
            receiver.latest[&order(number)],
            EVENTS,
            "seed {seed}: order {number} is told in full"
        );
    }
    assert_eq!(world.progress.pending(&world.readers), 0, "seed {seed}");
    assert_eq!(world.progress.dead(), 0, "seed {seed}");
}

#[test]
fn no_life_of_failures_and_crashes_loses_an_event_or_an_orders_order() {
    for seed in 0..60 {
        live(seed);
    }
}
