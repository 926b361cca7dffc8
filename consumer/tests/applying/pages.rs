//! Where an offset would be a guess, a partition waits for an operator, and only that one.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use spillway_proto::kafka_record::Lane;

use super::batches::Agent;
use super::site::{SOON, Site, recreate_topics};

/// Two agents in two partitions.
fn two() -> (Agent, u16, Agent) {
    let (agent, other) = (Agent::new("demo", "web-1"), Agent::new("acme", "web-1"));
    let partition = Site::partition_of(&agent.batch(1, &[1.0]));
    assert_ne!(partition, Site::partition_of(&other.batch(1, &[1.0])), "two partitions are needed");
    (agent, partition, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_positions_row_is_never_seeded() {
    let mut site = Site::new().await;
    let (agent, partition, other) = two();
    site.run(&format!("DELETE FROM spillway_store.positions WHERE partition_id = {partition}"))
        .await;
    agent.publish(&site, Lane::Live, [1]);
    other.publish(&site, Lane::Live, [1]);
    let consumer = site.start(site.settings());
    consumer.until("partitions_held", "no-position", 1.0).await;
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 1).await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.positions").await, 7);
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_is_noticed_by_its_ends_and_by_its_last_record() {
    let mut site = Site::new().await;
    let (agent, partition, _) = two();
    agent.publish(&site, Lane::Live, 1..=5);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 5).await;
    consumer.stop().await;
    let kafka = site.kafka.clone();
    recreate_topics(&kafka).await;
    // Shorter than what was applied: the offset lies outside the log.
    agent.publish(&site, Lane::Live, 6..=8);
    let consumer = site.start(site.settings());
    consumer.until("partitions_held", "outside-log", 1.0).await;
    consumer.stop().await;
    // As long, but the record before the offset is another one.
    agent.publish(&site, Lane::Live, 9..=20);
    let consumer = site.start(site.settings());
    consumer.until("partitions_held", "other-record", 1.0).await;
    consumer.stop().await;
    let next =
        format!("SELECT live_next FROM spillway_store.positions WHERE partition_id = {partition}");
    assert_eq!(site.number(&next).await, 5);
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.audit").await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_epoch_or_name_is_not_written_to() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    agent.publish(&site, Lane::Live, [1]);
    let consumer = site.start(site.settings_for(site.mysql, 2));
    consumer.until("partitions_held", "wrong-epoch", 8.0).await;
    consumer.stop().await;
    site.run("UPDATE spillway_store.shard_meta SET shard = 's9'").await;
    let consumer = site.start(site.settings());
    consumer.until("partitions_held", "wrong-shard", 8.0).await;
    consumer.stop().await;
    assert_eq!(site.number("SELECT COUNT(*) FROM spillway_store.audit").await, 0);
}

/// What an aborted transaction appended is in the log and handed out to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_is_passed_over_once_a_second_client_finds_it_and_it_is_told() {
    let mut site = Site::new().await;
    let agent = Agent::new("demo", "web-1");
    let batch = agent.batch(2, &[1.0]);
    agent.publish(&site, Lane::Live, [1]);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &site.kafka).set("transactional.id", "made-up");
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(SOON).unwrap();
    producer.begin_transaction().unwrap();
    let record = BaseRecord::<[u8], [u8]>::to(Lane::Live.topic())
        .partition(i32::from(Site::partition_of(&batch)))
        .payload(b"never to be seen");
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(SOON).unwrap();
    producer.abort_transaction(SOON).unwrap();
    agent.publish(&site, Lane::Live, 2..=4);
    let consumer = site.start(site.settings());
    site.until("SELECT COUNT(*) FROM spillway_store.audit", 4).await;
    // Kafka marks the end of the transaction in the log too, perhaps behind the next record.
    assert!((1.0..=2.0).contains(&consumer.metric("offset_jumps_total")));
    assert_eq!(consumer.metric("rejoins_total"), 0.0);
    consumer.stop().await;
}
