//! How old the oldest event is that was not applied, also while the log does not tell: an age that nobody knows must not
//! look like none.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use order_log::{AppendTime, LogError, Offset, PartitionReader, ScanLimit};

/// How far something that follows the log is behind it.
#[derive(Debug, Clone)]
pub struct Lag {
    /// Age of the oldest record not applied; zero when there is none. While the log cannot be read: the time since all
    /// that there was had been applied, as far as anybody knows, which is as old as that record can be.
    pub age: Duration,
    /// Why the log cannot be read, if so.
    pub unreadable: Option<String>,
}

/// Remembers for each of some followers up to when it is known to have had everything.
#[derive(Debug)]
pub struct LagClock {
    started: Instant,
    /// Microseconds since the start, negative before it; everything appended before was applied.
    fresh_until: Box<[AtomicI64]>,
}

impl LagClock {
    /// A clock for this many followers, numbered from 0.
    #[must_use]
    pub fn new(followers: usize) -> Self {
        Self {
            started: Instant::now(),
            fresh_until: (0..followers).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    /// How far a follower at `checkpoint` is behind the log.
    ///
    /// # Panics
    /// If there is no follower of this number.
    pub fn lag(&self, follower: usize, log: &dyn PartitionReader, checkpoint: Offset) -> Lag {
        let age = if checkpoint >= log.durable_end() {
            Ok(Duration::ZERO)
        } else {
            appended_at(log, checkpoint).map(|oldest| oldest.map_or(Duration::ZERO, age_of))
        };
        self.settle(&self.fresh_until[follower], age)
    }

    fn settle(&self, fresh_until: &AtomicI64, age: Result<Duration, LogError>) -> Lag {
        let now = micros(self.started.elapsed());
        match age {
            Ok(age) => {
                fresh_until.store(now - micros(age), Ordering::Relaxed);
                Lag {
                    age,
                    unreadable: None,
                }
            }
            Err(error) => {
                let behind = now - fresh_until.load(Ordering::Relaxed);
                Lag {
                    age: Duration::from_micros(u64::try_from(behind).unwrap_or(0)),
                    unreadable: Some(error.to_string()),
                }
            }
        }
    }
}

/// When the frame at an offset was appended; `None` if there is none yet.
fn appended_at(log: &dyn PartitionReader, base: Offset) -> Result<Option<AppendTime>, LogError> {
    let mut found = None;
    let one = ScanLimit {
        records: 1,
        ..ScanLimit::NONE
    };
    log.scan(base, one, &mut |frame| {
        found = Some(frame.appended_at);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

fn age_of(time: AppendTime) -> Duration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.saturating_sub(Duration::from_micros(time.as_micros()))
}

/// Far from the ends of the range: ages are at most the time since 1970.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}
