//! When to try again: exponential backoff with full jitter.
//!
//! The delay before try n + 1 is random between 0 and min(cap, base · 2ⁿ). Full jitter spreads the retries of many orders
//! over the whole interval; equal or no jitter lets them come back together and fell the target once more.
//! Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

use std::time::Duration;

use crate::config::RetryConfig;

/// A source of delays. Seeded, so that a schedule can be repeated.
#[derive(Debug)]
pub(crate) struct Backoff {
    config: RetryConfig,
    random: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(config: RetryConfig, random: fastrand::Rng) -> Self {
        Self { config, random }
    }

    /// The delay after `failures` failed tries, `failures` ≥ 1.
    pub(crate) fn delay(&mut self, failures: u32) -> Duration {
        Duration::from_millis(self.random.u64(0..=self.ceiling_ms(failures)))
    }

    /// Whether `failures` failed tries were the last.
    pub(crate) fn exhausted(&self, failures: u32) -> bool {
        failures >= self.config.attempts
    }

    fn ceiling_ms(&self, failures: u32) -> u64 {
        let doublings = failures.saturating_sub(1);
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        self.config
            .base_ms
            .saturating_mul(factor)
            .min(self.config.cap_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(seed: u64) -> Backoff {
        let config = RetryConfig {
            attempts: 5,
            base_ms: 100,
            cap_ms: 1_000,
        };
        Backoff::new(config, fastrand::Rng::with_seed(seed))
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_never_overflows() {
        let ceilings: Vec<_> = (1..=6)
            .map(|failures| backoff(0).ceiling_ms(failures))
            .collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(backoff(0).ceiling_ms(64), 1_000);
        assert_eq!(backoff(0).ceiling_ms(u32::MAX), 1_000);
    }

    #[test]
    fn delays_fill_the_whole_interval_from_zero_to_the_ceiling() {
        let mut backoff = backoff(7);
        let delays: Vec<_> = (0..2_000).map(|_| backoff.delay(3).as_millis()).collect();
        assert!(delays.iter().all(|delay| *delay <= 400));
        for tenth in 0..10 {
            let range = tenth * 40..(tenth + 1) * 40;
            let hits = delays.iter().filter(|delay| range.contains(*delay)).count();
            assert!(
                hits > 100,
                "only {hits} of 2000 delays fell into {range:?} ms"
            );
        }
    }

    #[test]
    fn a_seed_repeats_its_schedule() {
        let schedule = |seed| {
            let mut backoff = backoff(seed);
            (1..=8)
                .map(|failures| backoff.delay(failures))
                .collect::<Vec<_>>()
        };
        assert_eq!(schedule(11), schedule(11));
        assert_ne!(schedule(11), schedule(12));
    }

    #[test]
    fn tries_end_with_the_configured_count() {
        assert!(!backoff(0).exhausted(4));
        assert!(backoff(0).exhausted(5));
    }
}
