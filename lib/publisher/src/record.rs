//! What is handed to the publisher, and how it refuses: a refusal gives the record back.
//!
//! A record belongs to the publisher only once [`crate::Publisher::publish`] returned a
//! [`crate::Pending`]; until then it is the caller's, whatever went wrong.

use bytes::Bytes;
use spillway_proto::kafka_record::{HEADER_ENVIRONMENT, KafkaRecord};
use xxhash_rust::xxh3::Xxh3;

/// One Kafka record, its place already chosen.
#[derive(Clone, Debug)]
pub struct Record {
    pub topic: &'static str,
    pub partition: u16,
    pub key: Bytes,
    pub value: Bytes,
    pub headers: Vec<(&'static str, Bytes)>,
    pub repeat: Repeat,
}

/// What happens when the same key and the same value come again while the first is in flight,
/// or within [`crate::JOINABLE_FOR`] after it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It shares the first one's outcome and is not published. For batches: their id names them,
    /// so one copy is enough, on whichever of the topics the first one went.
    Joins,
    /// It is published once more. For dead letters, where each record is a fact of its own.
    PublishesAgain,
}

/// By what a repetition is recognised: key **and** bytes, so other bytes under a used id are
/// never taken for it. 128 bits of xxh3 over length, key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u128);

impl Record {
    /// What of this record counts against the producer's queue.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    pub(crate) fn identity(&self) -> Option<Identity> {
        if self.repeat == Repeat::PublishesAgain {
            return None;
        }
        let mut hasher = Xxh3::new();
        hasher.update(&(self.key.len() as u64).to_le_bytes());
        hasher.update(&self.key);
        hasher.update(&self.value);
        Some(Identity(hasher.digest128()))
    }
}

impl From<KafkaRecord> for Record {
    fn from(batch: KafkaRecord) -> Self {
        Self {
            topic: batch.lane.topic(),
            partition: batch.partition,
            key: Bytes::copy_from_slice(&batch.key()),
            headers: vec![(HEADER_ENVIRONMENT, Bytes::from(batch.environment))],
            value: batch.frame,
            repeat: Repeat::Joins,
        }
    }
}

/// Why a record was not taken. Nothing of it is in Kafka, and the caller still has it.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The producer's queue is full by count or by bytes: Kafka takes less than is offered.
    #[error("the queue towards Kafka is full")]
    QueueFull(Box<Record>),
    /// After a fatal error a new producer is being made.
    #[error("the Kafka producer is being rebuilt after a fatal error")]
    Rebuilding(Box<Record>),
    /// [`crate::Publisher::drain`] has begun.
    #[error("this program is shutting down")]
    Draining(Box<Record>),
    /// No Kafka broker is configured to take it as it is; it will never be taken.
    #[error("the record has {bytes} bytes, more than the {bytes_max} that Kafka takes")]
    TooLarge { bytes: usize, bytes_max: usize, record: Box<Record> },
    /// The topic or the partition is not there, as far as the client knows.
    #[error("Kafka has no partition {partition} of topic {topic}")]
    NoSuchPartition { topic: &'static str, partition: u16, record: Box<Record> },
    /// Anything else the client refused on the spot.
    #[error("the Kafka client refused the record: {cause}")]
    Client { cause: rdkafka::types::RDKafkaErrorCode, record: Box<Record> },
}

impl PublishError {
    /// Whether the same record may be taken later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::QueueFull(_)
            | Self::Rebuilding(_)
            | Self::Draining(_)
            | Self::NoSuchPartition { .. }
            | Self::Client { .. } => true,
            Self::TooLarge { .. } => false,
        }
    }

    /// The record, back in its owner's hands.
    #[must_use]
    pub fn into_record(self) -> Record {
        match self {
            Self::QueueFull(record)
            | Self::Rebuilding(record)
            | Self::Draining(record)
            | Self::TooLarge { record, .. }
            | Self::NoSuchPartition { record, .. }
            | Self::Client { record, .. } => *record,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &'static [u8], value: &'static [u8]) -> Record {
        Record {
            topic: "t",
            partition: 0,
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
            headers: Vec::new(),
            repeat: Repeat::Joins,
        }
    }

    #[test]
    fn other_bytes_under_the_same_key_are_another_record() {
        assert_eq!(record(b"id", b"x").identity(), record(b"id", b"x").identity());
        assert_ne!(record(b"id", b"x").identity(), record(b"id", b"y").identity());
        assert_ne!(record(b"id", b"x").identity(), record(b"i", b"dx").identity());
    }

    #[test]
    fn a_record_that_is_a_fact_of_its_own_has_no_identity() {
        let letter = Record { repeat: Repeat::PublishesAgain, ..record(b"id", b"x") };
        assert_eq!(letter.identity(), None);
    }
}
