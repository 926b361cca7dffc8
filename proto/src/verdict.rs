//! What became of an attempt, and what the API says of each batch.
//!
//! An attempt has four outcomes, "unknown" among them: a time-out after sending is no failure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the sender knows after an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// It is stored as far as the receiver's promise reaches.
    Done,
    /// It will never be taken as it is.
    Refused(R),
    /// Surely not taken; the receiver may have said when to come back.
    TryLater { retry_after: Option<Duration> },
    /// It may be stored or not. The same bytes under the same id must come again.
    Unknown,
}

/// Why a batch's content was refused: the stable ids of docs/errors.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Not a frame, or damaged on the way.
    UndecodableFrame,
    /// A frame of a version this server does not know.
    UnsupportedVersion,
    /// A count, a length or a name is over its limit.
    LimitExceeded,
    /// Well formed but not allowed: unsorted labels, an empty name, points out of order.
    InvalidContent,
    /// The frame names another environment than the token's.
    EnvironmentMismatch,
}

impl Refusal {
    /// All of them, for docs and tests.
    pub const ALL: [Self; 5] = [
        Self::UndecodableFrame,
        Self::UnsupportedVersion,
        Self::LimitExceeded,
        Self::InvalidContent,
        Self::EnvironmentMismatch,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UndecodableFrame => "undecodable-frame",
            Self::UnsupportedVersion => "unsupported-version",
            Self::LimitExceeded => "limit-exceeded",
            Self::InvalidContent => "invalid-content",
            Self::EnvironmentMismatch => "environment-mismatch",
        }
    }
}

/// The body of a 200 to `POST /v1/batches`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchesAnswer {
    /// Batches that Kafka has.
    pub accepted: usize,
    /// Batches that will never be taken as they are; all others were accepted.
    pub rejected: Vec<RejectedBatch>,
    /// The environment of the token.
    #[serde(default)]
    pub environment: String,
}

/// One refused batch of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedBatch {
    /// Its place in the request, from 0.
    pub index: usize,
    /// For people: what is wrong and which limit it broke.
    pub error: String,
    #[serde(rename = "type")]
    pub refusal: Refusal,
}
