//! The four ends of an attempt to publish, and which delivery report leads to which.
//!
//! This is where an acknowledgement becomes allowed: [`Outcome::Done`] is made in
//! [`of_code`] and nowhere else, and its variant can't be built outside of this crate.

use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::types::RDKafkaErrorCode;

/// What is known of a record after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Kafka reported it stored by all in-sync replicas.
    #[non_exhaustive]
    Done {
        topic: &'static str,
        partition: u16,
        /// `None` when Kafka recognised a repetition (`DUPLICATE_SEQUENCE_NUMBER`): it is stored,
        /// but nobody says where.
        offset: Option<i64>,
    },
    /// Kafka will never take it as it is.
    Refused(Refused),
    /// Surely not stored. It may be taken later.
    TryLater(Hindrance),
    /// Stored or not: the time ran out, or the producer was purged. The same bytes must come
    /// again under the same id.
    Unknown,
}

impl Outcome {
    /// Whether Kafka has the record.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

/// Why Kafka will never take a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the record has {bytes} bytes, more than the topic takes")]
    TooLarge { bytes: usize },
    #[error("the broker's own validation refused the record")]
    Invalid,
}

/// Why Kafka does not take a record now; each is for the operator to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    #[error("the topic or partition does not exist")]
    NoSuchPartition,
    #[error("this program may not write to the topic")]
    NotAuthorized,
    #[error("the queue towards Kafka is full")]
    QueueFull,
    #[error("the topic takes smaller record batches than this program sends")]
    TopicLimit,
    #[error("the producer is being rebuilt or shut down")]
    NotTaken,
}

/// What a delivery report says. `bytes` is the record's size, `batch_bytes_max` the size above
/// which the producer sends a record alone.
pub(crate) fn of_report(
    report: &DeliveryResult<'_>,
    topic: &'static str,
    bytes: usize,
    batch_bytes_max: usize,
) -> Outcome {
    let (code, message) = match report {
        Ok(message) => (None, message),
        Err((KafkaError::MessageProduction(code), message)) => (Some(*code), message),
        Err((_, message)) => (Some(RDKafkaErrorCode::Unknown), message),
    };
    let place = Place { partition: message.partition(), offset: message.offset() };
    of_code(code, topic, place, (bytes, batch_bytes_max))
}

/// Where a report says that a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub partition: i32,
    pub offset: i64,
}

/// The same, of a report's parts: its error code, if any, and its place.
pub(crate) fn of_code(
    code: Option<RDKafkaErrorCode>,
    topic: &'static str,
    place: Place,
    (bytes, batch_bytes_max): (usize, usize),
) -> Outcome {
    // A repetition that Kafka recognised is stored, but its offset says nothing.
    let repeated = code == Some(RDKafkaErrorCode::DuplicateSequenceNumber);
    match code {
        Some(code) if !repeated => of_error(code, bytes, batch_bytes_max),
        _ => Outcome::Done {
            topic,
            partition: u16::try_from(place.partition).unwrap_or(u16::MAX),
            offset: Some(place.offset).filter(|offset| !repeated && *offset >= 0),
        },
    }
}

/// What an error in a delivery report says of the record. What is not surely unstored is unknown.
pub(crate) fn of_error(code: RDKafkaErrorCode, bytes: usize, batch_bytes_max: usize) -> Outcome {
    match code {
        // Only a record that travelled alone can be the one that was too large.
        RDKafkaErrorCode::MessageSizeTooLarge if bytes > batch_bytes_max => {
            Outcome::Refused(Refused::TooLarge { bytes })
        }
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge => {
            Outcome::TryLater(Hindrance::TopicLimit)
        }
        RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::UnknownTopicOrPartition => {
            Outcome::TryLater(Hindrance::NoSuchPartition)
        }
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Outcome::TryLater(Hindrance::NotAuthorized)
        }
        RDKafkaErrorCode::QueueFull => Outcome::TryLater(Hindrance::QueueFull),
        RDKafkaErrorCode::InvalidRecord => Outcome::Refused(Refused::Invalid),
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_out_and_a_purge_leave_the_outcome_unknown() {
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::PurgeInflight,
            RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
            RDKafkaErrorCode::RequestTimedOut,
            RDKafkaErrorCode::Fatal,
            RDKafkaErrorCode::OutOfOrderSequenceNumber,
            RDKafkaErrorCode::BrokerTransportFailure,
        ] {
            assert_eq!(of_error(code, 100, 1_000), Outcome::Unknown, "{code:?}");
        }
    }

    #[test]
    fn a_record_is_called_too_large_only_when_it_travelled_alone() {
        let code = RDKafkaErrorCode::MessageSizeTooLarge;
        assert_eq!(of_error(code, 100, 1_000), Outcome::TryLater(Hindrance::TopicLimit));
        let refused = Outcome::Refused(Refused::TooLarge { bytes: 2_000 });
        assert_eq!(of_error(code, 2_000, 1_000), refused);
    }

    #[test]
    fn what_an_operator_must_mend_is_never_the_records_fault() {
        for code in [RDKafkaErrorCode::UnknownTopic, RDKafkaErrorCode::TopicAuthorizationFailed] {
            assert!(matches!(of_error(code, 1, 1_000), Outcome::TryLater(_)), "{code:?}");
        }
    }
}
