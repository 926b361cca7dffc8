//! Kafka, asked as an administrator. The client's calls block, and so does dropping it, so each
//! look is one visit to a blocking thread with one deadline for all of it.

mod layout;
mod records;
pub mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_proto::kafka_record::{CONSUMER_GROUP, Lane, TOPIC_DEAD_LETTERS};
use spillway_proto::limits::{DEAD_LETTER_BYTES_MAX, KAFKA_MESSAGE_BYTES_MAX};
use spillway_publisher::KafkaSettings;
use spillway_runtime::settings::SecretFileError;

pub use layout::{Layout, PartitionCopies, TopicValue};
pub use records::Found;

/// All of Spillway's topics.
pub const TOPICS: [&str; 3] = ["spillway.live", "spillway.backlog", TOPIC_DEAD_LETTERS];

/// Between two questions to a partition that has no leader yet.
const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// Between two questions to a Kafka that does not answer.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(500);

/// Why Kafka could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum KafkaFault {
    #[error("Kafka at {brokers} does not answer ({cause}); is it up, and is kafka.brokers right?")]
    Unreachable { brokers: String, cause: KafkaError },
    #[error("Kafka's partition {partition} of {topic} does not answer: {cause}")]
    Partition { topic: String, partition: u16, cause: KafkaError },
    #[error("topic {topic} was not created: {}", why(.code))]
    NotCreated { topic: String, code: RDKafkaErrorCode },
    #[error("Kafka did not create the topics: {0}")]
    Refused(KafkaError),
    #[error("the Kafka client can't be made from these settings: {0}")]
    Client(KafkaError),
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    #[error("the look at Kafka was ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl KafkaFault {
    /// Whether it is one of the things that hold for moments only, while partitions are made.
    fn passes(&self) -> bool {
        let Self::Partition { cause, .. } = self else { return false };
        matches!(
            cause.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::LeaderNotAvailable
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopicOrPartition
            )
        )
    }
}

fn why(code: &RDKafkaErrorCode) -> String {
    match code {
        RDKafkaErrorCode::InvalidReplicationFactor => {
            "there are fewer brokers than copies; pass a smaller --replication-factor".to_owned()
        }
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            "this Kafka user may not create topics".to_owned()
        }
        other => other.to_string(),
    }
}

/// What there is.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub id: String,
    pub brokers: usize,
    /// Partitions of those of our topics that exist.
    pub partitions: BTreeMap<&'static str, usize>,
}

/// The first and the next offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ends {
    pub low: i64,
    pub high: i64,
}

/// The ends of both lanes' partitions.
pub type AllEnds = BTreeMap<(Lane, u16), Ends>;

/// A command says itself what went wrong; the client's own lines, hundreds in an outage, would
/// hide it.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(facility, line, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// A way to Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    config: ClientConfig,
    brokers: String,
    deadline: Duration,
}

impl Kafka {
    pub fn new(settings: &KafkaSettings, deadline: Duration) -> Result<Self, SecretFileError> {
        let mut config = settings.client_config()?;
        // The consumers' group, to read how far it is. Nobody joins it by that.
        config.set("enable.auto.commit", "false").set("group.id", CONSUMER_GROUP);
        Ok(Self { config, brokers: settings.brokers.join(","), deadline })
    }

    fn unreachable(&self, cause: KafkaError) -> KafkaFault {
        KafkaFault::Unreachable { brokers: self.brokers.clone(), cause }
    }

