//! Another client's word on what comes next in a log. A client that jumps over offsets may be
//! wrong, and what it jumped over would be lost without a name; so nothing is passed over that two
//! clients did not find missing.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use spillway_proto::kafka_record::Lane;

/// How long it may look. The poller waits meanwhile, far below `max.poll.interval.ms`.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
const POLL_WAIT: Duration = Duration::from_millis(100);

/// The offset of the first record at or after `next`, read by a client made for this question.
/// `None` if it finds nothing in time.
pub fn first_from(
    config: &ClientConfig,
    (lane, partition): (Lane, u16),
    next: i64,
) -> Result<Option<i64>, KafkaError> {
    let mut config = config.clone();
    // It joins no group and commits nothing: librdkafka reads nothing without a name for one.
    config.remove("group.instance.id");
    let client = BaseConsumer::from_config(&config)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(lane.topic(), i32::from(partition), Offset::Offset(next))?;
    client.assign(&list)?;
    let until = Instant::now() + LOOK_WITHIN;
    while Instant::now() < until {
        match client.poll(POLL_WAIT) {
            Some(Ok(message)) => return Ok(Some(message.offset())),
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(None)
}
