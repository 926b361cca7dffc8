//! What becomes of a window: its batches, their seqs, and what they must carry.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use spillway_proto::BatchId;
use spillway_proto::frame::Decoder;
use spillway_proto::kafka_record::Lane;

use super::*;
use crate::collect::tray::{Sample, Tray};
use crate::collect::{Labels, Reading};
use crate::identity::Binding;
use crate::settings::{Settings, SpoolKind};
use crate::spool::{Opened, Wish};

const WINDOW_TS: u32 = 1_795_255_200;

struct House {
    _dir: tempfile::TempDir,
    assembler: Assembler,
    identity: Arc<Identity>,
    spool: Spool,
    metrics: Metrics,
}

fn house() -> House {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.spool.kind = SpoolKind::Memory;
    let metrics = Metrics::for_tests();
    let Opened { spool, .. } =
        Spool::open(&settings, dir.path(), &metrics, &HashSet::new()).unwrap();
    let binding = Binding { environment: "demo".to_owned(), host: "web-1".to_owned() };
    let seen = BTreeMap::new();
    let identity = Identity::open(dir.path(), binding, &seen, metrics.clone()).unwrap();
    let identity = Arc::new(identity);
    let assembler = Assembler::new(Parts {
        identity: Arc::clone(&identity),
        spool: spool.clone(),
        delivery: Arc::new(DeliveryStatus::new()),
        metrics: metrics.clone(),
        labels: vec![("region".to_owned(), "eu".to_owned())],
        spread: Duration::ZERO,
    });
    House { _dir: dir, assembler, identity, spool, metrics }
}

fn reading(metric: &str, value: f64) -> Reading {
    let metric = Cow::Owned(metric.to_owned());
    Reading { metric, labels: Labels::new(), kind: Kind::Gauge, unit: "1", value }
}

fn window(readings: impl IntoIterator<Item = Reading>) -> Window {
    let ts_ms = i64::from(WINDOW_TS) * 1_000;
    let mut window = Window::default();
    readings.into_iter().for_each(|reading| window.add(ts_ms, reading, &Metrics::for_tests()));
    window.end(ts_ms, ts_ms, 1_000, Instant::now());
    window
}

impl House {
    /// Runs the assembler over `windows` and takes all batches out of the spool.
    async fn run(self, windows: Vec<Window>) -> (Vec<Batch>, Metrics, Arc<Identity>) {
        let (sender, receiver) = mpsc::channel(windows.len().max(1));
        for window in windows {
            sender.send(window).await.unwrap();
        }
        drop(sender);
        self.assembler.run(receiver).await;
        let log: Arc<dyn CustodyLog> = self.identity.clone();
        let wish = Wish { lane: Lane::Live, bytes_max: usize::MAX, batches_max: usize::MAX };
        let mut batches = Vec::new();
        for in_hand in self.spool.take(wish, &log).await {
            batches.push(Decoder::new().decode(in_hand.frame()).unwrap().to_batch());
            in_hand.acked();
        }
        batches.sort_by_key(|batch| match batch.id {
            BatchId::Sequenced { epoch, seq, .. } => (epoch, seq),
            BatchId::Content { .. } => panic!("an agent's batch has a seq"),
        });
        (batches, self.metrics, self.identity)
    }
}

fn seqs(batches: &[Batch]) -> Vec<u64> {
    let seq = |batch: &Batch| match batch.id {
        BatchId::Sequenced { seq, .. } => seq,
        BatchId::Content { .. } => 0,
    };
    batches.iter().map(seq).collect()
}

#[tokio::test]
async fn an_empty_window_is_a_heartbeat_and_the_last_batch_closes_the_epoch() {
    let (batches, metrics, identity) = house().run(vec![window([]), window([])]).await;
    assert_eq!(seqs(&batches), [1, 2, 3]);
    for batch in &batches[..2] {
        assert_eq!(batch.series.len(), 1);
        assert_eq!((batch.series[0].metric.as_str(), batch.window_ts), (HEARTBEAT, WINDOW_TS));
        assert!(!batch.closing);
    }
    let closing = &batches[2];
    assert!(closing.closing && closing.series.is_empty());
    assert_eq!(identity.position().1, 3, "the closing record carries the final seq");
    assert_eq!((metrics.batches_emitted.get(), metrics.points_emitted.get()), (3, 2));
}

