//! A batch as a Kafka record: key = the id's bytes, value = the frame, one header.
//!
//! ingest-api and recovery-worker write it, the consumer holds it against the frame: what the
//! record says of itself must be what the frame says, else it is poison.

use bytes::Bytes;

use crate::batch_id::{BATCH_ID_BYTES, BatchId};

/// What agents send while it is fresh.
pub const TOPIC_LIVE: &str = "spillway.live";
/// What piled up: re-sent from spools and drained from S3.
pub const TOPIC_BACKLOG: &str = "spillway.backlog";
/// What can't be applied, each with its reason.
pub const TOPIC_DEAD_LETTERS: &str = "spillway.dead-letters";
/// The consumers' group, whose committed offsets allow an S3 object to be retired.
pub const CONSUMER_GROUP: &str = "spillway-consumer";

/// The environment of the token under which the record was accepted.
pub const HEADER_ENVIRONMENT: &str = "environment";

/// Which of the two ways a batch travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    Live = 0,
    Backlog = 1,
}

impl Lane {
    /// Both, live first.
    pub const ALL: [Self; 2] = [Self::Live, Self::Backlog];

    #[must_use]
    pub fn topic(self) -> &'static str {
        match self {
            Self::Live => TOPIC_LIVE,
            Self::Backlog => TOPIC_BACKLOG,
        }
    }

    #[must_use]
    pub fn of_topic(topic: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.topic() == topic)
    }

    /// The value of the request header `Spillway-Lane`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Backlog => "backlog",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text)
    }
}

/// One record, ready to be published.
#[derive(Clone, Debug)]
pub struct KafkaRecord {
    pub lane: Lane,
    pub partition: u16,
    pub id: BatchId,
    pub environment: String,
    /// The frame, the very bytes the agent made.
    pub frame: Bytes,
}

impl KafkaRecord {
    #[must_use]
    pub fn key(&self) -> [u8; BATCH_ID_BYTES] {
        self.id.to_bytes()
    }
}
