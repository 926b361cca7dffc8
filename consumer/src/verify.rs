//! Whether a record is what it says it is: the same check as ingest-api's, and the record's own
//! words (key, header, partition) held against the frame's.
//!
//! What fails here can never be applied, however often it is tried: to [`crate::quarantine`].

use spillway_proto::BatchId;
use spillway_proto::frame::{Decoder, FrameView};
use spillway_proto::partition::Partitioning;
use spillway_proto::verdict::Refusal;

use crate::receive::Record;

/// Why a record can never be applied. The word goes into the dead letter, the ledger and a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    #[error("the record has no value")]
    Tombstone,
    #[error("the frame is refused: {}", .0.as_str())]
    Frame(Refusal),
    #[error("the record's key is not the frame's id")]
    KeyMismatch,
    #[error("the record was accepted for another environment than the frame names")]
    EnvironmentMismatch,
    #[error("the batch belongs to another partition")]
    PartitionMismatch,
    #[error("points lie further in the future than allowed")]
    FutureTime,
    #[error("a series has the 64-bit id of another one")]
    SeriesCollision,
    #[error("the environment brings too many new series")]
    TooManySeries,
    #[error("MySQL refuses the batch's content with error {0}")]
    RefusedByMysql(u16),
}

impl Reason {
    /// The stable word for metrics and headers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Tombstone => "tombstone",
            Self::Frame(refusal) => refusal.as_str(),
            Self::KeyMismatch => "key-mismatch",
            Self::EnvironmentMismatch => "environment-mismatch",
            Self::PartitionMismatch => "partition-mismatch",
            Self::FutureTime => "future-time",
            Self::SeriesCollision => "series-collision",
            Self::TooManySeries => "too-many-series",
            Self::RefusedByMysql(_) => "refused-by-mysql",
        }
    }

    /// Whether ingest-api would have let it through: then many of them are the sender's doing. All
    /// others can only come from a fault of ours or an intruder, and many of them are an alarm.
    #[must_use]
    pub fn is_senders(self) -> bool {
        match self {
            Self::FutureTime | Self::SeriesCollision | Self::TooManySeries => true,
            Self::Tombstone
            | Self::Frame(_)
            | Self::KeyMismatch
            | Self::EnvironmentMismatch
            | Self::PartitionMismatch
            | Self::RefusedByMysql(_) => false,
        }
    }
}

/// A refused record and what is known of the batch in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: Reason,
    /// Boxed: almost every record passes.
    pub batch: Option<Box<Named>>,
}

/// Who sent a batch. Trusted only when the frame passed all checks of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub id: BatchId,
    pub environment: String,
    pub host: String,
    pub points: u64,
    pub window_ts: u32,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, batch: None }
    }
}

/// Opens a record's frame if all that it says of itself is true.
pub fn verify<'d>(
    decoder: &'d mut Decoder,
    record: &Record,
    partitioning: Partitioning,
) -> Result<FrameView<'d>, Refused> {
    let said = Said {
        key: record.key.as_deref(),
        environment: record.environment.as_deref(),
        value: record.value.as_deref(),
    };
    let view = verify_said(decoder, said)?;
    // Who lies about one thing is not believed in another: it gets no name in the ledger.
    match partitioning.partition_of(view.environment, view.host) == record.partition {
        true => Ok(view),
        false => Err(Reason::PartitionMismatch.into()),
    }
}

/// What a record says, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub key: Option<&'a [u8]>,
    pub environment: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// The same check without the partition, for a record that lies in none of its own: a dead letter.
pub fn verify_said<'d>(decoder: &'d mut Decoder, said: Said<'_>) -> Result<FrameView<'d>, Reason> {
    let frame = said.value.ok_or(Reason::Tombstone)?;
    let view = decoder.decode(frame).map_err(|error| Reason::Frame(error.refusal()))?;
    if said.key != Some(&view.header.id.to_bytes()[..]) {
        return Err(Reason::KeyMismatch);
    }
    match said.environment == Some(view.environment.as_bytes()) {
        true => Ok(view),
        false => Err(Reason::EnvironmentMismatch),
    }
}

/// Who sent a batch whose frame passed.
#[must_use]
pub fn named(view: &FrameView<'_>) -> Named {
    Named {
        id: view.header.id,
        environment: view.environment.to_owned(),
        host: view.host.to_owned(),
        points: view.header.points as u64,
        window_ts: view.header.window_ts,
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
