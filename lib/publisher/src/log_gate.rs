//! Lets the first few lines of a flood through and says how many it held back: in an outage the
//! same error comes thousands of times a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that pass in each [`PERIOD`].
const LINES_PER_PERIOD: u32 = 3;
/// After it lines pass again.
const PERIOD: Duration = Duration::from_secs(30);

/// One flood's gate; a place that logs has its own.
#[derive(Debug, Default)]
pub struct LogGate(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    passed: u32,
    held: u64,
}

impl LogGate {
    /// `Some(n)`: log the line, and say that `n` were held back since the last one. `None`: don't.
    #[must_use]
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.is_none_or(|began| now.saturating_duration_since(began) >= PERIOD) {
            window.began = Some(now);
            window.passed = 0;
        }
        if window.passed < LINES_PER_PERIOD {
            window.passed += 1;
            return Some(std::mem::take(&mut window.held));
        }
        window.held += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_and_a_true_count() {
        let (gate, now) = (LogGate::default(), Instant::now());
        let passed = (0..1_000).filter(|_| gate.pass_at(now).is_some()).count();
        assert_eq!(passed, 3);
        assert_eq!(gate.pass_at(now + PERIOD), Some(997));
    }
}
