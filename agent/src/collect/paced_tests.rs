//! Sources beside each other, with tokio's paused time.

use std::sync::atomic::{AtomicU32, Ordering};

use spillway_proto::Kind;

use super::*;
use crate::collect::tray::Sample;

struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        1_795_255_203_000 + self.boot_ms()
    }
    fn boot_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

fn surroundings() -> Surroundings {
    Surroundings {
        tray: Tray::new(1 << 20),
        clock: Arc::new(TestClock(tokio::time::Instant::now())),
        troubles: Troubles::default(),
        metrics: Metrics::for_tests(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Habit {
    Works,
    Hangs,
    Fails,
    Panics,
}

struct Odd(Habit, Arc<AtomicU32>);

#[async_trait]
impl Source for Odd {
    fn name(&self) -> String {
        format!("odd {}", self.0 as u8)
    }
    fn input(&self) -> &'static str {
        "odd"
    }
    fn pace(&self) -> Pace {
        Pace { interval: Duration::from_secs(5), deadline: Duration::from_secs(2) }
    }
    fn labels(&self) -> Labels {
        vec![("name".into(), self.name())]
    }
    async fn read(&mut self, ts_ms: i64, out: &mut Pack) -> Result<(), ReadError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        push(out, "said", ts_ms, 1.0);
        match self.0 {
            Habit::Works => Ok(()),
            Habit::Hangs => std::future::pending().await,
            Habit::Fails => Err(std::io::Error::other("no").into()),
            Habit::Panics => panic!("a bug in a source"),
        }
    }
    fn after(&mut self, done: Done, out: &mut Pack) {
        push(out, "up", done.ts_ms, f64::from(u8::from(done.ok)));
    }
}

fn push(out: &mut Pack, metric: &str, ts_ms: i64, value: f64) {
    let (labels, kind, unit) = (&[], Kind::Gauge, "1");
    out.push(&Sample { metric, labels, kind, unit, ts_ms, value }).unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_fails_or_panics_disturbs_no_other() {
    let surroundings = surroundings();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let reads = Arc::new(AtomicU32::new(0));
    let all = [Habit::Works, Habit::Hangs, Habit::Fails, Habit::Panics];
    let sources = all.map(|habit| Box::new(Odd(habit, Arc::clone(&reads))) as Box<dyn Source>);
    surroundings.start(sources.into(), &tasks, &stop);
    tokio::time::sleep(Duration::from_secs(31)).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    let packs = surroundings.tray.drain();
    let times = |name: &str, metric: &str, value: f64| {
        let all = packs.iter().flat_map(Pack::readings);
        let wanted =
            all.filter(|(_, r)| r.labels[0].1 == name && r.metric == metric && r.value == value);
        wanted.map(|(ts_ms, _)| ts_ms).collect::<Vec<_>>()
    };
    let good = times("odd 0", "said", 1.0);
    assert!((6..=7).contains(&good.len()), "{good:?}");
    assert!(good.windows(2).all(|two| two[1] - two[0] == 5_000), "evenly spaced: {good:?}");
    assert_eq!(times("odd 0", "up", 1.0), good);
    for failing in ["odd 1", "odd 2"] {
        assert!(times(failing, "up", 0.0).len() >= 5, "{failing}");
        assert!(times(failing, "said", 1.0).is_empty(), "half an answer is none");
    }
    let troubles = surroundings.troubles.now();
    assert_eq!(troubles.keys().collect::<Vec<_>>(), ["odd 1", "odd 2", "odd 3"]);
    assert!(troubles["odd 3"].contains("for good"), "{troubles:?}");
}

#[test]
fn sources_are_spread_over_their_interval() {
    let places: Vec<_> = (0..1_000).map(|n| offset(&format!("target-{n}"), 10_000)).collect();
    let early = places.iter().filter(|place| **place < 5_000).count();
    assert!((400..600).contains(&early), "{early}");
    assert!(places.iter().all(|place| (0..10_000).contains(place)));
}
