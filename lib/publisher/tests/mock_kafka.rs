//! The publisher's promises against librdkafka's in-process mock of a Kafka cluster, which speaks
//! the real protocol over loopback and can be told to fail.

#![expect(clippy::unwrap_used, reason = "a test that can't be set up has failed")]

use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use spillway_proto::kafka_record::{TOPIC_BACKLOG, TOPIC_DEAD_LETTERS, TOPIC_LIVE};
use spillway_proto::limits::KAFKA_MESSAGE_BYTES_MAX;
use spillway_publisher::{
    KafkaSettings, Outcome, PublishError, Publisher, Record, Repeat, TopicProblem, TopicsError,
    wait_all,
};
use spillway_runtime::settings::Dur;
use tokio::time::Instant;

/// Long enough for any mock to answer; reached only by a failing test.
const PATIENCE: Duration = Duration::from_secs(30);
/// A sender's deadline, shortened.
const DEADLINE: Duration = Duration::from_millis(300);

struct Stage {
    cluster: MockCluster<'static, DefaultProducerContext>,
    registry: Registry,
    publisher: Publisher,
}

fn stage(change: impl FnOnce(&mut KafkaSettings)) -> Stage {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC_LIVE, 4, 1).unwrap();
    let mut settings = KafkaSettings {
        brokers: cluster.bootstrap_servers().split(',').map(str::to_owned).collect(),
        ..KafkaSettings::default()
    };
    change(&mut settings);
    let mut registry = Registry::default();
    let publisher = Publisher::start(&settings, &mut registry).unwrap();
    Stage { cluster, registry, publisher }
}

fn record(key: &'static str, value: &'static str) -> Record {
    Record {
        topic: TOPIC_LIVE,
        partition: 1,
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        headers: vec![("environment", Bytes::from_static(b"demo"))],
        repeat: Repeat::Joins,
    }
}

impl Stage {
    async fn publish(&self, record: Record) -> Outcome {
        self.publisher.publish(record).unwrap().wait(PATIENCE).await
    }

    /// Records in partition 1 of the live topic, as the broker counts them.
    fn records(&self) -> i64 {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .create()
            .unwrap();
        let (low, high) = consumer.fetch_watermarks(TOPIC_LIVE, 1, PATIENCE).unwrap();
        high - low
    }

    fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_done_before_its_delivery_report_and_the_retry_joins_it() {
    let stage = stage(|_| {});
    stage.cluster.broker_down(-1).unwrap();
    let first = stage.publisher.publish(record("a", "1")).unwrap();
    assert_eq!(first.wait(DEADLINE).await, Outcome::Unknown);
    assert_eq!(stage.publisher.in_flight(), 1);

    stage.cluster.broker_up(-1).unwrap();
    let retry = stage.publisher.publish(record("a", "1")).unwrap();
    assert!(retry.joined());
    assert!(retry.wait(PATIENCE).await.is_done());
    assert!(first.wait(DEADLINE).await.is_done());
    assert_eq!(stage.records(), 1);
    assert!(stage.metric("joins_total") == 1.0 && stage.metric("records_published_total") == 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_does_not_publish_twice() {
    let stage = stage(|_| {});
    let first = stage.publish(record("a", "1")).await;
    assert!(matches!(first, Outcome::Done { partition: 1, offset: Some(0), .. }), "{first:?}");
    let again = stage.publisher.publish(record("a", "1")).unwrap();
    assert!(again.joined());
    assert_eq!(again.wait(DEADLINE).await, first);
    assert_eq!(stage.records(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_under_a_used_id_are_published() {
    let stage = stage(|_| {});
    assert!(stage.publish(record("a", "1")).await.is_done());
    assert!(stage.publish(record("a", "2")).await.is_done());
    assert_eq!(stage.records(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_never_joined() {
    let stage = stage(|_| {});
    for _ in 0..2 {
        let letter = Record { repeat: Repeat::PublishesAgain, ..record("a", "1") };
        assert!(stage.publish(letter).await.is_done());
    }
    assert_eq!(stage.records(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_gives_the_record_back_at_once() {
    const QUEUE: usize = 100;
    let stage = stage(|settings| settings.producer.queue_records_max = QUEUE as u32);
    stage.cluster.broker_down(-1).unwrap();
    let numbered =
        |number: usize| Record { value: Bytes::from(format!("{number}")), ..record("a", "") };
    let pendings: Vec<_> =
        (0..QUEUE).map(|number| stage.publisher.publish(numbered(number)).unwrap()).collect();
    let refused = stage.publisher.publish(numbered(QUEUE)).unwrap_err();
    assert!(matches!(refused, PublishError::QueueFull(_)) && refused.is_transient());
    assert_eq!(refused.into_record().value, numbered(QUEUE).value);

    stage.cluster.broker_up(-1).unwrap();
    let outcomes = wait_all(&pendings, PATIENCE).await;
    assert!(outcomes.iter().all(Outcome::is_done));
    // librdkafka makes room a moment after it reported: waited for, with a deadline.
    let until = Instant::now() + PATIENCE;
    let late = loop {
        match stage.publisher.publish(numbered(QUEUE)) {
            Ok(pending) => break pending,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(late.wait(PATIENCE).await.is_done());
    assert_eq!(stage.records(), QUEUE as i64 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_larger_than_kafka_takes_is_refused_for_good() {
    let stage = stage(|_| {});
    let large = Record { value: Bytes::from(vec![7; KAFKA_MESSAGE_BYTES_MAX]), ..record("a", "") };
    let refused = stage.publisher.publish(large).unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge { .. }) && !refused.is_transient());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_are_waited_for() {
    let stage = stage(|_| {});
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
    stage.cluster.request_errors(RDKafkaApiKey::Produce, &[error; 5]);
    assert!(stage.publish(record("a", "1")).await.is_done());
    assert_eq!(stage.records(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repetition_that_kafka_recognised_is_done_without_an_offset() {
    let stage = stage(|_| {});
    assert!(stage.publish(record("a", "1")).await.is_done());
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
    stage.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    let outcome = stage.publish(record("b", "1")).await;
    assert!(matches!(outcome, Outcome::Done { offset: None, .. }), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_in_mid_request_is_no_loss() {
    let stage = stage(|_| {});
    assert!(stage.publish(record("a", "1")).await.is_done());
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT;
    stage.cluster.request_errors(RDKafkaApiKey::Produce, &[error; 3]);
    assert!(stage.publish(record("b", "1")).await.is_done());
    assert_eq!(stage.records(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_timed_out_is_unknown_and_published_again() {
    let stage = stage(|settings| settings.producer.message_timeout = Dur::from_secs(1));
    stage.cluster.broker_down(-1).unwrap();
    let first = stage.publisher.publish(record("a", "1")).unwrap();
    assert_eq!(first.wait(PATIENCE).await, Outcome::Unknown);
    assert_eq!(stage.publisher.in_flight(), 0, "the report came: it is over");
    stage.cluster.broker_up(-1).unwrap();
    let again = stage.publisher.publish(record("a", "1")).unwrap();
    assert!(!again.joined());
    // With a timeout of one second the healed broker may come too late for this one as well.
    let mut outcome = again.wait(PATIENCE).await;
    let until = Instant::now() + PATIENCE;
    while !outcome.is_done() && Instant::now() < until {
        outcome = stage.publish(record("a", "1")).await;
    }
    assert!(outcome.is_done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fatal_error_makes_a_new_producer_and_nothing_is_lost_in_silence() {
    let stage = stage(|_| {});
    assert!(stage.publish(record("a", "1")).await.is_done());
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    stage.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    assert_eq!(stage.publish(record("b", "1")).await, Outcome::Unknown);

    // Refused while the new producer is made, then done: waited for, with a deadline.
    let until = Instant::now() + PATIENCE;
    let outcome = loop {
        assert!(Instant::now() < until, "no new producer");
        match stage.publisher.publish(record("b", "1")) {
            Ok(pending) => match pending.wait(PATIENCE).await {
                Outcome::Unknown => {}
                outcome => break outcome,
            },
            Err(error) => assert!(matches!(error, PublishError::Rebuilding(_)), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert!(outcome.is_done());
    assert!(stage.metric("kafka_producer_rebuilds_total") == 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_says_what_is_left() {
    let stage = stage(|_| {});
    assert!(stage.publish(record("a", "1")).await.is_done());
    stage.cluster.broker_down(-1).unwrap();
    let stuck = stage.publisher.publish(record("b", "1")).unwrap();
    assert_eq!(stage.publisher.drain(DEADLINE).await, 1);
    let refused = stage.publisher.publish(record("c", "1")).unwrap_err();
    assert!(matches!(refused, PublishError::Draining(_)));

    stage.cluster.broker_up(-1).unwrap();
    assert_eq!(stage.publisher.drain(PATIENCE).await, 0);
    assert!(stuck.wait(DEADLINE).await.is_done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_that_are_not_as_they_must_be_are_told_in_one_sentence_each() {
    let stage = stage(|_| {});
    let wrong = stage.publisher.check_topics(64, PATIENCE).await.unwrap_err();
    assert!(!wrong.is_transient());
    let TopicsError::Wrong(problems) = &wrong else { panic!("{wrong}") };
    assert_eq!(problems.len(), 3);
    let text = wrong.to_string();
    assert!(text.contains("topic spillway.live has 4 partitions, but the settings say 64"));
    assert!(problems.contains(&TopicProblem::Missing { topic: TOPIC_BACKLOG }), "{text}");

    stage.cluster.create_topic(TOPIC_BACKLOG, 4, 1).unwrap();
    stage.cluster.create_topic(TOPIC_DEAD_LETTERS, 1, 1).unwrap();
    stage.publisher.check_topics(4, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_kafka_proves_nothing_about_its_topics() {
    let stage = stage(|_| {});
    stage.cluster.broker_down(-1).unwrap();
    let error = stage.publisher.check_topics(4, DEADLINE).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}
