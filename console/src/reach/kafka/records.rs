//! Single records: one at a known place, or one batch's among those that wait.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use spillway_proto::BatchId;
use spillway_proto::frame::Header;
use spillway_proto::kafka_record::Lane;

use super::{Kafka, KafkaFault, Quiet};

/// Records read at most to find a batch among those that wait.
pub const SCAN_RECORDS_MAX: usize = 50_000;
/// Without a record for so long, the end is reached: its last offsets may be control records.
const SILENCE: Duration = Duration::from_secs(3);

/// A record as it lies in Kafka.
#[derive(Debug, Clone)]
pub struct Found {
    pub lane: Lane,
    pub partition: u16,
    pub offset: i64,
    /// When the broker appended it, ms since the Unix epoch.
    pub appended_ms: Option<i64>,
    pub bytes: usize,
    /// As its key says.
    pub id: Option<BatchId>,
    /// The frame's own checksum, which the ledger notes too.
    pub crc: Option<u32>,
}

impl Found {
    fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        let value = message.payload().unwrap_or_default();
        let key = message.key().and_then(|key| key.try_into().ok());
        Some(Self {
            lane: Lane::of_topic(message.topic())?,
            partition: u16::try_from(message.partition()).ok()?,
            offset: message.offset(),
            appended_ms: message.timestamp().to_millis(),
            bytes: value.len(),
            id: key.and_then(BatchId::from_bytes),
            crc: Header::parse(value).ok().map(|header| header.crc),
        })
    }
}

/// What a search through waiting records brought.
#[derive(Debug, Clone, Default)]
pub struct Search {
    pub found: Option<Found>,
    pub looked_at: usize,
    /// Whether everything that waited was looked at.
    pub whole: bool,
}

impl Kafka {
    /// The record at an offset; `None` if it is trimmed, or not there yet.
    pub async fn record(
        &self,
        lane: Lane,
        partition: u16,
        offset: i64,
    ) -> Result<Option<Found>, KafkaFault> {
        self.visit(move |own| {
            let consumer = own.consumer()?;
            let ends = consumer.fetch_watermarks(lane.topic(), partition.into(), own.deadline);
            let (low, high) = ends.map_err(|cause| own.partition_fault(lane, partition, cause))?;
            if !(low..high).contains(&offset) {
                return Ok(None);
            }
            assign(&consumer, &[(lane, partition, offset)])?;
            let message = consumer.poll(own.deadline).and_then(Result::ok);
            Ok(message.and_then(|m| Found::of(&m)).filter(|found| found.offset == offset))
        })
        .await
    }

    /// Looks for a batch between two offsets (the second is left out) of some partitions.
    pub async fn search(
        &self,
        id: BatchId,
        ranges: Vec<(Lane, u16, i64, i64)>,
    ) -> Result<Search, KafkaFault> {
        self.visit(move |own| {
            let mut search = Search { whole: true, ..Search::default() };
            for (lane, partition, from, to) in ranges {
                own.search_one(&id, (lane, partition, from, to), &mut search)?;
                if search.found.is_some() {
                    break;
                }
            }
            Ok(search)
        })
        .await
    }

    fn search_one(
        &self,
        id: &BatchId,
        (lane, partition, from, to): (Lane, u16, i64, i64),
        search: &mut Search,
    ) -> Result<(), KafkaFault> {
        if from >= to {
            return Ok(());
        }
        let consumer = self.consumer()?;
        assign(&consumer, &[(lane, partition, from)])?;
        let until = Instant::now() + self.deadline;
        loop {
            if search.looked_at >= SCAN_RECORDS_MAX || Instant::now() >= until {
                search.whole = false;
                return Ok(());
            }
            let Some(Ok(message)) = consumer.poll(SILENCE.min(self.deadline)) else {
                // There is more, and it did not come: that is no proof of absence.
                search.whole = false;
                return Ok(());
            };
            search.looked_at += 1;
            let last = message.offset() + 1 >= to;
            if message.key().is_some_and(|key| key == id.to_bytes()) {
                search.found = Found::of(&message);
                return Ok(());
            }
            if last {
                return Ok(());
            }
        }
    }
}

fn assign(consumer: &BaseConsumer<Quiet>, places: &[(Lane, u16, i64)]) -> Result<(), KafkaFault> {
    let mut wanted = TopicPartitionList::new();
    for (lane, partition, offset) in places {
        wanted
            .add_partition_offset(lane.topic(), (*partition).into(), Offset::Offset(*offset))
            .map_err(KafkaFault::Client)?;
    }
    consumer.assign(&wanted).map_err(KafkaFault::Client)
}
