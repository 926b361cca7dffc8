//! Row 19: records that can never be applied, among good ones.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use spillway_e2e::recipe::value_at;
use spillway_e2e::rig::Rig;
use spillway_e2e::{Sender, SenderOptions};
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, TOPIC_DEAD_LETTERS, TOPIC_LIVE};
use spillway_testkit::stack::StackOptions;

use crate::storing::{ByHand, Server, frame_of, now_ms, until};

const KAFKA_WITHIN: Duration = Duration::from_secs(20);
/// Random bytes in so many lengths.
const RANDOM: usize = 20;

/// A record as somebody with access to Kafka may write it.
struct Poison {
    reason: &'static str,
    key: Vec<u8>,
    value: Option<Bytes>,
    environment: String,
}

impl Poison {
    fn new(reason: &'static str, value: Option<Bytes>) -> Self {
        Self { reason, key: b"poison".to_vec(), value, environment: "demo".into() }
    }
}

/// All kinds, made from a batch that would be fine.
fn all(good: &ByHand) -> Vec<Poison> {
    let ts_ms = now_ms() / 10_000 * 10_000;
    let frame = |seq| {
        let batch = good.batch(seq, "poison", &[(ts_ms, 1.0)]);
        (batch.id.to_bytes().to_vec(), frame_of(&batch))
    };
    let mut poison: Vec<Poison> = (0..RANDOM).map(random).collect();
    poison.push(Poison::new("tombstone", None));
    poison.push(Poison::new("undecodable-frame", Some(Bytes::new())));
    let (key, fine) = frame(2);
    for flipped in [9, 40, 73, fine.len() - 1] {
        let mut bytes = fine.to_vec();
        if let Some(byte) = bytes.get_mut(flipped) {
            *byte ^= 0x40;
        }
        let value = Some(Bytes::from(bytes));
        poison.push(Poison { key: key.clone(), ..Poison::new("undecodable-frame", value) });
    }
    let (key, value) = frame(3);
    let forged = Poison { key, ..Poison::new("environment-mismatch", Some(value)) };
    poison.push(Poison { environment: "globex".into(), ..forged });
    let (_, value) = frame(4);
    poison.push(Poison::new("key-mismatch", Some(value)));
    // A name of a megabyte, as large a record as the topic takes.
    let (_, value) = frame(5);
    let key = vec![b'n'; 1_048_450 - value.len()];
    poison.push(Poison { key, ..Poison::new("key-mismatch", Some(value)) });
    let late = good.batch(1, "poison", &[(ts_ms + 86_400_000, 1.0)]);
    let key = late.id.to_bytes().to_vec();
    poison.push(Poison { key, ..Poison::new("future-time", Some(frame_of(&late))) });
    poison
}

fn random(nth: usize) -> Poison {
    let byte = |at: usize| value_at(1, (nth * 1_000 + at) as i64) as u8;
    let bytes: Vec<u8> = (0..nth * 37 + 1).map(byte).collect();
    Poison::new("undecodable-frame", Some(bytes.into()))
}

fn publish(kafka: &str, partition: u16, poison: &[Poison]) {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("message.max.bytes", "2000000")
        .create()
        .expect("a producer");
    for one in poison {
        let header = Header { key: HEADER_ENVIRONMENT, value: Some(&one.environment) };
        let record = BaseRecord::to(TOPIC_LIVE)
            .partition(i32::from(partition))
            .key(&one.key)
            .headers(OwnedHeaders::new().insert(header));
        let record = match &one.value {
            Some(value) => record.payload(&value[..]),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }
    producer.flush(KAFKA_WITHIN).expect("Kafka takes poison as anything else");
}

/// Records of a topic, and those of one partition of it.
fn end_of(kafka: &str, topic: &str, partition: u16) -> i64 {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
    let ends = client.fetch_watermarks(topic, i32::from(partition), KAFKA_WITHIN);
    ends.expect("Kafka tells the ends of its logs").1
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_poison_is_in_dead_letters_once_with_its_reason_and_holds_up_nobody() {
    let rig = Rig::start(StackOptions::default()).await;
    let server = Server::primary(&rig, "s0");
    let load = SenderOptions { windows: 60, ..rig.load("demo") };
    let partition = ByHand::new("demo", &load.host(0)).partition();
    // A host of its own on the same partition, so that only its own ledger has gaps.
    let good = (0..).map(|n| ByHand::new("demo", &format!("poison-{n}")));
    let good = good.take(10_000).find(|host| host.partition() == partition);
    let good = good.expect("a group has only four partitions");
    let kafka = rig.stack.file().kafka;
    let load = Sender::start(load);
    until("the load flows", async || server.audited().await > 10).await;
    let poison = all(&good);
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for one in &poison {
        *expected.entry(one.reason.to_owned()).or_default() += 1;
    }
    let count = poison.len() as i64;
    let to = kafka.clone();
    tokio::task::spawn_blocking(move || publish(&to, partition, &poison)).await.expect("published");
    let taken = end_of_blocking(&kafka, TOPIC_LIVE, partition).await;
    until("all poison is in dead letters", async || server.quarantined().await >= count).await;
    // The load that shares the partition is complete.
    let options = load.options.clone();
    let (ledger, _) = load.finish(spillway_e2e::rig::ACCEPTED_WITHIN).await;
    spillway_e2e::settled(&rig.mysql("demo"), &ledger, &options, spillway_e2e::rig::SETTLED_WITHIN)
        .await;
    let verdict = spillway_e2e::compare(&rig.mysql("demo"), &ledger, &options).await;
    eprintln!("{}: {verdict}", ledger.summary());
    assert!(taken >= count);
    let mut found = BTreeMap::new();
    for reason in expected.keys() {
        let rows = "SELECT COUNT(*) FROM spillway_store.quarantined WHERE reason =";
        found.insert(reason.clone(), server.number(&format!("{rows} '{reason}'")).await);
    }
    assert_eq!(found, expected);
    assert_eq!(server.quarantined().await, count);
    assert_eq!(end_of_blocking(&kafka, TOPIC_DEAD_LETTERS, 0).await, count);
    let metrics = rig.metrics("consumer-0").await;
    assert_eq!(metrics.sum("spillway_consumer_batches_quarantined_total"), count as f64);
    assert_eq!(metrics.sum_where("spillway_consumer_partitions_held", &[]), 0.0);
    let gap = "SELECT COUNT(*) FROM spillway_store.ledger_gaps WHERE cause = 'quarantined'";
    assert_eq!(server.number(gap).await, 1, "the one batch with a name is a gap by that name");
}

async fn end_of_blocking(kafka: &str, topic: &'static str, partition: u16) -> i64 {
    let kafka = kafka.to_owned();
    let asked = tokio::task::spawn_blocking(move || end_of(&kafka, topic, partition));
    asked.await.expect("Kafka is asked")
}