    async fn visit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, KafkaFault> + Send + 'static,
    ) -> Result<T, KafkaFault> {
        let own = self.clone();
        tokio::task::spawn_blocking(move || work(&own)).await?
    }

    fn consumer(&self) -> Result<BaseConsumer<Quiet>, KafkaFault> {
        BaseConsumer::from_config_and_context(&self.config, Quiet).map_err(KafkaFault::Client)
    }

    fn partition_fault(&self, lane: Lane, partition: u16, cause: KafkaError) -> KafkaFault {
        match cause.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut,
            ) => self.unreachable(cause),
            _ => KafkaFault::Partition { topic: lane.topic().to_owned(), partition, cause },
        }
    }

    /// Who is there and which of our topics exist.
    pub async fn look(&self) -> Result<Cluster, KafkaFault> {
        self.visit(|own| {
            let consumer = own.consumer()?;
            let metadata = consumer.fetch_metadata(None, own.deadline);
            let metadata = metadata.map_err(|cause| own.unreachable(cause))?;
            let id = consumer.client().fetch_cluster_id(own.deadline).unwrap_or_default();
            let count = |topic: &'static str| {
                let found = metadata.topics().iter().find(|found| found.name() == topic)?;
                let count = found.partitions().len();
                (found.error().is_none() && count > 0).then_some((topic, count))
            };
            let partitions = TOPICS.into_iter().filter_map(count).collect();
            Ok(Cluster { id, brokers: metadata.brokers().len(), partitions })
        })
        .await
    }

    /// Partitions of our topics with fewer copies in sync than they have copies.
    pub async fn short_of_copies(&self) -> Result<usize, KafkaFault> {
        self.visit(|own| {
            let consumer = own.consumer()?;
            let metadata = consumer.fetch_metadata(None, own.deadline);
            let metadata = metadata.map_err(|cause| own.unreachable(cause))?;
            let ours = metadata.topics().iter().filter(|found| TOPICS.contains(&found.name()));
            let partitions = ours.flat_map(|found| found.partitions());
            Ok(partitions.filter(|one| one.isr().len() < one.replicas().len()).count())
        })
        .await
    }

    /// The same, but a Kafka that is not there yet is waited for: a broker that starts refuses
    /// connections for seconds, and the client calls that "all brokers down".
    pub async fn look_patiently(&self, within: Duration) -> Result<Cluster, KafkaFault> {
        let until = Instant::now() + within;
        let mut told = false;
        loop {
            match self.look().await {
                Err(KafkaFault::Unreachable { cause, .. }) if Instant::now() < until => {
                    if !told {
                        eprintln!("Kafka does not answer yet ({cause}); waiting for it");
                        told = true;
                    }
                    tokio::time::sleep(UNREACHABLE_PAUSE).await;
                }
                found => return found,
            }
        }
    }

    /// The ends of partitions `0..partitions` of these lanes. The moments after a partition was
    /// made or moved, in which no broker calls itself its leader, are waited out.
    pub async fn ends(&self, lanes: Vec<Lane>, partitions: u16) -> Result<AllEnds, KafkaFault> {
        self.visit(move |own| {
            let until = Instant::now() + own.deadline;
            loop {
                // A new client each time: an old one goes on believing what it was told first.
                let consumer = own.consumer()?;
                match own.ends_now(&consumer, &lanes, partitions, until) {
                    Err(fault) if fault.passes() && Instant::now() < until => {
                        // Nothing is assigned, so this only waits.
                        drop(consumer.poll(LEADER_PAUSE));
                    }
                    found => return found,
                }
            }
        })
        .await
    }

    fn ends_now(
        &self,
        consumer: &BaseConsumer<Quiet>,
        lanes: &[Lane],
        partitions: u16,
        until: Instant,
    ) -> Result<AllEnds, KafkaFault> {
        let mut all = AllEnds::new();
        for lane in lanes {
            for partition in 0..partitions {
                let left = until.saturating_duration_since(Instant::now());
                let ends = consumer.fetch_watermarks(lane.topic(), partition.into(), left);
                let (low, high) =
                    ends.map_err(|cause| self.partition_fault(*lane, partition, cause))?;
                all.insert((*lane, partition), Ends { low, high });
            }
        }
        Ok(all)
    }

    /// What the consumers' group has noted as applied: a hint that may lag behind the truth in
    /// MySQL, for when that can't be asked. Partitions it has noted nothing for are left out.
    pub async fn noted(&self, partitions: u16) -> Result<BTreeMap<(Lane, u16), i64>, KafkaFault> {
        self.visit(move |own| {
            let consumer = own.consumer()?;
            let mut wanted = TopicPartitionList::new();
            for lane in Lane::ALL {
                wanted.add_partition_range(lane.topic(), 0, i32::from(partitions) - 1);
            }
            let found = consumer.committed_offsets(wanted, own.deadline);
            let found = found.map_err(|cause| own.unreachable(cause))?;
            let place = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
                let lane = Lane::of_topic(element.topic())?;
                let partition = u16::try_from(element.partition()).ok()?;
                match element.offset() {
                    Offset::Offset(offset) => Some(((lane, partition), offset)),
                    _ => None,
                }
            };
            Ok(found.elements().iter().filter_map(place).collect())
        })
        .await
    }

    /// When the records at these offsets were appended, in ms since the Unix epoch; what does not
    /// come within the deadline is left out.
    pub async fn append_times(
        &self,
        places: Vec<(Lane, u16, i64)>,
    ) -> Result<BTreeMap<(Lane, u16), i64>, KafkaFault> {
        self.visit(move |own| {
            let until = Instant::now() + own.deadline;
            let consumer = own.consumer()?;
            let mut wanted = TopicPartitionList::new();
            for (lane, partition, offset) in &places {
                let place = (*partition).into();
                wanted
                    .add_partition_offset(lane.topic(), place, Offset::Offset(*offset))
                    .map_err(KafkaFault::Client)?;
            }
            consumer.assign(&wanted).map_err(KafkaFault::Client)?;
            let mut times = BTreeMap::new();
            while times.len() < places.len() {
                let left = until.saturating_duration_since(Instant::now());
                // One partition's trouble, or a broker's that is gone, hides no other's time.
                let Some(polled) = consumer.poll(left) else { break };
                let Ok(message) = polled else { continue };
                let lane = Lane::of_topic(message.topic());
                let partition = u16::try_from(message.partition()).ok();
                if let (Some(place), Some(at)) =
                    (lane.zip(partition), message.timestamp().to_millis())
                {
                    times.entry(place).or_insert(at);
                }
            }
            Ok(times)
        })
        .await
    }

    /// Creates `topics`, so that nothing in them expires and each record bears its append's time.
    pub async fn create(&self, topics: Vec<&'static str>, shape: Shape) -> Result<(), KafkaFault> {
        let runtime = tokio::runtime::Handle::current();
        self.visit(move |own| {
            let admin = AdminClient::from_config_and_context(&own.config, Quiet);
            let admin = admin.map_err(KafkaFault::Client)?;
            let min_insync = shape.min_insync.to_string();
            let bytes = [KAFKA_MESSAGE_BYTES_MAX, DEAD_LETTER_BYTES_MAX].map(|b| b.to_string());
            let [bytes, letter_bytes] = &bytes;
            let bytes_max = |topic: &str| match topic {
                TOPIC_DEAD_LETTERS => letter_bytes,
                _ => bytes,
            };
            let new = |topic: &&'static str| {
                NewTopic::new(topic, shape.partitions.into(), TopicReplication::Fixed(shape.copies))
                    .set("message.timestamp.type", "LogAppendTime")
                    .set("retention.ms", "-1")
                    .set("retention.bytes", "-1")
                    .set("cleanup.policy", "delete")
                    .set("max.message.bytes", bytes_max(topic))
                    .set("min.insync.replicas", &min_insync)
            };
            let new: Vec<_> = topics.iter().map(new).collect();
            let options = AdminOptions::new()
                .request_timeout(Some(own.deadline))
                .operation_timeout(Some(own.deadline));
            let created = runtime.block_on(admin.create_topics(&new, &options));
            for created in created.map_err(KafkaFault::Refused)? {
                if let Err((topic, code)) = created
                    && code != RDKafkaErrorCode::TopicAlreadyExists
                {
                    return Err(KafkaFault::NotCreated { topic, code });
                }
            }
            Ok(())
        })
        .await
    }
}

