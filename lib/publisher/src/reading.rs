//! One partition of one topic, read once from a place up to an offset: by a client of its own,
//! which is in no group, on a thread of its own, as librdkafka's calls block.
//!
//! For whoever looks back: the keeper's `reprocess`, and the console's look into dead letters. What
//! waits to be looked at is bounded, so a slow reader holds this one up and costs no memory.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use spillway_runtime::settings::SecretFileError;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::settings::KafkaSettings;

/// Records handed on at once, and their bytes.
const CHUNK_RECORDS_MAX: usize = 250;
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Chunks that wait to be looked at.
const CHUNKS_WAITING_MAX: usize = 2;
/// One question for offsets.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(10);
/// Without a record for so long, Kafka counts as away.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Why a log was not read to its end.
#[derive(Debug, Error)]
pub enum LogError {
    #[error("Kafka: {0}")]
    Kafka(#[from] KafkaError),
    #[error("Kafka's password: {0}")]
    Password(#[from] SecretFileError),
    #[error("the thread that reads Kafka can't start: {0}")]
    Thread(#[from] std::io::Error),
    #[error("Kafka gives no record of {topic} partition {partition} any more")]
    Silent { topic: &'static str, partition: u16 },
    #[error(
        "{topic} partition {partition} ends before offset {next}, up to which it once reached: \
         the topic was recreated or lost records"
    )]
    Short { topic: &'static str, partition: u16, next: i64 },
    #[error("the thread that reads Kafka ended early")]
    Gone,
}

/// Where to read.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub topic: &'static str,
    pub partition: u16,
    pub since: Since,
    /// Below this offset; `None` is where the log ends when it is first looked at.
    pub next: Option<i64>,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug)]
pub enum Since {
    /// With what was appended at or after this time, in ms.
    Time(i64),
    /// With the first record that Kafka still has.
    Beginning,
}

/// What a log tells, in this order.
#[derive(Debug)]
pub enum Told<T> {
    /// The first offset that Kafka still has, the first that is read, and the first that is not
    /// any more.
    Begins {
        low: i64,
        start: i64,
        next: i64,
    },
    Records(Vec<T>),
    Ends,
}

/// A log as it comes.
pub type Telling<T> = mpsc::Receiver<Result<Told<T>, LogError>>;

/// Reads on a thread of its own, which ends when the receiver is dropped. `copy` takes what is
/// wanted of a record out of the Kafka client's memory, and says how many bytes that are.
///
/// # Errors
/// [`LogError`], never because of a broker: what a broker says comes through the receiver.
pub fn read<T: Send + 'static>(
    settings: &KafkaSettings,
    stretch: Stretch,
    copy: impl Fn(&BorrowedMessage<'_>) -> (T, usize) + Send + 'static,
) -> Result<Telling<T>, LogError> {
    let mut config = settings.client_config()?;
    config
        // librdkafka wants a name to assign partitions by hand; nothing is ever committed.
        .set("group.id", "spillway-reading")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "16384");
    let client: BaseConsumer = config.create()?;
    let (out, told) = mpsc::channel(CHUNKS_WAITING_MAX);
    let thread = std::thread::Builder::new().name("read-kafka".to_owned());
    thread.spawn(move || {
        let last = serve(&client, stretch, &copy, &out).map(|()| Told::Ends);
        // Whoever gave up listening needs no end.
        drop(out.blocking_send(last));
    })?;
    Ok(told)
}

fn serve<T>(
    client: &BaseConsumer,
    stretch: Stretch,
    copy: &impl Fn(&BorrowedMessage<'_>) -> (T, usize),
    out: &mpsc::Sender<Result<Told<T>, LogError>>,
) -> Result<(), LogError> {
    let Stretch { topic, partition, .. } = stretch;
    let (low, high) = client.fetch_watermarks(topic, partition.into(), LOOK_UP_DEADLINE)?;
    let next = stretch.next.unwrap_or(high);
    let start = match stretch.since {
        Since::Beginning => low,
        Since::Time(from_ms) => first_since(client, stretch, from_ms)?.unwrap_or(next).max(low),
    };
    let send = |told| out.blocking_send(Ok(told)).is_ok();
    if !send(Told::Begins { low, start, next }) || start >= next {
        return Ok(());
    }
    client.assign(&list(stretch, start)?)?;
    let (mut chunk, mut bytes, mut heard) = (Vec::new(), 0, Instant::now());
    loop {
        let message = match client.poll(SILENCE_MAX) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => {
                return Err(LogError::Short { topic, partition, next });
            }
            // A broker that is away for a moment; the client goes on by itself.
            Some(Err(error)) if is_fatal(&error) => return Err(error.into()),
            Some(Err(_)) | None if heard.elapsed() < SILENCE_MAX => continue,
            Some(Err(_)) | None => return Err(LogError::Silent { topic, partition }),
        };
        let is_last = message.offset() + 1 >= next;
        if message.offset() < next {
            let (record, size) = copy(&message);
            bytes += size;
            chunk.push(record);
        }
        if is_last || chunk.len() >= CHUNK_RECORDS_MAX || bytes >= CHUNK_BYTES_MAX {
            bytes = 0;
            if !send(Told::Records(std::mem::take(&mut chunk))) || is_last {
                return Ok(());
            }
        }
        // Only now: whoever is slow to take a chunk is not Kafka's silence.
        heard = Instant::now();
    }
}

/// The first offset that was appended at or after a time; `None` if nothing was.
fn first_since(
    client: &BaseConsumer,
    stretch: Stretch,
    from_ms: i64,
) -> Result<Option<i64>, KafkaError> {
    let found = client.offsets_for_times(list(stretch, from_ms.max(0))?, LOOK_UP_DEADLINE)?;
    let found = found.find_partition(stretch.topic, stretch.partition.into());
    Ok(found.and_then(|found| match found.offset() {
        Offset::Offset(start) => Some(start),
        _ => None,
    }))
}

/// What waiting does not mend: the offset is gone.
fn is_fatal(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::UnknownTopicOrPartition)
    )
}

fn list(stretch: Stretch, offset: i64) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(stretch.topic, stretch.partition.into(), Offset::Offset(offset))?;
    Ok(list)
}
