//! Row 31: data at the edges of time: too old for any partition, and far ahead.

use spillway_e2e::rig::Rig;
use spillway_testkit::rollup_proof::prove;
use spillway_testkit::stack::StackOptions;
use sqlx::Row as _;

use crate::storing::{ByHand, Server, now_ms, post, until};

const FLOOR: &str = "SELECT MIN(CAST(partition_description AS UNSIGNED)) FROM \
                     information_schema.partitions \
                     WHERE table_schema = 'spillway_store' AND table_name = 'points'";
const PARTITIONS: &str = "SELECT COUNT(*) FROM information_schema.partitions \
                          WHERE table_schema = 'spillway_store' AND table_name = 'points'";
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_counted_as_expired_and_what_is_far_ahead_is_in_dead_letters() {
    let rig = Rig::start(StackOptions::default()).await;
    let server = Server::primary(&rig, "s0");
    let now = now_ms() / 10_000 * 10_000;
    // An hour's partition ends at FLOOR; what it spans is the oldest there is a place for.
    let floor_ms = server.number(FLOOR).await * 1_000 - HOUR_MS;
    let retained_ms = now - 7 * DAY_MS;
    let oldest_ms = floor_ms.max(retained_ms);
    let partitions = server.number(PARTITIONS).await;
    let sender = ByHand::new("demo", "edge");
    let minute = 60_000;
    let edges = [
        ("fresh", now - minute, true),
        ("oldest", oldest_ms + 10 * minute, true),
        ("expired", oldest_ms.min(retained_ms) - minute, false),
        ("ancient", 10_000, false),
        ("ahead", now + HOUR_MS - 5 * minute, true),
    ];
    let mut seq = 0;
    for (metric, ts_ms, _) in edges {
        seq += 1;
        post(&rig, &sender.batch(seq, metric, &[(ts_ms, 7.0)])).await;
    }
    // One batch on both sides of the edge: what has a place is kept.
    seq += 1;
    let torn = [(retained_ms - DAY_MS, 1.0), (now - minute, 2.0)];
    post(&rig, &sender.batch(seq, "torn", &torn)).await;
    for ahead_ms in [HOUR_MS + 5 * minute, 40 * DAY_MS, 60 * 365 * DAY_MS] {
        seq += 1;
        post(&rig, &sender.batch(seq, "nonsense", &[(now + ahead_ms, 9.0)])).await;
    }
    let reader = rig.mysql("demo");
    let ledger = "SELECT highest_seq, applied_batches, expired_points, quarantined_batches, \
                  missing_batches FROM spillway.ledger_totals WHERE host = 'edge'";
    let mut last = Vec::new();
    let counted = async || {
        let Ok(row) = sqlx::query(ledger).fetch_one(&reader).await else { return false };
        last = (0..5).map(|at| row.try_get_unchecked::<i64, _>(at).unwrap_or(-1)).collect();
        last == [9, 6, 3, 3, 0]
    };
    until("the ledger counts every batch by its fate", counted).await;
    for (metric, ts_ms, stored) in edges {
        let points = "SELECT COUNT(*) FROM spillway.metrics WHERE host = 'edge' AND metric =";
        let count: i64 = sqlx::query_scalar(&format!("{points} '{metric}'"))
            .fetch_one(&reader)
            .await
            .expect("readable");
        assert_eq!(count, i64::from(stored), "{metric} at {ts_ms}");
    }
    let names = "SELECT CONCAT_WS(' ', state, reason, SUM(last_seq - first_seq + 1)) \
                 FROM spillway.gaps WHERE host = 'edge' GROUP BY state, reason";
    let gaps = sqlx::query(names).fetch_all(&reader).await.expect("readable");
    let gaps: Vec<String> =
        gaps.iter().map(|row| row.try_get_unchecked(0).expect("a text")).collect();
    assert_eq!(gaps, ["quarantined future-time 3"], "and nothing else is a gap");
    assert_eq!(server.number(PARTITIONS).await, partitions, "no partition is made for nonsense");
    let expired = rig.metrics("consumer-0").await.sum("spillway_consumer_points_expired_total");
    assert_eq!(expired, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_points_change_the_hour_that_was_rolled_up_before_they_came() {
    let rig = Rig::start(StackOptions::default()).await;
    let sender = ByHand::new("demo", "late");
    let hour_ms = now_ms() / HOUR_MS * HOUR_MS - 2 * HOUR_MS;
    let (minute, hour) = (60_000, hour_ms / 1_000);
    let reader = rig.mysql("demo");
    let sql = "SELECT cnt, `sum` FROM spillway.metrics_1h WHERE host = 'late' AND ts = ?";
    let rolled = async || {
        let query = sqlx::query_as::<_, (i64, f64)>(sql).bind(hour);
        query.fetch_optional(&reader).await.expect("readable")
    };
    post(&rig, &sender.batch(1, "level", &[(hour_ms + minute, 5.0)])).await;
    until("the hour is rolled up", async || rolled().await == Some((1, 5.0))).await;
    // Into the minute that is there, and into one that is not.
    let late = [(hour_ms + minute + 500, 7.0), (hour_ms + 30 * minute, 11.0)];
    post(&rig, &sender.batch(2, "level", &late)).await;
    until("the hour is rolled up again", async || rolled().await == Some((3, 23.0))).await;
    let proof = prove(&reader, hour, hour + 3_600).await.expect("readable");
    proof.must_hold();
    assert_eq!((proof.minutes, proof.hours), (2, 1));
}
