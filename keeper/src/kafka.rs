//! What the keeper asks Kafka: where partitions begin and end, when a record was appended, where a
//! time lies, and what the consumers' group committed. One client on one thread serves all shards'
//! duties, one request after the other, each under its own deadline; librdkafka's calls block. The
//! client is in no group and commits nothing; one that fails is made anew
//! (`spillway_publisher::Asking`).

use std::collections::HashMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use spillway_proto::kafka_record::CONSUMER_GROUP;
use spillway_publisher::{Asking, KafkaSettings};
use spillway_runtime::settings::SecretFileError;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Requests waiting for the thread: a few per shard.
const REQUESTS_WAITING_MAX: usize = 64;
/// One look-up of offsets, all partitions of a shard in one call.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(2);
/// One reading of records' times, over all partitions of a shard.
const READ_DEADLINE: Duration = Duration::from_millis(1_500);

/// A partition of a topic, and an offset or a time in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub topic: &'static str,
    pub partition: u16,
}

/// Why Kafka did not tell.
#[derive(Debug, Error)]
pub enum AskError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("Kafka did not tell where every partition ends")]
    Incomplete,
    #[error("Kafka's password: {0}")]
    Password(#[from] SecretFileError),
    #[error("the thread that asks Kafka can't start: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the thread that asks Kafka is gone or has too much to do")]
    Busy,
}

type Reply<T> = oneshot::Sender<Result<T, AskError>>;

enum Request {
    /// The offset after the last record (`Offset::End`) or of the first at or after a time (ms).
    Offsets(Vec<(Place, Offset)>, Reply<HashMap<Place, i64>>),
    /// The append times (ms) of the records at these offsets, as far as they come in time.
    Times(Vec<(Place, i64)>, Reply<HashMap<Place, i64>>),
    /// What the consumers' group committed; partitions it committed nothing of are left out.
    Committed(Vec<Place>, Reply<HashMap<Place, i64>>),
}

/// A handle on the thread. It ends when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Kafka {
    requests: mpsc::Sender<Request>,
}