#[tokio::test]
async fn a_batch_holds_what_was_read_and_belongs_to_environment_and_host() {
    let (batches, ..) = house().run(vec![window([reading("a", 1.5), reading("b", 2.0)])]).await;
    let batch = &batches[0];
    assert_eq!((batch.environment.as_str(), batch.host.as_str()), ("demo", "web-1"));
    let values: BTreeMap<_, _> =
        batch.series.iter().map(|s| (s.metric.as_str(), s.points[0].value)).collect();
    assert_eq!(values, BTreeMap::from([("a", 1.5), ("b", 2.0), (HEARTBEAT, 1.0)]));
    let info = batch.host_info.as_ref().unwrap();
    assert_eq!(info.labels, [("region".to_owned(), "eu".to_owned())]);
    assert_eq!(info.backlog_batches, Some(0));
}

#[tokio::test]
async fn host_facts_travel_now_and_then_not_always() {
    let windows = (0..=HOST_INFO_EVERY).map(|_| window([])).collect();
    let (batches, ..) = house().run(windows).await;
    let with: Vec<_> = batches.iter().map(|batch| batch.host_info.is_some()).collect();
    assert_eq!(with, [true, false, false, false, false, false, true, true]);
}

#[tokio::test]
async fn a_window_over_the_limits_becomes_several_batches_and_loses_nothing() {
    let series = limits::BATCH_SERIES_MAX * 2;
    let readings = (0..series).map(|n| reading(&format!("m{n}"), n as f64));
    let (batches, metrics, _) = house().run(vec![window(readings)]).await;
    assert_eq!(seqs(&batches), [1, 2, 3, 4]);
    let all: usize = batches.iter().map(Batch::points).sum();
    assert_eq!(all, series + 1);
    assert_eq!(metrics.points_emitted.get() as usize, series + 1);
}

#[tokio::test]
async fn what_lay_in_the_tray_travels_whole_in_as_many_batches_as_it_needs() {
    let tray = Tray::new(16 << 20);
    let ts_ms = i64::from(WINDOW_TS) * 1_000;
    let mut all = window([reading("a", 1.0)]);
    for target in 0..20 {
        let mut pack = tray.pack(vec![("instance".into(), format!("t{target}"))]);
        for n in 0..500 {
            let metric = format!("m{n}");
            let (kind, unit, value) = (Kind::Gauge, "", f64::from(n));
            let labels = &[];
            let one = Sample { metric: &metric, labels, kind, unit, ts_ms: ts_ms + 5, value };
            pack.push(&one).unwrap();
            // Late ones, and one that is said again: the later value counts.
            if n == 0 {
                pack.push(&Sample { ts_ms: ts_ms + 2, ..one }).unwrap();
                pack.push(&Sample { value: 9.0, ..one }).unwrap();
            }
        }
        tray.put(pack).unwrap();
    }
    all.carry(tray.drain());
    assert_eq!(all.points(), 1 + 20 * 502);
    let (batches, metrics, _) = house().run(vec![all]).await;
    let points: usize = batches.iter().map(Batch::points).sum();
    assert_eq!(points, 1 + 1 + 20 * 501, "and the heartbeat");
    assert!(batches.len() > 3, "{}", batches.len());
    let series = batches.iter().flat_map(|batch| &batch.series);
    let zero: Vec<_> = series.filter(|series| series.metric == "m0").collect();
    assert_eq!(zero.len(), 20);
    for series in zero {
        let points: Vec<_> = series.points.iter().map(|p| (p.ts_ms - ts_ms, p.value)).collect();
        assert_eq!(points, [(2, 0.0), (5, 9.0)]);
    }
    let dropped = Reason { reason: "same-time" };
    assert_eq!(metrics.points_dropped.get_or_create(&dropped).get(), 20);
    assert_eq!(tray.bytes(), 0);
}

