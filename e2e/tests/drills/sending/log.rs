//! What really lies in Kafka, and where: leaders, in-sync replicas, and every record's batch id.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
pub use spillway_e2e::oracle::log::{partition_of, place};
use spillway_proto::BatchId;

/// A busy machine's broker may take its time; more is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A record's place and the batch it carries.
#[derive(Clone, Copy, Debug)]
pub struct Logged {
    pub partition: i32,
    pub offset: i64,
    pub id: BatchId,
}

fn client(kafka: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "drill")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer")
}

/// Every record of a topic, partition by partition, in order.
pub async fn records(kafka: &str, topic: &'static str) -> Vec<Logged> {
    let kafka = kafka.to_owned();
    let read = move || read_all(&client(&kafka), topic);
    tokio::task::spawn_blocking(read).await.expect("the log can be read")
}

fn read_all(consumer: &BaseConsumer, topic: &str) -> Vec<Logged> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
    let partitions = metadata.topics().first().expect("the topic").partitions().len();
    let (mut places, mut wanted) = (TopicPartitionList::new(), 0);
    for partition in 0..i32::try_from(partitions).expect("few") {
        let (low, high) =
            consumer.fetch_watermarks(topic, partition, PATIENCE).expect("watermarks");
        wanted += high - low;
        if high > low {
            places.add_partition_offset(topic, partition, Offset::Beginning).expect("a place");
        }
    }
    consumer.assign(&places).expect("assigned");
    let mut records = Vec::new();
    while (records.len() as i64) < wanted {
        let record = consumer.poll(PATIENCE).expect("a record comes").expect("it can be read");
        let key = record.key().expect("a key").try_into().expect("a batch id's length");
        let id = BatchId::from_bytes(key).expect("a batch id");
        records.push(Logged { partition: record.partition(), offset: record.offset(), id });
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records
}

/// How often each batch lies in the log.
pub fn copies(records: &[Logged]) -> BTreeMap<BatchId, usize> {
    let mut copies = BTreeMap::new();
    for record in records {
        *copies.entry(record.id).or_default() += 1;
    }
    copies
}

/// Changes one setting of a topic and leaves the others as they are.
pub async fn set_topic(kafka: &str, topic: &str, name: &str, value: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("an admin client");
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    let described = described.expect("Kafka answers");
    let resource = described.first().expect("one topic").as_ref().expect("it is described");
    // The request replaces all: what was set stays only if it is said again.
    let mut change = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for entry in resource.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic)
    {
        if let Some(value) = &entry.value {
            change = change.set(&entry.name, value);
        }
    }
    let change = change.set(name, value);
    let altered = admin.alter_configs([&change], &options).await.expect("Kafka answers");
    altered.into_iter().for_each(|done| drop(done.expect("the topic takes it")));
}
