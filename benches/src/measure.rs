//! Contestants in turn: A B A B …, so that whatever disturbs the machine disturbs all of them alike.
//!
//! The ratio to the reference is taken within each round and then its median: a slow minute moves both sides of it.

use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// What one run of one contestant gave.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Units of work a second.
    pub per_second: f64,
    /// How long one operation took, where that was looked at.
    pub latency: Option<Latency>,
}

impl Sample {
    /// `count` units of work in `elapsed`.
    #[must_use]
    pub fn rate(count: u64, elapsed: Duration) -> Self {
        Self {
            per_second: per_second(count, elapsed),
            latency: None,
        }
    }

    /// The same with the latencies of the operations.
    #[must_use]
    pub fn with_latency(count: u64, elapsed: Duration, histogram: &Histogram<u64>) -> Self {
        Self {
            per_second: per_second(count, elapsed),
            latency: Some(Latency {
                p50_us: micros(histogram.value_at_quantile(0.50)),
                p99_us: micros(histogram.value_at_quantile(0.99)),
            }),
        }
    }
}

/// Quantiles of the time one operation took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Median, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
}

/// `count` a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures are read to three digits"
)]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures are read to three digits"
)]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// Longest time a histogram of [`latencies`] tells apart, in nanoseconds.
const LATENCY_NANOS_MAX: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds with two significant digits: small enough to have one a task.
#[must_use]
pub fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_NANOS_MAX, 2)
        .expect("two digits up to a minute is a valid histogram")
}

/// Nanoseconds, for a histogram.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Repeats `operation`, which does and returns some units of work, until `duration` passed; at least once.
///
/// # Errors
/// The first error of `operation`.
pub fn repeat_for(
    duration: Duration,
    mut operation: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<Sample> {
    let mut latency = latencies();
    let start = Instant::now();
    let mut before = start;
    let mut count = 0;
    loop {
        count += operation()?;
        let after = Instant::now();
        latency.saturating_record(nanos(after - before));
        before = after;
        if after - start >= duration {
            return Ok(Sample::with_latency(count, after - start, &latency));
        }
    }
}

/// A run of one contestant.
pub type Run<'a> = Box<dyn FnMut() -> anyhow::Result<Sample> + 'a>;

/// One piece of work and who does it; the first contestant is the reference.
pub struct Contest<'a> {
    work: String,
    unit: &'static str,
    contestants: Vec<Contestant<'a>>,
}

struct Contestant<'a> {
    name: String,
    goal: Option<&'static str>,
    run: Run<'a>,
}

impl fmt::Debug for Contest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Contest")
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl<'a> Contest<'a> {
    /// A contest about `work`, measured in `unit` a second.
    #[must_use]
    pub fn new(work: impl Into<String>, unit: &'static str) -> Self {
        Self {
            work: work.into(),
            unit,
            contestants: Vec::new(),
        }
    }

    /// Adds a contestant that is only looked at.
    #[must_use]
    pub fn against(
        self,
        name: impl Into<String>,
        run: impl FnMut() -> anyhow::Result<Sample> + 'a,
    ) -> Self {
        self.with_goal(name, None, run)
    }

    /// Adds a contestant that may have a goal, in words, for its ratio to the reference.
    #[must_use]
    pub fn with_goal(
        mut self,
        name: impl Into<String>,
        goal: impl Into<Option<&'static str>>,
        run: impl FnMut() -> anyhow::Result<Sample> + 'a,
    ) -> Self {
        self.contestants.push(Contestant {
            name: name.into(),
            goal: goal.into(),
            run: Box::new(run),
        });
        self
    }

    /// Runs every contestant once a round.
    ///
    /// # Errors
    /// The first error of a contestant.
    pub fn run(mut self, rounds: usize) -> anyhow::Result<Vec<Row>> {
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); self.contestants.len()];
        for _ in 0..rounds {
            for (contestant, samples) in self.contestants.iter_mut().zip(&mut samples) {
                samples.push((contestant.run)()?);
            }
        }
        let reference = samples.first().cloned().unwrap_or_default();
        Ok(self
            .contestants
            .into_iter()
            .zip(samples)
            .enumerate()
            .map(|(place, (contestant, samples))| Row {
                work: self.work.clone(),
                who: contestant.name,
                unit: self.unit.to_owned(),
                per_second: Spread::of(samples.iter().map(|sample| sample.per_second)),
                ratio: (place > 0).then(|| {
                    Spread::of(
                        samples
                            .iter()
                            .zip(&reference)
                            .map(|(sample, reference)| sample.per_second / reference.per_second),
                    )
                }),
                goal: contestant.goal.map(str::to_owned),
                p50_us: latency_spread(&samples, |latency| latency.p50_us),
                p99_us: latency_spread(&samples, |latency| latency.p99_us),
            })
            .collect())
    }
}