/// How new topics are cut and copied.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub partitions: u16,
    pub copies: i32,
    pub min_insync: i32,
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
    use spillway_proto::kafka_record::TOPIC_LIVE;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_broker_that_is_gone_hides_no_age_of_what_the_others_have() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(2).unwrap();
        cluster.create_topic(TOPIC_LIVE, 2, 1).unwrap();
        for partition in [0, 1] {
            cluster.partition_leader(TOPIC_LIVE, partition, Some(partition + 1)).unwrap();
        }
        let settings =
            KafkaSettings { brokers: vec![cluster.bootstrap_servers()], ..Default::default() };
        let producer: BaseProducer = settings.client_config().unwrap().create().unwrap();
        for partition in [0, 1] {
            let record = BaseRecord::<[u8], [u8]>::to(TOPIC_LIVE).partition(partition);
            producer.send(record.payload(b"x")).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
        cluster.broker_down(2).unwrap();
        // The trouble is heard of before the other's record comes.
        cluster.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();
        let kafka = Kafka::new(&settings, Duration::from_secs(6)).unwrap();
        let places = vec![(Lane::Live, 0, 0), (Lane::Live, 1, 0)];
        let times = kafka.append_times(places).await.unwrap();
        assert!(times.contains_key(&(Lane::Live, 0)), "{times:?}");
        assert!(!times.contains_key(&(Lane::Live, 1)), "its broker is gone: {times:?}");
    }
}
