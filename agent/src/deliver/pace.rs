//! The backlog's pace: so many batches a second, saved up for a moment at most.

/// Seconds of pace that may be saved up.
const SAVED_S_MAX: f64 = 2.0;

/// A token bucket with the clock passed in, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    per_s: f64,
    saved: f64,
    at_ms: i64,
}

impl Pace {
    pub fn new(per_s: f64, now_ms: i64) -> Self {
        let per_s = per_s.max(f64::MIN_POSITIVE);
        Self { per_s, saved: (per_s * SAVED_S_MAX).max(1.0), at_ms: now_ms }
    }

    /// How many may go now; if none, when to ask again.
    pub fn allowed(&mut self, now_ms: i64) -> Result<usize, i64> {
        let passed_s = now_ms.saturating_sub(self.at_ms).max(0) as f64 / 1_000.0;
        self.at_ms = self.at_ms.max(now_ms);
        let most = (self.per_s * SAVED_S_MAX).max(1.0);
        self.saved = (self.saved + passed_s * self.per_s).min(most);
        if self.saved >= 1.0 {
            return Ok(self.saved as usize);
        }
        let wait_ms = (1.0 - self.saved) / self.per_s * 1_000.0;
        Err(now_ms.saturating_add((wait_ms.ceil() as i64).max(1)))
    }

    /// So many went.
    pub fn spend(&mut self, count: usize) {
        self.saved = (self.saved - count as f64).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_goes_over_any_longer_time() {
        let (mut pace, mut now, mut sent) = (Pace::new(20.0, 0), 0, 0);
        while now < 60_000 {
            match pace.allowed(now) {
                Ok(count) => {
                    sent += count;
                    pace.spend(count);
                }
                Err(until_ms) => {
                    assert!(until_ms > now);
                    now = until_ms;
                }
            }
        }
        assert!((1_200..=1_240).contains(&sent), "{sent}");
    }

    #[test]
    fn a_slow_pace_still_moves_and_a_clock_that_steps_back_is_no_harm() {
        let mut pace = Pace::new(0.1, 1_000);
        assert_eq!(pace.allowed(1_000), Ok(1));
        pace.spend(1);
        assert!(pace.allowed(0).is_err());
        assert_eq!(pace.allowed(12_000), Ok(1));
    }
}
