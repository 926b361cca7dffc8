//! Row 18: agents whose clocks are an hour off or step back and forth, and points at times that
//! make no sense. The agents' wall clock is libfaketime's (apt install faketime); their boot clock
//! is the host's, as on a host whose wall clock somebody sets.

use std::path::Path;
use std::sync::Arc;

use spillway_e2e::recipe::series_of_window;
use spillway_e2e::rig::{Agent, HASTY_AGENT, Rig, Totals};
use spillway_proto::Point;
use spillway_proto::frame::Encoder;
use spillway_proto::limits::TS_MS_MAX;
use spillway_testkit::stack::{AgentOptions, StackOptions};
use sqlx::Row as _;

use crate::sending::{Door, HEALED_WITHIN, Host, until};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const HOUR_MS: i64 = 3_600_000;

/// Gives an agent a wall clock of its own, which `file` moves.
fn with_clock(options: StackOptions, agent: &str, file: &Path) -> StackOptions {
    assert!(Path::new(LIBRARY).is_file(), "libfaketime is missing: apt install faketime");
    options
        .env(agent, "LD_PRELOAD", LIBRARY)
        .env(agent, "FAKETIME_TIMESTAMP_FILE", &file.display().to_string())
        .env(agent, "FAKETIME_NO_CACHE", "1")
        .env(agent, "DONT_FAKE_MONOTONIC", "1")
}

async fn start(rig: &Rig, name: &str) -> Agent {
    let mut options = AgentOptions::new(name, "demo", name);
    options.toml = HASTY_AGENT.to_owned();
    rig.stack.spawn_agent(options).await.expect("the agent starts");
    Agent { name: name.into(), environment: "demo".into() }
}