#[tokio::test]
async fn a_reading_too_far_ahead_costs_itself_and_no_other() {
    let tray = Tray::new(1 << 20);
    let now_ms = i64::from(WINDOW_TS) * 1_000;
    let mut pack = tray.pack(Labels::new());
    let latest_ms = now_ms + limits::EDGE_FUTURE_MS_MAX;
    for (metric, ts_ms) in
        [("far", i64::MAX), ("a", now_ms), ("a", latest_ms), ("far", latest_ms + 1)]
    {
        let (labels, kind, unit, value) = (&[], Kind::Gauge, "", 1.0);
        pack.push(&Sample { metric, labels, kind, unit, ts_ms, value }).unwrap();
    }
    tray.put(pack).unwrap();
    let mut all = window([]);
    all.carry(tray.drain());
    let (batches, metrics, _) = house().run(vec![all]).await;
    let series = batches.iter().flat_map(|batch| &batch.series);
    let stored = series.flat_map(|one| one.points.iter().map(|point| (&*one.metric, point.ts_ms)));
    let stored: Vec<_> = stored.filter(|(metric, _)| *metric != HEARTBEAT).collect();
    assert_eq!(stored, [("a", now_ms), ("a", latest_ms)]);
    let dropped = Reason { reason: "future-time" };
    assert_eq!(metrics.points_dropped.get_or_create(&dropped).get(), 2);
}

#[tokio::test]
async fn one_bad_series_costs_itself_only_and_no_seq() {
    let mut bad = reading("bad", 1.0);
    // A label twice: nothing the inputs say, but the frame forbids it.
    bad.labels = vec![("k".into(), "1".to_owned()), ("k".into(), "2".to_owned())];
    let good = (0..8).map(|n| reading(&format!("m{n}"), 1.0));
    let (batches, metrics, _) = house().run(vec![window(good.chain([bad]))]).await;
    let points: usize = batches.iter().map(Batch::points).sum();
    assert_eq!(points, 9, "eight good series and the heartbeat");
    assert_eq!(seqs(&batches), (1..=batches.len() as u64).collect::<Vec<_>>());
    let dropped = Reason { reason: "unencodable" };
    assert_eq!(metrics.points_dropped.get_or_create(&dropped).get(), 1);
}

#[tokio::test]
async fn clocks_that_part_ways_end_the_epoch_between_two_batches() {
    let mut later = window([]);
    let Ended { ts_ms, wall_ms, boot_ms, at } = later.ended().unwrap();
    later.end(ts_ms, wall_ms + 3_600_000, boot_ms, at);
    let (batches, ..) = house().run(vec![window([]), later]).await;
    assert_eq!(seqs(&batches), [1, 1, 2]);
    let previous = batches[1].previous.unwrap();
    assert_eq!(previous.last_seq, 1);
    assert!(batches[1].host_info.is_some());
}

#[test]
fn what_no_batch_could_carry_is_dropped_by_name_of_the_reason() {
    let metrics = Metrics::for_tests();
    let mut window = Window::default();
    let dropped = |reason| metrics.points_dropped.get_or_create(&Reason { reason }).get();
    window.add(5, reading(&"n".repeat(limits::METRIC_BYTES_MAX + 1), 1.0), &metrics);
    window.add(-1, reading("a", 1.0), &metrics);
    window.add(5, reading("a", 1.0), &metrics);
    window.add(5, reading("a", 2.0), &metrics);
    window.add(6, Reading { kind: Kind::Delta, ..reading("a", 3.0) }, &metrics);
    assert_eq!(dropped("name-too-long"), 1);
    assert_eq!(dropped("clock-out-of-range"), 1);
    assert_eq!(dropped("same-time"), 1);
    assert_eq!(dropped("two-kinds"), 1);
    assert_eq!(window.points(), 1);
}

#[test]
fn an_agent_keeps_its_place_in_the_spread() {
    let spread = Duration::from_secs(1);
    let places: Vec<_> = (0..2_000).map(|id| place_in(spread, id)).collect();
    assert!(places.iter().all(|place| *place < spread));
    assert_eq!(place_in(spread, 7), place_in(spread, 7));
    assert_ne!(place_in(spread, 7), place_in(spread, 8));
}
