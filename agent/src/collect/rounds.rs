//! The rounds: when inputs are read, and which window their readings belong to.
//!
//! Rounds lie on the wall clock's grid (a sample of 10:00:07 carries that time exactly), so that
//! equal spacing survives into storage. A window is handed on after its last round, not after
//! its last second: with one round a window, that is at once. Whatever the clock does (jumps,
//! steps back, a host that slept), the next round is found from what it says then.

use std::time::{Duration, Instant};

use spillway_proto::limits::WINDOW_MS;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::sample::Sampler;
use super::statsd::Listener;
use super::tray::{Pack, Tray};
use crate::assemble::Window;
use crate::clock::Clock;
use crate::metrics::{Metrics, Reason};

/// Windows that may wait for `assemble` (a disk that hangs): over a minute of them.
pub const WINDOWS_WAITING_MAX: usize = 8;

/// What the rounds need.
pub struct Rounds<C> {
    pub sampler: Sampler,
    pub listener: Listener,
    pub tray: Tray,
    pub interval: Duration,
    pub clock: C,
    pub metrics: Metrics,
    pub windows: mpsc::Sender<Window>,
}

/// The grid of rounds.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// Between two rounds, in ms; divides the window.
    round_ms: i64,
    /// Between two samples of the host, in ms; a multiple of `round_ms`.
    sample_ms: i64,
}

impl Grid {
    fn new(interval: Duration) -> Self {
        let sample_ms = i64::try_from(interval.as_millis()).unwrap_or(WINDOW_MS).max(1);
        Self { round_ms: sample_ms.min(WINDOW_MS), sample_ms }
    }

    fn round_at(self, wall_ms: i64) -> i64 {
        wall_ms.div_euclid(self.round_ms) * self.round_ms
    }

    fn samples_at(self, round: i64) -> bool {
        round.rem_euclid(self.sample_ms) == 0
    }

    fn is_last_of_window(self, round: i64) -> bool {
        (round + self.round_ms).rem_euclid(WINDOW_MS) < self.round_ms
    }
}

impl<C: Clock> Rounds<C> {
    /// Goes round until `stop`; then hands on what the last, unfinished window holds.
    pub async fn run(mut self, stop: CancellationToken) {
        let grid = Grid::new(self.interval);
        let mut window = Window::default();
        // Whoever starts an agent wants to see it at once, not after the next window.
        let started = self.clock.wall_ms();
        self.sample(&mut window, started).await;
        self.hand_on(&mut window, started, Tray::drain);
        let mut last_round = grid.round_at(started);
        while let Some(round) = self.next_round(grid, last_round, &stop).await {
            last_round = round;
            if grid.samples_at(round) {
                self.sample(&mut window, round).await;
            }
            if grid.is_last_of_window(round) {
                self.hand_on(&mut window, round, Tray::drain);
            }
        }
        // Not the time of the round before: a delta at the same time would replace it.
        let now = self.clock.wall_ms().max(last_round.max(started) + 1);
        // Whoever still wants to leave something is refused, and knows.
        self.hand_on(&mut window, now, Tray::close);
    }

    async fn sample(&mut self, window: &mut Window, ts_ms: i64) {
        for reading in self.sampler.sample().await {
            window.add(ts_ms, reading, &self.metrics);
        }
    }

    /// Waits for the round after `last`. None: the agent stops.
    async fn next_round(&mut self, grid: Grid, last: i64, stop: &CancellationToken) -> Option<i64> {
        loop {
            let wall = self.clock.wall_ms();
            let due = grid.round_at(wall) + grid.round_ms;
            let wait = Duration::from_millis(u64::try_from(due - wall).unwrap_or(0));
            stop.run_until_cancelled(tokio::time::sleep(wait)).await?;
            let now = self.clock.wall_ms();
            let round = grid.round_at(now);
            if round == last {
                // Timers may end a hair early; the round is not due yet.
                continue;
            }
            if now - round > grid.round_ms / 2 || round > due {
                self.metrics.windows_late.inc();
            }
            return Some(round);
        }
    }

    /// Ends the window with what StatsD said since the last one, and what lies in the tray.
    fn hand_on(&self, window: &mut Window, ts_ms: i64, take: impl Fn(&Tray) -> Vec<Pack>) {
        for reading in self.listener.flush() {
            window.add(ts_ms, reading, &self.metrics);
        }
        let mut window = std::mem::take(window);
        window.carry(take(&self.tray));
        window.end(ts_ms, self.clock.wall_ms(), self.clock.boot_ms(), Instant::now());
        if let Err(refused) = self.windows.try_send(window) {
            let points = refused.into_inner().points() as u64;
            let reason = Reason { reason: "disk-hangs" };
            self.metrics.points_dropped.get_or_create(&reason).inc_by(points);
            warn!(points, "the spool does not take batches; a window had to be dropped");
        }
    }
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
