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

use crate::stage::{PARTITIONS, PATIENCE, Stage, frame, hasty, joined, stage_on};

const BROKERS: i32 = 3;
const ROUNDS: u64 = 20;
/// Batches of one agent and epoch that are under way together.
const TOGETHER: u64 = 25;

fn three_brokers() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(BROKERS).unwrap();
    for topic in [TOPIC_LIVE, TOPIC_BACKLOG, TOPIC_DEAD_LETTERS] {
        cluster.create_topic(topic, i32::from(PARTITIONS), BROKERS).unwrap();
    }
    cluster
}

/// The mock checks no sequence numbers (rd_kafka_mock_validate_records does so in transactions
/// alone): it appends the second of two requests though it refused the first, and then the
/// producer must take the first for stored, as it would be on a broker. So one at a time here;
/// several at once: real brokers, in the drills of dead leaders and of too few replicas.
async fn one_request_at_a_time() -> Stage {
    let stage = stage_on(three_brokers(), |settings| {
        hasty(settings);
        settings.kafka.options.push("max.in.flight=1".to_owned());
    })
    .await;
    stage.until_it_takes_batches().await;
    stage
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
    let all = 1..=ROUNDS * TOGETHER;
    let lost: Vec<u64> = all.filter(|seq| !places.contains_key(seq)).collect();
    assert!(lost.is_empty(), "acknowledged and not in the log: {lost:?}");
    let mut last = -1;
    for seq in 1..=ROUNDS * TOGETHER {
        let first = *places.get(&seq).and_then(|offsets| offsets.iter().min()).unwrap();
        assert!(first > last, "seq {seq} at {first}, the one before at {last}");
        last = first;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_leaders_change_nothing_is_lost_or_reordered() {
    let stage = one_request_at_a_time().await;
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
    let stage = one_request_at_a_time().await;
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
        hasty(settings);
        // Metadata is asked for again at once, so that the topic's absence is seen.
        settings.kafka.options.push("topic.metadata.refresh.interval.ms=100".to_owned());
        settings.kafka.options.push("topic.metadata.propagation.max.ms=200".to_owned());
    })
    .await;
    stage.until_it_takes_batches().await;
    let gone = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    let back = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    stage.cluster.topic_error(TOPIC_LIVE, gone).unwrap();
    // A new batch each time: one that Kafka has would be answered from memory.
    let felt = async {
        for seq in 1.. {
            let reply = stage.post(&frame("demo", seq)).await;
            match reply.status {
                // Whatever is said meanwhile, it is never that a batch is bad.
                503 => return (seq, reply),
                _ => reply.is_accepted(1),
            }
        }
        unreachable!("seqs do not end")
    };
    let (refused, reply) = timeout(PATIENCE, felt).await.unwrap();
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    stage.cluster.topic_error(TOPIC_LIVE, back).unwrap();
    let taken = async { while stage.post(&frame("demo", refused)).await.status != 200 {} };
    timeout(PATIENCE, taken).await.unwrap();
    let places = places(&stage);
    assert!((1..=refused).all(|seq| places.contains_key(&seq)), "{refused} sent, {places:?}");
}