async fn skew_of(rig: &Rig, host: &str) -> i64 {
    let skew = "SELECT clock_skew_ms FROM spillway.hosts WHERE host = ?";
    let mysql = rig.mysql("demo");
    let row = sqlx::query(skew).bind(host).fetch_one(&mysql).await.expect("the host is known");
    row.try_get::<Option<i64>, _>(0).expect("a number").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_ahead_an_hour_behind_or_stepping_an_agents_batches_all_arrive_once() {
    let clocks = tempfile::tempdir().expect("a folder");
    let file = |name: &str| clocks.path().join(name);
    let agents = [("ahead", "+1h"), ("behind", "-1h"), ("stepping", "+0s")];
    let mut options = StackOptions::default();
    for (name, shift) in agents {
        std::fs::write(file(name), shift).expect("written");
        options = with_clock(options, name, &file(name));
    }
    let rig = Rig::start(options).await;
    let mut running = Vec::new();
    for (name, _) in agents {
        running.push(start(&rig, name).await);
    }
    let acked = "spillway_agent_batches_acked_total";
    for (epochs, shift) in [(1.0, "-1h"), (2.0, "+1h"), (3.0, "+0s")] {
        let before = rig.metrics("stepping").await.sum(acked);
        rig.until("stepping", acked, |now| now > before).await;
        std::fs::write(file("stepping"), shift).expect("written");
        let epochs_begun = "spillway_agent_epochs_total";
        rig.until("stepping", epochs_begun, |begun| begun >= epochs + 1.0).await;
    }
    rig.until("ahead", acked, |acked| acked >= 2.0).await;
    for agent in &running {
        rig.judge_agent(agent).await;
    }
    let (ahead, behind) = (skew_of(&rig, "ahead").await, skew_of(&rig, "behind").await);
    eprintln!("skew told: {ahead} and {behind} ms");
    assert!((ahead - HOUR_MS).abs() < HOUR_MS / 10, "{ahead}");
    assert!((behind + HOUR_MS).abs() < HOUR_MS / 10, "{behind}");
    let totals = Totals::read(&rig.mysql("demo"), "stepping").await;
    assert_eq!(totals.epochs, 4, "each step is an epoch, whose seqs are its own: {totals:?}");
    let cloned = rig.metrics("consumer-0").await.sum("spillway_consumer_batches_cloned_total");
    assert_eq!(cloned, 0.0);
}

/// A batch whose points all lie elsewhere than its window.
fn at(host: &Host, window: usize, ts_ms: i64) -> bytes::Bytes {
    let mut batch = host.batch(window).recipe.batch();
    batch.series = series_of_window(batch.window_ts, 3, 1);
    for series in &mut batch.series {
        series.points = vec![Point { ts_ms, value: 1.0 }];
    }
    Encoder::new().encode(&Arc::new(batch)).expect("a valid batch")
}

/// The end of the last partition of `points`, seconds.
async fn partitions_end(store: &sqlx::MySqlPool) -> u64 {
    let last = "SELECT MAX(CAST(partition_description AS UNSIGNED)) \
                FROM information_schema.partitions WHERE table_schema = 'spillway_store' \
                AND table_name = 'points' AND partition_description REGEXP '^[0-9]+$'";
    sqlx::query_scalar(last).fetch_one(store).await.expect("partitions are listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn points_at_senseless_times_are_counted_and_named_and_make_no_partition() {
    let rig = Rig::start(StackOptions::default()).await;
    let store = rig.stack.mysql("s0").expect("the shard has a door for tests");
    let (door, sane) = (Door::of(&rig, "demo"), Host::new(&rig, "demo", "sane", 2));
    sane.deliver(&door, &sane.batch(0)).await;
    let end = partitions_end(&store).await;
    let now_ms = i64::from(sane.options.first_window_ts) * 1_000 + HOUR_MS;
    let nonsense = Host::new(&rig, "demo", "nonsense", 100);
    let expired = [0, 1, now_ms - 30 * 24 * HOUR_MS];
    let future = [now_ms + 2 * HOUR_MS, now_ms + 87_660 * HOUR_MS, TS_MS_MAX - 1];
    for (window, ts_ms) in expired.iter().chain(&future).enumerate() {
        door.post_until_accepted(&at(&nonsense, window, *ts_ms)).await;
    }
    // What comes after it in the same partition goes on.
    door.post_until_accepted(&nonsense.batch(expired.len() + future.len()).frame).await;
    sane.deliver(&door, &sane.batch(1)).await;
    sane.judge(&rig).await;
    let consumer = "consumer-0";
    rig.until(consumer, "spillway_consumer_points_expired_total", |n| n == 9.0).await;
    rig.until(consumer, "spillway_consumer_batches_quarantined_total", |n| n == 3.0).await;
    let mysql = rig.mysql("demo");
    until("the sane batch among them is applied", HEALED_WITHIN, async || {
        Totals::read(&mysql, &nonsense.name()).await.highest == 7
    })
    .await;
    let totals = Totals::read(&mysql, &nonsense.name()).await;
    let gaps = "SELECT state, CAST(SUM(last_seq - first_seq + 1) AS UNSIGNED) FROM spillway.gaps \
                WHERE host = ? GROUP BY state";
    let gaps = sqlx::query(gaps).bind(nonsense.name()).fetch_all(&mysql).await.expect("readable");
    let gaps: Vec<(String, u64)> = gaps
        .iter()
        .map(|row| (row.try_get_unchecked(0).expect("a text"), row.try_get(1).expect("a number")))
        .collect();
    assert_eq!(gaps, [("quarantined".to_owned(), 3)], "{totals:?}");
    let reasons = "SELECT DISTINCT reason FROM spillway_store.quarantined WHERE host = ?";
    let reasons = sqlx::query(reasons).bind(nonsense.name()).fetch_all(&store).await;
    let reasons: Vec<String> = reasons
        .expect("readable")
        .iter()
        .map(|row| row.try_get_unchecked(0).expect("a text"))
        .collect();
    assert_eq!(reasons.len(), 1);
    assert!(reasons.iter().all(|reason| reason.starts_with("future-time")), "{reasons:?}");
    assert_eq!(totals.stored, 200, "only the sane batch's points are stored: {totals:?}");
    assert_eq!(partitions_end(&store).await, end, "no partition is made for nonsense");
}
