//! Pauses between attempts: doubling, bounded, and jittered so that a fleet does not knock in step.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::outside;

/// An endless row of pauses. How often to try at all is the caller's own named limit.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    /// From about `min` up to `max`; `min` is raised to 1 ms and `max` to `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        let max = max.max(min);
        let builder = ExponentialBuilder::default()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        let builder = match outside::jitter_seed() {
            Some(seed) => builder.with_jitter_seed(seed),
            None => builder,
        };
        Self { builder, pauses: builder.build(), max }
    }

    /// The next pause, never longer than `max`.
    pub fn next_delay(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.max).min(self.max)
    }

    /// After a success: the next failure starts small again.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_start_small_again_after_a_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        let first = backoff.next_delay();
        assert!(first >= min && first <= 2 * min, "{first:?}");
        let all: Vec<_> = (0..1_000).map(|_| backoff.next_delay()).collect();
        assert!(all.iter().all(|pause| *pause <= max));
        assert_eq!(all.last(), Some(&max));
        backoff.reset();
        assert!(backoff.next_delay() <= 2 * min);
    }
}
