//! Records that can't be applied go to dead letters with their reason, and hold nobody up.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use spillway_e2e::{Sender, SenderOptions};
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, TOPIC_LIVE};
use spillway_proto::partition::Partitioning;
use spillway_testkit::stack::StackOptions;
use sqlx::Row as _;

use spillway_e2e::rig::Rig;

/// Made-up poison: no frame, an empty one, a tombstone, and a frame's beginning.
const POISON: [Option<&[u8]>; 4] =
    [Some(b"this is no frame"), Some(b""), None, Some(b"SPWF\0\0\0\0\x01\0\0\0")];

fn poison(kafka: &str, partition: i32) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a producer");
    for payload in POISON {
        let header = Header { key: HEADER_ENVIRONMENT, value: Some("demo") };
        let mut record = BaseRecord::to(TOPIC_LIVE)
            .partition(partition)
            .key("poison")
            .headers(OwnedHeaders::new().insert(header));
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }
    producer.flush(Duration::from_secs(10)).expect("Kafka takes poison as anything else");
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_dead_letters_with_its_reason_and_the_partition_moves_on() {
    let rig = Rig::start(StackOptions::default()).await;
    let load = SenderOptions { windows: 50, ..rig.load("demo") };
    let partitioning = Partitioning::new(64, 4).expect("the stack's partitions");
    let partition = partitioning.partition_of("demo", &load.host(0));
    let load = Sender::start(load);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kafka = rig.stack.file().kafka;
    tokio::task::spawn_blocking(move || poison(&kafka, i32::from(partition)))
        .await
        .expect("poison is published");
    rig.judge(load).await;
    let quarantined = "spillway_consumer_batches_quarantined_total";
    rig.until("consumer-0", quarantined, |count| count >= POISON.len() as f64).await;
    let store = rig.stack.mysql("s0").expect("the shard has a door for tests");
    let rows = sqlx::query("SELECT reason FROM spillway_store.quarantined")
        .fetch_all(&store)
        .await
        .expect("readable");
    assert_eq!(rows.len(), POISON.len(), "each is known by its place");
    for row in rows {
        let reason: String = row.try_get_unchecked(0).expect("a text");
        assert!(!reason.is_empty());
    }
}
