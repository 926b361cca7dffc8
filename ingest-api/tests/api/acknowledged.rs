//! 2xx means that Kafka has it, the very bytes, where the consumer looks for them.

use rdkafka::Message;
use rdkafka::message::Headers;
use spillway_proto::BatchId;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, TOPIC_BACKLOG, TOPIC_LIVE};
use spillway_proto::partition::Partitioning;
use uuid::Uuid;

use crate::stage::{PARTITIONS, frame, joined, stage};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_lies_in_kafka_byte_for_byte_in_the_hosts_partition() {
    let stage = stage(|_| {}).await;
    let frame = frame("demo", 1);
    let reply = stage.post(&frame).await;
    reply.is_accepted(1);
    assert_eq!(reply.body["environment"], "demo");

    let records = stage.records(TOPIC_LIVE);
    assert_eq!(records.len(), 1);
    let record = records.first().unwrap();
    let id = BatchId::Sequenced { agent_id: Uuid::from_u128(7), epoch: Uuid::from_u128(8), seq: 1 };
    let place = Partitioning::new(PARTITIONS, 4).unwrap().partition_of("demo", "web-1");
    assert_eq!(record.payload(), Some(&frame[..]));
    assert_eq!(record.key(), Some(&id.to_bytes()[..]));
    assert_eq!(record.partition(), i32::from(place));
    let header = record.headers().unwrap().get(0);
    assert_eq!((header.key, header.value), (HEADER_ENVIRONMENT, Some(&b"demo"[..])));
    assert!(stage.metric("spillway_ingest_points_accepted_total") == 5.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_a_topic() {
    let stage = stage(|_| {}).await;
    let lane = [("Spillway-Lane", "backlog")];
    stage.post_with(&frame("demo", 1), &lane).await.is_accepted(1);
    assert_eq!(stage.records(TOPIC_BACKLOG).len(), 1);
    assert_eq!(stage.records(TOPIC_LIVE).len(), 0);
    let reply = stage.post_with(&frame("demo", 1), &[("Spillway-Lane", "fast")]).await;
    assert_eq!(reply.status, 400);
    reply.is_problem("bad-request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_batches_of_one_request_are_all_taken_on_one_connection() {
    let stage = stage(|_| {}).await;
    let mut client = stage.connect().await;
    for request in 0..3 {
        let frames: Vec<_> = (1..=50).map(|n| frame("demo", request * 50 + n)).collect();
        client.write(&stage.request(&joined(&frames), &[])).await;
        client.reply().await.is_accepted(50);
    }
    assert_eq!(stage.records(TOPIC_LIVE).len(), 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_does_not_publish_twice() {
    let stage = stage(|_| {}).await;
    let frame = frame("demo", 1);
    let mut client = stage.connect().await;
    client.write(&stage.request(&frame, &[])).await;
    client.reply().await.is_accepted(1);
    drop(client);
    stage.post(&frame).await.is_accepted(1);
    assert_eq!(stage.records(TOPIC_LIVE).len(), 1);
    assert!(stage.metric("spillway_ingest_joins_total") == 1.0);
}
