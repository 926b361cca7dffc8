//! What only a mock can be made to do: leaders that change in the middle, and a topic that seems
//! to have vanished.

use std::collections::HashMap;

use rdkafka::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use spillway_proto::BatchId;
use spillway_proto::kafka_record::{TOPIC_BACKLOG, TOPIC_DEAD_LETTERS, TOPIC_LIVE};
use tokio::time::timeout;

use crate::stage::{PARTITIONS, PATIENCE, Stage, frame, joined, stage_on};

const BROKERS: i32 = 3;
const ROUNDS: u64 = 20;
/// Batches of one agent and epoch that are under way together.
const TOGETHER: u64 = 25;

fn three_brokers() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(BROKERS).unwrap();
    for topic in [TOPIC_LIVE, TOPIC_BACKLOG, TOPIC_DEAD_LETTERS] {
        cluster.create_topic(topic, i32::from(PARTITIONS), BROKERS as i16).unwrap();
    }
    cluster
}

/// The offsets at which each seq lies, of the one agent and epoch that `frame` makes.
fn places(stage: &Stage) -> HashMap<u64, Vec<i64>> {
    let mut places: HashMap<u64, Vec<i64>> = HashMap::new();
    for record in stage.records(TOPIC_LIVE) {
        let id = BatchId::from_bytes(record.key().unwrap().try_into().unwrap()).unwrap();
        places.entry(id.columns().2).or_default().push(record.offset());
    }
    places
}

/// Sends rounds of batches, each until it is taken, while `disturb` does its worst; then each
/// batch lies there, and first copies are in the order of their seqs.
async fn nothing_is_lost_or_reordered(stage: &Stage, disturb: impl Fn(u64)) {
    for round in 0..ROUNDS {
        let seqs = round * TOGETHER + 1..=(round + 1) * TOGETHER;
        let body = joined(&seqs.map(|seq| frame("demo", seq)).collect::<Vec<_>>());
        disturb(round);
        let taken = async { while stage.post(&body).await.status != 200 {} };
        timeout(PATIENCE, taken).await.unwrap();
    }
    let places = places(stage);
    let mut last = -1;
    for seq in 1..=ROUNDS * TOGETHER {
        let first = *places.get(&seq).and_then(|offsets| offsets.iter().min()).unwrap();
        assert!(first > last, "seq {seq} at {first}, the one before at {last}");
        last = first;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_leaders_change_nothing_is_lost_or_reordered() {
    let stage = stage_on(three_brokers(), |_| {}).await;
    stage.until_it_takes_batches().await;
    nothing_is_lost_or_reordered(&stage, |round| {
        for partition in 0..i32::from(PARTITIONS) {
            let leader = (round as i32 + partition) % BROKERS + 1;
            stage.cluster.partition_leader(TOPIC_LIVE, partition, Some(leader)).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_requests_end_in_every_retriable_way_nothing_is_lost_or_reordered() {
    use RDKafkaRespErr::{
        RD_KAFKA_RESP_ERR__TRANSPORT as TRANSPORT,
        RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE as NO_LEADER,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND as AFTER_APPEND,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NOT_LEADER,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as TIMED_OUT,
    };
    let stage = stage_on(three_brokers(), |_| {}).await;
    stage.until_it_takes_batches().await;
    let errors = [NOT_LEADER, TRANSPORT, TIMED_OUT, NO_LEADER, AFTER_APPEND];
    nothing_is_lost_or_reordered(&stage, |round| {
        let error = errors[round as usize % errors.len()];
        stage.cluster.request_errors(RDKafkaApiKey::Produce, &[error; 2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_seems_to_vanish_is_waited_for_and_refuses_nothing() {
    let stage = stage_on(three_brokers(), |settings| {
        // Metadata is asked for again at once, so that the topic's absence is seen.
        settings.kafka.options.push("topic.metadata.refresh.interval.ms=100".to_owned());
        settings.kafka.options.push("topic.metadata.propagation.max.ms=200".to_owned());
    })
    .await;
    stage.until_it_takes_batches().await;
    let gone = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    let back = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    stage.post(&frame("demo", 1)).await.is_accepted(1);
    stage.cluster.topic_error(TOPIC_LIVE, gone).unwrap();
    let body = joined(&(2..=TOGETHER).map(|seq| frame("demo", seq)).collect::<Vec<_>>());
    // Whatever is said meanwhile, it is never that a batch is bad.
    let felt = async {
        loop {
            let reply = stage.post(&body).await;
            match reply.status {
                503 => break reply,
                200 => reply.is_accepted(TOGETHER as usize - 1),
                _ => panic!("{reply:?}"),
            }
        }
    };
    let reply = timeout(PATIENCE, felt).await.unwrap();
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    stage.cluster.topic_error(TOPIC_LIVE, back).unwrap();
    let taken = async { while stage.post(&body).await.status != 200 {} };
    timeout(PATIENCE, taken).await.unwrap();
    let places = places(&stage);
    assert!((1..=TOGETHER).all(|seq| places.contains_key(&seq)));
}
