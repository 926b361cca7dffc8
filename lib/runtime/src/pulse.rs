//! Signs of life of a program's parts. What waits for ever without a word stands still in silence;
//! a program that notices it ends, and its supervisor starts it again: every program here may be
//! killed at any moment, so that an end is always safe and a standstill never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One part's sign of life; clones share it.
#[derive(Debug, Clone)]
pub struct Pulse {
    name: Arc<str>,
    beats: Arc<AtomicU64>,
}

impl Pulse {
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), beats: Arc::default() }
    }

    /// Says that the part goes on. Cheap enough for every turn of a loop.
    pub fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// Waits until one of `pulses` has not beaten at so many looks in a row, and returns its name.
/// Never returns while all of them live.
///
/// Looks are counted, not time: a process that was frozen for an hour has missed one look.
pub async fn stopped(pulses: &[Pulse], every: Duration, looks: u32) -> Arc<str> {
    let mut seen: Vec<(u64, u32)> = pulses.iter().map(|pulse| (pulse.beats(), 0)).collect();
    loop {
        tokio::time::sleep(every).await;
        for (pulse, (before, still)) in pulses.iter().zip(&mut seen) {
            let now = pulse.beats();
            *still = if now == *before { *still + 1 } else { 0 };
            *before = now;
            if *still >= looks {
                return Arc::clone(&pulse.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn the_part_that_has_stopped_is_named_and_a_slow_one_is_not() {
        let (slow, dead) = (Pulse::new("slow"), Pulse::new("dead"));
        let pulses = [slow.clone(), dead];
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY * 3).await;
                slow.beat();
            }
        });
        let began = tokio::time::Instant::now();
        assert_eq!(&*stopped(&pulses, EVERY, 4).await, "dead");
        assert_eq!(began.elapsed(), EVERY * 4);
        beating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_named_while_all_beat() {
        let pulse = Pulse::new("worker");
        let beating = pulse.clone();
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                beating.beat();
            }
        });
        let pulses = [pulse];
        let hour = Duration::from_secs(3_600);
        assert!(tokio::time::timeout(hour, stopped(&pulses, EVERY, 4)).await.is_err());
        beating.abort();
    }
}
