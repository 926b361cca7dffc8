//! Kafka as an observer of its own sees it: both topics from the beginning, record by record, and
//! how many dead letters there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use spillway_proto::BatchId;
use spillway_proto::batch_id::BATCH_ID_BYTES;
use spillway_proto::frame;
use spillway_proto::kafka_record::{CONSUMER_GROUP, Lane, TOPIC_DEAD_LETTERS};
use spillway_proto::partition::Partitioning;
use spillway_testkit::stack::{PARTITION_GROUP, PARTITIONS};

const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// All records of a run; millions of points are some ten thousand records.
const READ_DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(500);

/// A partition of one of the two topics.
pub type Partition = (Lane, u16);
/// Where a record lies.
pub type Place = (Lane, u16, i64);

/// What lies at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The key, if it is an id.
    pub id: Option<BatchId>,
    /// crc32c of the whole value: what `positions` remembers.
    pub value_crc: u32,
    /// The frame's own crc, if it is a frame and unharmed: what `audit` remembers.
    pub frame_crc: Option<u32>,
    pub points: u64,
}

/// Both topics.
#[derive(Debug, Default)]
pub struct Log {
    pub records: BTreeMap<Place, LogRecord>,
    /// First offset and next one.
    pub ends: BTreeMap<Partition, (i64, i64)>,
    pub dead_letters: u64,
}

impl Log {
    /// Reads everything there is now. Blocks.
    ///
    /// # Errors
    /// Kafka does not answer, or not in time.
    pub fn read(brokers: &str) -> Result<Self, KafkaError> {
        let consumer = consumer(brokers)?;
        let mut log = Self { ends: ends_with(&consumer)?, ..Self::default() };
        let mut wanted = TopicPartitionList::new();
        let mut open: BTreeMap<Partition, i64> = BTreeMap::new();
        for ((lane, partition), (low, high)) in &log.ends {
            if low < high {
                let offset = Offset::Offset(*low);
                wanted.add_partition_offset(lane.topic(), i32::from(*partition), offset)?;
                open.insert((*lane, *partition), *high);
            }
        }
        consumer.assign(&wanted)?;
        let until = Instant::now() + READ_DEADLINE;
        while !open.is_empty() && Instant::now() < until {
            let Some(message) = consumer.poll(POLL) else { continue };
            let message = message?;
            let Some(place) = place_of(&message) else { continue };
            let partition = (place.0, place.1);
            if open.get(&partition).is_some_and(|high| place.2 + 1 >= *high) {
                open.remove(&partition);
            }
            log.records.insert(place, record_of(&message));
        }
        log.dead_letters = count_of(&consumer, TOPIC_DEAD_LETTERS)?;
        Ok(log)
    }

    /// Where each batch lies, as often as it does.
    #[must_use]
    pub fn places(&self) -> BTreeMap<BatchId, Vec<Place>> {
        let mut places: BTreeMap<BatchId, Vec<Place>> = BTreeMap::new();
        for (place, record) in &self.records {
            if let Some(id) = record.id {
                places.entry(id).or_default().push(*place);
            }
        }
        places
    }
}

/// First and next offset of every partition of both topics. Blocks.
///
/// # Errors
/// Kafka does not answer.
pub fn ends(brokers: &str) -> Result<BTreeMap<Partition, (i64, i64)>, KafkaError> {
    ends_with(&consumer(brokers)?)
}

/// Where live batches of a host go, in a stack of our own.
#[must_use]
pub fn partition_of(environment: &str, host: &str) -> i32 {
    let partitioning = Partitioning::new(PARTITIONS, PARTITION_GROUP).expect("the stack's own");
    i32::from(partitioning.partition_of(environment, host))
}

/// Leader and in-sync replicas of one partition, as the cluster sees them now; `None` while it
/// does not say.
pub async fn place(brokers: &str, topic: &'static str, partition: i32) -> Option<(i32, Vec<i32>)> {
    let brokers = brokers.to_owned();
    let ask = move || {
        let metadata = consumer(&brokers).ok()?.fetch_metadata(Some(topic), ASK_DEADLINE).ok()?;
        let topic = metadata.topics().first()?;
        let found = topic.partitions().iter().find(|found| found.id() == partition)?;
        Some((found.leader(), found.isr().to_vec()))
    };
    tokio::task::spawn_blocking(ask).await.expect("asking does not panic")
}

/// Commits the log's end for the consumers' group, which must have no members. Blocks.
///
/// # Errors
/// Kafka does not answer, or the group has members.
pub fn skip_to_the_end(brokers: &str) -> Result<(), KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", CONSUMER_GROUP);
    config.set("enable.auto.commit", "false");
    let member: BaseConsumer = config.create()?;
    let mut offsets = TopicPartitionList::new();
    for ((lane, partition), (_, high)) in ends(brokers)? {
        offsets.add_partition_offset(lane.topic(), i32::from(partition), Offset::Offset(high))?;
    }
    member.commit(&offsets, CommitMode::Sync)
}

fn consumer(brokers: &str) -> Result<BaseConsumer, KafkaError> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "spillway-oracle")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("log_level", "0")
        .create()
}

fn ends_with(consumer: &BaseConsumer) -> Result<BTreeMap<Partition, (i64, i64)>, KafkaError> {
    let mut ends = BTreeMap::new();
    for lane in Lane::ALL {
        for partition in partitions_of(consumer, lane.topic())? {
            let watermarks = consumer.fetch_watermarks(lane.topic(), partition, ASK_DEADLINE)?;
            let number = u16::try_from(partition).unwrap_or_default();
            ends.insert((lane, number), watermarks);
        }
    }
    Ok(ends)
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK_DEADLINE)?;
    let topics = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
    Ok(topics.map(rdkafka::metadata::MetadataPartition::id).collect())
}

fn count_of(consumer: &BaseConsumer, topic: &str) -> Result<u64, KafkaError> {
    let mut count = 0;
    for partition in partitions_of(consumer, topic)? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, ASK_DEADLINE)?;
        count += u64::try_from(high - low).unwrap_or(0);
    }
    Ok(count)
}

fn place_of(message: &BorrowedMessage<'_>) -> Option<Place> {
    let partition = u16::try_from(message.partition()).ok()?;
    Some((Lane::of_topic(message.topic())?, partition, message.offset()))
}

fn record_of(message: &BorrowedMessage<'_>) -> LogRecord {
    let key = message.key().and_then(|key| <&[u8; BATCH_ID_BYTES]>::try_from(key).ok());
    let value = message.payload().unwrap_or_default();
    let header = frame::check(value).ok();
    LogRecord {
        id: key.and_then(BatchId::from_bytes),
        value_crc: crc32c::crc32c(value),
        frame_crc: header.map(|header| header.crc),
        points: header.map_or(0, |header| header.points as u64),
    }
}
