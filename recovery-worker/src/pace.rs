//! How fast objects may be read: a steady number of bytes a second, so that what drains the past
//! never crowds out the present.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A quiet time saves up at most this much.
const SAVED_MAX: Duration = Duration::from_secs(1);

/// A pace that all objects in flight share.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When all that was let through so far would have passed at this pace.
    paid_until: Mutex<Option<Instant>>,
}

impl Pace {
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: Mutex::new(None) }
    }

    /// Waits until these bytes may be read. Dropping the wait gives nothing back.
    pub async fn pass(&self, bytes: u64) {
        tokio::time::sleep_until(self.book(bytes, Instant::now())).await;
    }

    fn book(&self, bytes: u64, now: Instant) -> Instant {
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = now.checked_sub(SAVED_MAX).unwrap_or(now);
        let start = paid_until.unwrap_or(floor).max(floor);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        *paid_until = Some(start + takes);
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_at_the_stated_pace_and_idleness_saves_one_second() {
        let (pace, now) = (Pace::new(1_000), Instant::now() + Duration::from_secs(100));
        let waits: Vec<Duration> =
            (0..5).map(|_| pace.book(1_000, now).saturating_duration_since(now)).collect();
        let seconds: Vec<u64> = waits.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 0, 1, 2, 3]);
    }
}
