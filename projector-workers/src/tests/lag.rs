//! A lag that nobody knows does not look like none.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use order_log::{
    AppendTime, EventLog, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit,
};

use super::world::World;
use crate::LagClock;

/// A reading end whose disk can fail.
#[derive(Debug)]
struct Failing {
    log: Box<dyn PartitionReader>,
    fails: AtomicBool,
}

impl PartitionReader for Failing {
    fn partition(&self) -> PartitionId {
        self.log.partition()
    }

    fn start(&self) -> Offset {
        self.log.start()
    }

    fn durable_end(&self) -> Offset {
        self.log.durable_end()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.log.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(LogError::Io {
                action: "read",
                path: PathBuf::from("a segment"),
                source: std::io::Error::other("bad sector"),
            });
        }
        self.log.scan(from, limit, visit)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        self.log.seek_time(time)
    }
}

fn behind_a_failing_log() -> (World, Failing, Duration) {
    let mut world = World::new(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let age = Duration::from_secs(3_600);
    world.now_micros = u64::try_from((now - age).as_micros()).unwrap();
    world.place("c1", &[("A", 1, 10)]);
    world.flush();
    let log = world.log.reader(PartitionId::new(0)).unwrap();
    let fails = AtomicBool::new(false);
    (world, Failing { log, fails }, age)
}

#[test]
fn while_the_log_cannot_be_read_the_lag_goes_on_from_the_last_that_was_known() {
    let (_world, log, age) = behind_a_failing_log();
    let clock = LagClock::new(1);
    let known = clock.lag(0, &log, Offset::ZERO);
    assert!(known.age >= age && known.unreadable.is_none(), "{known:?}");

    log.fails.store(true, Ordering::Relaxed);
    let unknown = clock.lag(0, &log, Offset::ZERO);
    assert!(unknown.age >= known.age, "{unknown:?}");
    let reason = unknown.unreadable.unwrap();
    assert!(reason.contains("bad sector"), "{reason}");
    assert!(clock.lag(0, &log, Offset::ZERO).age >= unknown.age);

    log.fails.store(false, Ordering::Relaxed);
    let known = clock.lag(0, &log, Offset::ZERO);
    assert!(known.age >= age && known.unreadable.is_none(), "{known:?}");
}

#[test]
fn a_follower_that_has_everything_is_not_behind_a_log_that_cannot_be_read() {
    let (_world, log, _) = behind_a_failing_log();
    log.fails.store(true, Ordering::Relaxed);
    let lag = LagClock::new(1).lag(0, &log, log.durable_end());
    assert!(lag.age.is_zero() && lag.unreadable.is_none(), "{lag:?}");
}
