//! Kafka away, slow or failing: no 2xx, always an answer, and the retry joins what is under way.

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use spillway_ingest_api::app::Ingest;
use spillway_ingest_api::settings::IngestSettings;
use spillway_proto::kafka_record::TOPIC_LIVE;
use spillway_runtime::program::{Context, Misconfigured};
use tokio::time::timeout;

use crate::stage::{PATIENCE, cluster, frame, hasty, joined, request, stage, stage_on};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_delivery_report_there_is_no_2xx_and_the_retry_joins() {
    let stage = stage(hasty).await;
    stage.cluster.broker_down(-1).unwrap();
    let frame = frame("demo", 1);
    for _ in 0..3 {
        stage.post(&frame).await.is_later("kafka-slow");
    }
    stage.cluster.broker_up(-1).unwrap();
    let retry = async { while stage.post(&frame).await.status != 200 {} };
    timeout(PATIENCE, retry).await.unwrap();
    assert_eq!(stage.records(TOPIC_LIVE).len(), 1, "four attempts, one record");
    assert!(stage.metric("spillway_ingest_joins_total") >= 3.0);
    assert!(stage.metric("spillway_ingest_batches_accepted_total") == 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_told_at_once_and_takes_nothing_from_the_next() {
    let stage = stage(|settings| {
        hasty(settings);
        settings.kafka.producer.queue_records_max = 100;
    })
    .await;
    stage.cluster.broker_down(-1).unwrap();
    let frames: Vec<_> = (1..=101).map(|seq| frame("demo", seq)).collect();
    stage.post(&joined(&frames)).await.is_later("kafka-slow");
    stage.cluster.broker_up(-1).unwrap();
    let retry = async { while stage.post(&joined(&frames)).await.status != 200 {} };
    timeout(PATIENCE, retry).await.unwrap();
    assert_eq!(stage.records(TOPIC_LIVE).len(), 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fatal_producer_error_costs_answers_but_no_batch() {
    let stage = stage(|_| {}).await;
    stage.post(&frame("demo", 1)).await.is_accepted(1);
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    stage.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    let second = frame("demo", 2);
    assert_eq!(stage.post(&second).await.status, 503);
    let retry = async { while stage.post(&second).await.status != 200 {} };
    timeout(PATIENCE, retry).await.unwrap();
    let records = stage.records(TOPIC_LIVE);
    assert!(records.len() >= 2, "it may lie there twice: the consumer knows its id");
    assert!(stage.metric("spillway_ingest_kafka_producer_rebuilds_total") == 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_without_kafka_and_takes_batches_once_kafka_is_there() {
    let cluster = cluster();
    cluster.broker_down(-1).unwrap();
    let stage = stage_on(cluster, |_| {}).await;
    stage.post(&frame("demo", 1)).await.is_later("kafka-unavailable");
    for path in ["/livez", "/readyz"] {
        let mut client = stage.connect().await;
        client.write(&request("GET", path, &[], b"")).await;
        assert_eq!(client.reply().await.status, 200, "{path} does not look at Kafka");
    }
    stage.cluster.broker_up(-1).unwrap();
    stage.until_it_takes_batches().await;
    stage.post(&frame("demo", 1)).await.is_accepted(1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_of_another_shape_end_the_start_with_one_sentence() {
    let stage = stage_on(cluster(), |settings| settings.topics.partitions = 64).await;
    let error = timeout(PATIENCE, stage.running).await.unwrap().unwrap().unwrap_err();
    let Misconfigured(sentence) = error.downcast_ref().unwrap();
    assert!(sentence.contains("has 4 partitions, but the settings say 64"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_still_taken_is_no_wrong_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut settings = IngestSettings::default();
    settings.http.listen = taken.local_addr().unwrap();
    settings.tokens.file = directory.path().join("tokens.toml");
    let started = Ingest::start(settings, &Context::for_test("ingest-api")).await;
    let error = started.err().unwrap();
    // Its supervisor takes a wrong setting for good, and starts everything else again.
    assert!(!error.is::<Misconfigured>(), "{error}");
}
