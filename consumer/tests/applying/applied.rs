//! The straight way: what was published is readable, once, and everything beside it is right.

use spillway_proto::HostInfo;
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::program::Drained;

use super::batches::{Agent, recent_window};
use super::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_readable_once_with_all_that_belongs_to_it() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let mut batch = agent.batch(1, &[1.5, 2.0, f64::NAN]);
    batch.host_info = Some(HostInfo {
        agent_version: "1.2.3".into(),
        clock_skew_ms: Some(-7),
        labels: vec![("zone".into(), "a".into())],
        backlog_batches: Some(4),
    });
    site.publish(Lane::Live, &batch);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 1).await;
    let vals = site.texts("SELECT vals FROM spillway_store.points").await;
    assert_eq!(vals, ["[[0,1.5],[1000,2],[2000,null]]"]);
    let names = "SELECT CONCAT_WS('|', environment, host, metric, labels, kind, unit) \
                 FROM spillway_store.series";
    assert_eq!(site.texts(names).await, [r#"demo|web-1|requests|{"code":"200"}|2|1"#]);
    let host = "SELECT CONCAT_WS('|', version, clock_skew_ms, labels, backlog_batches, newest_ts) \
                FROM spillway_store.hosts";
    let newest = batch.window_ts + 2;
    assert_eq!(site.texts(host).await, [format!(r#"1.2.3|-7|{{"zone":"a"}}|4|{newest}"#)]);
    let marks = "SELECT minute_ts FROM spillway_store.rollup_marks";
    assert_eq!(site.number(marks).await, i64::from(batch.window_ts / 60 * 60));
    let ledger = "SELECT highest_seq * 1000000 + applied_batches * 1000 + applied_points \
                  FROM spillway_store.ledger_epochs";
    assert_eq!(site.number(ledger).await, 1_001_003);
    assert_eq!(consumer.stop().await, Drained::Everything);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_twice_counts_once_whichever_way_it_comes() {
    let mut site = Site::new().await;
    let agents = [Agent::new("demo", "a"), Agent::new("demo", "b"), Agent::new("acme", "c")];
    for agent in &agents {
        agent.publish(&site, Lane::Live, 1..=20);
        agent.publish(&site, Lane::Backlog, (1..=25).rev());
        agent.publish(&site, Lane::Live, 10..=20);
    }
    let consumer = site.start(site.settings());
    let seen = "SELECT SUM(applied_batches + duplicate_batches) FROM spillway_store.ledger_epochs";
    site.until(seen, 3 * (20 + 25 + 11)).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.audit").await, 75);
    assert_eq!(site.number("SELECT SUM(cnt) FROM spillway_store.points").await, 225);
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.ledger_ranges").await, 3);
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.ledger_gaps").await, 0);
    assert_eq!(
        site.number("SELECT SUM(duplicate_batches) FROM spillway_store.ledger_epochs").await,
        3 * 31
    );
    consumer.until("batches_duplicate_total", "", 93.0).await;
    assert_eq!(consumer.metric("points_applied_total"), 225.0);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_mysql_stands_and_applies_nothing_twice() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    for round in 0..3_u64 {
        agent.publish(&site, Lane::Live, round * 10 + 1..=round * 10 + 10);
        let consumer = site.start(site.settings());
        let applied = "SELECT COUNT(*) FROM spillway_store.audit";
        site.until(applied, i64::try_from(round * 10 + 10).unwrap()).await;
        assert_eq!(consumer.metric("batches_duplicate_total"), 0.0);
        assert_eq!(consumer.stop().await, Drained::Everything);
    }
    let ranges = site.number("SELECT last_seq FROM spillway_store.ledger_ranges").await;
    assert_eq!(ranges, 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_does_not_count_is_recognised_by_content() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "proxy");
    let mut batch = agent.batch(1, &[1.0, 2.0]);
    Encoder::new().encode_by_content(&mut batch).unwrap();
    site.publish(Lane::Live, &batch);
    site.publish(Lane::Live, &batch);
    batch.series[0].points[1].value = 3.0;
    Encoder::new().encode_by_content(&mut batch).unwrap();
    site.publish(Lane::Live, &batch);
    let consumer = site.start(site.settings());
    let counted = "SELECT applied_batches * 100 + duplicate_batches \
                   FROM spillway_store.ledger_epochs";
    site.until(counted, 201).await;
    site.publish(Lane::Backlog, &batch);
    site.until(counted, 202).await;
    assert_eq!(site.number("SELECT SUM(cnt) FROM spillway_store.points").await, 2);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_older_than_their_place_are_counted_and_land_nowhere() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let mut batch = agent.batch(1, &[1.0, 2.0]);
    batch.series[0].points[0].ts_ms = i64::from(recent_window()) * 1_000 - 86_400_000 * 3;
    site.publish(Lane::Live, &batch);
    let consumer = site.start(site.settings());
    site.until("SELECT expired_points FROM spillway_store.ledger_epochs", 1).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.points").await, 1);
    consumer.until("points_expired_total", "", 1.0).await;
    consumer.stop().await;
}
