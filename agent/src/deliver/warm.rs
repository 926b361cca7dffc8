//! Keeping the fallback warm: now and then one real batch goes over S3 as well, so that a broken
//! key, bucket or rule is found before the way is needed. The batch's custody is not touched, and
//! a point that comes twice is stored once.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A failed try is repeated after this, if that is sooner than the next turn.
const AGAIN_MS: i64 = 15 * 60 * 1_000;

/// When it is time, with the clock passed in, in ms.
#[derive(Debug)]
pub struct Warmth {
    every_ms: i64,
    /// The first batch of a run is due: a new configuration should show at once.
    due_ms: Mutex<i64>,
}

impl Warmth {
    pub fn new(every_ms: i64) -> Self {
        Self { every_ms: every_ms.max(1), due_ms: Mutex::new(i64::MIN) }
    }

    /// Whether it is time; then it is not, until the next turn.
    pub fn take_turn(&self, now_ms: i64) -> bool {
        let mut due_ms = self.due();
        let is_due = *due_ms <= now_ms;
        if is_due {
            *due_ms = now_ms.saturating_add(self.every_ms);
        }
        is_due
    }

    pub fn failed(&self, now_ms: i64) {
        let mut due_ms = self.due();
        *due_ms = now_ms.saturating_add(self.every_ms.min(AGAIN_MS));
    }

    fn due(&self) -> MutexGuard<'_, i64> {
        self.due_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_a_turn_and_an_early_next_one_after_a_failure() {
        let warmth = Warmth::new(6 * 3_600_000);
        assert!(warmth.take_turn(0));
        assert!(!warmth.take_turn(AGAIN_MS));
        warmth.failed(0);
        assert!(warmth.take_turn(AGAIN_MS));
        assert!(!warmth.take_turn(6 * 3_600_000));
    }
}
