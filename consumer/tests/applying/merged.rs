//! A point is stored once, whoever sends it how often; the last writer wins.

use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_exist_are_merged_by_time_and_the_last_writer_wins() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "pair");
    let consumer = site.start(site.settings());
    let mut expected: std::collections::BTreeMap<i64, f64> = std::collections::BTreeMap::new();
    let mut window_ts = None;
    for round in 0..6_u32 {
        let mut batch = agent.batch(1, &[f64::from(round), 0.1, 1.0 / 3.0, 4.0]);
        // All rounds write into one window, however long the test takes.
        let start = *window_ts.get_or_insert(batch.window_ts);
        let shift = i64::from(round) * 500;
        for (at, point) in batch.series[0].points.iter_mut().enumerate() {
            point.ts_ms = i64::from(start) * 1_000 + shift + i64::try_from(at).unwrap() * 1_000;
            expected.insert(point.ts_ms - i64::from(start) * 1_000, point.value);
        }
        batch.window_ts = start;
        Encoder::new().encode_by_content(&mut batch).unwrap();
        site.publish(Lane::Live, &batch);
        let applied = "SELECT COUNT(*) FROM spillway_store.audit";
        site.until(applied, i64::from(round) + 1).await;
    }
    let vals = site.texts("SELECT vals FROM spillway_store.points").await;
    let [vals] = vals.as_slice() else { panic!("one row, not {vals:?}") };
    let mut got = Vec::new();
    spillway_consumer::store::values::decode_vals(vals.as_bytes(), &mut got).unwrap();
    assert_eq!(got, expected.iter().map(|(dt, value)| (*dt, *value)).collect::<Vec<_>>());
    let summary = "SELECT cnt * 1000 + `max` FROM spillway_store.points";
    let max = expected.values().copied().fold(f64::MIN, f64::max);
    assert_eq!(site.number(summary).await, expected.len() as i64 * 1_000 + max as i64);
    assert!(consumer.metric("merges_total") >= 5.0);
    consumer.stop().await;
}
