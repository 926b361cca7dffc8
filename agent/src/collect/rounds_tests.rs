//! Rounds against a clock that tests can turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc::Receiver;

use super::*;
use crate::collect::{Input, InputError, Readings};
use crate::settings::StatsdSettings;

/// 2026-11-21 10:00:03 UTC.
const START_MS: i64 = 1_795_255_203_000;

/// A wall clock that runs with tokio's paused time and can be set.
#[derive(Clone)]
struct TestClock {
    start: tokio::time::Instant,
    set_by_ms: Arc<AtomicI64>,
}

impl TestClock {
    fn new() -> Self {
        Self { start: tokio::time::Instant::now(), set_by_ms: Arc::default() }
    }

    fn step(&self, ms: i64) {
        self.set_by_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        START_MS + self.boot_ms() + self.set_by_ms.load(Ordering::SeqCst)
    }

    fn boot_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap()
    }
}

struct Ones;
impl Input for Ones {
    fn name(&self) -> &'static str {
        "ones"
    }
    fn read(&mut self, out: &mut Readings) -> Result<(), InputError> {
        out.gauge("one", "1", 1.0);
        Ok(())
    }
}

struct Running {
    clock: TestClock,
    listener: Listener,
    metrics: Metrics,
    windows: Receiver<Window>,
    stop: CancellationToken,
}

fn start(interval: Duration) -> Running {
    let metrics = Metrics::for_tests();
    let listener = Listener::new(&StatsdSettings::default(), metrics.clone());
    let (sender, windows) = mpsc::channel(WINDOWS_WAITING_MAX);
    let (clock, stop) = (TestClock::new(), CancellationToken::new());
    let inputs: Vec<Box<dyn Input>> = vec![Box::new(Ones)];
    let rounds = Rounds {
        sampler: Sampler::new(inputs, Duration::from_secs(1), metrics.clone()),
        listener: listener.clone(),
        tray: Tray::new(1 << 20),
        interval,
        clock: clock.clone(),
        metrics: metrics.clone(),
        windows: sender,
    };
    tokio::spawn(rounds.run(stop.clone()));
    Running { clock, listener, metrics, windows, stop }
}

impl Running {
    /// Times of the points of `one` in the next window, in seconds after the full minute 10:00.
    async fn next(&mut self) -> Vec<f64> {
        let window = self.windows.recv().await.unwrap();
        let minute = START_MS - 3_000;
        let series = window.into_series().into_iter().filter(|series| series.metric == "one");
        let points = series.flat_map(|series| series.points);
        points.map(|point| (point.ts_ms - minute) as f64 / 1_000.0).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_window_comes_at_once_and_the_others_on_the_grid() {
    let mut running = start(Duration::from_secs(10));
    assert_eq!(running.next().await, [3.0]);
    assert_eq!(running.next().await, [10.0]);
    let now = running.clock.wall_ms() - START_MS + 3_000;
    assert!((10_000..10_100).contains(&now), "handed on after its last round: {now}");
    assert_eq!(running.next().await, [20.0]);
    assert_eq!(running.metrics.windows_late.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_short_interval_fills_each_window_with_evenly_spaced_points() {
    let mut running = start(Duration::from_secs(2));
    running.next().await;
    assert_eq!(running.next().await, [4.0, 6.0, 8.0]);
    assert_eq!(running.next().await, [10.0, 12.0, 14.0, 16.0, 18.0]);
}

#[tokio::test(start_paused = true)]
async fn a_window_comes_every_ten_seconds_even_without_a_sample() {
    let mut running = start(Duration::from_secs(30));
    running.next().await;
    assert_eq!(running.next().await, [0.0; 0]);
    assert_eq!(running.next().await, [0.0; 0]);
    assert_eq!(running.next().await, [30.0]);
}

#[tokio::test(start_paused = true)]
async fn rounds_go_on_by_whatever_the_clock_says() {
    let mut running = start(Duration::from_secs(10));
    running.next().await;
    for step in [3_600_000, -7_200_000, 3_600_000] {
        running.clock.step(step);
        running.next().await;
        let at = running.next().await;
        let now = running.clock.wall_ms() - (START_MS - 3_000);
        assert_eq!(at, [(now / 10_000 * 10) as f64]);
    }
    assert!(running.metrics.windows_late.get() > 0, "a jump is counted");
}

#[tokio::test(start_paused = true)]
async fn what_statsd_said_last_is_handed_on_when_the_agent_stops() {
    let mut running = start(Duration::from_secs(10));
    running.next().await;
    running.next().await;
    let aggregator = running.listener.clone();
    aggregator.take_for_tests(b"hits:1|c");
    running.stop.cancel();
    let last = running.windows.recv().await.unwrap().into_series();
    let names: Vec<_> = last.iter().map(|series| series.metric.as_str()).collect();
    assert_eq!(names, ["hits"]);
    assert!(running.windows.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn windows_that_nobody_takes_are_dropped_and_their_points_counted() {
    let running = start(Duration::from_secs(10));
    let dropped = Reason { reason: "disk-hangs" };
    let dropped = running.metrics.points_dropped.get_or_create(&dropped).clone();
    while dropped.get() == 0 {
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(running.windows.len(), WINDOWS_WAITING_MAX);
}
