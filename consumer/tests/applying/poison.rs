//! What can never be applied goes to dead letters with its reason, and the partition moves on.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use spillway_consumer::quarantine::HEADER_REASON;
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::{Lane, TOPIC_DEAD_LETTERS};

use super::batches::Agent;
use super::site::{SOON, Site};

/// The reasons in dead letters, sorted.
fn reasons(site: &Site, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &site.kafka)
        .set("group.id", "test-dead-letters")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(TOPIC_DEAD_LETTERS, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < count {
        let letter = consumer.poll(SOON).unwrap().unwrap();
        let headers = letter.headers().unwrap();
        let reason = headers.iter().find(|header| header.key == HEADER_REASON).unwrap();
        reasons.push(String::from_utf8(reason.value.unwrap().to_vec()).unwrap());
    }
    assert!(consumer.poll(Duration::from_millis(200)).is_none_or(|polled| polled.is_err()));
    reasons.sort();
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_poison_is_in_dead_letters_and_what_follows_is_applied() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let good = agent.batch(1, &[1.0]);
    let partition = Site::partition_of(&good);
    let frame = Encoder::new().encode(&good).unwrap();
    let key = good.id.to_bytes();
    let mut future = agent.batch(2, &[1.0]);
    future.series[0].points[0].ts_ms += 86_400_000;
    site.publish_raw(Lane::Live, partition, (b"key", b"random bytes"), "demo");
    site.publish_raw(Lane::Live, partition, (&key, &frame), "acme");
    site.publish_raw(Lane::Live, partition ^ 1, (&key, &frame), "demo");
    site.publish_raw(Lane::Live, partition, (b"another key", &frame), "demo");
    site.publish_tombstone(Lane::Live, partition);
    site.publish(Lane::Live, &future);
    site.publish(Lane::Live, &good);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.quarantined", 6).await;
    site.until("SELECT applied_batches FROM spillway_store.ledger_epochs", 1).await;
    let expected = [
        "environment-mismatch",
        "future-time",
        "key-mismatch",
        "partition-mismatch",
        "tombstone",
        "undecodable-frame",
    ];
    let stored = "SELECT reason FROM spillway_store.quarantined ORDER BY reason";
    assert_eq!(site.texts(stored).await, expected);
    assert_eq!(reasons(&site, 6), expected);
    let gap = "SELECT CONCAT_WS(' ', first_seq, cause, reason) FROM spillway_store.ledger_gaps";
    site.until("SELECT COUNT(*) FROM spillway_store.ledger_gaps", 1).await;
    assert_eq!(site.texts(gap).await, ["2 quarantined future-time"]);
    consumer.until("batches_quarantined_total", "", 6.0).await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_poison_stops_its_partition_and_no_other() {
    let mut site = Site::new().await;
    let (flooded, other) = (Agent::new("demo", "web-1"), Agent::new("acme", "web-1"));
    let partition = Site::partition_of(&flooded.batch(1, &[1.0]));
    assert_ne!(partition, Site::partition_of(&other.batch(1, &[1.0])), "two partitions are needed");
    let mut settings = site.settings();
    settings.dead_letters.per_minute_max = 3;
    for _ in 0..5 {
        site.publish_raw(Lane::Live, partition, (b"key", b"rubbish"), "demo");
    }
    flooded.publish(&site, Lane::Live, [1]);
    other.publish(&site, Lane::Live, [1]);
    let consumer = site.start(settings);
    consumer.until("partitions_held", "dead-letter-flood", 1.0).await;
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 1).await;
    let next =
        format!("SELECT live_next FROM spillway_store.positions WHERE partition_id = {partition}");
    assert_eq!(site.number(&next).await, 0, "nothing passes a stopped partition");
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collision_of_series_ids_is_quarantined_and_never_merged() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    agent.publish(&site, Lane::Live, [1]);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.series", 1).await;
    consumer.stop().await;
    site.run("UPDATE spillway_store.series SET identity = x'00000000000000000000000000000000'")
        .await;
    agent.publish(&site, Lane::Live, [2]);
    let mut other = agent.batch(3, &[9.0]);
    other.series[0].metric = "innocent".into();
    site.publish(Lane::Live, &other);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 2).await;
    site.until("SELECT COUNT(*) FROM spillway_store.quarantined", 1).await;
    let reason = site.texts("SELECT reason FROM spillway_store.quarantined").await;
    assert_eq!(reason, ["series-collision"]);
    let gap = site.texts("SELECT cause FROM spillway_store.ledger_gaps").await;
    assert_eq!(gap, ["quarantined"]);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_s_dead_letters_are_told_in_events_and_counted_in_its_host_s_row() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let content = |site: &Site, seq, ahead_ms| {
        let mut batch = agent.batch(seq, &[1.0, 2.0]);
        batch.series[0].points.iter_mut().for_each(|point| point.ts_ms += ahead_ms);
        let frame = Encoder::new().encode_by_content(&mut batch).unwrap();
        let key = batch.id.to_bytes();
        site.publish_raw(Lane::Live, Site::partition_of(&batch), (&key, &frame), "demo");
    };
    content(&site, 1, 86_400_000);
    content(&site, 2, 86_400_000);
    content(&site, 3, 0);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 1).await;
    let row = "SELECT CONCAT_WS(' ', environment, host, applied_batches, quarantined_batches) \
               FROM spillway_store.ledger_epochs";
    assert_eq!(site.texts(row).await, ["demo web-1 1 2"]);
    let letters = "SELECT CAST(SUM(SUBSTRING_INDEX(text, ' ', 1)) AS SIGNED) \
                   FROM spillway_store.events WHERE kind = 'quarantined' \
                   AND environment = 'demo' AND host = 'web-1' \
                   AND text LIKE '% in dead letters: future-time'";
    assert_eq!(site.number(letters).await, 2);
    content(&site, 4, 86_400_000);
    site.until("SELECT quarantined_batches FROM spillway_store.ledger_epochs", 3).await;
    assert_eq!(site.number(letters).await, 3, "what was counted before stays counted");
    consumer.stop().await;
}