impl Kafka {
    /// Starts the thread; nothing is connected yet.
    pub fn start(settings: &KafkaSettings) -> Result<(Self, JoinHandle<()>), AskError> {
        let mut config = settings.client_config()?;
        config
            // librdkafka wants a name to assign partitions by hand; nothing is ever committed.
            .set("group.id", "spillway-keeper")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // One record a partition is read: fetch no more than one batch of it.
            .set("fetch.message.max.bytes", "1024")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.wait.max.ms", "100");
        let mut of_consumers = config.clone();
        // Nobody joins the group by reading what it committed.
        of_consumers.set("group.id", CONSUMER_GROUP);
        let asking = Asking::new(config)?;
        let (requests, waiting) = mpsc::channel(REQUESTS_WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("ask-kafka".to_owned())
            .spawn(move || serve(&asking, of_consumers, waiting))?;
        Ok((Self { requests }, thread))
    }

    /// The offsets after the last record of each partition.
    pub async fn ends(&self, places: &[Place]) -> Result<HashMap<Place, i64>, AskError> {
        let wanted = places.iter().map(|place| (*place, Offset::End)).collect();
        self.ask(|reply| Request::Offsets(wanted, reply)).await
    }

    /// The offsets of the first record that each partition still has.
    pub async fn lows(&self, places: &[Place]) -> Result<HashMap<Place, i64>, AskError> {
        let wanted = places.iter().map(|place| (*place, Offset::Beginning)).collect();
        self.ask(|reply| Request::Offsets(wanted, reply)).await
    }

    /// What the consumers' group committed: never more than what was stored.
    pub async fn committed(&self, places: &[Place]) -> Result<HashMap<Place, i64>, AskError> {
        let places = places.to_vec();
        self.ask(|reply| Request::Committed(places, reply)).await
    }

    /// The first offsets appended at or after a time (ms); partitions without one are left out.
    pub async fn since(&self, places: &[Place], at: i64) -> Result<HashMap<Place, i64>, AskError> {
        let wanted = places.iter().map(|place| (*place, Offset::Offset(at))).collect();
        self.ask(|reply| Request::Offsets(wanted, reply)).await
    }

    /// When the records at these offsets were appended (ms); those that did not come are left out.
    pub async fn times(&self, of: Vec<(Place, i64)>) -> Result<HashMap<Place, i64>, AskError> {
        if of.is_empty() {
            return Ok(HashMap::new());
        }
        self.ask(|reply| Request::Times(of, reply)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(request(reply)).map_err(|_| AskError::Busy)?;
        answer.await.map_err(|_| AskError::Busy)?
    }
}

fn serve(asking: &Asking, of_consumers: ClientConfig, mut waiting: mpsc::Receiver<Request>) {
    // Made when it is first needed: a site that is well never needs it.
    let mut group: Option<Asking> = None;
    while let Some(request) = waiting.blocking_recv() {
        match request {
            // Whoever gave up waiting gets no answer: the send may fail.
            Request::Offsets(wanted, reply) => {
                drop(reply.send(asking.ask(|client| offsets(client, &wanted))));
            }
            Request::Times(of, reply) => {
                drop(reply.send(asking.ask(|client| times(client, &of))));
            }
            Request::Committed(places, reply) => {
                drop(reply.send(committed(&mut group, &of_consumers, &places)));
            }
        }
    }
}

fn offsets(
    client: &BaseConsumer,
    wanted: &[(Place, Offset)],
) -> Result<HashMap<Place, i64>, AskError> {
    let found = client.offsets_for_times(list(wanted)?, LOOK_UP_DEADLINE)?;
    let mut offsets = HashMap::new();
    for (place, at) in wanted {
        let element = found.find_partition(place.topic, i32::from(place.partition));
        match element.map(|element| (element.error(), element.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => {
                offsets.insert(*place, offset);
            }
            Some((Err(error), _)) => return Err(error.into()),
            // Every partition has a begin and an end, but not every one a record after a time.
            _ if matches!(at, Offset::End | Offset::Beginning) => return Err(AskError::Incomplete),
            Some((Ok(()), _)) | None => {}
        }
    }
    Ok(offsets)
}

fn committed(
    group: &mut Option<Asking>,
    config: &ClientConfig,
    places: &[Place],
) -> Result<HashMap<Place, i64>, AskError> {
    let group = match group {
        Some(group) => group,
        none => none.insert(Asking::new(config.clone())?),
    };
    let wanted: Vec<_> = places.iter().map(|place| (*place, Offset::Invalid)).collect();
    let wanted = list(&wanted)?;
    let found = group.ask(|client| client.committed_offsets(wanted, LOOK_UP_DEADLINE))?;
    let offset = |place: &Place| {
        let element = found.find_partition(place.topic, i32::from(place.partition))?;
        match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(offset)) => Some((*place, offset)),
            _ => None,
        }
    };
    Ok(places.iter().filter_map(offset).collect())
}

fn times(client: &BaseConsumer, of: &[(Place, i64)]) -> Result<HashMap<Place, i64>, AskError> {
    let wanted: Vec<(Place, Offset)> =
        of.iter().map(|(place, offset)| (*place, Offset::Offset(*offset))).collect();
    client.assign(&list(&wanted)?)?;
    let read = read_times(client, of);
    client.unassign()?;
    Ok(read)
}

/// Polls until every partition gave its record or the time is up. An error of one partition (its
/// record was trimmed, its leader is away) must not hide the others' times.
fn read_times(client: &BaseConsumer, of: &[(Place, i64)]) -> HashMap<Place, i64> {
    let until = Instant::now() + READ_DEADLINE;
    let mut read = HashMap::new();
    while read.len() < of.len() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let Some(polled) = client.poll(left) else { break };
        let Ok(message) = polled else { continue };
        let at = of.iter().find(|(place, offset)| {
            place.topic == message.topic()
                && i32::from(place.partition) == message.partition()
                && *offset <= message.offset()
        });
        if let (Some((place, _)), Some(ms)) = (at, message.timestamp().to_millis()) {
            read.entry(*place).or_insert(ms);
        }
    }
    read
}

fn list(wanted: &[(Place, Offset)]) -> Result<TopicPartitionList, AskError> {
    let mut list = TopicPartitionList::with_capacity(wanted.len());
    for (place, offset) in wanted {
        list.add_partition_offset(place.topic, i32::from(place.partition), *offset)?;
    }
    Ok(list)
}