fn latency_spread(samples: &[Sample], quantile: fn(&Latency) -> f64) -> Option<Spread> {
    let values: Vec<f64> = samples
        .iter()
        .filter_map(|s| s.latency.as_ref().map(quantile))
        .collect();
    (!values.is_empty()).then(|| Spread::of(values))
}

/// What all rounds of one contestant gave.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The work.
    pub work: String,
    /// Who did it.
    pub who: String,
    /// What is counted.
    pub unit: String,
    /// Units a second.
    pub per_second: Spread,
    /// Of the reference's units a second in the same round; `None` for the reference.
    pub ratio: Option<Spread>,
    /// What the ratio is to reach.
    pub goal: Option<String>,
    /// Median latency of one operation, in microseconds.
    pub p50_us: Option<Spread>,
    /// 99th percentile of the latency of one operation, in microseconds.
    pub p99_us: Option<Spread>,
}

/// The median of all rounds, and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value; of an even count, the mean of the two in the middle.
    pub median: f64,
    /// The least value.
    pub low: f64,
    /// The greatest value.
    pub high: f64,
}

impl Spread {
    /// The spread of `values`; all NaN if there is none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&low), Some(&high)) = (values.first(), values.last()) else {
            return Self {
                median: f64::NAN,
                low: f64::NAN,
                high: f64::NAN,
            };
        };
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Self { median, low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(per_second: f64) -> Sample {
        Sample {
            per_second,
            latency: None,
        }
    }

    #[test]
    fn the_ratio_is_taken_within_a_round_so_that_a_slow_round_does_not_move_it() {
        let mut reference = [100.0, 10.0, 100.0].into_iter();
        let mut subject = [50.0, 5.0, 50.0].into_iter();
        let rows = Contest::new("work", "things")
            .against("reference", || Ok(at(reference.next().unwrap())))
            .with_goal("subject", "a half", || Ok(at(subject.next().unwrap())))
            .run(3)
            .unwrap();
        assert_eq!(rows[0].ratio, None);
        assert_eq!(
            rows[1].ratio,
            Some(Spread {
                median: 0.5,
                low: 0.5,
                high: 0.5
            })
        );
        assert_eq!(
            rows[1].per_second,
            Spread {
                median: 50.0,
                low: 5.0,
                high: 50.0
            }
        );
    }

    #[test]
    fn contestants_take_turns() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |name: char| {
            order.borrow_mut().push(name);
            Ok(at(1.0))
        };
        Contest::new("work", "things")
            .against("a", || turn('a'))
            .against("b", || turn('b'))
            .run(3)
            .unwrap();
        assert_eq!(*order.borrow(), "ababab");
    }

    #[test]
    fn the_median_of_an_even_count_lies_between_the_two_in_the_middle() {
        assert_eq!(
            Spread::of([4.0, 1.0, 3.0, 2.0]),
            Spread {
                median: 2.5,
                low: 1.0,
                high: 4.0
            }
        );
    }

    #[test]
    fn work_is_repeated_at_least_once() {
        let mut calls = 0;
        repeat_for(Duration::ZERO, || {
            calls += 1;
            Ok(1)
        })
        .unwrap();
        assert_eq!(calls, 1);
    }
}
