//! Kafka in this process (librdkafka's mock cluster) or a real one, and a stand-in for the
//! consumers: what it commits is what they would have stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use spillway_proto::BatchId;
use spillway_proto::kafka_record::{CONSUMER_GROUP, HEADER_ENVIRONMENT, TOPIC_BACKLOG};

use super::PARTITIONS;

const BROKERS: i32 = 1;
const ANSWER: Duration = Duration::from_secs(10);

pub enum Kafka {
    Mock(MockCluster<'static, DefaultProducerContext>),
    Real { brokers: String },
}

/// One record as the consumer would meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub partition: u16,
    pub offset: i64,
    pub id: BatchId,
    pub environment: String,
    pub frame: Vec<u8>,
}

impl Kafka {
    pub fn start() -> Self {
        let mock = MockCluster::new(BROKERS).unwrap();
        mock.create_topic(TOPIC_BACKLOG, i32::from(PARTITIONS), 1).unwrap();
        Self::Mock(mock)
    }

    /// A real cluster, with the topic made in it.
    pub async fn real(brokers: String) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &brokers);
        let admin = AdminClient::from_config(&config).unwrap();
        let replication = TopicReplication::Fixed(1);
        let topic = NewTopic::new(TOPIC_BACKLOG, i32::from(PARTITIONS), replication);
        let made = admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|topic| assert!(topic.is_ok(), "{topic:?}"));
        Self::Real { brokers }
    }

    pub fn brokers(&self) -> String {
        match self {
            Self::Mock(mock) => mock.bootstrap_servers(),
            Self::Real { brokers } => brokers.clone(),
        }
    }

    fn mock(&self) -> &MockCluster<'static, DefaultProducerContext> {
        match self {
            Self::Mock(mock) => mock,
            Self::Real { .. } => panic!("a real cluster is killed by its stack"),
        }
    }

    pub fn down(&self) {
        self.mock().broker_down(BROKERS).unwrap();
    }

    pub fn up(&self) {
        self.mock().broker_up(BROKERS).unwrap();
    }

    /// The next produce requests are answered with this.
    pub fn refuse_produce(&self, error: RDKafkaRespErr, times: usize) {
        self.mock().request_errors(RDKafkaApiKey::Produce, &vec![error; times]);
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers())
            .set("group.id", CONSUMER_GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error");
        BaseConsumer::from_config(&config).unwrap()
    }

    /// Everything in the backlog topic.
    pub async fn records(&self) -> Vec<Stored> {
        let consumer = self.consumer();
        tokio::task::spawn_blocking(move || read(&consumer)).await.unwrap()
    }

    /// Commits, as the consumers' group, that everything so far is stored.
    pub async fn commit_all(&self) {
        let consumer = Arc::new(self.consumer());
        let until = Instant::now() + ANSWER;
        loop {
            let consumer = Arc::clone(&consumer);
            let done = tokio::task::spawn_blocking(move || commit_ends(&consumer)).await.unwrap();
            let Err(error) = done else { return };
            // A broker that has just come back may still be looking for its partitions and groups.
            assert!(Instant::now() < until, "{error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn commit_ends(consumer: &BaseConsumer) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::from(PARTITIONS) {
        let (_, end) = consumer.fetch_watermarks(TOPIC_BACKLOG, partition, ANSWER)?;
        list.add_partition_offset(TOPIC_BACKLOG, partition, Offset::Offset(end))?;
    }
    consumer.commit(&list, CommitMode::Sync)
}

fn read(consumer: &BaseConsumer) -> Vec<Stored> {
    let mut list = TopicPartitionList::new();
    let mut expected = 0;
    for partition in 0..i32::from(PARTITIONS) {
        let (low, end) = consumer.fetch_watermarks(TOPIC_BACKLOG, partition, ANSWER).unwrap();
        expected += usize::try_from(end - low).unwrap();
        list.add_partition_offset(TOPIC_BACKLOG, partition, Offset::Offset(low)).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut stored = Vec::new();
    while stored.len() < expected {
        let message = consumer.poll(ANSWER).expect("a record is missing").unwrap();
        let key: &[u8; 40] = message.key().unwrap().try_into().unwrap();
        let header = message.headers().unwrap().get(0);
        assert_eq!(header.key, HEADER_ENVIRONMENT);
        stored.push(Stored {
            partition: u16::try_from(message.partition()).unwrap(),
            offset: message.offset(),
            id: BatchId::from_bytes(key).unwrap(),
            environment: String::from_utf8(header.value.unwrap().to_vec()).unwrap(),
            frame: message.payload().unwrap().to_vec(),
        });
    }
    stored
}
