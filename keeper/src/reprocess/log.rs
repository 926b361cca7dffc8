//! One partition of one topic, read from a time up to an offset: by a client of its own, which is
//! in no group, on a thread of its own, as librdkafka's calls block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use spillway_consumer::receive::Record;
use spillway_proto::kafka_record::Lane;
use spillway_publisher::KafkaSettings;
use thiserror::Error;
use tokio::sync::mpsc;

use super::ReprocessError;

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
    #[error("the thread that reads Kafka can't start: {0}")]
    Thread(#[from] std::io::Error),
    #[error("Kafka gives no record of {topic} partition {partition} any more")]
    Silent { topic: &'static str, partition: u16 },
    #[error(
        "{topic} partition {partition} ends before offset {next}, up to which it was applied: \
         the topic was recreated or lost records"
    )]
    Short { topic: &'static str, partition: u16, next: i64 },
    #[error("the thread that reads Kafka ended early")]
    Gone,
}

/// Where to read.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    pub lane: Lane,
    pub partition: u16,
    /// Records appended at or after this time, in ms …
    pub from_ms: i64,
    /// … and below this offset.
    pub next: i64,
}

/// What a log tells, in this order.
#[derive(Debug)]
pub enum Told {
    /// The first offset that Kafka still has, and the first that is read.
    Begins {
        low: i64,
        start: i64,
    },
    Records(Vec<Record>),
    Ends,
}

/// Reads on a thread of its own, which ends when the receiver is dropped.
pub fn read(
    settings: &KafkaSettings,
    stretch: Stretch,
) -> Result<mpsc::Receiver<Result<Told, LogError>>, ReprocessError> {
    let mut config = settings.client_config()?;
    config
        // librdkafka wants a name to assign partitions by hand; nothing is ever committed.
        .set("group.id", "spillway-reprocess")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "16384");
    let client: BaseConsumer = config.create().map_err(LogError::Kafka)?;
    let (out, told) = mpsc::channel(CHUNKS_WAITING_MAX);
    let thread = std::thread::Builder::new().name("read-kafka".to_owned());
    thread
        .spawn(move || {
            let last = serve(&client, stretch, &out).map(|()| Told::Ends);
            // Whoever gave up listening needs no end.
            drop(out.blocking_send(last));
        })
        .map_err(LogError::Thread)?;
    Ok(told)
}

fn serve(
    client: &BaseConsumer,
    stretch: Stretch,
    out: &mpsc::Sender<Result<Told, LogError>>,
) -> Result<(), LogError> {
    let Stretch { lane, partition, from_ms, next } = stretch;
    let topic = lane.topic();
    let (low, _) = client.fetch_watermarks(topic, partition.into(), LOOK_UP_DEADLINE)?;
    let since = client.offsets_for_times(list(stretch, from_ms.max(0))?, LOOK_UP_DEADLINE)?;
    let since = since.find_partition(topic, partition.into()).map(|found| found.offset());
    let start = match since {
        Some(Offset::Offset(start)) => start.max(low),
        // Nothing was appended since.
        _ => next.max(low),
    };
    let send = |told| out.blocking_send(Ok(told)).is_ok();
    if !send(Told::Begins { low, start }) || start >= next {
        return Ok(());
    }
    client.assign(&list(stretch, start)?)?;
    // What is read here is no consumer's: its books are shown to nobody.
    let books = Arc::default();
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
        heard = Instant::now();
        let record = Record::copy(&message, (lane, partition), 0, &books);
        let is_last = record.offset + 1 >= next;
        bytes += record.bytes();
        if record.offset < next {
            chunk.push(record);
        }
        if is_last || chunk.len() >= CHUNK_RECORDS_MAX || bytes >= CHUNK_BYTES_MAX {
            bytes = 0;
            if !send(Told::Records(std::mem::take(&mut chunk))) || is_last {
                return Ok(());
            }
        }
    }
}

/// What waiting does not mend: the offset is gone.
fn is_fatal(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::UnknownTopicOrPartition)
    )
}

fn list(stretch: Stretch, offset: i64) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(1);
    let (topic, partition) = (stretch.lane.topic(), stretch.partition.into());
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    Ok(list)
}
