//! A frame with one flipped bit, under a good key, in the log.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use spillway_proto::BatchId;
use spillway_proto::frame::Encoder;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, TOPIC_LIVE};
use spillway_proto::partition::Partitioning;
use spillway_testkit::StackError;
use spillway_testkit::stack::{PARTITION_GROUP, PARTITIONS, Stack};
use uuid::Uuid;

use crate::oracle::trial::Trial;
use crate::recipe::Recipe;

const FLUSH_WITHIN: Duration = Duration::from_secs(10);

/// Publishes one in the middle of the load.
pub async fn damage_one(stack: &Stack, trial: &Trial) -> Result<(), StackError> {
    trial.reached(30).await;
    let kafka = stack.file().kafka;
    let published = tokio::task::spawn_blocking(move || publish(&kafka)).await;
    published
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|what| StackError::Refused { what })
}

fn publish(kafka: &str) -> Result<(), String> {
    let recipe = Recipe {
        id: BatchId::Sequenced { agent_id: Uuid::new_v4(), epoch: Uuid::now_v7(), seq: 1 },
        environment: "demo".into(),
        host: "damaged".into(),
        window_ts: 1_700_000_000,
        series: 3,
        points: 10,
        revises: false,
        declares: vec![],
        closing: true,
    };
    let frame = Encoder::new().encode(&recipe.batch()).map_err(|error| error.to_string())?;
    let mut frame = frame.to_vec();
    frame.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    let partitions = Partitioning::new(PARTITIONS, PARTITION_GROUP).expect("the stack's own");
    let partition = partitions.partition_of(&recipe.environment, &recipe.host);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .create()
        .map_err(|error| error.to_string())?;
    let header = Header { key: HEADER_ENVIRONMENT, value: Some(recipe.environment.as_str()) };
    let key = recipe.id.to_bytes();
    let record = BaseRecord::to(TOPIC_LIVE)
        .partition(i32::from(partition))
        .key(&key[..])
        .payload(&frame)
        .headers(OwnedHeaders::new().insert(header));
    producer.send(record).map_err(|(error, _)| error.to_string())?;
    producer.flush(FLUSH_WITHIN).map_err(|error| error.to_string())
}
